"""Linear Bradley-Terry preferences whose population loss is known to quadrature precision."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.special import expit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


class Preferences(NamedTuple):
    """Feature differences first minus second, `(n, d)`; labels +1 if the first is preferred, else -1."""

    differences: Array
    labels: Array


@dataclass(frozen=True, eq=False)
class LinearBradleyTerry:
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
        weights, covariance = np.asarray(self.weights, float), np.asarray(self.feature_covariance, float)
        if weights.ndim != 1 or covariance.shape != (weights.size, weights.size):
            raise ValueError(
                f"feature_covariance must be (d, d) for weights of shape (d,), got {covariance.shape} for "
                f"{weights.shape}: give one row and one column per feature."
            )
        if not np.allclose(covariance, covariance.T) or np.linalg.eigvalsh(covariance)[0] < -1e-12:
            raise ValueError(
                "feature_covariance must be symmetric with no negative eigenvalue, got "
                f"{covariance.tolist()}: build it as A @ A.T."
            )
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "feature_covariance", covariance)

    def sample(self, n: int, rng: np.random.Generator) -> Preferences:
        """Draw n independent pairs."""
        values, vectors = np.linalg.eigh(self.feature_covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        differences = rng.standard_normal((n, self.weights.size)) @ root.T
        first = rng.random(n) < expit(differences @ self.weights)
        return Preferences(differences, np.where(first, 1.0, -1.0))

    def losses(self, parameters: ArrayLike, pairs: Preferences) -> Array:
        """`-log sigmoid(label <parameters, x>)`, one per pair, shape `(n,)`."""
        return np.logaddexp(0, -_margins(parameters, pairs))

    def gradients(self, parameters: ArrayLike, pairs: Preferences) -> Array:
        """Gradient of every pair's loss in the parameters, shape `(n, d)`."""
        slopes = -expit(-_margins(parameters, pairs)) * pairs.labels
        return slopes[:, None] * pairs.differences

    def mean_loss(self, parameters: ArrayLike) -> float:
        """Population mean of `losses`, by quadrature in one dimension.

        With h = <parameters, x> and t = <weights, x>, softplus(-h) = softplus(h) - h gives
        E l = E softplus(h) - E sigmoid(t) h, and Stein's lemma E sigmoid(t) h = Cov(h, t) E sigmoid'(t).
        """
        parameters = np.asarray(parameters, float)
        deviation_h, deviation_t = (_deviation(w, self.feature_covariance) for w in (parameters, self.weights))
        covariance = parameters @ self.feature_covariance @ self.weights
        slope = _gaussian_mean(lambda t: expit(t) * expit(-t), deviation_t)
        return _gaussian_mean(lambda h: np.logaddexp(0, h), deviation_h) - float(covariance) * slope


def _margins(parameters: ArrayLike, pairs: Preferences) -> Array:
    return pairs.labels * (pairs.differences @ np.asarray(parameters, float))


def _deviation(parameters: Array, covariance: Array) -> float:
    return float(np.sqrt(max(parameters @ covariance @ parameters, 0.0)))


def _gaussian_mean(function: Callable[[float], float], deviation: float) -> float:
    """E function(deviation Z); the integrand bends near 0 on the scale 1/deviation, hence the split."""
    width = min(8.0 / max(deviation, 1.0), 4.0)
    ends = (-12.0, -width, 0.0, width, 12.0)
    parts = [
        quad(lambda z: function(deviation * z) * np.exp(-z * z / 2), a, b, epsabs=1e-13, epsrel=1e-12)[0]
        for a, b in pairwise(ends)
    ]
    return float(sum(parts) / np.sqrt(2 * np.pi))
