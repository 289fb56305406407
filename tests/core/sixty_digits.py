"""Worst-case values in 60-digit arithmetic, by formulas of the docstrings and bisection: no code of dro_core.

Losses and masses are the floats that the solver sees; masses are divided by their exact sum. Nothing is centred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mpmath as _untyped

mp: Any = _untyped.mp.clone()
mp.dps = 60
Numbers = list[Any]


def levels(losses: Sequence[float], masses: Sequence[float]) -> tuple[Numbers, Numbers]:
    """Distinct losses of positive mass, largest first, and the mass of each, which sum to 1."""
    whole = mp.fsum(masses)
    seen: dict[float, Any] = {}
    for loss, mass in zip(losses, masses, strict=True):
        if mass > 0:
            seen[float(loss)] = seen.get(float(loss), mp.mpf(0)) + mp.mpf(float(mass)) / whole
    ordered = sorted(seen, reverse=True)
    return [mp.mpf(loss) for loss in ordered], [seen[loss] for loss in ordered]


def mean(values: Numbers, masses: Numbers) -> Any:
    return mp.fdot(values, masses)


def total_variation(radius: float, losses: Numbers, p: Numbers) -> Any:
    """The dual is piecewise linear in its threshold, so a loss is a best one."""
    rho = mp.mpf(radius)
    return min(rho * (losses[0] - a) + mean([max(loss, a) for loss in losses], p) for a in losses)


def capped_variation(radius: float, ratio: float, losses: Numbers, p: Numbers) -> Any:
    """Likewise in both levels."""
    rho, more = mp.mpf(radius), mp.mpf(ratio) - 1
    return min(
        rho * (b - a) + mean([max(loss, a) + more * max(loss - b, 0) for loss in losses], p)
        for a in losses
        for b in losses
        if b >= a
    )


def cvar(alpha: float, losses: Numbers, p: Numbers) -> Any:
    return min(a + mean([max(loss - a, 0) for loss in losses], p) / mp.mpf(alpha) for a in losses)


def spectral(spectrum: Sequence[float], losses: Numbers, p: Numbers) -> Any:
    """The spectral mass of every level: the share of each part of the spectrum that lies in its interval of p."""
    k, before, value = len(spectrum), mp.mpf(0), mp.mpf(0)
    for loss, mass in zip(losses, p, strict=True):
        after = before + mass
        for j, part in enumerate(reversed([mp.mpf(float(part)) for part in spectrum])):
            overlap = min(after, mp.mpf(j + 1) / k) - max(before, mp.mpf(j) / k)
            value += loss * part * k * max(overlap, 0)
        before = after
    return value


def transport(radius: float, cost: Any, losses: Numbers, p: Numbers) -> Any:
    """The dual is piecewise linear in the price; scenarios are distinct levels here, largest loss first."""
    n, c = len(losses), [[mp.mpf(float(entry)) for entry in row] for row in cost]
    prices = {mp.mpf(0)}
    for row in c:
        prices |= {(losses[j] - losses[k]) / (row[j] - row[k]) for j in range(n) for k in range(n) if row[j] != row[k]}

    def bound(price: Any) -> Any:
        reached = [max(losses[j] - price * c[i][j] for j in range(n)) for i in range(n)]
        return mp.mpf(radius) * price + mean(reached, p)

    return min(bound(price) for price in prices if price >= 0)


def _supports(losses: Numbers, p: Numbers) -> list[tuple[Any, Any, Any]]:
    """Mass, mean and variance of the largest 1, 2, ... levels; measured from the lowest, so that nothing cancels."""
    found: list[tuple[Any, Any, Any]] = []
    for count in range(1, len(losses) + 1):
        low, mass = losses[count - 1], mp.fsum(p[:count])
        above = [loss - low for loss in losses[:count]]
        first = mean(above, p[:count]) / mass
        found.append((mass, low + first, mean([(d - first) ** 2 for d in above], p[:count]) / mass))
    return found


def chi_square(radius: float, losses: Numbers, p: Numbers) -> Any:
    """Of all supports that can meet the radius the largest whose threshold lies below it."""
    with mp.workdps(700):
        limit, best = 1 + 2 * mp.mpf(radius), losses[0]
        if radius == 0:
            return mean(losses, p)
        for count, (mass, middle, variance) in enumerate(_supports(losses, p), 1):
            surplus = limit * mass - 1
            if surplus > 0 and middle - mp.sqrt(variance / surplus) <= losses[count - 1]:
                best = middle + mp.sqrt(variance * surplus)
        return best


def chi_square_penalty(strength: float, losses: Numbers, p: Numbers) -> Any:
    """q = p (l - eta)_+ / strength, with the eta that makes it sum to one on its support."""
    with mp.workdps(700):
        price = mp.mpf(strength)
        if mp.isinf(price):
            return mean(losses, p)
        for count, (mass, middle, _) in enumerate(_supports(losses, p), 1):
            threshold = middle - price / mass
            if count == len(losses) or threshold >= losses[count]:
                q = [m * (loss - threshold) / price for loss, m in zip(losses[:count], p[:count], strict=True)]
                inside = [qi**2 / m for qi, m in zip(q, p[:count], strict=True)]
                return mean(q, losses[:count]) - price / 2 * (mp.fsum(inside) - 1)
        raise AssertionError


def kl_penalty(temperature: float, losses: Numbers, p: Numbers) -> Any:
    t = mp.mpf(temperature)
    if mp.isinf(t):
        return mean(losses, p)
    return losses[0] + t * mp.log(mean([mp.exp((loss - losses[0]) / t) for loss in losses], p))


def _bisected(divergence: Callable[[Any], Any], radius: Any, low: Any, high: Any) -> Any:
    """The y in [low, high] at which an increasing divergence of exp(y) reaches the radius, to 54 digits.

    By halving, and once the divergence bends little by secants, pushed a little across the root so that both ends
    close in, and never so far from the middle that it takes more steps than halving.
    """
    low, high, close = mp.mpf(low), mp.mpf(high), mp.mpf(10) ** -54
    while high - low > 1 / 256:
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(middle) < radius else (low, middle)
    below, above, allowed = divergence(low) - radius, divergence(high) - radius, high - low
    while (width := high - low) > close:
        middle = (low + high) / 2
        ahead = 1
        if mp.isfinite(above) and below < 0 < above:
            secant = (low * above - high * below) / (above - below)
            ahead = 1 if secant < middle else -1
            near = middle - ahead * max(allowed - width / 2, 0)
            guess = secant + ahead * min(width**2 / 8, abs(middle - secant))
            middle = max(guess, near) if ahead == 1 else min(guess, near)
        allowed /= 2
        found = divergence(middle) - radius
        if found < 0:
            low, below = middle, found
        else:
            high, above = middle, found
    return low


def _phi(order: Any, r: Any) -> Any:
    """(r^k - k r + k - 1) / (k (k - 1)), and its limit r log r - r + 1."""
    if order == 1:
        return (r * mp.log(r) if r > 0 else 0) - r + 1
    if order == 0:
        return r - 1 - mp.log(r) if r > 0 else mp.inf
    return ((r**order if r > 0 else 0) - order * r + order - 1) / (order * (order - 1))


def divergence_ball(order: float, radius: float, losses: Numbers, p: Numbers) -> Any:
    """E phi_k(q/p) <= radius, with Burg at order 0 and KL at order 1: the tilt that meets the radius."""
    with mp.workdps(120):
        k, rho = mp.mpf(order), mp.mpf(radius)
        whole = p[0] * _phi(k, 1 / p[0]) + (1 - p[0]) * _phi(k, mp.mpf(0)) if len(p) > 1 else mp.mpf(0)
        if len(p) == 1 or rho >= whole:
            return losses[0]
        if rho == 0:
            return mean(losses, p)

        def weights(shape: Numbers) -> Numbers:
            masses = [m * s for m, s in zip(p, shape, strict=True)]
            return [m / mp.fsum(masses) for m in masses]

        def spread(shape: Numbers) -> Any:
            return mean([_phi(k, q / m) for q, m in zip(weights(shape), p, strict=True)], p)

        shape = _tilted(k, rho, losses, spread)
        return mean(losses, weights(shape))


def power_penalty(order: float, strength: float, losses: Numbers, p: Numbers) -> Any:
    """price E phi_k(q/p), k not 1: q = p ((k - 1) (l - cut) / price)_+^{1/(k-1)}, cut where that sums to 1."""
    with mp.workdps(120):
        k, price = mp.mpf(order), mp.mpf(strength)
        if mp.isinf(price):
            return mean(losses, p)
        a, kept = 1 / (k - 1), 0
        if k > 1:

            def beyond(i: int) -> Any:
                return mean([max((k - 1) * (loss - losses[i]) / price, 0) ** a for loss in losses], p)

            kept = max(i for i in range(len(losses)) if beyond(i) < 1)
            lowest, seen = losses[kept], range(kept + 1)
            shapes = lambda y: [(k - 1) * (losses[i] - lowest + mp.exp(y)) / price for i in seen]  # noqa: E731
        else:
            seen = range(len(losses))
            shapes = lambda y: [(1 - k) * (losses[0] - losses[i] + mp.exp(y)) / price for i in seen]  # noqa: E731
        masses = [p[i] for i in seen]
        rising = 1 if k > 1 else -1
        y = _bisected(lambda y: rising * mean([s**a for s in shapes(y)], masses), rising, -2000, 2000)
        ratios = [s**a for s in shapes(y)]
        whole = mean(ratios, masses)
        ratios = [r / whole for r in ratios] + [mp.mpf(0)] * (len(losses) - len(masses))
        earned = mp.fsum(m * r * loss for m, r, loss in zip(p, ratios, losses, strict=True))
        return earned - price * mean([_phi(k, r) for r in ratios], p)


def charged(most: Callable[[Any], Any], kind: str, price: float, losses: Numbers, p: Numbers) -> Any:
    """max <q, l> - price E phi(q/p) under q(A) <= most(p(A)), phi of "kl" or "chi2": the best of all ways to pool.

    At the best q some of the bounds on the largest levels are met, and between two of them the price alone shares.
    """
    with mp.workdps(700):
        t, n = mp.mpf(price), len(losses)
        if mp.isinf(t):
            return mean(losses, p)
        before = [mp.fsum(p[:i]) for i in range(n + 1)]
        bound = [mp.mpf(0), *(min(most(mass), 1) for mass in before[1:n]), mp.mpf(1)]
        best = None
        for chosen in range(2 ** (n - 1)):
            ends = [i + 1 for i in range(n - 1) if chosen >> i & 1] + [n]
            q: Numbers = []
            for start, end in zip([0, *ends], ends, strict=False):
                q += _shared(kind, t, bound[end] - bound[start], losses[start:end], p[start:end])
            so_far = [mp.fsum(q[:i]) for i in range(n + 1)]
            if min(q) >= 0 and all(
                has <= allowed + mp.mpf(10) ** -90 for has, allowed in zip(so_far, bound, strict=True)
            ):
                order = 1 if kind == "kl" else 2
                value = mean(losses, q) - t * mean([_phi(order, qi / m) for qi, m in zip(q, p, strict=True)], p)
                best = value if best is None else max(best, value)
        return best


def _shared(kind: str, price: Any, mass: Any, losses: Numbers, p: Numbers) -> Numbers:
    """How the price alone shares a mass among levels."""
    if kind == "kl":
        shape = [m * mp.exp((loss - losses[0]) / price) for loss, m in zip(losses, p, strict=True)]
        return [mass * s / mp.fsum(shape) for s in shape]
    level = (mean(losses, p) - price * (mass - mp.fsum(p))) / mp.fsum(p)
    return [m * (1 + (loss - level) / price) for loss, m in zip(losses, p, strict=True)]


def _tilted(k: Any, rho: Any, losses: Numbers, spread: Callable[[Numbers], Any]) -> Numbers:
    """The shape of q/p whose divergence is rho."""
    if k == 1:

        def soft(y: Any) -> Numbers:
            return [mp.exp(mp.exp(y) * (loss - losses[0])) for loss in losses]

        return soft(_bisected(lambda y: spread(soft(y)), rho, -200, 60))
    if k < 1:

        def pole(y: Any) -> Numbers:
            room = mp.exp(-y)  # between the largest loss and the pole
            return [((losses[0] - loss) / room + 1) ** (1 / (k - 1)) for loss in losses]

        return pole(_bisected(lambda y: spread(pole(y)), rho, -400, 6000))
    # Above 1: the last level above the threshold first, then how far below it the threshold lies.
    kept = _lowest_kept(k, rho, losses, spread)

    def cut(y: Any) -> Numbers:
        room = mp.exp(-y)
        return [
            ((loss - losses[kept]) + room) ** (1 / (k - 1)) if i <= kept else mp.mpf(0) for i, loss in enumerate(losses)
        ]

    return cut(_bisected(lambda y: spread(cut(y)), rho, -400, 6000))


def _lowest_kept(k: Any, rho: Any, losses: Numbers, spread: Callable[[Numbers], Any]) -> int:
    """The last level that gets weight: with the threshold right at it, the divergence would exceed rho."""
    for i in range(len(losses) - 1, 0, -1):
        if spread([max(loss - losses[i], mp.mpf(0)) ** (1 / (k - 1)) for loss in losses]) > rho:
            return i
    return 0
