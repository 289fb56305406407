"""The repairs of tv-bias.md: what each set costs in bias, at one effective sample size."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import root_scalar

from dro_core import ChiSquare, CVaR, TotalVariation, bias_bound, inverse_cdf_bias_bound, worst_case
from synthetic import Estimate, plugin_bias
from synthetic.biases.without_enumeration import Layers, bradley_terry

from .simulation import LARGEST, chi2_biases, chi2_population, coin_biases, group_means, grouped_biases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RADIUS, BATCH, SOURCE, SHARE = 0.2, 64, 40_000, 0.05
MOMENT = round(1 + RADIUS + BATCH * RADIUS**2, 6)  # n sum q^2 of TotalVariation(RADIUS) on BATCH distinct losses
DEVIATION = 1.5  # of the reward difference of two answers, in nats
LAWS = {
    "true reward": bradley_terry(DEVIATION, trained=True),
    "uninformative": bradley_terry(DEVIATION, trained=False),
}
TV = TotalVariation(RADIUS)
TAILS = {
    "plain TV": TV,
    "TV, cap of the batch": TotalVariation(RADIUS, max_ratio=1 + BATCH * RADIUS),
    "TV, cap 8": TotalVariation(round((MOMENT - 1) / 8, 4), max_ratio=8),
    "CVaR": CVaR(round(1 / MOMENT, 4)),
}
CHI2 = ChiSquare(round((MOMENT - 1) / 2, 4))
NESTED = ChiSquare(round(2 * RADIUS**2, 4))
GROUPS = 8
SIZES = tuple(2**k for k in range(2, 15))


def population(law: Layers, ambiguity: TotalVariation | CVaR) -> float:
    """Worst-case value that a minibatch stands for: plain TV has none but that of the training set."""
    return law.plugin_value(SOURCE, ambiguity) if ambiguity == TV else law.value(ambiguity)


def share_of_gap(law: Layers, ambiguity: TotalVariation | CVaR, n: int) -> float:
    """Bias of n draws over the robust gap L - E l."""
    whole = population(law, ambiguity)
    return (whole - law.plugin_value(n, ambiguity)) / (whole - law.mean)


def largest_bias(ambiguity: TotalVariation | CVaR, n: int) -> float:
    """Largest bias of n draws over all losses in [0, 1]: that of some Bernoulli loss (claim bias-layers)."""
    rare = np.geomspace(1e-6 / n, 0.5, 400)
    chances = np.concatenate([rare, 1 - rare[::-1]])
    most = 0.0
    for _ in range(3):  # narrow the grid around its best point
        biases = [Layers(0.0, np.ones(1), np.array([p])).bias(n, ambiguity) for p in chances]
        best, most = int(np.argmax(biases)), max(most, *biases)
        chances = np.linspace(chances[max(best - 1, 0)], chances[min(best + 1, chances.size - 1)], 30)
    return most


def smallest(holds: Callable[[int], bool], most: int) -> int | None:
    """Smallest n up to ``most`` at which a condition that stays true holds."""
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, min(2 * high, most)
    if not holds(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class Repair(NamedTuple):
    """A row of the tables of repairs, as text; the pairs are for the two laws.

    Attributes:
        name: what is repaired.
        spec: the set.
        multiplier: largest n q_i on a batch of BATCH.
        gaps: L - E l in nats.
        worst: largest bias on BATCH draws over losses in an interval of length 1.
        shares: bias over gap on BATCH draws.
        enough: n for a worst bias of SHARE.
        sizes: n for a bias of SHARE of the gap.
    """

    name: str
    spec: str
    multiplier: str
    gaps: tuple[str, str]
    worst: str
    shares: tuple[str, str]
    enough: str
    sizes: tuple[str, str]


def repairs() -> list[Repair]:
    """Every repair at the effective sample size of plain TV on BATCH draws, and the nested chi-square ball."""
    smooth = tail_repair("plain TV, quantile slopes ≤ 2B", TV)._replace(
        worst=f"≤ {inverse_cdf_bias_bound(TV, BATCH, 2.0):.3f}",
        enough=f"≤ {smallest(lambda n: inverse_cdf_bias_bound(TV, n, 2.0) <= SHARE, 10**6)}",
        gaps=("", ""), shares=("no such slope",) * 2, sizes=("no such slope",) * 2,
    )  # fmt: skip
    tails = [tail_repair(name, ambiguity) for name, ambiguity in TAILS.items()]
    nested = chi2_repair("chi-square, radius 2 rho^2", NESTED)
    return [*tails, chi2_repair("chi-square", CHI2), grouped_repair(), smooth, nested]


def tail_repair(name: str, ambiguity: TotalVariation | CVaR) -> Repair:
    """Total variation and CVaR: all of it exact."""
    weights = np.asarray(worst_case(np.arange(float(BATCH)), ambiguity).weights)
    enough = smallest(lambda n: largest_bias(ambiguity, n) <= SHARE, 20_000) if ambiguity != TV else None
    needed = [smallest(lambda n, law=law: share_of_gap(law, ambiguity, n) <= SHARE, SOURCE) for law in LAWS.values()]
    return Repair(
        name,
        f"`{ambiguity}`",
        f"{BATCH * weights.max():.1f}",
        _pair([f"{population(law, ambiguity) - law.mean:.3f}" for law in LAWS.values()]),
        f"{largest_bias(ambiguity, BATCH):.3f}",
        _pair([percent(share_of_gap(law, ambiguity, BATCH)) for law in LAWS.values()]),
        f"{enough:,}" if enough else "none",
        _pair([f"{n:,}" if n else "none" for n in needed]),
    )


def chi2_repair(name: str, ambiguity: ChiSquare) -> Repair:
    """A chi-square ball: between a Bernoulli loss and a bound, and simulated at powers of 2."""
    at_least = partial(_largest_chi2, ambiguity)
    low = smallest(lambda n: at_least(n) <= SHARE, 4096)
    high = smallest(lambda n: bias_bound(ambiguity, n, 1.0) <= SHARE, 10**6)
    kinds = (True, False)
    found = [chi2_biases(DEVIATION, ambiguity, trained=trained) for trained in kinds]
    gaps = [
        chi2_population(DEVIATION, ambiguity, trained=trained) - law.mean
        for trained, law in zip(kinds, LAWS.values(), strict=True)
    ]
    return Repair(
        name,
        f"`{ambiguity}`",
        f"≤ {1 + (2 * ambiguity.radius * (BATCH - 1)) ** 0.5:.1f}",
        _pair([f"{gap:.3f}" for gap in gaps]),
        f"{at_least(BATCH):.3f} to {bias_bound(ambiguity, BATCH, 1.0):.3f}",
        _pair([interval(each[BATCH]) for each in found]),
        f"{low:,} to {high:,}",
        _pair([_first({n: float(e.high) for n, e in each.items()}) for each in found]),
    )


def grouped_repair() -> Repair:
    """Groups: simulated, and of either sign."""
    ambiguity = TotalVariation(grouped_radius())
    missed = plugin_bias([0, 1], [1 - 1 / GROUPS, 1 / GROUPS], BATCH, ambiguity)
    coins, found = coin_biases(ambiguity, GROUPS), grouped_biases(ambiguity, GROUPS)
    gap = float(worst_case(group_means(), ambiguity).value) - float(group_means().mean())
    return Repair(
        "8 groups",
        f"`{ambiguity},by=source`",
        f"{1 + GROUPS * ambiguity.radius:.1f}",
        (f"{gap:.3f}", ""),
        f"{coins[BATCH].value:.3f} and {missed:.1e}",
        (interval(found[BATCH]), ""),
        _first({n: -float(e.low) for n, e in coins.items()}),
        (_first({n: float(max(-e.low, e.high)) for n, e in found.items()}), ""),
    )


def _largest_chi2(ambiguity: ChiSquare, n: int) -> float:
    return max(plugin_bias([0, 1], [1 - p, p], n, ambiguity) for p in np.geomspace(1e-3, 0.5, 60))


def _first(upper: Mapping[int, float]) -> str:
    """First of the sizes from which on the upper limit stays below SHARE."""
    bad = [n for n, limit in upper.items() if limit > SHARE]
    good = [n for n in upper if n > max(bad, default=0)]
    return f"≤ {good[0]:,}" if good else f"> {LARGEST:,}"


def grouped_radius() -> float:
    """Radius of the TV ball on GROUPS equal groups with the same n sum q^2."""
    even, means = np.full(GROUPS, 1 / GROUPS), np.arange(GROUPS, dtype=float)

    def excess(radius: float) -> float:
        weights = np.asarray(worst_case(means, TotalVariation(radius), reference=even).weights)
        return float((weights**2).sum()) * GROUPS - MOMENT

    return round(root_scalar(excess, bracket=(0.0, 0.875)).root, 4)


def percent(share: float) -> str:
    """A share as text."""
    return f"{100 * share:.1f} %"


def interval(share: Estimate) -> str:
    """A simulated share as text."""
    return f"{percent(float(share.value))} ± {100 * float(share.high - share.value):.1f}"


def _pair(texts: list[str]) -> tuple[str, str]:
    first, second = texts
    return first, second
