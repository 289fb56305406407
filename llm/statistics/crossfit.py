"""How probable labels of pairs are by a model that has not seen them: cross-fitted, penalised, calibrated.

The model is P(chosen better) = sigmoid(<w, x>/T) of the feature difference x of the two answers. Exchanging the answers
turns the sign of x and of the label, so there is no intercept. Pairs of a cluster share a fold. For a fold, the penalty
and the temperature T are chosen on the other folds, each predicted without itself, and the weights come from all of
those: no number that goes into the probability of a pair has seen the label of its fold.

Example:
    >>> rng = np.random.default_rng(0)
    >>> margins = rng.normal(size=(400, 3))
    >>> signs = np.where(rng.random(400) < 1 / (1 + np.exp(-2 * margins[:, 0])), 1, -1)[:, None]
    >>> found = crossfit(signs * margins, np.arange(400))
    >>> bool(np.corrcoef(found, 1 / (1 + np.exp(-2 * signs * margins[:, :1])).T)[0, 1] > 0.95)
    True
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_WIDTH = 256  # directions that are kept: those in which the pairs differ most, whatever their labels
_PENALTIES = np.logspace(0, -5, 6)  # of half the squared weights, where x has a mean square of 1; the strongest first
_STEPS, _CLOSE = 50, 1e-5  # of Newton, whose decrement then is far below the noise of any fold


def crossfit(
    differences: NDArray[np.floating],
    clusters: NDArray[np.int64],
    *,
    folds: int = 5,
    masses: Floats | None = None,
    seed: int = 0,
) -> Floats:
    """The probability that the chosen answer is the better one, for every pair ``(n,)``, in (0, 1).

    Args:
        differences: Features of chosen minus rejected answers, ``(n, width)``.
        clusters: Codes, ``(n,)``; those of one cluster are in one fold.
        folds: At least 3, at most as many as clusters.
        masses: How much each pair counts, ``(n,)``, above 0; None: alike.
        seed: Of the folds.
    """
    rows = principal(differences)
    weights = np.ones(len(rows)) if masses is None else masses / masses.mean()
    fold = deal(clusters, folds, seed=seed)
    without = {pair: _path(rows, weights, ~np.isin(fold, pair)) for pair in combinations(range(folds), 2)}
    found = np.empty(len(rows))
    for own in range(folds):
        here, others = fold == own, fold != own
        margins = np.empty((len(_PENALTIES), len(rows)))
        for other in range(folds):
            if other != own:
                held = fold == other
                margins[:, held] = without[min(own, other), max(own, other)] @ rows[held].T
        scales = [_scale(margin[others], weights[others]) for margin in margins]
        losses = [_loss(scale * margin[others], weights[others]) for scale, margin in zip(scales, margins, strict=True)]
        best = int(np.argmin(losses))
        head = _path(rows, weights, others)[best]
        found[here] = _sigmoid(scales[best] * (rows[here] @ head))
    return found


def principal(differences: NDArray[np.floating]) -> Floats:
    """Differences in the directions in which they are largest, ``(n, at most 256)``, scaled to a mean square of 1.

    The directions do not depend on which answer was chosen.
    """
    rows = differences.astype(np.float64)
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    kept = np.flatnonzero(values > values[-1] * 1e-10)[-_WIDTH:]
    if not len(kept):  # all features are equal: nothing can be told
        return np.zeros((len(rows), 1))
    return rows @ vectors[:, kept] / np.sqrt(values[kept].sum())


def deal(clusters: NDArray[np.int64], folds: int, *, seed: int) -> NDArray[np.int64]:
    """The fold of every pair ``(n,)``: the largest clusters first, each into the fold with the fewest pairs."""
    names, codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    place, filled = np.empty(len(names), dtype=np.int64), np.zeros(folds, dtype=np.int64)
    for cluster in order[np.argsort(-sizes[order], kind="stable")]:
        place[cluster] = np.argmin(filled)
        filled[place[cluster]] += sizes[cluster]
    return place[codes]


def _path(rows: Floats, weights: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Heads for every penalty, ``(penalties, width)``: each begins where the one before ended."""
    x, mass = rows[kept], weights[kept] / weights[kept].sum()
    head, path = np.zeros(rows.shape[1]), []
    for penalty in _PENALTIES:
        head = _fit(x, mass, float(penalty), head)
        path.append(head)
    return np.array(path)


def _fit(x: Floats, mass: Floats, penalty: float, head: Floats) -> Floats:
    """Newton's method with halved steps on sum_i mass_i log(1 + exp(-<w, x_i>)) + penalty/2 |w|^2."""

    def value(w: Floats) -> float:
        return float(mass @ np.logaddexp(0.0, -(x @ w)) + penalty / 2 * w @ w)

    current = value(head)
    for _ in range(_STEPS):
        miss = _sigmoid(-(x @ head))
        gradient = penalty * head - (mass * miss) @ x
        curvature = (x * (mass * miss * (1 - miss))[:, None]).T @ x
        step = np.linalg.solve(curvature + penalty * np.eye(len(head)), gradient)
        decrement, size = float(gradient @ step), 1.0
        if decrement <= _CLOSE**2:
            break
        while (after := value(head - size * step)) > current - size * decrement / 4 and size > 1e-6:
            size /= 2
        head, current = head - size * step, after
        if decrement <= _CLOSE:
            break
    return head


def _scale(margins: Floats, weights: Floats) -> float:
    """1/T >= 0 by Platt's rule: the label counts as right in n + 1 of n + 2 cases, so that it stays finite."""
    right = (len(margins) + 1) / (len(margins) + 2)
    mass = weights / weights.sum()
    low, high = 0.0, 1.0

    def slope(scale: float) -> float:
        return float((mass * margins) @ (_sigmoid(scale * margins) - right))

    if slope(0.0) >= 0:  # the margins say less than nothing of the labels
        return 0.0
    while slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


def _loss(margins: Floats, weights: Floats) -> float:
    return float(weights @ np.logaddexp(0.0, -margins) / weights.sum())


def _sigmoid(margins: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -margins))
