"""Distributions that a kernel finds near: mass moves easily between scenarios that are alike. See ``ambiguity``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from scipy.spatial.distance import pdist, squareform

from .._solvers import jacobians
from .._solvers.arrays import Array, asarray_like, fetched
from .._solvers.path import Vector, at_length, at_worth, follow
from .._solvers.problem import Problem
from .._solvers.sizes import Size, raised
from .ambiguity import Ball, Dual, checked_number, checked_radius, set_field

T = TypeVar("T")
RIDGE = 1e-6  # of the largest diagonal entry of the kernel, added to its diagonal
_SHORTEST = 2.0**-60  # stands for a radius of 0, where weights stand still
_LONGEST = 4.0  # than which no move is longer where the kernel's entries are at most 1


@dataclass(frozen=True, eq=False)
class MeanDiscrepancy(Ball):
    """Distributions within maximum mean discrepancy ``radius`` of p (Staib & Jegelka 2019, 1905.10943).

        max_q <q, l>   s.t.   (q - p)' (K + e I) (q - p) <= radius^2,  q in the simplex.

    ``kernel`` is K, ``(n, n)``, symmetric and positive semidefinite: ``gaussian_kernel(embeddings)``, for example. The
    radius has the unit of K's square root; for a Gaussian kernel sqrt(2) holds every q. e is 1e-6 of K's largest
    diagonal entry, so that scenarios which K cannot tell apart have one best weight each. A scenario of zero mass may
    receive mass, so its loss counts. The maximiser is that of a quadratic program whose solutions form a path,
    piecewise linear in the price of a move, which is followed from p to the radius. Exact, row by row and in main
    memory: a tensor on a GPU is fetched, and ``torch.compile`` needs a graph break; O(n^3) per stretch of the path, of
    which there are some n.

    Dual: E w + max(l - w) + radius multiplier, for the w with w' (K + e I)^-1 w <= multiplier^2 that the path finds. It
    is an upper bound for every such w. The threshold is not used.

    Raises:
        ValueError: A kernel that is not square, finite, symmetric and positive semidefinite, or zero.

    Example:
        >>> import numpy as np
        >>> from dro_core import worst_case
        >>> kernel = gaussian_kernel(np.array([[0.0], [0.1], [3.0]]), bandwidth=1.0)  # the first two are alike
        >>> worst_case(np.array([1.0, 0.0, 0.5]), MeanDiscrepancy(0.05, kernel)).weights.round(3).tolist()
        [0.692, 0.0, 0.308]
    """

    radius: Size
    kernel: Array = field(repr=False)
    spec: ClassVar[str] = "mean_discrepancy"
    from_text: ClassVar[bool] = False
    sees_zero_mass: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checked_radius(self, "a mean discrepancy")
        set_field(self, "kernel", _checked_kernel(self.kernel))

    def take(self, rows: Array) -> Self:
        """Return the set whose kernel holds the rows and columns ``rows``."""
        at = np.asarray(rows)
        return type(self)(self.radius, self.kernel[at][:, at])

    def __str__(self) -> str:
        return f"{self.size_text},kernel={self.kernel.shape}"

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Follow the path to the radius."""
        xp, scale = problem.xp, self._scale()
        radii = fetched(xp, problem.size(self.radius) + xp.zeros_like(problem.shift)).ravel() / scale
        stops = [at_length(min(radius, _LONGEST)) for radius in radii]
        ends = self._paths(problem, lambda losses, matrix, p, row: follow(losses, matrix, p, stops[row]))
        worth = np.array([reached.worth for reached in ends]).reshape(problem.shift.shape) / scale
        weights = np.array([reached.weights for reached in ends]).reshape(problem.losses.shape)
        multiplier = asarray_like(xp, worth, problem.losses)
        return asarray_like(xp, weights, problem.losses), Dual(multiplier, xp.zeros_like(multiplier))

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Evaluate the dual of the class docstring, w from the point of the path where the multiplier is the price."""
        scale = self._scale()
        prices = fetched(problem.xp, problem.xp.broadcast_to(dual.multiplier, problem.shift.shape)).ravel() * scale
        bounds = self._paths(problem, lambda losses, matrix, p, row: _bound(losses, matrix, p, prices[row]))
        found = np.array(bounds).reshape(problem.shift.shape)
        return asarray_like(problem.xp, found, problem.losses) + problem.size(self.radius) * dual.multiplier

    def jacobian_product(self, problem: Problem, weights: Array, multiplier: Array, vectors: Array) -> Array:
        """Move what has weight, on the path's last stretch."""
        matrix = self.kernel + RIDGE * self._scale() ** 2 * np.eye(len(self.kernel))
        price = multiplier / raised(problem.xp, problem.size(self.radius), _SHORTEST)
        return jacobians.quadratic(problem, weights, matrix, price, vectors)

    def _scale(self) -> float:
        return float(np.sqrt(np.max(np.diag(self.kernel))))

    def _paths(self, problem: Problem, solve: Callable[[Vector, Vector, Vector, int], T]) -> list[T]:
        """What ``solve`` makes of the losses, the kernel near 1, the reference and the number of every row."""
        n = problem.losses.shape[-1]
        if len(self.kernel) != n:
            raise ValueError(
                f"`MeanDiscrepancy.kernel` is for {len(self.kernel)} scenarios, the losses have {n}; "
                "use `take(rows)` for some of them."
            )
        matrix = self.kernel / self._scale() ** 2 + RIDGE * np.eye(n)
        losses, masses = (fetched(problem.xp, part).reshape(-1, n) for part in (problem.losses, problem.masses()))
        return [solve(row, matrix, p, at) for at, (row, p) in enumerate(zip(losses, masses, strict=True))]


def _bound(losses: Vector, matrix: Vector, p: Vector, price: float) -> float:
    """The dual without its radius, for a w that is scaled to what the price allows."""
    reached = follow(losses, matrix, p, at_worth(price))
    w = reached.pull * (min(1.0, price / reached.worth) if reached.worth > 0 else 0.0)
    return float(p @ w + np.max(losses - w))


def _checked_kernel(given: Array) -> Vector:
    """Return the kernel in float64, made exactly symmetric; ValueError names what is wrong with it."""
    matrix: Any = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0 or not np.isfinite(matrix).all():
        raise ValueError(f"`MeanDiscrepancy.kernel` must be finite and square, (n, n), got shape {matrix.shape}.")
    largest = np.abs(matrix).max()
    rounding = 1e-6 * largest  # a kernel may come from float32
    if np.abs(matrix - matrix.T).max() > rounding:
        raise ValueError("`MeanDiscrepancy.kernel` must be symmetric; use (kernel + kernel.T) / 2.")
    matrix = (matrix + matrix.T) / 2
    lowest = float(np.linalg.eigvalsh(matrix)[0])
    if lowest < -rounding:
        raise ValueError(
            f"`MeanDiscrepancy.kernel` must be positive semidefinite, got the eigenvalue {lowest:.3g}; "
            "use `gaussian_kernel(embeddings)`, or add a multiple of the identity."
        )
    if largest == 0:
        raise ValueError("`MeanDiscrepancy.kernel` is zero and finds all scenarios equal: every q is near. Give one.")
    lift = -lowest if lowest < -rounding / 4 else 0.0  # of more than that the ridge would not make up
    return matrix + lift * np.eye(len(matrix))


def gaussian_kernel(embeddings: Array, bandwidth: float | None = None) -> Any:
    """Return exp(-|x_i - x_j|^2 / (2 bandwidth^2)) for all pairs of scenarios, ``(n, n)``.

    Args:
        embeddings: ``(n, dimension)``.
        bandwidth: In the unit of the embeddings; by default the median distance between two scenarios.

    Raises:
        ValueError: Not a matrix of finite numbers; a bandwidth, or a median, that is not positive.

    Example:
        >>> import numpy as np
        >>> gaussian_kernel(np.array([[0.0], [1.0], [2.0]])).round(3).tolist()
        [[1.0, 0.607, 0.135], [0.607, 1.0, 0.607], [0.135, 0.607, 1.0]]
    """
    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2 or points.size == 0 or not np.isfinite(points).all():
        raise ValueError(f"`embeddings` must be finite and (n, dimension), got shape {points.shape}.")
    distances: Any = pdist(points)
    if bandwidth is None:
        bandwidth = float(np.median(distances)) if distances.size else 1.0
    meaning, remedy = "a distance between embeddings", "If most of them coincide, give one."
    width = checked_number("bandwidth", meaning, "(0, inf)", bandwidth, remedy)
    return np.exp(-(squareform(distances / width) ** 2) / 2)
