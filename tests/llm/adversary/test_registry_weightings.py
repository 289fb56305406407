"""The weightings that are shipped are those of the registry, and are worst cases where it proves that they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm.adversary.weightings import formulas
from llm.adversary.weightings.rule import WEIGHTINGS
from proofs_check.claims.verifiable.published import Histogram, Mixture
from proofs_check.claims.verifiable.rates import Rates, floats, missed, shares
from proofs_check.claims.verifiable.utilities import BestOf, RiskSeeking, pass_at_k_is_robust, risk_seeking_is_robust
from proofs_check.claims.verifiable.witnesses import WITNESSES, weight_bounds

FIRST = {"rs_grpo": {"beta": 2.0}, "pass_at_k": {"k": 4.0}, "entropic": {"temperature": 0.3}}
FIRST |= {"difficulty_band": {"low": 0.25, "high": 0.75}}
ALWAYS = {"maxrl", "rs_grpo", "pass_at_k", "entropic", "riskpo", "gdro"}  # the last in its first step
SOMETIMES = {"grpo_std", "difficulty_filter", "difficulty_band", "dgpo", "curverl"}


def weigh(name, rates, **parameters):
    return getattr(formulas, name)(None, torch.tensor(np.asarray(rates, float)), **parameters)[1].numpy()


def test_every_weighting_is_judged():
    assert set(WEIGHTINGS) == ALWAYS | SOMETIMES


@pytest.mark.parametrize("name", sorted(ALWAYS | SOMETIMES))
def test_worst_cases_are_those_that_are_proved(name):
    """Of rates between 0 and 1: at 0, where there is no gradient, some weights are 0."""
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        rates = rng.integers(1, 16, rng.integers(2, 9)) / 16
        found.append(missed(weigh(name, rates, **FIRST.get(name, {})), 1 - rates))
    assert (max(found) < 1e-12) == (name in ALWAYS)
    assert min(found) < 1e-12


def test_shipped_weights_are_those_of_the_claims():
    for x in WITNESSES:
        if x.rule in ("grpo_std", "difficulty_filter", "dgpo"):
            proved = floats(shares([low for low, _ in weight_bounds(x)]))
            assert weigh(x.rule, np.array(x.parts) / x.whole) == pytest.approx(proved)
    x = Rates((1, 5, 12), 16)
    beta = np.log(1 + 3 / 4)
    seeking = risk_seeking_is_robust().lhs(RiskSeeking(x.parts, x.whole, 3))[:3]
    assert weigh("rs_grpo", floats(x.exact), beta=beta) == pytest.approx(seeking)
    best = pass_at_k_is_robust().lhs(BestOf(x.parts, x.whole, 5))
    assert weigh("pass_at_k", floats(x.exact), k=5.0) == pytest.approx(best)


def test_shipped_weights_of_ranks_and_densities_are_those_of_the_claims():
    x = Mixture(2, 6, 2, 6)
    assert weigh("riskpo", floats(x.rates)) == pytest.approx(floats(shares(x.weights)))
    y = Histogram((1, 1, 4))  # of four answers: one, two and three right
    drawn = np.repeat(floats(y.rates), y.counts)
    mass = np.array(y.counts) / np.cumsum(y.counts)
    expected = np.repeat(mass, y.counts)
    assert weigh("curverl", drawn, bins=5) == pytest.approx(expected / expected.sum())
