"""The weights that the registry proves of published advantages are those of the estimators that are shipped."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from llm.policy.advantages.estimators import ESTIMATORS, group_advantage, name_of
from llm.policy.advantages.groups import maximum_likelihood, prompt_weight, risk_seeking
from proofs_check.claims.verifiable.groups import Group, group_weights
from proofs_check.claims.verifiable.utilities import RiskSeeking, risk_seeking_is_robust

BETA = np.log(1 + 3)
PROVED = {
    "rloo": ("rloo", 1),
    "grpo": ("grpo", 1),
    "dr_grpo": ("mean", 1),
    "maxrl": ("maxrl", 1),
    "pass_at_k:2": ("pass_at_k", 2),
    f"rs_grpo:{BETA}": ("rs", 3),
}


def test_every_estimator_that_compares_answers_is_proved():
    assert {name_of(name) for name in PROVED} == {name for name in ESTIMATORS if name != "ppo"}


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("name", PROVED)
def test_estimators_weigh_what_is_proved(name, size):
    kind, knob = PROVED[name]
    for part in (1, 6, 10, 18):
        expected = group_weights().rhs(Group(kind, knob, size, part, 20)) / (BETA if kind == "rs" else 1)
        assert prompt_weight(group_advantage(name), part / 20, size) == pytest.approx(expected, rel=1e-9)


def test_maximum_likelihood_without_its_baseline_too():
    plain = partial(maximum_likelihood, baseline=False)
    expected = group_weights().rhs(Group("maxrl_plain", 1, 8, 1, 20))
    assert prompt_weight(plain, 1 / 20, 8) == pytest.approx(expected, rel=1e-9) == pytest.approx(6.73, abs=0.005)


def test_many_answers_weigh_prompts_as_the_worst_case_does():
    """Risk seeking over 16 answers is nearer to the worst case over prompts than over 4, prompt by prompt."""
    x = RiskSeeking((4, 8, 15), 16, 4)
    worst, beta = risk_seeking_is_robust().lhs(x)[:3], np.log(2)

    def far(size):
        weights = np.array([prompt_weight(partial(risk_seeking, beta=beta), p / 16, size) for p in x.parts])
        return np.abs(weights / weights.sum() - worst)

    assert np.all(far(16) < far(4))
    assert np.all(far(16) < 0.01)
