"""Weights of pairs, soft labels and regrets on two ranks: the same training as on one, and features of all pairs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import finished, start_ranks
from linear_heads import Features, Head, HeadTrainer, arguments, collated, noisy
from transformers import set_seed

from llm.data.corpus.corpus import generate
from llm.models.loading import tiny_reward_model
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.soft.crossfit import feature_differences

TRAIN = noisy(192, seed=3)
DRAWS = np.random.default_rng(8)
SOFT = DRAWS.choice([0.1, 0.6, 0.8, 1.0], size=len(TRAIN)).tolist()
WEIGHTS = DRAWS.choice([0.5, 1.0, 3.0], size=len(TRAIN)).tolist()
SPECS = ("regret:tv:0.3", "tv:0.3", "erm")
PAIRS = generate(13, seed=4)


def trained(folder, spec, size, *, soft=True, weighed=True):
    """Weights of the head after twelve steps, and what its log said of the adversary."""
    torch.manual_seed(0)
    trainer = HeadTrainer(
        model=Head(),
        args=arguments(folder, per_device_train_batch_size=size, gradient_accumulation_steps=2, max_steps=12),
        train_dataset=Features(TRAIN),
        data_collator=collated,
        ambiguity=spec,
        weights=WEIGHTS if weighed else (),
    )
    if soft:
        trainer.soften(SOFT)
    trainer.train()
    names = ("mean_loss", "robust_loss", "effective_sample_size")
    rows = [[row.get(name) for name in names] for row in trainer.state.log_history if "mean_loss" in row]
    return trainer.model.weight.tolist(), rows, trainer.ledger.multiplier_sum.tolist()


def features(device="cpu"):
    set_seed(0)
    model, tokenizer = tiny_reward_model((pair.chosen + pair.rejected for pair in PAIRS), max_length=96)
    told = SimpleNamespace(
        per_device_eval_batch_size=3, device=torch.device(device), fp16=False, bf16=False, disable_tqdm=True
    )
    encoded = encode_pairs(PAIRS, tokenizer, max_length=96)
    return feature_differences(model, encoded, PairCollator(tokenizer), told)


def ranks(folder):
    torch.set_num_threads(1)
    found = {spec: trained(folder, spec, 16) for spec in SPECS} | {"features": features().tolist()}
    (folder / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(once):
    folder = once("labels-of-ranks", lambda folder: finished(start_ranks(ranks, folder)))
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow("whichever test comes first has two processes train")
@pytest.mark.parametrize("spec", SPECS)
def test_two_ranks_train_as_one_does(spec, found, tmp_path):
    weights, rows, multipliers = trained(tmp_path, spec, 32)
    for rank in found:
        np.testing.assert_allclose(rank[spec][0], weights, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(rank[spec][2], multipliers, atol=1e-5)
    np.testing.assert_allclose(np.array(found[0][spec][1], float), np.array(rows, float), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("soft", "weighed"), [(False, True), (True, False)])
def test_either_would_be_missed(soft, weighed, found, tmp_path):
    """The comparison above is not blind: without soft labels, or without weights, another head comes out."""
    weights, _, _ = trained(tmp_path, "regret:tv:0.3", 32, soft=soft, weighed=weighed)
    assert np.abs(np.array(weights) - found[0]["regret:tv:0.3"][0]).max() > 0.01


def test_every_rank_has_the_features_of_all_pairs(found):
    expected = features()
    assert not np.isnan(expected).any()
    for rank in found:
        np.testing.assert_allclose(rank["features"], expected, atol=1e-5)
