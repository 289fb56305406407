"""Bradley-Terry problems with bounded and with heavy-tailed feature differences; see `EllipticalProblem`."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, sqrt
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln
from scipy.stats import t as student

from synthetic.pairs.preferences import EllipticalProblem, Marginal, checked_shape, root_of

if TYPE_CHECKING:
    from synthetic.pairs.preferences import Array


@dataclass(frozen=True, eq=False)
class SphereBradleyTerry(EllipticalProblem):
    """Pairs with differences uniform on a sphere, so that every margin is bounded by ||weights|| radius.

    Args:
        weights: the true parameter, shape `(d,)`, d >= 2.
        radius: length of every difference, positive.

    Example:
        >>> problem = SphereBradleyTerry(np.array([1.0, -1.0]), radius=2.0)
        >>> pairs = problem.sample(4, np.random.default_rng(0))
        >>> np.linalg.norm(pairs.differences, axis=1).round(9).tolist()
        [2.0, 2.0, 2.0, 2.0]
    """

    weights: Array
    radius: float

    def __post_init__(self) -> None:
        weights = np.asarray(self.weights, float)
        if weights.ndim != 1 or weights.size < 2:
            raise ValueError(
                f"weights must have shape (d,) with d >= 2, got {weights.shape}: in one dimension a sphere is two "
                "points, use FinitePopulation."
            )
        if not 0 < self.radius < inf:
            raise ValueError(f"radius must lie in (0, inf), got {self.radius}: it is the length of a difference.")
        object.__setattr__(self, "weights", weights)

    def _shape(self) -> Array:
        return self.radius**2 * np.eye(self.weights.size)

    def _marginal(self) -> Marginal:
        # One coordinate of the unit sphere is the sine of an angle with density proportional to cos^(d - 2).
        d = self.weights.size
        constant = 2 * _gamma_ratio(d / 2, (d - 1) / 2) / sqrt(pi)
        mean = _gamma_ratio(d / 2, (d + 1) / 2) / sqrt(pi)

        def angle(u: float) -> float:
            return float(np.arcsin(min(u, 1.0)))

        return Marginal(np.sin, lambda c: constant * np.cos(c) ** (d - 2), angle, pi / 2, mean)

    def _draw(self, n: int, rng: np.random.Generator) -> Array:
        directions = rng.standard_normal((n, self.weights.size))
        return self.radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class StudentBradleyTerry(EllipticalProblem):
    """Pairs with heavy-tailed differences: multivariate Student t.

    Args:
        weights: the true parameter, shape `(d,)`.
        scale_matrix: shape `(d, d)`; the covariance is degrees/(degrees - 2) times this, if degrees > 2.
        degrees: degrees of freedom, above 1 so that the mean loss is finite.

    Example:
        >>> from synthetic.pairs.preferences import LinearBradleyTerry
        >>> heavy = StudentBradleyTerry(np.array([1.0]), np.eye(1), degrees=3.0)
        >>> light = LinearBradleyTerry(np.array([1.0]), np.eye(1))
        >>> bool(heavy.mean_loss([-1.0]) > light.mean_loss([-1.0]))
        True
    """

    weights: Array
    scale_matrix: Array
    degrees: float

    def __post_init__(self) -> None:
        weights, scale = checked_shape(self.weights, self.scale_matrix, "scale_matrix")
        if not 1 < self.degrees < inf:
            raise ValueError(
                f"degrees must lie in (1, inf), got {self.degrees}: with 1 or fewer the mean loss is infinite; "
                "for infinitely many use LinearBradleyTerry."
            )
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "scale_matrix", scale)

    def _shape(self) -> Array:
        return self.scale_matrix

    def _marginal(self) -> Marginal:
        nu = self.degrees
        mean = 2 * sqrt(nu / pi) * _gamma_ratio((nu + 1) / 2, nu / 2) / (nu - 1)
        return Marginal(float, lambda u: 2 * float(student.pdf(u, nu)), float, inf, mean)

    def _draw(self, n: int, rng: np.random.Generator) -> Array:
        normal = rng.standard_normal((n, self.weights.size)) @ root_of(self.scale_matrix).T
        return normal / np.sqrt(rng.chisquare(self.degrees, (n, 1)) / self.degrees)


def _gamma_ratio(a: float, b: float) -> float:
    return float(np.exp(gammaln(a) - gammaln(b)))
