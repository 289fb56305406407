"""Pass rates of prompts and weights made of them: the instances of the claims about verifiable rewards."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from dro_core import Spectral, worst_case
from proofs_check.claim import Array, Assumptions

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[int, ...]
NEGLIGIBLE = 1e-12  # a gain of a smaller share is a rounding error: rates and weights are short fractions


@dataclass(frozen=True)
class Rates:
    """Pass rates of the prompts of a batch, in parts of a whole; the loss of a prompt is 1 less its rate."""

    parts: Row
    whole: int

    @property
    def exact(self) -> list[Fraction]:
        """The rates p."""
        return [Fraction(part, self.whole) for part in self.parts]

    @property
    def losses(self) -> Array:
        """1 - p, ``(n,)``."""
        return np.array([float(1 - p) for p in self.exact])


@dataclass(frozen=True)
class Weighted(Rates):
    """The same with a weight for each prompt, whoever made it."""

    weights: Row

    @property
    def work(self) -> float:
        """How many orders the weights have."""
        return float(factorial(len(self.weights)))


ADMITTED: Assumptions[Any] = {
    "rates in [0, 1], in parts of at most 64": lambda x: 0 <= min(x.parts) <= max(x.parts) <= x.whole <= 64,
}
MIXED: Assumptions[Any] = {
    "rates between 0 and 1, in parts of at most 64": lambda x: 0 < min(x.parts) <= max(x.parts) < x.whole <= 64,
}


def shares(weights: Sequence[Fraction | int]) -> list[Fraction]:
    """Return weights divided by their sum."""
    whole = sum(weights, Fraction(0))
    return [Fraction(weight) / whole for weight in weights]


def floats(numbers: Sequence[Fraction]) -> Array:
    """Return rational numbers as floats, ``(n,)``."""
    return np.array([float(number) for number in numbers])


def hull_value(weights: Array, losses: Array) -> float:
    """Return the worst mean over the hull of all permutations of weights that sum to 1.

    It is the least convex set that holds them and treats prompts alike; a spectral set, which dro_core solves.
    """
    ordered = np.sort(weights)
    return float(worst_case(losses, Spectral(tuple((ordered / ordered.sum()).tolist()))).value)


def missed(weights: Array, losses: Array) -> float:
    """Return how far the mean under weights that sum to 1 stays below the worst one of their hull."""
    return hull_value(weights, losses) - float(weights @ losses)


def is_worst(weights: Array, losses: Array) -> float:
    """Return 1 where no permutation of the weights has a larger mean loss, else 0."""
    return float(missed(weights / weights.sum(), losses) <= NEGLIGIBLE)


def exact_hull_value(weights: Sequence[Fraction], losses: Sequence[Fraction]) -> Fraction:
    """Return the largest mean loss over all permutations of the weights, by trying them: up to seven prompts."""
    return max(dot(order, losses) for order in permutations(weights))


def rises(rates: Sequence[Fraction], weights: Sequence[Fraction | int]) -> bool:
    """Whether a prompt with a larger rate has a larger weight than another."""
    return any((p - r) * (u - w) > 0 for (p, u), (r, w) in combinations(zip(rates, weights, strict=True), 2))


def largest_swap(rates: Sequence[Fraction], weights: Sequence[Fraction]) -> Fraction:
    """Return the most that the mean loss gains by swapping the weights of two prompts."""
    pairs = combinations(zip(rates, weights, strict=True), 2)
    return max([Fraction(0), *((p - r) * (u - w) for (p, u), (r, w) in pairs)])


def dot(one: Sequence[Fraction], two: Sequence[Fraction]) -> Fraction:
    """Return the inner product."""
    return sum((a * b for a, b in zip(one, two, strict=True)), Fraction(0))


def batches(
    least: int = 0, most: int = 6, *, inner: bool = False, wholes: tuple[int, ...] = (4, 8, 12, 16)
) -> st.SearchStrategy[Rates]:
    """Draw two to ``most`` rates of at least ``least`` parts; ``inner`` ones lie below 1."""

    def build(whole: int) -> st.SearchStrategy[Rates]:
        parts = st.lists(st.integers(least, whole - inner), min_size=2, max_size=most)
        return parts.map(lambda drawn: Rates(tuple(drawn), whole))

    return st.sampled_from(wholes).flatmap(build)
