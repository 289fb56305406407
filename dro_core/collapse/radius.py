"""``collapse_radius``: how large a set the pairs can bear before the worst case learns nothing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._solvers.arrays import Array
from .._solvers.checks import checked_masses, checked_matrix
from ..sets.ambiguity import AmbiguitySet
from .balance import Balance, whiten
from .crossfit import Pairs, deal, held_out
from .margins import check_batch, checked_cost, kind_name

_TOLERANCE = 1e-7  # of the gap, relative to the radius
_ROUGH = 1e-4  # of the null and of the folds, whose sampling errors are larger
_TOLERANCE_BATCH, _ROUGH_BATCH = 1e-3, 5e-3  # the same for minibatches, whose worst case has very many pieces


@dataclass(frozen=True, eq=False)
class CollapseRadius:
    """A collapse radius with its proof and its sampling error; ``str`` says it in one line.

    All values are sizes of the set: radii, for CVaR alphas, which fall as the set grows.

    Attributes:
        kind: The set, by name.
        radius: In sample, reached by ``weights``; infinite where none balance (CVaR: 0).
        bound: A lower bound of the radius (CVaR: an upper one of alpha): the ``margin_collapse`` of ``direction``.
        weights: Shape ``(n,)``, q in the set with E_q x = 0: against it no direction has a positive mean margin. None
            where none exist.
        direction: Shape ``(d,)``, of length 1: the most robust direction. Where no weights balance it separates: all
            margins are positive (Burg: none is negative). Zeros where p balances already.
        imbalance: The largest |E_q x_j|, in root mean squares of the feature.
        null: Shape ``(seeds,)``, the radius once every row's sign is random: what features without any signal have.
        held_out: Mean over folds of the radius, on the fold, of the direction found on all others; NaN without folds.
            An honest lower estimate of the population's radius: decide by this one. Where the other folds are separable
            it is that of a direction that separates them, not of a best one.
        by_fold: Its parts.
        interval: 95 %, for the mean over the population of the radii of these directions.
        vacuous: Whether there are no more scenarios than independent features, so that any signs are separable.
        batch: Of how many pairs the minibatches are whose sets these are; None for the set of the whole sample.
    """

    kind: str
    radius: float
    bound: float
    weights: Array | None
    direction: Array
    imbalance: float
    null: Array
    held_out: float
    by_fold: tuple[float, ...]
    interval: tuple[float, float]
    vacuous: bool
    batch: int | None = None

    @property
    def gap(self) -> float:
        """How far the two proofs are apart: nonnegative up to rounding; of minibatches up to .001 of the radius."""
        return 0.0 if self.radius == self.bound else abs(self.radius - self.bound)

    @property
    def separable(self) -> bool:
        """Whether no set of this kind makes the worst case learn nothing, as ``direction`` proves."""
        return self.weights is None and self.radius == self.bound

    def __str__(self) -> str:
        size = "alpha" if self.kind == "cvar" else "radius"
        known = self.weights is not None or self.separable
        value = f"{self.radius:.4g}" if known else f"between {self.bound:.4g} and {self.radius:.4g}"
        lots = "" if self.batch is None else f", minibatches of {self.batch}"
        parts = [f"{self.kind}{lots}: collapse {size} {value} in sample"]
        if self.separable:
            given = "no pair a negative" if self.kind == "burg" else "all a positive"
            parts[0] += (
                f": `direction` gives {given if self.batch is None else 'the least of a lot a positive mean'} margin"
            )
        if self.vacuous:
            parts.append("vacuous, for there are no more scenarios than features, so any labels are separable")
        if self.null.size:
            parts.append(f"{np.quantile(self.null, 0.5, method='inverted_cdf'):.4g} for random signs")
        if self.by_fold:
            low, high = self.interval
            parts.append(f"{self.held_out:.4g} [{low:.4g}, {high:.4g}] held out")
        return "; ".join(parts)


def collapse_radius(
    features: Array,
    set_kind: str | type[AmbiguitySet],
    *,
    reference: Array | None = None,
    groups: Array | Sequence[Any] | None = None,
    folds: int = 5,
    clusters: Array | Sequence[Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    cost: Array | None = None,
    batch: int | None = None,
) -> CollapseRadius:
    """Return the smallest radius at which robust training on fixed features learns nothing.

        r = min { radius : E_q x = 0 for some q in the set of that radius around p },

    with x the chosen minus the rejected answer's features. From there on w = 0 minimises max_q E_q l(<w, x>) for every
    convex loss with l'(0) < 0: all losses are equal at 0, and that q makes its gradient vanish. Below it 0 is no
    minimiser. By minimax r is the largest ``margin_collapse`` of any direction, which proves it from the other side.
    It is infinite where a direction gives every pair a positive margin (Gordan), and so for every network that can fit
    all its pairs.

    The in-sample value is too large: with random labels 2 n r is about chi-square with d degrees of freedom (KL, Burg,
    chi-square), so r is d / 2n without any signal. ``null`` shows it, ``held_out`` is free of it.

    Training on minibatches whose weights are made one lot at a time collapses later: at the least radius at which the
    mean, over all lots of ``batch`` rows, of weights of each that are in its set balances; r falls as the batch grows.

    Interior points for TV, CVaR and chi-square, Newton's method for KL, Burg and minibatches: about n d^2 operations a
    step, five to forty steps for each of the 1 + folds + seeds problems.

    Args:
        features: Shape ``(n, d)``, x as above; numpy or anything ``numpy.asarray`` reads. Constant and dependent
            columns do no harm.
        set_kind: See ``margin_collapse``.
        reference: p, shape ``(n,)``, nonnegative, summing to 1; uniform by default. Rows of mass 0 are not seen.
        groups: Shape ``(n,)``, any labels: the adversary reweighs groups, and their means are the scenarios. With no
            more groups than features the value in sample says nothing.
        folds: At least 2, or 0 for no held-out value.
        clusters: Shape ``(n,)``, any labels (the prompt, say): rows that folds and bootstrap keep together. Each row is
            its own by default.
        seeds: Of the null's random signs, one problem each; empty for no null. The first one also deals the folds.
        cost: Shape ``(n, n)``, of ``Wasserstein``, which is meant for at most some 2,000 rows, knows no groups, and
            sees rows of mass 0, for they can receive some.
        batch: Size of the minibatches, drawn without replacement; at most the rows of a fold. Total variation and
            CVaR, no reference, no groups. Null, folds and interval are those of such minibatches too.

    Raises:
        TypeError: Features that are not real numbers.
        ValueError: Wrong shapes, values that are not finite, a bad reference, a set without a known radius, a bad
            batch, or fewer clusters than folds.

    Warns:
        RuntimeWarning: The two proofs are further apart than 1e-7 of the radius (1e-3 with ``batch``).

    Example:
        >>> x = np.array([[1.0, 0.2], [1.0, -0.2], [1.0, 0.0], [-1.0, 0.0]])
        >>> found = collapse_radius(x, "tv", folds=0, seeds=())
        >>> round(found.radius, 6), bool(np.abs(found.weights @ x).max() < 1e-9)
        (0.25, True)
        >>> print(found)
        tv: collapse radius 0.25 in sample
    """
    name, matrix = kind_name(set_kind), checked_matrix(features, "features")
    given = checked_masses(reference, (len(matrix),))
    ways = _cost(name, cost, groups, given.size)
    if batch is not None:
        check_batch(batch, given.size, name, even=reference is None and groups is None)
    tolerance, rough = (_TOLERANCE, _ROUGH) if batch is None else (_TOLERANCE_BATCH, _ROUGH_BATCH)
    seen = np.flatnonzero(given if ways is None else np.ones(given.size))
    masses, found_groups = given[seen], _codes("groups", groups, seen, given.size)
    found_clusters = _codes("clusters", clusters, seen, given.size)
    units: Array = seen.argsort() if found_clusters is None else found_clusters
    _check_folds(folds, len(set(units.tolist())))
    white = whiten(matrix[seen], masses)
    pairs = Pairs(white.rows, masses, found_groups, ways, batch)
    scenarios, parts, back = _solvable(pairs)
    rng = np.random.default_rng(seeds[0] if seeds else 0)
    dealt = _deal(units, folds, rng, batch)
    solved = pairs.balance(scenarios, parts, name, tolerance)
    null = [_null(pairs, name, seed, rough) for seed in seeds]
    tested = held_out(pairs, name, dealt, units, rng, tolerance=rough) if folds else None
    weights = _row_weights(solved, pairs, parts, seen, given.size)
    _warn(solved, name, tolerance)
    return CollapseRadius(
        kind=name,
        radius=solved.radius,
        bound=solved.bound,
        weights=weights,
        direction=_unit(white.back @ (back @ solved.direction)),
        imbalance=0.0 if weights is None else float(np.max(np.abs(weights[seen] @ white.rows), initial=0.0)),
        null=np.array(null),
        held_out=np.nan if tested is None else tested.value,
        by_fold=() if tested is None else tested.by_fold,
        interval=(np.nan, np.nan) if tested is None else tested.interval,
        vacuous=solved.weights is None and scenarios.shape[1] >= len(scenarios),
        batch=batch,
    )


def _codes(what: str, labels: Any, seen: Array, n: int) -> Array | None:
    """Return labels of the rows that are seen as codes 0, 1, ..."""
    if labels is None:
        return None
    given = np.asarray(labels)
    if given.shape != (n,):
        raise ValueError(f"{what} must hold one label for each of the {n} rows, got shape {given.shape}.")
    return np.unique(given[seen], return_inverse=True)[1]


def _cost(name: str, cost: Array | None, groups: Any, n: int) -> Array | None:
    if name != "wasserstein":
        if cost is not None:
            raise ValueError(f"`cost` belongs to 'wasserstein', got set_kind {name!r}.")
        return None
    if groups is not None:
        raise ValueError("'wasserstein' knows no groups; give their mean features and masses as rows.")
    return checked_cost(cost, n)


def _check_folds(folds: int, clusters: int) -> None:
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 0 or folds == 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"`folds` must be an integer of at least 2, or 0 for no held-out value, got {folds!r}.")
    if folds > clusters:
        fewer = f"folds={clusters} or, for no held-out value, " if clusters > 1 else ""
        raise ValueError(
            f"{folds} folds need as many clusters (prompts) with mass, got {clusters}; use {fewer}folds=0."
        )


def _deal(units: Array, folds: int, rng: np.random.Generator, batch: int | None) -> list[Array]:
    dealt = deal(units, folds, rng) if folds else []
    smallest = min(map(len, dealt), default=len(units))
    if batch is not None and batch > smallest:
        raise ValueError(
            f"minibatches of {batch} cannot be drawn from a fold of {smallest} rows; use a smaller batch, fewer folds "
            "or, for no held-out value, folds=0."
        )
    return dealt


def _solvable(pairs: Pairs) -> tuple[Array, Array, Array]:
    """Return the scenarios in independent features, their masses, and the way back to the features of the pairs."""
    rows, masses = pairs.scenarios()
    if pairs.groups is None:  # whitened already, and random signs leave it so
        return rows, masses, np.eye(rows.shape[1])
    white = whiten(rows, masses)
    return white.rows, masses, white.back


def _null(pairs: Pairs, name: str, seed: int, tolerance: float) -> float:
    """Return the radius once every row has a random sign."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=len(pairs.masses))
    rows, masses, _ = _solvable(pairs._replace(rows=signs[:, None] * pairs.rows))
    return pairs.balance(rows, masses, name, tolerance).radius


def _row_weights(solved: Balance, pairs: Pairs, masses: Array, seen: Array, n: int) -> Array | None:
    """Return the weights of scenarios as weights of all rows: a group shares in proportion to p."""
    if solved.weights is None:
        return None
    weights = np.zeros(n)
    weights[seen] = solved.weights if pairs.groups is None else pairs.masses * (solved.weights / masses)[pairs.groups]
    return weights


def _unit(direction: Array) -> Array:
    largest = np.max(np.abs(direction))
    if largest == 0:
        return direction
    direction = direction / largest  # whose squares do not overflow
    return direction / np.linalg.norm(direction)


def _warn(solved: Balance, name: str, tolerance: float) -> None:
    if solved.error(name) > tolerance:
        warnings.warn(
            f"the collapse radius lies between {solved.bound:.6g} and {solved.radius:.6g}, a wider gap than "
            f"{tolerance:g} of it; leave out nearly dependent columns or very small reference masses.",
            RuntimeWarning,
            stacklevel=3,
        )
