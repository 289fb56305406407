"""Frozen features against the model asked one text at a time, and a cache that notices what changed."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from tiny_models import save_models

from llm import ceiling
from llm.data.corpus.corpus import generate
from llm.features import features
from llm.features.features import FeatureCache, load_backbone, pair_features, prompt_features
from llm.models.loading import ModelError
from llm.text.encoding import encode_pairs

PAIRS = generate(12, seed=1)
LENGTH = 64


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("tiny", max_length=LENGTH, train=PAIRS)


def alone(backbone, ids):
    """Mean of the last hidden states of one sequence, without padding."""
    with torch.no_grad():
        hidden = backbone.model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
    return hidden[0].mean(dim=0).numpy()


def test_features_are_the_mean_states_of_each_text_alone(backbone):
    found = pair_features(backbone, PAIRS)
    encoded = encode_pairs(PAIRS, backbone.tokenizer, max_length=LENGTH)
    for row in range(len(PAIRS)):
        np.testing.assert_allclose(found.chosen[row], alone(backbone, encoded[row]["chosen"]), atol=2e-5)
        np.testing.assert_allclose(found.rejected[row], alone(backbone, encoded[row]["rejected"]), atol=2e-5)


def test_a_log_is_told_how_far_features_are(backbone, monkeypatch, capsys):
    """Off a terminal no bar shows; the last batch ends the matter, so all before it say something."""
    monkeypatch.setattr(features, "Pace", partial(features.Pace, every=0.0))
    monkeypatch.setattr(features, "_TOKENS", 256)
    pair_features(backbone, PAIRS, progress="mine, answers")
    told = [line for line in capsys.readouterr().err.splitlines() if "texts (mine, answers)" in line]
    assert len(told) >= 2
    assert all(" of 24 texts" in line for line in told)
    pair_features(backbone, PAIRS)
    assert not capsys.readouterr().err


def test_static_features_are_the_mean_embeddings_of_the_tokens_at_any_length(tmp_path, monkeypatch):
    """No layer is asked, so positions have no limit; the features are kept apart from those of the layers."""
    monkeypatch.setenv("ROBUST_RLHF_CACHE", str(tmp_path))
    save_models(tmp_path, PAIRS, max_length=LENGTH)
    name = str(tmp_path / "rm")
    deep = load_backbone(name, max_length=LENGTH)
    with pytest.raises(ModelError, match="at most"):
        load_backbone(name, max_length=9999)
    static = load_backbone(f"static:{name}", max_length=9999)
    table = deep.model.get_input_embeddings().weight.detach().numpy()
    found, encoded = pair_features(static, PAIRS), encode_pairs(PAIRS, static.tokenizer, max_length=9999)
    for side in ("chosen", "rejected"):
        means = [table[encoded[row][side]].mean(axis=0) for row in range(len(PAIRS))]
        np.testing.assert_allclose(getattr(found, side), means, atol=1e-6)
    assert replace(static, max_length=LENGTH).fingerprint(PAIRS) != deep.fingerprint(PAIRS)
    assert ceiling(PAIRS, model=f"static:{name}", sets=["tv"], by=[], folds=3).ceiling.width == table.shape[1]


def test_prompts_keep_their_end(backbone):
    long = replace(PAIRS[0], prompt=({"role": "user", "content": "beginning " * 60 + "end"},))
    longer = replace(
        PAIRS[0], prompt=({"role": "user", "content": "another beginning " * 60 + "beginning " * 60 + "end"},)
    )
    first, second, other = prompt_features(backbone, [long, longer, PAIRS[1]])
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert not np.allclose(first, other, atol=1e-3)


def test_an_untrained_backbone_is_the_same_every_time(backbone):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = load_backbone("tiny", max_length=LENGTH, train=PAIRS)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.fingerprint(PAIRS) == backbone.fingerprint(PAIRS)


def test_the_cache_is_used_until_something_it_depends_on_changes(backbone, tmp_path):
    cache = FeatureCache(tmp_path)
    file = cache.pairs(backbone, PAIRS, name="x")
    np.testing.assert_array_equal(np.load(file), np.stack(pair_features(backbone, PAIRS)))
    written = file.stat().st_mtime_ns
    assert cache.pairs(backbone, PAIRS, name="x") == file
    assert file.stat().st_mtime_ns == written
    others = {
        cache.pairs(replace(backbone, max_length=LENGTH - 1), PAIRS, name="x"),
        cache.pairs(backbone, PAIRS[::-1], name="x"),
        cache.pairs(load_backbone("tiny", max_length=LENGTH, train=generate(9, seed=2)), PAIRS, name="x"),
        cache.prompts(backbone, PAIRS, name="x"),
    }
    assert len(others | {file}) == 5


def test_one_changed_weight_invalidates_the_cache(tmp_path):
    backbone = load_backbone("tiny", max_length=LENGTH, train=PAIRS)
    cache = FeatureCache(tmp_path)
    before = cache.pairs(backbone, PAIRS, name="x")
    with torch.no_grad():
        list(backbone.model.parameters())[-1].view(-1)[0] += 1.0
    after = cache.pairs(backbone, PAIRS, name="x")
    assert after != before
    assert not np.array_equal(np.load(after), np.load(before))


def test_a_cache_that_does_not_compute_only_names_the_file(backbone, tmp_path):
    file = FeatureCache(tmp_path, computes=False).pairs(backbone, PAIRS, name="x")
    assert not file.exists()
    assert FeatureCache(tmp_path).pairs(backbone, PAIRS, name="x") == file


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="cannot load a model"):
        load_backbone("no/such-folder", max_length=LENGTH)


@pytest.fixture
def small_parts(monkeypatch):
    """Batches of 60 tokens in parts of 45; how many sequences went through the model."""
    asked, means = [], features._means
    monkeypatch.setattr(features, "_TOKENS", 60)
    monkeypatch.setattr(features, "_PART", 45)
    monkeypatch.setattr(features, "_means", lambda model, rows: asked.append(len(rows)) or means(model, rows))
    return asked


class Killed(BaseException):
    """Nothing that is caught on the way."""


def interrupted(cache, kind, backbone, monkeypatch, *, after):
    """Stop before the batch of that number."""
    with monkeypatch.context() as patch:
        means, left = features._means, iter(range(after))
        patch.setattr(features, "_means", lambda *asked: means(*asked) if next(left, None) is not None else stop())
        with pytest.raises(Killed):
            getattr(cache, kind)(backbone, PAIRS, name="x")


def stop():
    raise Killed


@pytest.mark.parametrize("kind", ["pairs", "prompts"])
def test_an_interrupted_computation_goes_on_where_it_was(backbone, tmp_path, monkeypatch, small_parts, kind):
    whole = np.load(getattr(FeatureCache(tmp_path / "whole"), kind)(backbone, PAIRS, name="x"))
    total, cache = sum(small_parts), FeatureCache(tmp_path / "parts")
    assert len(small_parts) >= 3
    small_parts.clear()
    interrupted(cache, kind, backbone, monkeypatch, after=2)
    (folder,) = cache.folder.iterdir()
    kept = [np.load(file) for file in sorted(folder.glob("*.npy"))]
    assert 0 < sum(map(len, kept)) <= sum(small_parts) < total
    small_parts.clear()
    file = getattr(cache, kind)(backbone, PAIRS, name="x")
    assert sum(small_parts) == total - sum(map(len, kept))
    np.testing.assert_array_equal(np.load(file), whole)  # bit by bit: the batches are the same
    assert not folder.exists()
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".npy", ".sha256"]


def test_a_part_that_was_damaged_is_computed_again(backbone, tmp_path, monkeypatch, small_parts):
    whole, cache = np.stack(pair_features(backbone, PAIRS)), FeatureCache(tmp_path)
    interrupted(cache, "pairs", backbone, monkeypatch, after=8)
    parts = sorted(next(cache.folder.iterdir()).glob("*.npy"))
    assert len(parts) > 1
    raw = bytearray(parts[0].read_bytes())
    raw[-1] ^= 1
    parts[0].write_bytes(raw)
    parts[1].with_suffix(".sha256").unlink()  # as a kill between the two leaves it
    np.testing.assert_array_equal(np.load(cache.pairs(backbone, PAIRS, name="x")), whole)
