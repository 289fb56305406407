"""The worst-case pair loss on a finite population, where objective, optimum and minibatch bias are known."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import exp, log
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import multinomial

from dro_core import AmbiguitySet, fit_pairs, worst_case
from synthetic.biases.bias import sample_counts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_MOST_CELLS = 20_000


class Optimum(NamedTuple):
    """The best parameters in the ball, shape ``(d,)``, their value and a proven lower bound of the minimum, in nats."""

    parameters: Array
    value: float
    bound: float


class Supremum(NamedTuple):
    """A supremum: it lies between the largest value ``reached`` and the proven upper ``bound``."""

    reached: float
    bound: float


@dataclass(frozen=True, eq=False)
class RobustPairs:
    """The worst-case pair loss of linear rewards, or of log-linear policies, over a finite population.

        min_w max_q sum_i q_i softplus(-h_i(w)),   h_i(w) = beta <w - start, x_i>,   ||w - start|| <= radius,

    q in ``ambiguity`` around the masses p. `reward` and `dpo` build it from the features of the answers.

    Args:
        differences: The x_i, shape ``(m, d)``.
        masses: p, shape ``(m,)``, positive, summing to 1.
        ambiguity: A set that sees only the distribution of the losses: total variation, CVaR or a divergence.
        radius: R of the ball, positive.
        beta: Scale of the margins, positive.
        start: Where the methods start and the centre of the ball, shape ``(d,)``; 0 by default.

    Raises:
        ValueError: Shapes that do not fit, masses that are no distribution, no pair that differs, R or beta <= 0.

    Example:
        >>> from dro_core import TotalVariation
        >>> problem = RobustPairs([[1.0], [-1.0]], [0.75, 0.25], TotalVariation(0.125), radius=2.0)
        >>> problem.losses([0.0]).round(4).tolist(), round(float(problem.objective([0.5])), 4)
        ([0.6931, 0.6931], 0.6616)
        >>> round(float(problem.optimum.parameters[0]), 4), problem.optimum.value - problem.optimum.bound < 1e-9
        (0.5108, True)
    """

    differences: ArrayLike
    masses: ArrayLike
    ambiguity: AmbiguitySet
    radius: float
    beta: float = 1.0
    start: ArrayLike | None = None

    def __post_init__(self) -> None:
        rows, masses = np.asarray(self.differences, float), np.asarray(self.masses, float)
        if rows.ndim != 2 or masses.shape != rows.shape[:1] or not rows.any():
            raise ValueError(
                f"differences must be (m, d), not all zero, and masses (m,), got {rows.shape} and {masses.shape}: "
                "give one row and one mass per pair."
            )
        if not (np.all(masses > 0) and abs(masses.sum() - 1) <= 1e-9):
            raise ValueError(f"masses must be positive and sum to 1, got {masses.tolist()}: divide by the sum.")
        for name in ("radius", "beta"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must lie in (0, inf), got {getattr(self, name)}: choose a finite size.")
        start = np.zeros(rows.shape[1]) if self.start is None else np.asarray(self.start, float)
        if start.shape != rows.shape[1:]:
            raise ValueError(f"start must have shape {rows.shape[1:]}, one entry per feature, got {start.shape}.")
        for name, exact in (("differences", rows), ("masses", masses), ("start", start)):
            object.__setattr__(self, name, exact)

    @classmethod
    def reward(
        cls, chosen: ArrayLike, rejected: ArrayLike, masses: ArrayLike, ambiguity: AmbiguitySet, *, radius: float
    ) -> Self:
        """Build the problem of Algorithm 1 from features of shape ``(m, d)``: rewards <w, features>, start 0."""
        return cls(np.asarray(chosen, float) - np.asarray(rejected, float), masses, ambiguity, radius)

    @classmethod
    def dpo(
        cls,
        chosen: ArrayLike,
        rejected: ArrayLike,
        masses: ArrayLike,
        ambiguity: AmbiguitySet,
        *,
        radius: float,
        beta: float,
        reference_policy: ArrayLike,
    ) -> Self:
        """Build the problem of Algorithm 3: policies proportional to exp <w, features>, starting at the reference.

        h = beta [log pi_w/pi_ref (chosen) - log pi_w/pi_ref (rejected)] is linear: the normalisers of a prompt cancel.
        """
        rows = np.asarray(chosen, float) - np.asarray(rejected, float)
        return cls(rows, masses, ambiguity, radius, beta, reference_policy)

    @cached_property
    def _slopes(self) -> Array:
        """The gradients of the margins, shape ``(m, d)``."""
        return self.beta * np.asarray(self.differences)

    @property
    def steepness(self) -> float:
        """The largest norm X of a gradient of a margin: at most 2L, for DPO 2 beta L, if features have norm <= L."""
        return float(np.linalg.norm(self._slopes, axis=-1).max())

    @property
    def lipschitz(self) -> float:
        """G = X sigmoid(X R): no loss in the ball has a gradient of larger norm, as |h| <= X R there."""
        return self.steepness * float(expit(self.steepness * self.radius))

    def losses(self, parameters: ArrayLike) -> Array:
        """`softplus(-h)` of every kind of pair, ``(*batch, d)`` -> ``(*batch, m)``."""
        return np.logaddexp(0, -self._margins(parameters))

    def objective(self, parameters: ArrayLike) -> Array:
        """The population worst-case value, ``(*batch, d)`` -> ``(*batch,)``."""
        return worst_case(self.losses(parameters), self.ambiguity, reference=np.asarray(self.masses)).value

    def subgradient(self, parameters: ArrayLike, counts: ArrayLike) -> Array:
        """sum_i q*_i grad l_i for minibatches that hold pair i ``counts[..., i]`` times; ``(*batch, d)``."""
        counts = np.asarray(counts, float)
        reference = counts / counts.sum(axis=-1, keepdims=True)
        weights = worst_case(self.losses(parameters), self.ambiguity, reference=reference).weights
        return -(weights * expit(-self._margins(parameters))) @ self._slopes

    def minibatches(self, n: int) -> tuple[NDArray[np.int64], Array]:
        """Every minibatch of n independent pairs, as counts ``(k, m)``, and its probability, ``(k,)``."""
        counts = sample_counts(n, len(self._slopes))
        return counts, multinomial.pmf(counts, n, np.asarray(self.masses))

    def plugin_objective(self, parameters: ArrayLike, n: int) -> Array:
        """Lbar_n, the exact mean worst-case value of n independent pairs, ``(*batch, d)`` -> ``(*batch,)``."""
        counts, chances = self.minibatches(n)
        losses = self.losses(parameters)[..., None, :]
        shape = (*losses.shape[:-2], *counts.shape)
        reference = np.broadcast_to(counts / n, shape)
        return worst_case(np.broadcast_to(losses, shape), self.ambiguity, reference=reference).value @ chances

    @cached_property
    def optimum(self) -> Optimum:
        """The minimum over the ball, with its proof.

        For every penalty t >= 0 (weak Lagrangian duality): min over the ball >= min_w L(w) + t/2 (||w - start||^2 -
        R^2), whose certified lower bound comes with `dro_core.fit_pairs`. The best t is the smallest that keeps the
        minimiser in the ball.
        """
        tried: list[Optimum] = []

        def overshoot(log_penalty: float) -> float:
            return self._penalised(exp(log_penalty), tried) - self.radius

        # Any minimiser has norm <= X / t; the smallest t costs t R^2 / 2 <= 5e-11 of the bound.
        lowest, highest = log(1e-10 / max(self.radius, 1.0) ** 2), log(2 * self.steepness / self.radius)
        if overshoot(lowest) > 0:
            brentq(overshoot, lowest, highest, xtol=1e-11)
        best = min(tried, key=lambda found: found.value)
        return best._replace(bound=max(found.bound for found in tried))

    def bias(self, parameters: ArrayLike, n: int) -> Array:
        """L - Lbar_n >= 0, what a minibatch of n pairs hides on average [L20]; ``(*batch, d)`` -> ``(*batch,)``."""
        return self.objective(parameters) - self.plugin_objective(parameters, n)

    def bias_term(self, n: int, *, tolerance: float = 1e-3) -> float:
        """delta_n = sup over the ball of the bias, less the bias at the optimum; bounded from above, in nats.

        What minibatches of n pairs cost beyond the optimisation error. It is at most sup (L - Lbar_n).

        Example:
            >>> from dro_core import TotalVariation
            >>> problem = RobustPairs([[1.0], [-1.0]], [0.75, 0.25], TotalVariation(0.125), radius=2.0)
            >>> [round(problem.bias_term(n), 2) for n in (1, 4, 16)]
            [0.19, 0.06, 0.01]
        """
        return self.largest_bias(n, tolerance=tolerance).bound - float(self.bias(self.optimum.parameters, n))

    def largest_bias(self, n: int, *, tolerance: float = 1e-3) -> Supremum:
        """Bracket the supremum of the bias over the ball by branch and bound; meant for d <= 2.

        Both values are G-Lipschitz, so in a cube with centre c and half diagonal r the bias is at most that at the
        projection of c plus 2 G r. ``tolerance`` is that of the bound in units of G R.
        """
        d, slack = self._slopes.shape[1], tolerance * self.lipschitz * self.radius
        corners = np.array(list(product((-0.5, 0.5), repeat=d)))
        centres, half, reached = np.zeros((1, d)), self.radius, 0.0
        while True:
            diagonal = half * d**0.5
            centres = centres[np.linalg.norm(centres, axis=-1) <= self.radius + diagonal]
            biases = self.bias(np.asarray(self.start) + into_ball(centres, self.radius), n)
            reached, bounds = max(reached, float(biases.max())), biases + 2 * self.lipschitz * diagonal
            promising = bounds > reached + slack
            if not promising.any():
                return Supremum(reached, reached + slack)
            if promising.sum() << d > _MOST_CELLS:
                return Supremum(reached, float(bounds.max()))
            centres, half = (centres[promising][:, None] + half * corners).reshape(-1, d), half / 2

    def _penalised(self, penalty: float, tried: list[Optimum]) -> float:
        """Solve with a penalty, note what it proves, and return the norm of the solution."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a gap that is too wide shows in what is proven
            seen = self._slopes @ self._basis.T
            fit = fit_pairs(seen, 0 * seen, self.ambiguity, penalty=penalty, reference=np.asarray(self.masses))
        parameters = np.asarray(self.start) + into_ball(fit.coefficients @ self._basis, self.radius)
        bound = fit.value - max(fit.gap, 0.0) - penalty * self.radius**2 / 2
        tried.append(Optimum(parameters, float(self.objective(parameters)), bound))
        return float(np.linalg.norm(fit.coefficients))

    @cached_property
    def _basis(self) -> Array:
        """The directions that some pair sees, ``(r, d)``; along others small penalties leave nothing to solve."""
        _, sizes, directions = np.linalg.svd(self._slopes, full_matrices=False)
        kept = sizes > 1e-12 * sizes[0]
        d = self._slopes.shape[1]
        return directions[kept] if 0 < kept.sum() < d else np.eye(d)

    def _margins(self, parameters: ArrayLike) -> Array:
        return (np.asarray(parameters, float) - np.asarray(self.start)) @ self._slopes.T


def into_ball(points: Array, radius: float) -> Array:
    """Project on the ball around 0, ``(*batch, d)``.

    Example:
        >>> into_ball(np.array([[3.0, 4.0], [0.0, 1.0]]), 2.5).tolist()
        [[1.5, 2.0], [0.0, 1.0]]
    """
    norms = np.linalg.norm(points, axis=-1, keepdims=True)
    return points * (radius / np.maximum(norms, radius))
