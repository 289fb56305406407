"""The true worst-case values, found without the code under test, in extended precision.

Every function takes one problem, float64 losses ``(n,)`` with a uniform reference, and returns the value of the
set. Where it is the minimum of a dual over one scalar, the scalar needs only float64: the value errs by the
square of its error, and every scalar gives an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

import dro_core as dc

Losses = np.ndarray


def _top(losses: Losses, mass: float) -> np.longdouble:
    """Integrate the largest losses over a share ``mass`` of the scenarios, the last one in part."""
    ordered = np.sort(losses)[::-1].astype(np.longdouble)
    count = np.longdouble(mass) * len(losses)
    whole = min(int(count), len(losses) - 1)
    return (ordered[:whole].sum() + (count - whole) * ordered[whole]) / len(losses)


def _root(slope: Callable[[float], float], low: float, high: float) -> float:
    """Return where an increasing function crosses zero, an end of the interval if it does not."""
    if slope(low) >= 0:
        return low
    return high if slope(high) <= 0 else float(brentq(slope, low, high, xtol=1e-13, rtol=1e-14))


def total_variation(losses: Losses, ball: dc.TotalVariation) -> np.longdouble:
    """(1 - radius) CVaR_{1 - radius} + radius times the maximum, or with max_ratio a second CVaR, while both fit."""
    if ball.max_ratio is None:
        return _top(losses, 1 - ball.radius) + np.longdouble(ball.radius) * losses.max()
    raised = ball.radius / (ball.max_ratio - 1)
    if raised > 1 - ball.radius:
        return _top(losses, 1 / ball.max_ratio) * ball.max_ratio
    return _top(losses, 1 - ball.radius) + (ball.max_ratio - 1) * _top(losses, raised)


def cvar(losses: Losses, tail: dc.CVaR) -> np.longdouble:
    """The mean of the worst ``alpha``."""
    return _top(losses, tail.alpha) / tail.alpha


def spectral(losses: Losses, mixture: dc.Spectral) -> np.longdouble:
    """Every share's weight times the mean loss of the share."""
    k = len(mixture.spectrum)
    below = np.array([_top(losses, j / k) for j in range(k + 1)])
    return (np.diff(below) * k * np.array(mixture.spectrum[::-1], dtype=np.longdouble)).sum()


def trimmed_cvar(losses: Losses, trimmed: dc.Trimmed) -> np.longdouble:
    """The mean of the worst alpha of what is left after the trimming."""
    assert isinstance(trimmed.inner, dc.CVaR)
    mass = trimmed.inner.alpha * (1 - trimmed.fraction)
    return (_top(losses, trimmed.fraction + mass) - _top(losses, trimmed.fraction)) / mass


def grouped(losses: Losses, groups: dc.Grouped) -> np.longdouble:
    """The inner set on the means of groups of equal size."""
    means = losses.astype(np.longdouble)[np.argsort(groups.groups, kind="stable")].reshape(groups.count, -1).mean(1)
    return total_variation(means, groups.inner)


def power(losses: Losses, ball: dc.ChiSquare | dc.CressieRead) -> np.longdouble:
    """inf_eta eta + c (E (l - eta)_+^s)^{1/s} with s = k/(k-1), c = (1 + k (k-1) radius)^{1/k}; k = 2 is chi-square."""
    k = getattr(ball, "order", 2.0)
    s, factor = k / (k - 1), (1 + k * (k - 1) * ball.radius) ** (1 / k)

    def slope(eta: float) -> float:
        excess = np.clip(losses - eta, 0.0, None)
        return 1 - factor * np.mean(excess ** (s - 1)) / np.mean(excess**s) ** (1 - 1 / s)

    spread = float(np.ptp(losses)) or 1.0
    eta = _root(slope, float(losses.min()) - 1e3 * spread, float(losses.max()) - 1e-9 * spread)
    excess = np.clip(losses.astype(np.longdouble) - eta, 0.0, None)
    return eta + factor * np.mean(excess**s) ** (1 / np.longdouble(s))


def _log_mean_exp(losses: Losses, temperature: float) -> np.longdouble:
    high = losses.max()
    scaled = (losses - high).astype(np.longdouble) / temperature
    return high + temperature * np.log(np.mean(np.exp(scaled)))


def kl(losses: Losses, ball: dc.KL) -> np.longdouble:
    """inf_t t radius + t log E exp(l / t)."""
    centred = losses - losses.max()

    def slope(log_temperature: float) -> float:
        tilted = np.exp(centred / np.exp(log_temperature))
        mean = np.dot(tilted, centred) / tilted.sum()
        return ball.radius - (mean / np.exp(log_temperature) - np.log(tilted.mean()))

    spread = float(np.ptp(losses)) or 1.0
    temperature = float(np.exp(_root(slope, np.log(1e-3 * spread), np.log(1e6 * spread))))
    return temperature * np.longdouble(ball.radius) + _log_mean_exp(losses, temperature)


def kl_penalty(losses: Losses, price: dc.KLPenalty) -> np.longdouble:
    """The log of a mean of exponentials."""
    return _log_mean_exp(losses, price.temperature)


def chi2_penalty(losses: Losses, price: dc.ChiSquarePenalty) -> np.longdouble:
    """inf_eta eta + E (l - eta)_+^2 / (2 strength) + strength / 2."""

    def slope(eta: float) -> float:
        return 1 - np.mean(np.clip(losses - eta, 0.0, None)) / price.strength

    eta = _root(slope, float(losses.min()) - price.strength - 1.0, float(losses.max()))
    excess = np.clip(losses.astype(np.longdouble) - eta, 0.0, None)
    return eta + np.mean(excess**2) / (2 * np.longdouble(price.strength)) + np.longdouble(price.strength) / 2


def wasserstein(losses: Losses, ball: dc.Wasserstein) -> np.longdouble:
    """inf_t t radius + mean_i max_j (l_j - t cost_ij): a piecewise linear function, bracketed until two lines meet."""

    def line(price: float) -> tuple[np.longdouble, np.longdouble]:
        """The value at a price, and the slope to its right."""
        best = np.argmax(losses[None, :] - price * ball.cost, axis=1)
        moved = np.take_along_axis(ball.cost, best[:, None], axis=1).astype(np.longdouble).mean()
        slope = np.longdouble(ball.radius) - moved
        return price * slope + losses[best].astype(np.longdouble).mean(), slope

    low, high = np.longdouble(0), np.longdouble(2 * np.ptp(losses) / ball.cost[ball.cost > 0].min())
    (low_value, low_slope), (high_value, high_slope) = line(low), line(high)
    while low_slope < 0:
        price = (high_value - low_value + low_slope * low - high_slope * high) / (low_slope - high_slope)
        value, slope = line(price)
        if value <= low_value + low_slope * (price - low) + 1e-15 * abs(value) or not low < price < high:
            return value
        if slope < 0:
            low, low_value, low_slope = price, value, slope
        else:
            high, high_value, high_slope = price, value, slope
    return low_value


def objective(losses: Losses, weights: np.ndarray, ambiguity: dc.AmbiguitySet) -> np.longdouble:
    """Return what weights achieve, ``(n,)`` each: <q, l>, less the price where the problem is a penalty."""
    q, n = weights.astype(np.longdouble), len(losses)
    value = (q * losses).sum()
    if isinstance(ambiguity, dc.KLPenalty):
        seen = q[q > 0]
        return value - ambiguity.temperature * (seen * np.log(seen * n)).sum()
    if isinstance(ambiguity, dc.ChiSquarePenalty):
        return value - np.longdouble(ambiguity.strength) / 2 * np.mean((q * n - 1) ** 2)
    return value
