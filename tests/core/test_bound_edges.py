"""What has no bound says why, and the bounds at the ends of a set's size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import exp, inf

import pytest

from dro_core import (
    KL,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Grouped,
    KLPenalty,
    TotalVariation,
    Trimmed,
    minibatch,
)
from dro_core.sampling.bounds import (
    bias_bound,
    effective_sample_size_bound,
    excess_bound,
    gradient_variance_bound,
    inverse_cdf_bias_bound,
    multilevel_second_moment_bound,
)
from synthetic import plugin_bias

GROUPED = Grouped(CVaR(0.5), (0, 0, 1))


# Refusals.


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: bias_bound(TotalVariation(0.2), 64, 1.0), r"missed by most minibatches.*0\.2.*max_ratio"),
        (lambda: bias_bound(CressieRead(0.5, 0.1), 64, 1.0), "missed by most minibatches.*order above 1"),
        (
            lambda: bias_bound(BurgPenalty(0.5), 64, 1.0),
            "the price is low. Use a penalty of an order of",
        ),
        (lambda: bias_bound(CressieReadPenalty(0.5, 2.0), 64, 1.0), "missed by most minibatches"),
        (lambda: bias_bound(TotalVariation(0.2) + KLPenalty(1), 64, 1.0), r"missed by most minibatches.*max_ratio"),
        (lambda: effective_sample_size_bound(BurgPenalty(0.1), 64, loss_range=1.0), "a few draws may carry"),
        (lambda: gradient_variance_bound(CVaR(0.1) + KLPenalty(1), 64, 1.0), "gradient variance bound"),
        (lambda: bias_bound(minibatch(CVaR(0.1), 4), 64, 1.0), "groups, costs, constraints"),
        (lambda: bias_bound(Trimmed(CVaR(0.5), 0.1), 64, 1.0), r"no supremum over a set \(trimming\)"),
        (lambda: bias_bound(GROUPED, 64, 1.0), "groups, costs, constraints"),
        (lambda: inverse_cdf_bias_bound(GROUPED, 64, 1.0), "groups, costs, constraints"),
        (lambda: excess_bound(GROUPED, 1.0), "groups, costs, constraints"),
        (lambda: excess_bound(CressieRead(0.5, 0.1), 1.0), "no such bound is known"),
        (lambda: effective_sample_size_bound(KL(0.1), 64), "a few draws may carry"),
        (lambda: effective_sample_size_bound(GROUPED, 64), "groups, costs, constraints"),
        (lambda: effective_sample_size_bound(ChiSquarePenalty(0.1), 64), "`loss_range` is needed"),
        (lambda: gradient_variance_bound(KLPenalty(0.1), 64, 1.0), "`loss_range` is needed"),
        (lambda: gradient_variance_bound(ChiSquare(0.1), 64, 1.0), "move against each other.*Use CVaR or a penalty"),
        (lambda: gradient_variance_bound(KL(0.1), 64, 1.0), "move against each other"),
        (lambda: multilevel_second_moment_bound(ChiSquare(0.1), 2, 8, 1.0), "move against each other"),
        (lambda: multilevel_second_moment_bound(CVaR(0.1), 2, 12, 1.0), "power of 2.*Use n_max=8"),
        (lambda: bias_bound(CVaR(0.1), 0, 1.0), r"`n` is a number of draws, an integer in \[1, inf\), got 0"),
        (lambda: bias_bound(CVaR(0.1), n=True, loss_range=1.0), "`n` is a number of draws.*got True"),
        (lambda: bias_bound(CVaR(0.1), 2.5, 1.0), r"`n` is a number of draws.*got 2\.5"),  # type: ignore[arg-type]
        (lambda: bias_bound(CVaR(0.1), 8, -1.0), r"`loss_range`.*\[0, inf\), got -1\.0"),
        (lambda: bias_bound(CVaR(0.1), 8, inf), "`loss_range`"),
        (lambda: bias_bound(CVaR(0.1), 8, 1.0, variance=-1.0), "`variance`"),
        (lambda: inverse_cdf_bias_bound(CVaR(0.1), 8, -2.0), "`lipschitz`"),
        (lambda: inverse_cdf_bias_bound(CVaR(0.1), 0, 2.0), "`n`"),
        (lambda: gradient_variance_bound(CVaR(0.1), 8, -2.0), "`gradient_norm`"),
        (lambda: multilevel_second_moment_bound(CVaR(0.1), 0, 8, 2.0), "`n_min`"),
    ],
)
def test_what_has_no_bound_says_why(refused: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refused()


def test_plain_total_variation_keeps_its_bias() -> None:
    """Why it is refused: the bias is nearly the radius at any n."""
    for n in (8, 64, 1024):
        rare = 1e-3 / n
        assert plugin_bias([0.0, 1.0], [1 - rare, rare], n, TotalVariation(0.3)) > 0.99 * 0.3 * exp(-1e-3)
    assert bias_bound(TotalVariation(0.0), 8, 1.0) == 0


def test_infinite_prices_are_the_mean() -> None:
    for penalty in (ChiSquarePenalty(inf), KLPenalty(inf)):
        assert bias_bound(penalty, 8, 1.0) == excess_bound(penalty, 1.0) == 0
        assert effective_sample_size_bound(penalty, 8, loss_range=1.0) == 8
    assert all(bias_bound(KLPenalty(t), 8, 1.0) <= bias_bound(KLPenalty(s), 8, 1.0) for s, t in pairwise([1e-4, 1, 9]))
