"""What G answers to one prompt make of its weight, by enumerating all 2^G outcomes in rational numbers.

An advantage is a list of rational numbers over the square root of one, so that a standard deviation stays exact: sums
are kept by what stands under the root.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from itertools import product
from math import comb, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Advantage = Callable[[tuple[int, ...]], tuple[list[Fraction], Fraction]]

Root = dict[Fraction, Fraction]
"""Sum of coefficient / sqrt(key); keys may be perfect squares, as one sum is only compared with another like it."""


def expected_weight(advantage: Advantage, rate: Fraction, size: int) -> Root:
    """Return w with E 1/G sum_j A_j grad log P(r_j) = w grad p, as a sum over what stands under the root.

    Since grad log P(r) = (r - p)/(p (1 - p)) grad p, w is the mean of 1/G sum_j A_j (r_j - p)/(p (1 - p)).

    Args:
        advantage: Rewards 0 or 1 to (numerators, square): A_j = numerators_j / sqrt(square).
        rate: p, in (0, 1).
        size: G.

    Example:
        >>> from fractions import Fraction as F
        >>> expected_weight(lambda r: ([x - F(sum(r), len(r)) for x in r], F(1)), F(1, 3), 4)
        {Fraction(1, 1): Fraction(3, 4)}
    """
    sums: Root = defaultdict(Fraction)
    for rewards in product((0, 1), repeat=size):
        right = sum(rewards)
        chance = rate**right * (1 - rate) ** (size - right)
        numerators, square = advantage(rewards)
        sums[square] += chance * sum((a * (r - rate) for a, r in zip(numerators, rewards, strict=True)), Fraction(0))
    return {square: total / (size * rate * (1 - rate)) for square, total in sums.items() if total}


def mixed_mean(shape: Callable[[Fraction], tuple[Fraction, Fraction]], rate: Fraction, size: int) -> Root:
    """Return (G - 1)/G E f((1 + B)/G), B binomial with G - 2 draws: what A_j = f(mean r) (r_j - mean r) weighs.

    Args:
        shape: f, as (numerator, square): f = numerator / sqrt(square); asked at the rates of groups with both outcomes.
        rate: p.
        size: G, at least 2.

    Example:
        >>> from fractions import Fraction as F
        >>> mixed_mean(lambda rate: (1 / rate, F(1)), F(1, 2), 3)
        {Fraction(1, 1): Fraction(3, 2)}
    """
    sums: Root = defaultdict(Fraction)
    for more in range(size - 1):
        chance = comb(size - 2, more) * rate**more * (1 - rate) ** (size - 2 - more)
        numerator, square = shape(Fraction(1 + more, size))
        sums[square] += chance * numerator * Fraction(size - 1, size)
    return {square: total for square, total in sums.items() if total}


def sampled_mean(shape: Callable[[Fraction], Fraction], rate: Fraction, size: int) -> Fraction:
    """Return E f(S/G), S binomial with G draws: the Bernstein polynomial of f at p.

    Example:
        >>> from fractions import Fraction as F
        >>> sampled_mean(lambda rate: (1 - rate) ** 2, F(1, 2), 2)
        Fraction(3, 8)
    """
    chances = (comb(size, s) * rate**s * (1 - rate) ** (size - s) for s in range(size + 1))
    return sum((chance * shape(Fraction(s, size)) for s, chance in enumerate(chances)), Fraction(0))


def as_float(root: Root) -> float:
    """Return the number."""
    return sum(float(numerator) / sqrt(square) for square, numerator in root.items())
