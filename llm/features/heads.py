"""Linear heads on frozen features, judged on pairs that they were not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dro_core.learn.linear import fit_pairs

Array = NDArray[np.float64]

PENALTIES = np.logspace(-4, 1, 6)
"""Of the squared norm, for features whose root mean square is 1."""
_INNER = 5  # one of so many parts of the training clusters says which penalty
_TOLERANCE = 1e-6


def out_of_fold(differences: Array, clusters: Sequence[object], *, folds: int = 5, seed: int = 0) -> Array:
    """Margins ``(n,)`` of pairs by logistic heads that saw no pair of their cluster.

    Without an intercept, for a pair turned around must have the opposite margin. The penalty is chosen inside the
    training folds, by the log loss on a fifth of their clusters.

    Args:
        differences: Shape ``(n, d)``, features of the chosen answer less those of the rejected one.
        clusters: Shape ``(n,)``, any labels: what must not be torn apart, the prompt.
        folds: At least 2.
        seed: Deals the clusters.

    Raises:
        ValueError: Fewer clusters than folds, or too few for a part that chooses the penalty.
    """
    codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)[1]
    count = int(codes.max()) + 1
    if folds < 2 or count < 2 * folds:
        raise ValueError(f"{folds} folds need at least {max(2 * folds, 4)} different prompts, got {count}.")
    margins, rng = np.empty(len(differences)), np.random.default_rng(seed)
    for test in _dealt(codes, folds, rng):
        train = np.setdiff1d(np.arange(len(differences)), test)
        inner = next(_dealt(np.unique(codes[train], return_inverse=True)[1], min(_INNER, folds), rng))
        margins[test] = differences[test] @ fitted_head(differences[train], inner)
    return margins


def fitted_head(differences: Array, judged_on: NDArray[np.intp]) -> Array:
    """Coefficients ``(d,)`` of a head on all pairs, with the penalty that was best on ``judged_on`` for the others."""
    scale = float(np.sqrt(np.mean(differences**2))) or 1.0
    scaled = differences / scale
    others = np.setdiff1d(np.arange(len(scaled)), judged_on)

    def loss(penalty: float) -> float:
        return float(-special.log_expit(scaled[judged_on] @ _fit(scaled[others], penalty)).mean())

    return _fit(scaled, min(map(float, PENALTIES), key=loss)) / scale


def _fit(differences: Array, penalty: float) -> Array:
    found = fit_pairs(differences, np.zeros_like(differences), None, penalty=penalty, tolerance=_TOLERANCE)
    return found.coefficients


def _dealt(codes: NDArray[np.intp], folds: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """The rows of each fold; codes stay together."""
    for part in np.array_split(rng.permutation(int(codes.max()) + 1), folds):
        yield np.isin(codes, part).nonzero()[0]
