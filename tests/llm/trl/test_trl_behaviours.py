"""TRL's behaviours, row by row: TRL itself, the mixin without a set and at radius 0 alike; and what a set refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from trl_behaviours import ALL, PLAIN, Row, assert_same, run, weights
from trl_behaviours_online import ROWS as OF_ONLINE
from trl_behaviours_pairs import ROWS as OF_PAIRS
from trl_behaviours_pairs import builds

from dro_core import ChiSquarePenalty, Grouped, TotalVariation, Wasserstein
from llm.adversary.schedule import RadiusSchedule

pytestmark = [
    # TRL still asks by the old name.
    pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`return_outputs=True`, and the logits:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are using '(rollout_func|environment_factory)':UserWarning"),
]
EXHAUSTIVE = [pytest.mark.exhaustive]
ARMS = {"plain": PLAIN, "none": None, "zero": "tv:0"}
CASES = [(row, kind) for row in (*OF_PAIRS, *OF_ONLINE) for kind in row.trainers]


def cases(*, always: bool) -> list:
    """Every row with every trainer that has it; marked, but for those that ``always`` run."""
    return [
        pytest.param(row, kind, id=f"{kind}-{row.name}".replace(" ", "_"), marks=() if usual else EXHAUSTIVE)
        for row, kind in CASES
        for usual in [always and kind in row.usual]
    ]


def check(row: Row, outcome) -> None:
    """The error that TRL answers, or none and all that the row says."""
    assert row.error in outcome.error if row.error else not outcome.error, outcome.error
    for holds in row.holds:
        holds(outcome)


@pytest.mark.slow("each row trains three times")
@pytest.mark.parametrize(("row", "kind"), cases(always=True))
def test_a_mixin_that_reweights_nothing_is_trl(tiny, tmp_path, row, kind):
    plain, *mixins = (run(row, kind, tiny, tmp_path / name, given) for name, given in ARMS.items())
    check(row, plain)
    for outcome in mixins:
        assert_same(outcome, plain)
        check(row, outcome)


@pytest.mark.parametrize(("row", "kind"), cases(always=False))
def test_a_set_of_positive_radius_takes_it_or_says_why_not(tiny, tmp_path, row, kind):
    outcome = run(row, kind, tiny, tmp_path, "tv:0.3", fitted=True)
    if row.refused:
        assert re.search(row.refused, outcome.error), outcome.error
        return
    check(row, outcome)
    if row.error:
        return
    changed = [not torch.equal(p, outcome.start[name]) for name, p in weights(outcome.trainer.model).items()]
    assert outcome.trainer.ledger.visits.any() or not any(changed)


ALONE = [
    "erm", "cvar:1", "chi2:0", "kl:0,by=no_such_column", "tv:0.3,max_ratio=1", "hellinger:0,trim=0", "spectral:0.5/0.5",
    ChiSquarePenalty(float("inf")), Grouped(TotalVariation(0), [0] * 24), Wasserstein(0, 1 - np.eye(24)),
]  # fmt: skip
REFUSED = {  # by any set that may reweight: two pairs a micro-batch, one prompt a generation
    "reward": Row("a few steps", ("reward",), {"micro": 2, "max_steps": 3}),
    "grpo": Row("a few steps", ("grpo",), {"micro": 4, "steps": 1, "num_generations": 4, "max_steps": 3}),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_every_set_of_equal_weights_alone_leaves_trl_as_it_is(tiny, tmp_path, kind):
    """Whatever the schedule, which weakens sets and enlarges none."""
    ramp, row = {"schedule": RadiusSchedule(plain_share=0.2, ramp_share=0.5)}, REFUSED[kind]
    ramped = row._replace(given=lambda tiny, kind: ramp)
    for given in ALONE:
        outcome = run(ramped._replace(act=builds), kind, tiny, tmp_path / "alone", given)
        assert not outcome.error, given
        assert outcome.trainer.ambiguity is None
    for given in ("tv:1e-9", "tv:0,trim=0.1", "cvar:0.999"):
        assert re.search("where it is alone|one by one", run(row, kind, tiny, tmp_path / "more", given).error), given
    plain, zero = run(row, kind, tiny, tmp_path / "plain"), run(ramped, kind, tiny, tmp_path / "zero", "tv:0")
    assert zero.trainer.state.global_step == 3
    assert_same(zero, plain)


def test_every_trainer_has_a_row_of_every_kind():
    names = [(row.name, kind) for row, kind in CASES]
    assert len(set(names)) == len(names)
    for kind in ALL:
        usual = [row for row, k in CASES if k == kind and kind in row.usual]
        assert any(row.refused for row in usual)
        assert len(usual) >= 8
    assert {row.refused for row, _ in CASES} - {""} == {row.refused for row, kind in CASES if row.refused and row.usual}
