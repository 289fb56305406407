"""The facts about single sets that the estimators and the bounds are made of."""

from __future__ import annotations

import numbers
from math import cosh, exp, expm1, floor, inf, lgamma, log, log1p, sqrt
from typing import NoReturn

from ..sets.ambiguity import AmbiguitySet, checked_number, require_one_size
from ..sets.burg import Burg, BurgPenalty
from ..sets.composed import Charged
from ..sets.divergences import KL, CressieRead, Hellinger
from ..sets.penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty
from ..sets.sorted import ChiSquare, CVaR, Spectral, TotalVariation

Tailed = CVaR | TotalVariation | Spectral

LAW_ONLY = (
    "none was worked out, it depends on more than the distribution of the losses (groups, costs, constraints), or is "
    "no supremum over a set (trimming). Bound the inner set, or enumerate small cases with synthetic.plugin_bias."
)


def refuse(ambiguity: AmbiguitySet, bound: str, why: str) -> NoReturn:
    """Raise the ValueError for a set without a bound."""
    raise ValueError(f"no {bound} is known for {ambiguity!r}: {why}")


def refuse_blindness(ambiguity: AmbiguitySet) -> None:
    """Raise ValueError where a loss of vanishing probability, which minibatches miss, keeps a fixed weight."""
    require_one_size(ambiguity)
    missed = "a loss of B whose probability is far below 1/n is missed by most minibatches, but has a weight of"
    if isinstance(ambiguity, TotalVariation) and ambiguity.max_ratio is None and ambiguity.radius > 0:
        remedy = "Use max_ratio=..., or inverse_cdf_bias_bound."
        refuse(ambiguity, "bias bound", f"{missed} {ambiguity.radius} in the population. {remedy}")
    if isinstance(ambiguity, (Hellinger, Burg)) or (isinstance(ambiguity, CressieRead) and ambiguity.order < 1):
        remedy = "Use CressieRead of an order above 1, or inverse_cdf_bias_bound."
        refuse(ambiguity, "bias bound", f"{missed} its own in the population. {remedy}")
    if isinstance(ambiguity, BurgPenalty) or (isinstance(ambiguity, CressieReadPenalty) and ambiguity.order < 1):
        remedy = "Use a penalty of an order of at least 1, or inverse_cdf_bias_bound."
        refuse(ambiguity, "bias bound", f"{missed} its own in the population where the price is low. {remedy}")
    if isinstance(ambiguity, Charged):
        refuse_blindness(ambiguity.base)


def checked_size(field: str, meaning: str, value: object) -> float:
    """Return a finite number, at least 0."""
    return checked_number(field, meaning, "[0, inf)", value, "Give a finite number that holds for every scenario.")


def checked_count(field: str, value: object) -> int:
    """Return a number of draws: an integer, at least 1."""
    if isinstance(value, numbers.Integral) and value is not True and int(value) >= 1:
        return int(value)
    raise ValueError(f"`{field}` is a number of draws, an integer in [1, inf), got {value!r}. Draw at least one.")


def checked_levels(n_min: object, n_max: object) -> int:
    """Return log2(n_max / n_min), an integer, at least 0."""
    smallest, largest = checked_count("n_min", n_min), checked_count("n_max", n_max)
    levels = max(0, (largest // smallest).bit_length() - 1)
    if smallest << levels != largest:
        raise ValueError(
            f"`n_max` is n_min times a power of 2, got n_min={smallest} and n_max={largest}. "
            f"Use n_max={smallest << levels}."
        )
    return levels


def checked_spread(loss_range: object, variance: object = None) -> tuple[float, float]:
    """Return the range B of the losses and their variance, which is at most B^2/4 (Popoviciu)."""
    spread = checked_size("loss_range", "the largest loss minus the smallest", loss_range)
    most = spread**2 / 4
    return spread, most if variance is None else min(most, checked_size("variance", "that of the losses", variance))


def tail_mixture(ambiguity: Tailed) -> list[tuple[float, float]]:
    """Write the value as sum_k mass_k CVaR_{alpha_k}, masses positive and summing to 1; alpha 0 is the maximum.

    Total variation of radius r is (1 - r) CVaR_{1 - r} + r max, with ``max_ratio`` c it is (1 - r) CVaR_{1 - r}
    + r CVaR_{r/(c - 1)}, or CVaR_{1/c} once c (1 - r) <= 1. Atoms do not matter: the two tails are cut from
    opposite ends and together hold no more than all mass, so if they share an atom, mass moves within it.

    Example:
        >>> tail_mixture(TotalVariation(0.25, max_ratio=3))
        [(0.75, 0.75), (0.25, 0.125)]
    """
    require_one_size(ambiguity)
    match ambiguity:
        case CVaR(alpha=alpha):
            tails = [(1.0, alpha)]
        case TotalVariation(radius=radius):
            ratio = ambiguity.max_ratio or inf
            binds = ratio < inf and ratio * (1 - radius) <= 1
            tails = [(1.0, 1 / ratio)] if binds else [(1 - radius, 1 - radius), (radius, radius / (ratio - 1))]
        case Spectral(spectrum=spectrum):
            k, falling = len(spectrum), [*reversed(spectrum), 0.0]
            tails = [(j * (falling[j - 1] - falling[j]), j / k) for j in range(1, k + 1)]
    return [(mass, alpha) for mass, alpha in tails if mass > 0]


def ratio_moment(ambiguity: AmbiguitySet, n: int | None = None, loss_range: float | None = None) -> float:
    """Return S of ``effective_sample_size_bound``; on any population if n is not given."""
    require_one_size(ambiguity)
    match ambiguity:
        case CVaR(alpha=alpha):
            moment = 1 / alpha if alpha else inf
        case TotalVariation(radius=0):
            moment = 1.0
        case TotalVariation(radius=radius):
            ratio = min(ambiguity.max_ratio or inf, 1 + (n or inf) * radius)
            moment = min(ratio, 1 + ratio * radius)
        case Spectral(spectrum=spectrum):
            moment = len(spectrum) * sum(share**2 for share in spectrum)
        case ChiSquare(radius=radius):
            moment = 1 + 2 * radius
        case CressieRead(order=order, radius=radius) if order > 1:
            power = 1 + order * (order - 1) * radius
            moment = power ** (1 / (order - 1)) if order >= 2 else power * (n or inf) ** (2 - order)
        case ChiSquarePenalty(strength=strength):
            x = _needed_spread(ambiguity, loss_range) / strength
            moment = x if x >= 2 else 1 + x * x / 4
        case KLPenalty(temperature=temperature):
            moment = cosh(min(_needed_spread(ambiguity, loss_range) / (2 * temperature), 300)) ** 2
        case CressieReadPenalty(order=order, strength=strength) if order > 1:
            x = (order - 1) * _needed_spread(ambiguity, loss_range) / strength
            moment = exp(min(log1p(x) / (order - 1), 700))
        case Charged(base=base, price=price):  # between a ball of KL and its price the larger temperature holds
            moment = ratio_moment(price if isinstance(base, KL) else base, n, loss_range)
        case KL() | CressieRead() | Hellinger() | Burg() | BurgPenalty() | CressieReadPenalty():
            refuse(ambiguity, "such bound", "a few draws may carry a mass that does not fall like 1/n.")
        case _:
            refuse(ambiguity, "such bound", LAW_ONLY)
    return moment if n is None else min(moment, float(n))


def ordered_moment(ambiguity: AmbiguitySet, n: int, loss_range: float | None) -> float:
    """Return S for sets whose weights are ordered by one threshold, or by several that move together."""
    if isinstance(ambiguity, (ChiSquare, KL, CressieRead, Charged)):
        why = "threshold and multiplier may move against each other [L20, Proposition 6]. Use CVaR or a penalty."
        refuse(ambiguity, "gradient variance bound", why)
    return ratio_moment(ambiguity, n, loss_range)


def difference_square(ambiguity: AmbiguitySet, k: int, loss_range: float | None) -> float:
    """Return d_k^2 of ``multilevel_second_moment_bound``."""
    if isinstance(ambiguity, Tailed):
        parts = (mass * sqrt((min(1 / a, k) if a else k) - 1) for mass, a in tail_mixture(ambiguity))
        return sum(parts) ** 2 / (k - 1)
    return (ordered_moment(ambiguity, k, loss_range) - 1) / (k - 1)


def _needed_spread(ambiguity: AmbiguitySet, loss_range: float | None) -> float:
    if loss_range is None:
        raise ValueError(f"`loss_range` is needed for {ambiguity!r}, whose weights depend on the scale of the losses.")
    return checked_spread(loss_range)[0]


def tail_bias(alpha: float, n: int) -> float:
    """Return E (1 - K/(alpha n))_+ for K binomial(n, alpha), by de Moivre's formula; 1 at alpha = 0.

    Example:
        >>> tail_bias(0.5, 1)
        0.5
    """
    if alpha == 0:
        return 1.0
    above = floor(alpha * n) + 1
    if above > n:
        return 0.0
    ways = lgamma(n) - lgamma(above) - lgamma(n - above + 1)  # above/n P(K = above), in logarithm
    return exp(ways + (above - 1) * log(alpha) + (n - above + 1) * log1p(-alpha))


def envelope_square(n: int) -> float:
    """Return int h'^2 for the envelope h(a) = min(a, 1 - a, sqrt(a (1 - a)/n)/2) of ``bias_bound``."""
    return (2 + log(4 * n)) / (8 * n)


def bennett(radius: float, variance: float) -> float:
    """Return v psi^-1(radius/v), the most that KL radius lifts the mean of a variable <= 1 of mean 0, variance v.

    psi(u) = (1 + u) log(1 + u) - u. This is the dual form of Bennett's inequality.
    """
    if radius == 0 or variance == 0:
        return 0.0
    cost = radius / variance
    root = sqrt(2 * cost) + cost / 3  # above the root, where Newton's steps stay: psi is convex
    for _ in range(10):
        root -= ((1 + root) * log1p(root) - root - cost) / log1p(root)
    return variance * root


def kl_ball(ambiguity: CressieRead) -> KL:
    """Return a KL ball that contains one of order k > 1: log E r^k >= (k - 1) KL, by Jensen under q."""
    order = ambiguity.order
    return KL(log1p(order * (order - 1) * ambiguity.radius) / (order - 1))


def hoelder(ambiguity: CressieRead, n: int) -> float:
    """Return ||r||_k ||h'_+||_s, 1/k + 1/s = 1 and 1 < k < 2, with h' <= 1 up to 1/(4n + 1), 1/(4 sqrt(a n)) beyond."""
    order = ambiguity.order
    conjugate, edge = order / (order - 1), 1 / (4 * n + 1)
    rate = conjugate / 2 - 1
    beyond = (1 / (16 * n * edge)) ** (conjugate / 2) * -expm1(rate * log(2 * edge)) / rate
    return (1 + order * (order - 1) * ambiguity.radius) ** (1 / order) * (edge * (1 + beyond)) ** (1 / conjugate)
