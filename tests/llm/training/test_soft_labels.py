"""Soft labels and the adversary that sees regrets: losses, weights, account, runs and refusals."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import test_dpo
import torch
from robust_trainers import CATEGORIES, PAIRS, Gradients, arguments, relative_error, seen_rows, start, trainer_for
from safetensors.numpy import load_file
from scipy.special import rel_entr
from tiny_models import save_models
from torch.nn.functional import binary_cross_entropy_with_logits
from whole_runs import train_command, wrong

from dro_core import parse_ambiguity, worst_case
from llm.adversary.spec import parse_reweighting
from llm.data.pairs import write_pairs
from llm.kinds.reward import RewardTrainer
from llm.run.kinds import is_logistic
from llm.text.batches import PairCollator
from robust_rlhf import main

assert start  # the model that all trainings here begin from
EXHAUSTIVE = pytest.mark.exhaustive
P = np.random.default_rng(1).choice([0.0, 0.2, 0.5, 0.7, 0.9, 1.0], size=len(PAIRS))


def entropy(p):
    return -sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0) for q in (p, 1 - p))


def trained(start, folder, spec, *, soft=P, micro=4, steps=4, **kwargs):
    (model, tokenizer, data), gradients = start, Gradients()
    trainer = RewardTrainer(
        model=copy.deepcopy(model), args=arguments(folder, micro=micro, steps=steps), train_dataset=data,
        data_collator=PairCollator(tokenizer), ambiguity=parse_reweighting(spec), columns={"category": CATEGORIES},
        callbacks=[gradients], **kwargs,
    )  # fmt: skip
    if soft is not None:
        trainer.soften(soft.tolist())
    trainer.train()
    return gradients.first, trainer


def margins_of(start, rows):
    model, tokenizer, data = start
    model = copy.deepcopy(model)
    batch = PairCollator(tokenizer)([data[int(i)] for i in rows])
    rewards = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
    chosen, rejected = rewards.chunk(2)
    return model, chosen - rejected


@pytest.mark.parametrize(
    ("spec", "micro", "steps"),
    [
        ("erm", 4, 4),
        ("tv:0.3", 4, 4),
        ("regret:tv:0.3", 4, 4),
        ("regret:tv:0.3,by=category", 16, 1),
        pytest.param("micro:16:regret:tv:0.3", 16, 1, marks=EXHAUSTIVE),
        pytest.param("regret:kl:0.3", 8, 2, marks=EXHAUSTIVE),
    ],
)
def test_gradient_is_that_of_soft_losses_weighed_by_what_the_adversary_sees(start, tmp_path, spec, micro, steps):
    found, trainer = trained(start, tmp_path, spec, micro=micro, steps=steps)
    rows = seen_rows(trainer)
    model, margins = margins_of(start, rows)
    losses = binary_cross_entropy_with_logits(margins, torch.tensor(P[rows]).float(), reduction="none")
    shown = losses.detach().double().numpy() - ("regret" in spec) * entropy(P[rows])
    weights = np.full(len(rows), 1 / len(rows))
    if spec != "erm":
        inner = parse_ambiguity(spec.removeprefix("micro:16:").removeprefix("regret:"))
        weights = worst_case(shown, inner.bind({"category": [CATEGORIES[i] for i in rows]})).weights
    (torch.tensor(weights).float() * losses).sum().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert relative_error(found, expected) <= 2e-6
    if "by=" not in spec:  # the account is of what the adversary saw
        np.testing.assert_allclose(trainer.ledger.last_loss[rows], shown, atol=5e-6)
    (logged,) = [row for row in trainer.state.log_history if "mean_loss" in row]
    assert logged["mean_loss"] == pytest.approx(float(losses.detach().mean()), rel=1e-5)
    if "regret" in spec:
        sigmoid = torch.sigmoid(margins).detach().double().numpy()
        regrets = rel_entr(P[rows], sigmoid) + rel_entr(1 - P[rows], 1 - sigmoid)
        assert logged["mean_regret"] == pytest.approx(regrets.mean(), rel=1e-4)
        assert logged["robust_regret"] == pytest.approx(weights @ regrets, rel=1e-4)


@pytest.mark.parametrize("spec", ["tv:0.3", pytest.param("chi2:0.5,by=category", marks=EXHAUSTIVE)])
def test_of_certain_labels_the_regret_is_the_loss_to_the_bit(start, tmp_path, spec):
    bare, _ = trained(start, tmp_path, spec, soft=None)
    for soft in (None, np.ones(len(PAIRS))):
        found, _ = trained(start, tmp_path, f"regret:{spec}", soft=soft)
        assert torch.equal(found, bare)


def test_weights_and_regrets_together(start, tmp_path):
    weights = (1.0 + np.arange(len(PAIRS)) % 3).tolist()
    _, trainer = trained(start, tmp_path, "regret:tv:0.3", weights=weights, micro=16, steps=1)
    rows = seen_rows(trainer)
    masses = np.array(weights)[rows] / np.array(weights)[rows].sum()
    q = worst_case(trainer.ledger.last_loss[rows], parse_ambiguity("tv:0.3"), reference=masses).weights
    np.testing.assert_allclose(trainer.ledger.multiplier_sum[rows], q / masses, rtol=1e-4, atol=1e-5)


LOSSES = {  # a pair loss, and the least that a label allows
    "sigmoid": lambda p: entropy(p),
    "ipo": lambda p: p * (1 - p) / test_dpo.BETA**2,
    "wdpo:0.5": lambda p: entropy(p),
    "hinge": lambda p: 2 * np.minimum(p, 1 - p),
}


@pytest.mark.parametrize("loss", [*LOSSES, "cdpo:0.1", "rdpo:0.1"])
def test_every_loss_of_dpo_is_the_mean_over_the_label(loss, tmp_path):
    begin = test_dpo.begin()
    args, items = test_dpo.arguments_with_cache(tmp_path), list(range(6))
    trainer = test_dpo.trainer_for(begin, args, "tv:0.3", loss=loss)
    batch = PairCollator(begin[2])([begin[3][i] for i in items])
    margins = trainer.margins(trainer.model, batch).detach().double()
    hard = trainer.example_losses(trainer.model, batch).detach().double()
    trainer.adversary.rule = parse_reweighting("regret:tv:0.3")
    if loss not in LOSSES:
        with pytest.raises(ValueError, match="known of the losses sigmoid, wdpo, ipo and hinge"):
            trainer.soften(P.tolist())
        trainer.adversary.rule = None
    trainer.soften(P.tolist())
    found = trainer.example_losses(trainer.model, batch).detach().double()
    p = torch.tensor(P[items])
    if loss == "wdpo:0.5":  # the penalty goes with the slope of the loss in the margin
        slopes = (torch.sigmoid(margins) - p).abs() / torch.sigmoid(-margins)
        penalty = (hard + torch.nn.functional.logsigmoid(margins)) * slopes
        mean = binary_cross_entropy_with_logits(margins, p, reduction="none") + penalty
    else:
        mean = p * trainer.pair_loss(margins) + (1 - p) * trainer.pair_loss(-margins)
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)
    if loss in LOSSES:
        np.testing.assert_allclose(trainer.adversary.rule.least, LOSSES[loss](P), atol=1e-12)
        grid = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]
        lowest = (p * trainer.pair_loss(grid) + (1 - p) * trainer.pair_loss(-grid)).min(0).values
        np.testing.assert_allclose(trainer.adversary.rule.least[items], lowest, atol=1e-6)


KINDS = ("reward", "dpo")


@pytest.fixture(scope="module")
def runs(once):
    """Of every kind: uncertain labels; the same pairs the other way round with 1 - p; certain labels."""

    def build(folder):
        some = PAIRS[:8]
        soft = [replace(pair, preference=0.5 + i / 16) for i, pair in enumerate(some[:-1])] + [some[-1]]
        other = [
            pair if pair.preference is None
            else replace(pair, chosen=pair.rejected, rejected=pair.chosen, preference=1 - pair.preference)
            for pair in soft
        ]  # fmt: skip
        write_pairs(soft, folder / "soft.jsonl")
        write_pairs(other, folder / "other.jsonl")
        save_models(folder, some, max_length=96)
        told = {"max_length": 96, "max_steps": 3, "optim": "sgd", "plain_share": 0, "ambiguity": "regret:tv:0.3",
                "learning_rate": 0.2, "logging_steps": 1}  # fmt: skip
        for kind in KINDS:
            told["model"] = folder / ("rm" if kind == "reward" else "start")
            for name, labels in {"soft": "data", "other": "data", "hard": "none"}.items():
                file = folder / ("other.jsonl" if name == "other" else "soft.jsonl")
                assert main(train_command(kind, file, folder / f"{kind}-{name}", soft_labels=labels, **told)) == 0

    return once("soft-runs", build)


def weights(run):
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("six runs are built")
@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_the_other_way_round_is_the_same_pair(runs, kind):
    soft, other, hard = (weights(runs / f"{kind}-{name}") for name in ("soft", "other", "hard"))
    for name, expected in soft.items():
        np.testing.assert_allclose(other[name], expected, rtol=1e-4, atol=2e-6)
    assert max(np.abs(hard[name] - expected).max() for name, expected in soft.items()) > 1e-4


@pytest.mark.slow("it trains")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_what_its_labels_and_its_adversary_are(runs, kind):
    record = json.loads((runs / f"{kind}-soft" / "run.json").read_text())
    p = np.array([*(0.5 + i / 16 for i in range(7)), 1.0])
    said = record["data"]["soft_labels"]
    assert said["kind"] == "data"
    assert said["agreement"] == pytest.approx(p.mean())
    assert said["entropy"] == pytest.approx(entropy(p).mean(), rel=1e-6)
    assert record["adversary"]["sees"] == "regret"
    assert record["adversary"]["top"][0]["margin"] is None
    assert all(0 <= row["mean_regret"] <= row["robust_regret"] for row in record["history"] if "mean_loss" in row)
    assert not is_logistic(kind, record["config"])
    hard = json.loads((runs / f"{kind}-hard" / "run.json").read_text())
    assert "soft_labels" not in hard["data"]
    assert hard["adversary"]["top"][0]["margin"] is not None


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("reward", {"soft_labels": "data"}, "needs the column preference, and none of 24 training pairs has one"),
        ("reward", {"soft_labels": "votes"}, "--soft-labels: 'votes' is none of none, data, crossfit"),
        ("dpo", {"soft_labels": "crossfit", "soft_folds": 2}, "soft_folds must be at least 3, got 2"),
        ("reward", {"soft_labels": "crossfit", "soft_folds": 99}, "soft_folds 99 is more than the 23 prompts"),
        ("sft", {"ambiguity": "regret:tv:0.2"}, "the losses here are not of labels"),
        ("sft", {"soft_labels": "data"}, "there is no flag --soft_labels"),
        ("dpo", {"ambiguity": "regret:tv:0.2", "loss": "rdpo:0.1"}, "known of the losses sigmoid, wdpo, ipo"),
        ("reward", {"ambiguity": "regret:regret:tv:0.2"}, "regret: stands twice"),
        ("reward", {"ambiguity": "regret:erm"}, "erm has equal weights"),
    ],
)
def test_refusals(kind, settings, message, tmp_path, capsys):
    write_pairs(PAIRS, tmp_path / "a.jsonl")
    told = {"max_length": 96, **settings}
    assert message in wrong(capsys, *train_command(kind, tmp_path / "a.jsonl", tmp_path / "run", **told))
    assert not (tmp_path / "run").exists()


def test_soft_labels_that_are_none(start, tmp_path):
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.3")
    for soft in ([0.5], [1.1] * len(PAIRS), [float("nan")] * len(PAIRS)):
        with pytest.raises(ValueError, match="soft labels are 24 probabilities"):
            trainer.soften(soft)
