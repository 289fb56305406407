"""Exact worst cases in rational arithmetic.

Nothing here shares code with dro_core, only the definitions of the sets. Every exact value is found together with a
point of the set and with dual variables, and returned only if the two objectives are the same rational number: weak
duality then proves both optimal, however they were found. Floats are taken at their exact binary value, so that a
number like 0.1 is the nearest double to it.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    Number = int | float | Fraction


class _Plan(NamedTuple):
    gain: Fraction
    cost: Fraction
    targets: tuple[int, ...]


def exact_tv(
    losses: Sequence[Number], masses: Sequence[Number], radius: Number, max_ratio: Number | None = None
) -> Fraction:
    """Return the worst case over total variation, and over q <= max_ratio p if given, as a rational number.

        max_q <q, l>   s.t.   1/2 ||q - p||_1 <= radius,  q <= max_ratio p,  q in the simplex.

    Args:
        losses: ``(n,)``.
        masses: ``(n,)``, nonnegative, proportional to p; a scenario of mass 0 gets nothing.
        radius: In [0, 1].
        max_ratio: At least 1.

    Raises:
        ValueError: Something else was given.
        ArithmeticError: Primal and dual do not meet, which would be a mistake in this module.

    Example:
        >>> exact_tv([4, 0, 1, 2], [1, 1, 1, 1], 0.5)
        Fraction(7, 2)
        >>> exact_tv([4, 0, 1, 2], [1, 1, 1, 1], 0.5, max_ratio=2)
        Fraction(3, 1)
    """
    atoms, moved = _atoms(losses, masses), _within("radius", radius, 0, 1)
    if max_ratio is None:
        return _exchange(atoms, moved, None)
    return _exchange(atoms, moved, _within("max_ratio", max_ratio, 1, None))


def exact_cvar(losses: Sequence[Number], masses: Sequence[Number], alpha: Number) -> Fraction:
    """Return the mean of the worst ``alpha`` tail, max <q, l> over q <= p / alpha, as a rational number.

    Args and errors are those of ``exact_tv``; ``alpha`` lies in (0, 1].

    Example:
        >>> exact_cvar([4, 0, 1, 2], [1, 1, 1, 1], 0.375)
        Fraction(10, 3)
    """
    tail = _within("alpha", alpha, 0, 1)
    if tail == 0:
        raise ValueError("`alpha` must be positive, got 0. For the maximum use exact_tv with radius=1.")
    atoms, left, primal, threshold = _atoms(losses, masses), Fraction(1), Fraction(0), Fraction(0)
    for loss, mass in reversed(atoms):
        if left > 0:
            weight = min(mass / tail, left)
            left, primal, threshold = left - weight, primal + weight * loss, loss
    dual = threshold + sum(mass * max(loss - threshold, Fraction(0)) for loss, mass in atoms) / tail
    return _met(primal, dual)


def exact_wasserstein(
    losses: Sequence[Number], masses: Sequence[Number], cost: Sequence[Sequence[Number]], radius: Number
) -> Fraction:
    """Return the worst case over distributions reached at a mean cost of at most ``radius``, as a rational number.

    The dual radius t + E max_j (l_j - t cost_ij) is piecewise linear. At its lowest break the cheapest best plan costs
    no more than the radius and the dearest one no less; their mixture that costs exactly the radius is the maximiser.

    Args:
        losses: ``(n,)``.
        masses: ``(n,)``, nonnegative, proportional to p; a scenario of mass 0 may receive mass.
        cost: ``(n, n)``, nonnegative, zero on the diagonal.
        radius: At least 0.

    Raises:
        ValueError: Something else was given.
        ArithmeticError: Primal and dual do not meet, which would be a mistake in this module.

    Example:
        >>> exact_wasserstein([4, 0, 1, 2], [1, 1, 1, 1], [[abs(i - j) for j in range(4)] for i in range(4)], 0.5)
        Fraction(25, 8)
    """
    values, p = distribution(losses, masses)
    costs, budget = _costs(cost, len(values)), _within("radius", radius, 0, None)
    cheap, dear, share, price = _transport(values, p, costs, budget)
    return _met(cheap.gain + share * (dear.gain - cheap.gain), price * budget + cheap.gain - price * cheap.cost)


def transport_plan(
    losses: Sequence[Number], p: Sequence[Number], cost: Sequence[Sequence[Number]], radius: Number
) -> tuple[list[list[Fraction]], Fraction]:
    """Return how much mass ``exact_wasserstein`` sends from each scenario to each, ``(n, n)``, and the price of a way.

    Example:
        >>> transport_plan([0, 1], [1, 1], [[0, 1], [1, 0]], 0.25)
        ([[Fraction(1, 4), Fraction(1, 4)], [Fraction(0, 1), Fraction(1, 2)]], Fraction(1, 1))
    """
    values, masses = distribution(losses, p)
    cheap, dear, share, price = _transport(values, masses, _costs(cost, len(values)), Fraction(radius))
    plan = [[Fraction(0)] * len(values) for _ in values]
    for row, mass, near, far in zip(plan, masses, cheap.targets, dear.targets, strict=True):
        row[near] += (1 - share) * mass
        row[far] += share * mass
    return plan, price


def _transport(
    values: list[Fraction], p: list[Fraction], costs: list[list[Fraction]], budget: Fraction
) -> tuple[_Plan, _Plan, Fraction, Fraction]:
    """Return the cheapest and the dearest best plan at the lowest price that will do, the share of the latter, it."""
    prices = _breaks(values, costs)
    low, high = 0, len(prices) - 1  # the search keeps: at prices[high] the cheapest best plan is cheap enough
    while low < high:
        middle = (low + high) // 2
        affordable = _best_plan(values, p, costs, prices[middle], dearest=False).cost <= budget
        low, high = (low, middle) if affordable else (middle + 1, high)
    price = prices[high]
    cheap, dear = (_best_plan(values, p, costs, price, dearest=d) for d in (False, True))
    share = Fraction(0)
    if price > 0 and dear.cost > cheap.cost:
        share = min((budget - cheap.cost) / (dear.cost - cheap.cost), Fraction(1))
    if cheap.cost + share * (dear.cost - cheap.cost) > budget:
        raise ArithmeticError("the transport plan found is not feasible")
    return cheap, dear, share, price


def tv_dual(
    values: Sequence[Fraction],
    p: Sequence[Fraction],
    radius: Fraction,
    max_ratio: Fraction | None,
    multiplier: Fraction,
    threshold: Fraction,
) -> Fraction:
    """Return radius t + E [max(l, a) + (max_ratio - 1) (l - a - t)_+], an upper bound for every t >= 0 and a.

    Without ``max_ratio`` the bound needs a + t >= max l; a smaller multiplier t is raised to that.
    """
    ratio = Fraction(1) if max_ratio is None else max_ratio
    least = max(values) - threshold if max_ratio is None else Fraction(0)
    price = max(multiplier, least, Fraction(0))
    kept = sum(mass * max(loss, threshold) for loss, mass in zip(values, p, strict=True))
    added = sum(mass * max(loss - threshold - price, Fraction(0)) for loss, mass in zip(values, p, strict=True))
    return radius * price + kept + (ratio - 1) * added


def distribution(losses: Sequence[Number], masses: Sequence[Number]) -> tuple[list[Fraction], list[Fraction]]:
    """Return the losses and the masses divided by their sum, as rational numbers.

    Raises:
        ValueError: Not one nonnegative mass per loss, or no mass at all.
    """
    values, given = [Fraction(loss) for loss in losses], [Fraction(mass) for mass in masses]
    if len(values) != len(given) or min(given, default=-1) < 0 or sum(given) <= 0:
        what = "one nonnegative number per loss with a positive sum"
        raise ValueError(f"`masses` must be {what}, got {masses} for {len(losses)} losses.")
    whole = sum(given)
    return values, [mass / whole for mass in given]


def _within(name: str, value: Number, low: int, high: int | None) -> Fraction:
    exact = Fraction(value)
    if exact < low or (high is not None and exact > high):
        raise ValueError(f"`{name}` must lie in [{low}, {'inf)' if high is None else f'{high}]'}, got {value}.")
    return exact


def _atoms(losses: Sequence[Number], masses: Sequence[Number]) -> list[tuple[Fraction, Fraction]]:
    """Return (loss, mass), smallest loss first, without the scenarios of mass 0."""
    return sorted(atom for atom in zip(*distribution(losses, masses), strict=True) if atom[1] > 0)


def _costs(cost: Sequence[Sequence[Number]], n: int) -> list[list[Fraction]]:
    costs = [[Fraction(entry) for entry in row] for row in cost]
    if [len(row) for row in costs] != [n] * n or any(costs[i][i] for i in range(n)) or min(map(min, costs)) < 0:
        raise ValueError(f"`cost` must be {n} x {n}, nonnegative and zero on the diagonal, got {cost}.")
    return costs


def _met(primal: Fraction, dual: Fraction) -> Fraction:
    if primal != dual:
        raise ArithmeticError(
            f"primal {float(primal)!r} and dual {float(dual)!r} do not meet: neither proves the other"
        )
    return primal


def _exchange(atoms: list[tuple[Fraction, Fraction]], radius: Fraction, ratio: Fraction | None) -> Fraction:
    """Move mass from the smallest loss to the largest while that pays, the radius lasts and there is room."""
    room = [(radius if ratio is None else (ratio - 1) * mass) for _, mass in atoms]
    stock, left, bottom, top = [mass for _, mass in atoms], radius, 0, len(atoms) - 1
    weights = [mass for _, mass in atoms]
    while left > 0 and bottom < top:
        moved = min(left, stock[bottom], room[top])
        weights[bottom], weights[top] = weights[bottom] - moved, weights[top] + moved
        stock[bottom], room[top], left = stock[bottom] - moved, room[top] - moved, left - moved
        if left > 0:
            bottom, top = bottom + (stock[bottom] == 0), top - (room[top] == 0)
    primal = sum(weight * loss for weight, (loss, _) in zip(weights, atoms, strict=True))
    # Everything below the last donor was drained, everything above the last recipient is full.
    threshold = atoms[min(bottom, len(atoms) - 1)][0]
    multiplier = max(atoms[max(top, 0)][0] - threshold, Fraction(0))
    values, p = [loss for loss, _ in atoms], [mass for _, mass in atoms]
    return _met(Fraction(primal), tv_dual(values, p, radius, ratio, multiplier, threshold))


def _breaks(values: list[Fraction], costs: list[list[Fraction]]) -> list[Fraction]:
    """Return the prices at which the dual may bend, in order: a scenario weighs two targets equally there."""
    prices = {Fraction(0)}
    for row in costs:
        for j, k in combinations(range(len(row)), 2):
            if row[j] != row[k]:
                prices.add((values[j] - values[k]) / (row[j] - row[k]))
    return sorted(price for price in prices if price >= 0)


def _best_plan(
    values: list[Fraction], p: list[Fraction], costs: list[list[Fraction]], price: Fraction, *, dearest: bool
) -> _Plan:
    """Send every scenario's mass where it is worth most at that price; among ties, near or far."""
    gain, paid, targets = Fraction(0), Fraction(0), list[int]()
    for mass, row in zip(p, costs, strict=True):
        worth = [loss - price * entry for loss, entry in zip(values, row, strict=True)]
        best = [j for j, value in enumerate(worth) if value == max(worth)]
        target = (max if dearest else min)(best, key=row.__getitem__)
        gain, paid = gain + mass * values[target], paid + mass * row[target]
        targets.append(target)
    return _Plan(gain, paid, tuple(targets))
