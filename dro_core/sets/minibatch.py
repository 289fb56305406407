"""The objective of small batches, trained on large ones. See ``ambiguity``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from .._solvers import arrays
from .._solvers.arrays import Array
from .._solvers.problem import Problem, centre
from .ambiguity import AmbiguitySet, Dual, Polyhedral, checked_number, set_field
from .composition import Composite
from .sorted import CVaR, Spectral, TotalVariation


@dataclass(frozen=True, eq=False)
class Minibatch(Polyhedral, Composite):
    """What ``inner`` means to batches of ``draws``, on a batch of any larger number of scenarios.

    A worst case over a minibatch underestimates that of the population, and is the more modest the smaller the batch:
    another batch size is another objective. This is the objective of batches of ``draws``: the value is the mean, over
    all choices of ``draws`` scenarios out of the N given, of their own worst case. So its mean over independent draws
    is that of a batch of ``draws``, with the same gradient, and less noise.

    ``inner`` is a set whose value is linear in the sorted losses: total variation, CVaR or a spectrum. With q_1 <= ...
    <= q_n its weights on n losses in their order, the jth smallest of N gets sum_i q_i C(j-1, i-1) C(N-j, n-i) /
    C(N, n), and what is solved is ``Spectral`` of these. The scenarios must be equally likely.

    Args:
        inner: The set.
        draws: The batch size whose objective it is, an integer of at least 1. At 1 it is the mean.

    Dual: that of ``Spectral``.
    """

    draws: int
    option: ClassVar[str] = "minibatch"
    equally_likely: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.inner, (TotalVariation, CVaR, Spectral)):
            raise ValueError(
                f"`Minibatch.inner` must be linear in the sorted losses, got {self.inner}. Use TotalVariation, CVaR or "
                "Spectral; the options by and trim cannot stand before minibatch."
            )
        if self.inner.sizes is not None:
            raise ValueError(f"`Minibatch.inner` must have one number as its size, got {self.inner}.")
        meaning, remedy = "how many scenarios a batch has", "Give a whole number."
        number = checked_number("Minibatch.draws", meaning, "[1, 1e9]", self.draws, remedy)
        if number != int(number):
            raise ValueError(f"`Minibatch.draws` is {meaning}, got {self.draws!r}. {remedy}")
        set_field(self, "draws", int(number))

    @property
    def holds_only_reference(self) -> bool:
        """Whether the inner set is its reference alone, or every batch one scenario."""
        return self.draws == 1 or super().holds_only_reference

    def take(self, rows: Array) -> Minibatch:
        """Return the set itself: scenarios have no places."""
        return replace(self, inner=self.inner.take(rows))

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Solve for the weights by rank."""
        return self._spectral(problem).maximise(problem)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of those weights."""
        return self._spectral(problem).dual_value(problem, dual)

    def _text(self) -> str:
        return str(self.draws)

    def _spectral(self, problem: Problem) -> Spectral:
        n = problem.losses.shape[-1]
        if problem.reference is not None:
            raise ValueError("`Minibatch` is for equally likely scenarios, without masses; drop `reference`.")
        if n < self.draws:
            raise ValueError(
                f"`Minibatch.draws` is {self.draws}, the losses have {n} scenarios; give at least as many, or fewer "
                "draws."
            )
        return _by_rank(self.inner, self.draws, n)


@lru_cache(maxsize=64)
def _by_rank(inner: AmbiguitySet, size: int, n: int) -> Spectral:
    """Add one scenario at a time: without one of m + 1, that of rank j has rank j, or j - 1 if it lies above."""
    losses = np.arange(float(size))
    problem = centre(np, losses, None, (losses[-1:], losses[:1]))
    with arrays.quiet(np):
        weights: Any = inner.maximise(problem)[0]
    for m in range(size, n):
        rank = np.arange(1.0, m + 1)
        grown = np.zeros(m + 1)
        grown[:-1] = (m + 1 - rank) * weights
        grown[1:] += rank * weights
        weights = grown / (m + 1)
    rising = np.maximum.accumulate(weights)
    return Spectral(tuple((rising / rising.sum()).tolist()))


def minibatch(ambiguity: AmbiguitySet, n: int) -> Minibatch:
    """Return the set that trains, on a batch of N > n, the objective of batches of n; see ``Minibatch``.

    Raises:
        ValueError: Not total variation, CVaR or a spectrum, or n that is no positive integer.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR, worst_case
        >>> ranked = worst_case(np.array([0.0, 1.0, 2.0, 3.0]), minibatch(CVaR(0.5), 2))  # the mean larger one of two
        >>> (6 * ranked.weights).round(12).tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    return Minibatch(ambiguity, n)
