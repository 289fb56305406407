"""Linear Bradley-Terry preferences whose population loss is known to quadrature precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from math import pi, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import expit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet
    from dro_core.learn.linear import LinearFit

    Array = NDArray[np.float64]

_NEWTON_STEPS = 60


class Preferences(NamedTuple):
    """Feature differences first minus second, `(n, d)`; labels +1 if the first is preferred, else -1."""

    differences: Array
    labels: Array


class PreferenceProblem(ABC):
    """A law of pairs of answers, seen through feature differences x and labels +1 or -1.

    The learner's model is P(label = +1 | x) = sigmoid(<parameters, x>); the problem need not follow it.
    """

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Number of features d."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs."""

    @abstractmethod
    def true_margins(self, differences: ArrayLike) -> Array:
        """Log odds, before any label noise, that the first answer is preferred; `(n, d)` -> `(n,)`."""

    @abstractmethod
    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`, in nats."""

    def losses(self, parameters: ArrayLike, pairs: Preferences) -> Array:
        """`-log sigmoid(label <parameters, x>)`, one per pair, shape `(n,)`."""
        return np.logaddexp(0, -_margins(parameters, pairs))

    def gradients(self, parameters: ArrayLike, pairs: Preferences) -> Array:
        """Gradient of every pair's loss in the parameters, shape `(n, d)`."""
        slopes = -expit(-_margins(parameters, pairs)) * pairs.labels
        return slopes[:, None] * pairs.differences


def fit_preferences(
    pairs: Preferences,
    ambiguity: AmbiguitySet | None = None,
    *,
    penalty: float = 0.0,
    reference: ArrayLike | None = None,
    tolerance: float = 1e-9,
) -> LinearFit:
    """Fit the model to pairs: maximum likelihood, or the worst case over `ambiguity`; see `dro_core.fit_pairs`.

    Raises:
        ValueError: without a penalty, pairs that some parameters order without a mistake.

    Example:
        >>> pairs = Preferences(np.array([[1.0], [1.0], [1.0], [1.0]]), np.array([1.0, 1.0, 1.0, -1.0]))
        >>> bool(np.isclose(fit_preferences(pairs).coefficients[0], np.log(3)))
        True
    """
    from dro_core import fit_pairs

    signed = pairs.labels[:, None] * pairs.differences
    masses = None if reference is None else np.asarray(reference, float)
    return fit_pairs(signed, np.zeros_like(signed), ambiguity, penalty=penalty, reference=masses, tolerance=tolerance)


def fit_counts(differences: ArrayLike, first: ArrayLike, second: ArrayLike) -> Array:
    """Maximum likelihood for many samples of the same k prompts at once, by damped Newton steps.

    Args:
        differences: of the prompts, shape `(k, d)`, spanning all d dimensions.
        first: how often the first answer was preferred, shape `(*batch, k)`.
        second: how often the second was.

    Returns:
        Parameters, shape `(*batch, d)`.

    Raises:
        ValueError: some sample has no finite maximum, because some parameters order its pairs without a mistake.

    Example:
        >>> fit_counts([[1.0]], [[3], [1]], [[1], [1]]).round(6).tolist()
        [[1.098612], [0.0]]
    """
    x, first, second = (np.asarray(part, float) for part in (differences, first, second))
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    w = np.zeros((*first.shape[:-1], x.shape[1]))
    for _ in range(_NEWTON_STEPS if np.linalg.matrix_rank(x) == x.shape[1] else 0):
        p = expit(w @ x.T)
        gradient = (first - (first + second) * p) @ x
        hessian = (((first + second) * p * (1 - p)) @ squares).reshape(*w.shape, -1)
        try:
            step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
        # The third derivative is at most `size` times the second along the step: so damped, every step descends.
        size = np.abs(step @ x.T).max(axis=-1, keepdims=True)
        w = w + step * np.log1p(size) / np.maximum(size, 1e-300)
        if size.max() <= 1e-9:
            return w
    raise ValueError(
        "no finite maximum for some sample: its pairs are separable, or the differences do not span the space. "
        "Draw more pairs or use fit_preferences with a penalty."
    )


class Marginal(NamedTuple):
    """Law of |U| for one coordinate U of a spherical law, in a coordinate c where the density is smooth."""

    place: Callable[[float], float]  # c -> |u|, increasing from 0
    density: Callable[[float], float]  # of c, on [0, top]
    inverse: Callable[[float], float]  # |u| -> c
    top: float
    mean: float  # E |U|


class EllipticalProblem(PreferenceProblem):
    """Differences x = root z with a spherical z, so that every <w, x> is ||root' w|| U for one law of U.

    With h = <parameters, x> and t = <weights, x>: softplus(-h) = softplus(h) - h and E[h | t] = t Cov(h, t)/Var t
    (elliptical laws regress linearly) give E l = E softplus(h) - Cov(h, t)/Var t E t sigmoid(t): two
    integrals in one dimension.
    """

    weights: Array

    @property
    def dimension(self) -> int:
        """Number of features d."""
        return self.weights.size

    @abstractmethod
    def _shape(self) -> Array:
        """The matrix root root', `(d, d)`."""

    @abstractmethod
    def _marginal(self) -> Marginal:
        """The law of |U|."""

    @abstractmethod
    def _draw(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n differences x."""

    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs."""
        differences = self._draw(n, rng)
        first = rng.random(n) < expit(self.true_margins(differences))
        return Preferences(differences, np.where(first, 1.0, -1.0))

    def true_margins(self, differences: ArrayLike) -> Array:
        """`<weights, x>`, shape `(n,)`."""
        return np.asarray(differences, float) @ self.weights

    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`, in nats, by quadrature in one dimension."""
        w, shape, law = np.asarray(parameters, float), self._shape(), self._marginal()
        scale_h, scale_t = _deviation(w, shape), _deviation(self.weights, shape)
        # softplus(h) = h/2 + |h|/2 + log(1 + exp(-|h|)), and the mean of h is 0.
        softplus = scale_h * law.mean / 2 + _tail_mean(lambda h: np.log1p(np.exp(-h)), scale_h, law)
        if scale_t == 0:
            return softplus
        # E t sigmoid(t) = E |t|/2 - E |t| sigmoid(-|t|).
        product = scale_t * law.mean / 2 - _tail_mean(lambda t: t * expit(-t), scale_t, law)
        return softplus - float(w @ shape @ self.weights) / scale_t**2 * product


@dataclass(frozen=True, eq=False)
class LinearBradleyTerry(EllipticalProblem):
    """Pairs with Gaussian feature differences and a linear true reward.

        x ~ N(0, feature_covariance),   P(label = +1 | x) = sigmoid(<weights, x>).

    Args:
        weights: the true parameter, shape `(d,)`.
        feature_covariance: shape `(d, d)`, symmetric, positive semidefinite.

    Example:
        >>> problem = LinearBradleyTerry(np.array([1.0, -1.0]), np.eye(2))
        >>> pairs = problem.sample(4, np.random.default_rng(0))
        >>> pairs.differences.shape, pairs.labels.shape
        ((4, 2), (4,))
        >>> bool(problem.mean_loss(problem.weights) < problem.mean_loss([0.0, 0.0]))
        True
    """

    weights: Array
    feature_covariance: Array

    def __post_init__(self) -> None:
        weights, covariance = checked_shape(self.weights, self.feature_covariance, "feature_covariance")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "feature_covariance", covariance)

    def _shape(self) -> Array:
        return self.feature_covariance

    def _marginal(self) -> Marginal:
        return Marginal(float, lambda u: sqrt(2 / pi) * np.exp(-u * u / 2), float, 12.0, sqrt(2 / pi))

    def _draw(self, n: int, rng: np.random.Generator) -> Array:
        return rng.standard_normal((n, self.weights.size)) @ root_of(self.feature_covariance).T


def _margins(parameters: ArrayLike, pairs: Preferences) -> Array:
    return pairs.labels * (pairs.differences @ np.asarray(parameters, float))


def _deviation(parameters: Array, shape: Array) -> float:
    return float(np.sqrt(max(parameters @ shape @ parameters, 0.0)))


def root_of(shape: Array) -> Array:
    """Return A with A A' = shape, singular shapes included."""
    values, vectors = np.linalg.eigh(shape)
    return vectors * np.sqrt(np.maximum(values, 0))


def checked_shape(weights: ArrayLike, matrix: ArrayLike, name: str) -> tuple[Array, Array]:
    """Return both as arrays, the matrix being (d, d), symmetric and positive semidefinite."""
    weights, matrix = np.asarray(weights, float), np.asarray(matrix, float)
    if weights.ndim != 1 or matrix.shape != (weights.size, weights.size):
        raise ValueError(
            f"{name} must be (d, d) for weights of shape (d,), got {matrix.shape} for {weights.shape}: "
            "give one row and one column per feature."
        )
    if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix)[0] < -1e-12:
        raise ValueError(
            f"{name} must be symmetric with no negative eigenvalue, got {matrix.tolist()}: build it as A @ A.T."
        )
    return weights, matrix


def _tail_mean(function: Callable[[float], float], scale: float, law: Marginal) -> float:
    """E function(scale |U|) for a function that falls like exp(-argument): most of it happens up to 8/scale."""
    near = law.inverse(8 / scale) if scale > 0 else law.top
    ends = sorted({0.0, *(min(c, law.top) for c in (near / 4, near, law.inverse(1.0), law.inverse(8.0))), law.top})
    parts = [
        quad(lambda c: function(scale * law.place(c)) * law.density(c), a, b, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for a, b in pairwise(ends)
    ]
    return float(sum(parts))
