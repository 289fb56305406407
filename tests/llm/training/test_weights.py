"""Weights of pairs are the reference distribution of an effective batch, in every kind of training on pairs."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_runs import untimed
from robust_trainers import (
    CATEGORIES,
    PAIRS,
    arguments,
    bradley_terry_loss,
    relative_error,
    seen_rows,
    trained_gradient,
    trainer_for,
)
from safetensors.numpy import load_file
from tiny_models import save_models
from whole_runs import train_command, wrong

from dro_core import parse_ambiguity, robust_loss, worst_case
from llm.adversary.masses import masses_of
from llm.adversary.schedule import RadiusSchedule
from llm.adversary.spec import parse_reweighting
from llm.data.pairs import write_pairs
from llm.data.trained_on.pairs import weighing
from llm.kinds.reward import RewardTrainer
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.config import RewardConfig
from llm.training.run import load_training_pairs
from robust_rlhf import main

EXHAUSTIVE = pytest.mark.exhaustive
WEIGHTS = np.random.default_rng(0).choice([0.5, 1.0, 2.0, 3.0], size=len(PAIRS)).tolist()


def weighted_gradient(start, rows, spec, *, weights=WEIGHTS):
    """One forward of the effective batch, one backward, the reference written out."""
    model, tokenizer, data = start
    model = copy.deepcopy(model)
    batch = PairCollator(tokenizer)([data[int(i)] for i in rows])
    rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    losses = bradley_terry_loss(*rewards.chunk(2))
    masses = torch.tensor([weights[i] for i in rows])
    masses = masses / masses.sum()
    if spec == "erm":
        (masses * losses).sum().backward()
    else:
        ambiguity = parse_ambiguity(spec).bind({"category": [CATEGORIES[i] for i in rows]})
        robust_loss(losses, ambiguity, reference=masses).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("spec", "micro", "steps", "passes"),
    [
        ("erm", 4, 4, "auto"),
        ("erm", 16, 1, "auto"),
        ("tv:0.3", 4, 4, "auto"),
        ("chi2:0.5", 16, 1, "auto"),
        ("tv:0.3,by=category", 8, 2, "auto"),
        pytest.param("cvar:0.3", 4, 4, "two", marks=EXHAUSTIVE),
        pytest.param("kl:0.3", 16, 1, "two", marks=EXHAUSTIVE),
    ],
)
def test_gradient_is_that_of_the_worst_case_around_the_weights(start, tmp_path, spec, micro, steps, passes):
    args = arguments(tmp_path, micro=micro, steps=steps)
    found, trainer = trained_gradient(start, args, spec, weights=WEIGHTS, passes=passes)
    rows = seen_rows(trainer)
    assert len(rows) == 16
    assert relative_error(found, weighted_gradient(start, rows, spec)) <= 1e-6
    assert relative_error(found, weighted_gradient(start, rows, spec, weights=[1.0] * len(PAIRS))) > 1e-2


@pytest.mark.parametrize(("micro", "steps"), [(4, 4), (16, 1)])
def test_the_plain_phase_of_a_robust_run_is_the_weighted_mean(start, tmp_path, micro, steps):
    args = arguments(tmp_path, micro=micro, steps=steps)
    found, trainer = trained_gradient(
        start, args, "tv:0.4", weights=WEIGHTS, schedule=RadiusSchedule(plain_share=0.9, ramp_share=0.1)
    )
    rows = seen_rows(trainer)
    assert relative_error(found, weighted_gradient(start, rows, "erm")) <= 1e-6
    (logged,) = [row for row in trainer.state.log_history if "mean_loss" in row]
    assert logged["mean_loss"] == pytest.approx(logged["loss"], rel=1e-5)
    assert logged["radius_fraction"] == 0
    np.testing.assert_array_equal(trainer.ledger.multiplier_sum[rows], 1.0)


@pytest.mark.parametrize("spec", ["erm", "tv:0.3", pytest.param("chi2:0.5", marks=EXHAUSTIVE)])
def test_equal_weights_change_nothing_to_the_bit(start, tmp_path, spec):
    args = arguments(tmp_path, max_steps=2)
    bare, plain = trained_gradient(start, args, spec)
    found, trainer = trained_gradient(start, args, spec, weights=[None, *[1.0] * (len(PAIRS) - 1)])
    assert torch.equal(found, bare)
    assert _logged(trainer) == _logged(plain)
    assert all(map(torch.equal, trainer.model.parameters(), plain.model.parameters()))


def _logged(trainer):
    return untimed(trainer.state.log_history)


@pytest.mark.parametrize("spec", ["erm", "tv:0.3", pytest.param("kl:0.2", marks=EXHAUSTIVE)])
def test_a_weight_of_two_is_the_pair_twice(start, tmp_path, spec):
    model, tokenizer, _ = start
    some = PAIRS[:12]
    once = (model, tokenizer, encode_pairs(some, tokenizer, max_length=96))
    twice = (model, tokenizer, encode_pairs([*some, *some[:4]], tokenizer, max_length=96))
    weights = [2.0] * 4 + [None] * 8
    one, _ = trained_gradient(once, arguments(tmp_path, micro=4, steps=3), spec, weights=weights)
    two, _ = trained_gradient(twice, arguments(tmp_path, micro=4, steps=4), spec)
    assert relative_error(one, two) <= 2e-6


def test_the_account_compares_with_the_weights(start, tmp_path):
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.3", weights=WEIGHTS)
    trainer.train()
    rows = seen_rows(trainer)
    losses, masses = trainer.ledger.last_loss[rows], np.array(WEIGHTS)[rows]
    masses /= masses.sum()
    q = worst_case(losses, parse_ambiguity("tv:0.3"), reference=masses).weights
    np.testing.assert_allclose(trainer.ledger.multiplier_sum[rows], q / masses, rtol=1e-4, atol=1e-6)
    (logged,) = [row for row in trainer.state.log_history if "mean_loss" in row]
    assert logged["mean_loss"] == pytest.approx(masses @ losses, rel=1e-5)
    assert logged["robust_loss"] == pytest.approx(q @ losses, rel=1e-5)
    assert logged["largest_multiplier"] == pytest.approx(len(q) * q.max(), rel=1e-4)
    assert logged["effective_sample_size"] == pytest.approx(1 / (q @ q), rel=1e-4)


def test_evaluation_counts_pairs_alike(start, tmp_path):
    found = []
    for weights in ((), WEIGHTS):
        trainer = trainer_for(start, arguments(tmp_path), "tv:0.3", weights=weights, eval_dataset=start[2])
        found.append(trainer.evaluate()["eval_loss"])
    assert found[0] == found[1]


@pytest.mark.parametrize("spec", ["random:0.4", "shuffled:tv:0.2", "micro:4:shuffled:tv:0.2"])
def test_rules_that_deal_weights_are_refused(start, tmp_path, spec):
    model, _, data = start
    told = {"model": model, "args": arguments(tmp_path), "train_dataset": data, "weights": WEIGHTS}
    with pytest.raises(ValueError, match="deals weights to random examples, which must count alike"):
        RewardTrainer(ambiguity=parse_reweighting(spec), **told)


def test_masses_that_are_none(tmp_path):
    for weights in ([1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]):
        with pytest.raises(ValueError, match=r"the weight of example #1 is \S+, and weights are finite and above 0"):
            masses_of(weights)
    assert masses_of([]) is masses_of([3.0, 3.0]) is None
    assert masses_of([2.0, None]).tolist() == pytest.approx([4 / 3, 2 / 3])


def test_pairs_without_weight_are_left_out(tmp_path, capsys, caplog):
    some = [replace(pair, weight=float(i % 3)) for i, pair in enumerate(PAIRS)]
    write_pairs(some, tmp_path / "a.jsonl")
    kept = load_training_pairs(RewardConfig(train_file=str(tmp_path / "a.jsonl"))).train
    assert [pair.id for pair in kept] == [pair.id for pair in some if pair.weight]
    assert weighing([]) == []
    write_pairs([replace(pair, weight=0.0) for pair in some], tmp_path / "a.jsonl")
    message = wrong(capsys, *train_command("reward", tmp_path / "a.jsonl", tmp_path / "run"))
    assert "all 24 training pairs have weight 0: give those that should count a weight above 0" in message


KINDS = ("sft", "reward", "dpo")


@pytest.fixture(scope="module")
def runs(once):
    """Of every kind: a run on weighted pairs, and one on those pairs as often as their weights say."""

    def build(folder):
        some = PAIRS[:8]
        weighted = [replace(pair, weight=2.0 if i < 4 else None) for i, pair in enumerate(some)]
        often = [*some, *(replace(pair, id=f"{pair.id}-again") for pair in some[:4])]
        for name, pairs in {"weighted": weighted, "often": often, "once": some}.items():
            write_pairs(pairs, folder / f"{name}.jsonl")
        save_models(folder, often, max_length=96)
        told = {"max_length": 96, "max_steps": 3, "optim": "sgd", "plain_share": 0, "ambiguity": "tv:0.3"}
        for kind in KINDS:
            told["model"] = folder / ("rm" if kind == "reward" else "start")
            told["learning_rate"] = 0.2
            for name, accumulated in {"weighted": 2, "often": 3, "once": 2}.items():
                output = folder / f"{kind}-{name}"
                shape = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulated}
                assert main(train_command(kind, folder / f"{name}.jsonl", output, **told, **shape)) == 0

    return once("weighted-runs", build)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("nine runs are built")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_on_weights_as_on_pairs_seen_so_often(runs, kind):
    weighted, often, bare = (
        load_file(runs / f"{kind}-{name}" / "model" / "model.safetensors") for name in ("weighted", "often", "once")
    )
    for name, expected in often.items():
        np.testing.assert_allclose(weighted[name], expected, rtol=1e-4, atol=2e-6)
    assert max(np.abs(bare[name] - expected).max() for name, expected in often.items()) > 1e-4
