"""Weights and soft labels under TRL's trainers of pairs, against autograd on losses computed without TRL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from robust_trl import ROUNDING, answer_losses, load, logged, seen, trained, trainer_for
from tiny_trl import PAIRS, flat_gradient, relative_error

from dro_core import parse_ambiguity, worst_case
from llm.trl.labels import softened_loss

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
EXHAUSTIVE = pytest.mark.exhaustive
WEIGHTS = (0.5 + np.arange(len(PAIRS)) % 4).tolist()
P = [None, *(0.1 + 0.8 * np.random.default_rng(0).random(len(PAIRS) - 1)).tolist()]


def labelled(tiny, **columns):
    data = tiny.data
    for name, values in columns.items():
        data = data.add_column(name, values)
    return tiny._replace(data=data)


def entropy(p):
    return torch.special.entr(p) + torch.special.entr(1 - p)


def expected(tiny, name, rows, spec, *, weights, soft):
    """The gradient, and what the adversary sees."""
    model = load(tiny, name)
    losses = torch.stack(list(answer_losses(tiny, name, rows, model)))
    p = torch.ones(len(rows), dtype=torch.float64)
    if soft:
        p = torch.tensor([1.0 if P[row] is None else P[row] for row in rows], dtype=torch.float64)
        losses = p * losses - (1 - p) * torch.log1p(-torch.exp(-losses))  # 1 - sigmoid(h) is sigmoid(-h)
    masses = np.array([WEIGHTS[row] if weights else 1.0 for row in rows])
    masses /= masses.sum()
    shown = losses.detach() - ("regret" in spec) * entropy(p)
    inner = parse_ambiguity(spec.removeprefix("regret:"))
    q = masses if inner is None else worst_case(shown.numpy(), inner, reference=masses).weights
    (torch.tensor(q) * losses).sum().backward()
    return flat_gradient(model), shown, q / masses


CASES = [
    ("reward", "erm", True, False, 4),
    ("dpo", "regret:tv:0.3", True, True, 4),
    pytest.param("reward", "regret:tv:0.3", False, True, 4, marks=EXHAUSTIVE),
    pytest.param("dpo", "erm", False, True, 4, marks=EXHAUSTIVE),
    pytest.param("reward", "chi2:0.5", True, True, 8, marks=EXHAUSTIVE),
]


@pytest.mark.parametrize(("name", "spec", "weights", "soft", "steps"), CASES)
def test_gradient_is_that_of_the_weighted_soft_losses(tiny, tmp_path, name, spec, weights, soft, steps):
    columns = ({"weight": WEIGHTS} if weights else {}) | ({"preference": P} if soft else {})
    extra = {"soft_labels": "data"} if soft else {}
    given = None if spec == "erm" else spec
    trainer, (gradient,) = trained(labelled(tiny, **columns), name, tmp_path, given, steps=steps, extra=extra)
    rows = seen(trainer)
    assert len(rows) == steps
    found, shown, multipliers = expected(tiny, name, rows, spec, weights=weights, soft=soft)
    assert relative_error(gradient, found) <= 2 * ROUNDING[name]
    np.testing.assert_allclose(trainer.ledger.last_loss[rows], shown, atol=1e-5)
    np.testing.assert_allclose(trainer.ledger.multiplier_sum[rows], multipliers, atol=1e-4)
    assert np.isfinite(logged(trainer, "mean_loss")).all()


def test_equal_weights_and_certain_labels_are_trl_as_it_is(tiny, tmp_path):
    trainer = trainer_for(labelled(tiny, weight=[2.0] * len(PAIRS), preference=P), "reward", tmp_path, None)
    assert trainer.untouched
    assert "robust_index" not in trainer.train_dataset.column_names


def test_rows_of_weight_zero_are_left_out(tiny, tmp_path):
    weights = [float(i % 2) for i in range(len(PAIRS))]
    trainer = trainer_for(labelled(tiny, weight=weights), "reward", tmp_path, "tv:0.2")
    assert len(trainer.train_dataset) == len(PAIRS) // 2
    assert trainer.train_dataset["prompt"][:] == tiny.data["prompt"][1::2]
    with pytest.raises(ValueError, match="all 24 rows of train_dataset have weight 0"):
        trainer_for(labelled(tiny, weight=[0.0] * len(PAIRS)), "reward", tmp_path, "tv:0.2")


SOFT = {"extra": {"soft_labels": "data"}}
REFUSED = [
    ("reward", {}, SOFT, "soft_labels='data' needs a column preference"),
    ("reward", {"preference": [1.5] * 24}, SOFT, "preference is 1.5 in a row of train_dataset"),
    ("reward", {"preference": P}, {"extra": {"soft_labels": "crossfit"}}, "soft_labels must be none or data"),
    ("dpo", {"preference": P}, SOFT | {"loss_type": ["ipo"]}, r"which loss_type \['ipo'\] changes"),
    ("dpo", {"preference": P}, SOFT | {"label_smoothing": 0.1}, "which label_smoothing changes"),
    ("reward", {"preference": P}, SOFT | {"center_rewards_coefficient": 0.1}, "which center_rewards_coe"),
    ("reward", {"preference": P, "margin": [0.5] * 24}, SOFT, "which the column margin changes"),
    ("reward", {"weight": [-1.0] * 24}, {}, "the weight of example #0 is -1"),
    ("reward", {"weight": WEIGHTS}, {"ambiguity": "shuffled:tv:0.2"}, "which must count alike"),
    ("grpo", {}, {"ambiguity": "regret:tv:0.2"}, "the losses here are not of labels"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "columns", "settings", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(tiny, tmp_path, name, columns, settings, message):
    settings = dict(settings)
    spec = settings.pop("ambiguity", "tv:0.2")
    with pytest.raises(ValueError, match=message):
        trainer_for(labelled(tiny, **columns), name, tmp_path, spec, **settings)


def test_the_loss_of_an_uncertain_label_is_exact_far_out():
    margins = torch.tensor([-80.0, -1.0, 0.0, 1.0, 20.0, 80.0], requires_grad=True)
    found = softened_loss(-torch.nn.functional.logsigmoid(margins), torch.tensor(0.25))
    logits = margins.detach().double()
    exact = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, 0.25), reduction="none"
    )
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(found.sum(), margins)
    torch.testing.assert_close(slope.double(), torch.sigmoid(logits) - 0.25, rtol=1e-4, atol=1e-5)
