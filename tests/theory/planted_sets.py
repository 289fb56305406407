"""False claims about worst cases, each with an instance that shows it, of which the search is not told.

The kinds are those of ``planted_numbers``, masses at zero, and ties.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from planted_numbers import END, LARGE, TIGHT, Planted

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, KLPenalty, TotalVariation, Wasserstein, robust_loss, worst_case
from proofs_check import Claim, Instances, Relation
from proofs_check.claim import dyadic
from proofs_check.claims.inner.inner_problem import WeightedLosses
from proofs_check.claims.inner.transport import wasserstein_is_tv
from proofs_check.claims.minibatch.minibatch import tv_bias_split
from proofs_check.claims.minibatch.sampled import SampledLosses, draws, rare
from synthetic import plugin_bias

TIES = "ties and signs"
ZERO = "masses at zero"


def value(x: WeightedLosses, ambiguity: AmbiguitySet) -> float:
    return float(worst_case(np.array(x.losses), ambiguity, reference=x.reference).value)


def deviation(x: WeightedLosses) -> float:
    return float(np.sqrt(x.reference @ (np.array(x.losses) - x.mean) ** 2))


# Losses, all of which have mass, and a radius.
BASE = replace(wasserstein_is_tv(), label="planted", relation=Relation.AT_MOST, verifies=None, mutants=())


def weighted(lhs, rhs, **changes) -> Claim[WeightedLosses]:
    return replace(BASE, lhs=lhs, rhs=rhs, **changes)


def where(name, holds) -> dict:
    """The assumptions of all and one more."""
    return {"assumptions": {**BASE.assumptions, name: holds}}


def width(x: WeightedLosses) -> float:
    """The range of the losses, with mass or without."""
    return max(x.losses) - min(x.losses)


# Masses down to zero, which the draws of BASE never are.
MASSLESS = {
    "assumptions": {
        "masses at least 0, in all 1/64 or more": lambda x: min(x.masses) >= 0 and sum(x.masses) >= 1 / 64,
        "losses in [-8, 8], spread at least 1/64": lambda x: max(map(abs, x.losses)) <= 8 and width(x) >= 1 / 64,
        "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
    },
    "scale": width,
}


def sampled(lhs, rhs, where=None, **changes) -> Claim[SampledLosses]:
    claim = replace(tv_bias_split(), label="planted", mutants=(), verifies=None, lhs=lhs, rhs=rhs, effort=1.0)
    assumptions = claim.assumptions if where is None else {**claim.assumptions, "and": where}
    return replace(claim, **{"relation": Relation.AT_MOST, "assumptions": assumptions, **changes})


def bias(x: SampledLosses, ambiguity: AmbiguitySet) -> float:
    return plugin_bias(x.losses, x.reference, x.n, ambiguity)


def chi2_dual(x: WeightedLosses, slope: float) -> float:
    losses, grid = np.array(x.losses), np.linspace(-40, max(x.losses), 20_001)
    excess = np.maximum(losses - grid[:, None], 0)
    return float(np.min(grid + slope * np.sqrt(excess**2 @ x.reference)))


def largest_weight(x: WeightedLosses) -> float:
    """The weight on the first of the largest losses."""
    weights = worst_case(np.array(x.losses), TotalVariation(x.radius), reference=x.reference).weights
    return float(weights[int(np.argmax(x.losses))])


def moved(x: WeightedLosses) -> np.ndarray:
    return np.array(x.losses) + np.arange(len(x.losses)) % 2


def kink(x: WeightedLosses) -> tuple[float, float]:
    """Value at losses moved by 1/64 along the first coordinate, and what the weights at the start predict."""
    losses, step = np.array(x.losses), np.eye(len(x.losses))[0] / 64
    worst = worst_case(losses, CVaR(max(x.radius, 1 / 64)), reference=x.reference)
    after = robust_loss(losses + step, CVaR(max(x.radius, 1 / 64)), reference=x.reference)
    return float(after), float(worst.value + worst.weights @ step)


def lightest(x: WeightedLosses) -> float:
    """The mass of the smallest losses."""
    return float(x.reference[np.array(x.losses) == min(x.losses)].sum())


def two(masses, radius, losses=(0.0, 1.0)) -> WeightedLosses:
    return WeightedLosses(losses, masses, radius)


LONG = Instances(SampledLosses, (rare(2, 0.5, 1), rare(4, 0.5, 8)), draws(64))

SETS: dict[str, Planted] = {
    "tv gap, constant 2 % too small": Planted(
        weighted(lambda x: value(x, TotalVariation(x.radius)) - x.mean, lambda x: 0.98 * x.radius * x.spread),
        TIGHT,
        two((1.0, 1.0), 0.25),
    ),
    "tv closed form without the factor 1 - rho: wrong only for negative losses": Planted(
        weighted(
            lambda x: value(x, TotalVariation(x.radius / 2)),
            lambda x: value(x, CVaR(1 - x.radius / 2)) + x.radius / 2 * max(x.losses),
        ),
        TIES,
        two((1.0, 1.0), 0.5, (-4.0, -3.0)),
    ),
    "chi2 dual with sqrt(2 rho) for sqrt(1 + 2 rho)": Planted(
        weighted(lambda x: value(x, ChiSquare(x.radius)), lambda x: chi2_dual(x, np.sqrt(2 * x.radius))),
        TIES,
        two((1.0, 1.0), 0.125),
    ),
    "chi2 variance with 1 % of the variance lost": Planted(
        weighted(
            lambda x: value(x, ChiSquare(x.radius)) - x.mean, lambda x: np.sqrt(0.99 * 2 * x.radius) * deviation(x)
        ),
        TIGHT,
        two((1.0, 1.0), 0.125),
    ),
    "first of the largest losses gets rho: wrong only at ties": Planted(
        weighted(lambda x: min(1.0, x.radius + float(x.reference[int(np.argmax(x.losses))])), largest_weight),
        TIES,
        WeightedLosses((0.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.25),
    ),
    "cvar gap (1 - alpha) range, 2 % too small": Planted(
        weighted(
            lambda x: value(x, CVaR(max(x.radius, 1 / 64))) - x.mean,
            lambda x: 0.98 * (1 - max(x.radius, 1 / 64)) * x.spread,
        ),
        TIGHT,
        two((1.0, 1.0), 0.5),
    ),
    "Pinsker with 2.05 for 2": Planted(
        weighted(lambda x: value(x, KL(2.05 * x.radius**2)), lambda x: value(x, TotalVariation(x.radius))),
        TIGHT,
        two((1.0, 1.0), 1 / 16),
    ),
    "robust loss 1-Lipschitz in the mean absolute difference": Planted(
        weighted(
            lambda x: abs(
                float(robust_loss(moved(x), ChiSquare(x.radius), reference=x.reference)) - value(x, ChiSquare(x.radius))
            ),
            lambda x: float(x.reference @ np.abs(moved(x) - np.array(x.losses))),
        ),
        TIES,
        two((1.0, 1.0), 0.125),
    ),
    "gradient instead of subgradient: wrong only at ties": Planted(
        weighted(lambda x: kink(x)[0], lambda x: kink(x)[1], relation=Relation.EQUAL),
        TIES,
        WeightedLosses((1.0, 1.0, 0.0), (1.0, 1.0, 2.0), 0.25),
    ),
    "value convex in the radius": Planted(
        weighted(lambda x: value(x, KL(x.radius / 2)), lambda x: (x.mean + value(x, KL(x.radius))) / 2),
        TIES,
        two((1.0, 1.0), 0.25),
    ),
    "transport as total variation without the 1/2 of its norm": Planted(
        weighted(
            lambda x: value(x, Wasserstein(x.radius, 1 - np.eye(len(x.losses)))),
            lambda x: value(x, TotalVariation(x.radius / 2)),
        ),
        TIES,
        two((1.0, 1.0), 0.25),
    ),
    "chi2 and tv balls nested the other way round": Planted(
        weighted(lambda x: value(x, TotalVariation(x.radius)), lambda x: value(x, ChiSquare(2 * x.radius**2))),
        TIES,
        WeightedLosses((-1.0, 0.0, 2.0), (1.0, 1.0, 1.0), 0.25),
    ),
    "max_ratio 4 forgotten": Planted(
        weighted(
            lambda x: value(x, TotalVariation(x.radius)), lambda x: value(x, TotalVariation(x.radius, max_ratio=4.0))
        ),
        TIES,
        two((15.0, 1.0), 0.5),
    ),
    "bias B / (n + 1)": Planted(
        sampled(lambda x: bias(x, TotalVariation(x.level)), lambda x: x.spread / (x.n + 1)), LARGE, rare(16, 0.5, 16)
    ),
    "bias rho B (1 - eps)^(n + 1), the smallest mass as eps": Planted(
        sampled(
            lambda x: bias(x, TotalVariation(x.level)),
            lambda x: x.level * x.spread * (1 - x.reference.min()) ** (x.n + 1),
        ),
        LARGE,
        rare(16, 0.25, 1),
    ),
    "bias of the maximum without rho": Planted(
        sampled(lambda x: bias(x, TotalVariation(x.level)), lambda x: x.level**2 * x.spread), LARGE, rare(64, 0.25, 1)
    ),
    "cvar bias at alpha >= 1/2 of order n^-0.6": Planted(
        sampled(
            lambda x: bias(x, CVaR(x.level)), lambda x: 0.62 * x.spread * x.n**-0.6, lambda x: x.level >= 1 / 2,
            instances=LONG,
        ),
        LARGE,
        rare(2, 0.5, 256),
    ),
    "cvar bias <= .272 B / sqrt(alpha n) at alpha >= 1/2": Planted(
        sampled(
            lambda x: bias(x, CVaR(x.level)) * np.sqrt(x.level * x.n), lambda x: 0.272 * x.spread,
            lambda x: x.level >= 1 / 2 and x.n >= 16, instances=replace(LONG, corners=(rare(8, 0.5, 16),)),
        ),
        TIGHT,
        rare(2, 0.5, 96),
    ),
    "Hoeffding's gap of the KL penalty, 2 % too small": Planted(
        weighted(
            lambda x: (value(x, KLPenalty(1 + 64 * x.radius)) - x.mean) * (1 + 64 * x.radius),
            lambda x: 0.98 * x.spread**2 / 8,
            instances=replace(BASE.instances, corners=(two((3.0, 1.0), 0.25),)),
            scale=lambda x: x.spread**2,
        ),
        TIGHT,
        two((1.0, 1.0), 1.0),
    ),
    "tv gap is rho times the range while rho is at most the mass of the least loss and .02": Planted(
        weighted(
            lambda x: value(x, TotalVariation(x.radius)) - x.mean,
            lambda x: min(x.radius, 1.0) * x.spread,
            relation=Relation.EQUAL,
            instances=replace(BASE.instances, corners=(two((1.0, 1.0), 0.25),)),
            **where("rho small", lambda x: x.radius <= lightest(x) + 0.02),
        ),
        END,
        two((1.0, 3.0), 0.265),
    ),
    "chi2 gap is the deviation, up to 1.2 of the radius where a weight vanishes": Planted(
        weighted(
            lambda x: value(x, ChiSquare(x.radius)) - x.mean,
            lambda x: np.sqrt(2 * x.radius) * deviation(x),
            relation=Relation.EQUAL,
            instances=replace(BASE.instances, corners=(two((1.0, 1.0), 0.25),)),
            **where("rho small", lambda x: x.radius <= 1.2 * deviation(x) ** 2 / (2 * (x.mean - min(x.losses)) ** 2)),
        ),
        END,
        two((1.0, 1.0), 0.55),
    ),
    "cvar is the largest loss while alpha is at most 1.01 of its mass": Planted(
        weighted(
            lambda x: max(x.losses),
            lambda x: value(x, CVaR(x.radius)),
            instances=replace(BASE.instances, corners=(two((1.0, 1.0), 0.25),)),
            **where(
                "alpha small",
                lambda x: 1 / 64 <= x.radius <= 1.01 * float(x.reference[np.array(x.losses) == max(x.losses)].sum()),
            ),
        ),
        END,
        two((1.0, 1.0), 0.503),
    ),
    "transport is total variation, scenarios without mass included": Planted(
        weighted(
            lambda x: value(x, Wasserstein(x.radius, 1 - np.eye(len(x.losses)))),
            lambda x: value(x, TotalVariation(x.radius)), **MASSLESS,
        ),
        ZERO,
        WeightedLosses((0.0, 1.0, 2.0), (1.0, 1.0, 0.0), 0.25),
    ),
    "at radius 1 the value is the largest loss": Planted(
        weighted(lambda x: max(x.losses), lambda x: value(x, TotalVariation(1.0)), **MASSLESS),
        ZERO,
        two((1.0, 0.0), 0.5),
    ),
    "some mass of at least 1/1024 everywhere: entropy of 1/p at most log 1024": Planted(
        weighted(lambda x: float(np.max(-np.log(np.maximum(x.reference, 1e-9)))), lambda x: 8.5, **MASSLESS),
        ZERO,
        two((1.0, 0.0), 0.5),
    ),
    "a mean of losses lies above the least by 1/2048 of the range": Planted(
        weighted(lambda x: width(x) / 2048, lambda x: x.mean - min(x.losses), **MASSLESS), ZERO, two((1.0, 0.0), 0.5)
    ),
    "a little tv moves the value by a tenth of it": Planted(
        weighted(
            lambda x: x.radius * width(x) / 10, lambda x: value(x, TotalVariation(x.radius)) - x.mean,
            **(MASSLESS | {"instances": Instances(
                WeightedLosses, (two((1.0, 1.0), 0.25),),
                st.builds(two, st.tuples(*[st.integers(8, 64).map(float)] * 2), dyadic(1 / 64, 3 / 8)),
            )}),
        ),
        ZERO,
        two((1.0, 0.0), 0.25),
    ),
}  # fmt: skip
