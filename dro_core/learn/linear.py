"""Robust logistic regression and Bradley-Terry rewards on fixed features, to a certified optimality gap.

Reward heads on frozen embeddings: an interior-point method, so ten to thirty passes whatever the set.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import NamedTuple, cast

import numpy as np

from .._solvers.arrays import Array
from .._solvers.checks import checked_masses, checked_matrix
from ..inner import worst_case
from ..sets.ambiguity import AmbiguitySet, checked_number, require_one_size
from .interior_point import Problem, Solution, minimise
from .set_blocks import Adversary, adversary, hull

_ROUNDS = 200  # members of a set without a description in blocks


class LinearFit(NamedTuple):
    """A robust linear model and the proof of how good it is.

    Attributes:
        coefficients: Shape ``(d,)``.
        intercept: 0 without one.
        value: The robust objective at these parameters, in nats.
        gap: ``value`` less a proven lower bound of the minimum, in nats; nonnegative up to rounding. With a penalty
            the parameters are within sqrt(2 gap / penalty) of the best ones.
        weights: Shape ``(n,)``, the adversary's distribution q that proves the bound: against it alone no parameters
            do better than value - gap (less its price, for a penalised set).
        iterations: Newton steps.
    """

    coefficients: Array
    intercept: float
    value: float
    gap: float
    weights: Array
    iterations: int


def fit_linear(
    features: Array,
    labels: Array,
    ambiguity: AmbiguitySet | None = None,
    *,
    penalty: float = 1e-3,
    fit_intercept: bool = True,
    reference: Array | None = None,
    tolerance: float = 1e-9,
) -> LinearFit:
    """Fit a logistic regression to the worst reweighting of its examples.

        min_{w, b} max_q sum_i q_i log(1 + exp(-y_i (<w, x_i> + b))) + penalty/2 ||w||^2,   q in ``ambiguity``.

    Solved by a primal-dual interior-point method, about n d^2 operations a step, ten to thirty steps. Any q in the
    set bounds the minimum from below by the Fenchel dual of the logistic regression with weights q; the q of the
    last step closes that gap. If some q in the set makes the labels unpredictable, w = 0 with value log 2 is the
    exact answer: a large set on noisy labels does that.

    Args:
        features: Shape ``(n, d)``, one example a row; numpy or anything ``numpy.asarray`` reads.
        labels: Shape ``(n,)``, booleans, 0 and 1, or -1 and 1; both classes present.
        ambiguity: The set; None is plain logistic regression. Any convex set of ``dro_core``. One that is not
            separable over scenarios or groups (Wasserstein) is approached by its members, one a round, which is
            meant for at most some hundred examples.
        penalty: Strength of the squared norm, in nats; scikit-learn's C is 1 / (n penalty). The intercept is
            free. With 0 the minimum must exist: no hyperplane may separate the classes.
        fit_intercept: Whether to fit b.
        reference: Shape ``(n,)``, nonnegative, summing to 1: sample weights. Uniform by default.
        tolerance: The gap to reach, relative to the value; at most 1e-12 nats are always good enough.

    Returns:
        The fit with its certificate. A gap above the tolerance also gives a RuntimeWarning.

    Raises:
        TypeError: ``ambiguity`` is not a set.
        ValueError: Wrong shapes, values that are not finite, labels that are not two classes, a bad parameter, a set
            that is not convex, or separable classes without a penalty.

    Example:
        >>> import numpy as np
        >>> from dro_core import CVaR
        >>> from dro_core.learn.linear import fit_linear
        >>> features, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 1, 0, 1])
        >>> fit = fit_linear(features, labels, CVaR(alpha=0.9), penalty=0.1)
        >>> round(fit.value, 6), fit.gap <= 1e-9 * fit.value
        (0.643213, True)
    """
    matrix = checked_matrix(features, "features")
    signs = _signs(labels, len(matrix))
    masses = checked_masses(reference, (len(matrix),))
    seen = signs[masses > 0]
    if seen.min() == seen.max():
        raise ValueError(
            f"labels must hold two classes with positive reference mass, got only {seen[0]:+.0f}; "
            "for pairs of a chosen and a rejected answer use fit_pairs."
        )
    if not fit_intercept:
        return _fit(signs[:, None] * matrix, [], ambiguity, masses, penalty, tolerance)
    # The intercept makes up for any shift of the features. Without their mean the two hardly mix; written so that a
    # constant feature becomes exactly zero.
    mean = matrix[0] + masses @ (matrix - matrix[0])
    found = _fit(signs[:, None] * (matrix - mean), [signs[:, None]], ambiguity, masses, penalty, tolerance)
    return found._replace(intercept=found.intercept - float(mean @ found.coefficients))


def fit_pairs(
    chosen: Array,
    rejected: Array,
    ambiguity: AmbiguitySet | None = None,
    *,
    penalty: float = 1e-3,
    reference: Array | None = None,
    tolerance: float = 1e-9,
) -> LinearFit:
    """Fit a linear Bradley-Terry reward <w, x> to the worst reweighting of preference pairs.

        min_w max_q sum_i q_i log(1 + exp(-<w, chosen_i - rejected_i>)) + penalty/2 ||w||^2,   q in ``ambiguity``.

    Args:
        chosen: Shape ``(n, d)``, features of the preferred answers.
        rejected: Shape ``(n, d)``, features of the others.
        ambiguity: See ``fit_linear``; so are the other arguments, the result and the errors.
        penalty: Strength of the squared norm.
        reference: Shape ``(n,)``, sample weights that sum to 1.
        tolerance: The relative gap to reach.

    Returns:
        The fit, with intercept 0.

    Example:
        >>> import numpy as np
        >>> from dro_core import TotalVariation
        >>> from dro_core.learn.linear import fit_pairs
        >>> chosen, rejected = np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [0.0, 2.0]])
        >>> fit = fit_pairs(chosen, rejected, TotalVariation(0.1), penalty=0.1)
        >>> bool(np.all((chosen - rejected) @ fit.coefficients > 0))
        True
    """
    better, worse = checked_matrix(chosen, "chosen"), checked_matrix(rejected, "rejected")
    if better.shape != worse.shape:
        raise ValueError(f"chosen and rejected must have one shape, got {better.shape} and {worse.shape}.")
    return _fit(better - worse, [], ambiguity, checked_masses(reference, (len(better),)), penalty, tolerance)


def _signs(labels: Array, n: int) -> Array:
    given = np.asarray(labels)
    if given.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one per row of features, got {given.shape}.")
    classes = np.unique(given)
    if given.dtype.kind not in "biuf" or not (set(classes.tolist()) <= {0, 1} or set(classes.tolist()) <= {-1, 1}):
        shown = ", ".join(repr(label) for label in classes[:5].tolist())
        raise ValueError(
            f"labels must be booleans, 0 and 1, or -1 and 1, got {shown}; RobustPreferenceClassifier takes any two."
        )
    return np.where(given > 0, 1.0, -1.0)


def _seen(ambiguity: AmbiguitySet | None, masses: Array) -> Array:
    """Return the examples that the set can weigh."""
    everything = ambiguity is not None and ambiguity.sees_zero_mass
    return ((masses > 0) | everything).nonzero()[0]


def _fit(
    signed: Array,
    columns: list[Array],
    ambiguity: AmbiguitySet | None,
    masses: Array,
    penalty: float,
    tolerance: float,
) -> LinearFit:
    """Fit to features times labels; ``columns`` are the unpenalised ones."""
    given = cast(object, ambiguity)
    if given is not None and not isinstance(given, AmbiguitySet):
        raise TypeError(
            f"ambiguity must be a set such as CVaR(0.3), or None, got {given!r}; parse_ambiguity reads text."
        )
    require_one_size(ambiguity)
    remedy = "Start from 1e-3 for standardised features."
    penalty = checked_number("penalty", "the strength of the squared norm", "[0, inf)", penalty, remedy)
    tolerance = checked_number("tolerance", "the relative gap to reach", "(0, 1)", tolerance, "Use 1e-9.")
    rows = _seen(ambiguity, masses)
    if rows.size < masses.size:
        signed, columns, ambiguity = signed[rows], [c[rows] for c in columns], ambiguity and ambiguity.take(rows)
    basis = None
    if penalty > 0 and signed.shape[1] > len(signed):
        # The best coefficients are combinations of the examples, so n orthonormal directions are enough.
        basis, triangle = np.linalg.qr(signed.T)
        signed = triangle.T
    d = signed.shape[1]
    penalties = np.array([penalty] * d + [0.0] * len(columns))
    found = _solution(np.hstack([signed, *columns]), penalties, ambiguity, masses[rows], tolerance)
    weights = np.zeros(masses.size)
    weights[rows] = found.weights
    coefficients = found.parameters[:d] if basis is None else basis @ found.parameters[:d]
    intercept = float(found.parameters[d]) if columns else 0.0
    return LinearFit(coefficients, intercept, found.value, found.value - found.bound, weights, found.iterations)


def _solution(
    design: Array, penalty: Array, ambiguity: AmbiguitySet | None, masses: Array, tolerance: float
) -> Solution:
    def value(losses: Array) -> float:
        return float(masses @ losses if ambiguity is None else worst_case(losses, ambiguity, reference=masses).value)

    value(np.zeros(masses.size))  # a set that does not fit the examples explains itself
    described = adversary(ambiguity, masses)
    if described is not None:
        found = minimise(Problem(design, penalty, described), value, tolerance=tolerance)
    else:
        assert ambiguity is not None
        found = _over_members(design, penalty, ambiguity, masses, tolerance)
    if not penalty.any() and np.min(design @ found.parameters) > 0:
        raise ValueError("the classes can be separated, so without a penalty no minimum exists; use penalty > 0.")
    if found.value - found.bound > max(tolerance * found.value, 1e-12):
        warnings.warn(
            f"the gap is {found.value - found.bound:.3g}, more than {tolerance:.3g} of the value {found.value:.3g}; "
            "standardise the features or raise the penalty.",
            RuntimeWarning,
            stacklevel=4,
        )
    return found


def _largest(known: Adversary, losses: Array) -> float:
    return float(np.max(known.atom_losses(losses)))


def _over_members(design: Array, penalty: Array, ambiguity: AmbiguitySet, masses: Array, tolerance: float) -> Solution:
    """Minimise over a set known by its worst cases only: solve for the hull of those found, add the next one.

    The hull lies in the set, so its bound holds for the set as well.
    """
    members, charges = masses[None], np.zeros(1)
    best: Solution | None = None
    for _ in range(_ROUNDS):
        known = hull(members, charges)
        problem = Problem(design, penalty, known)
        found = minimise(problem, partial(_largest, known), tolerance=tolerance / 4)
        losses = problem.losses(found.parameters).values
        worst = worst_case(losses, ambiguity, reference=masses)
        objective = float(worst.value) + float(penalty @ found.parameters**2) / 2
        parameters = found.parameters if best is None or objective < best.value else best.parameters
        least = objective if best is None else min(objective, best.value)
        steps = found.iterations + (0 if best is None else best.iterations)
        best = Solution(parameters, least, found.bound, found.weights, steps)
        if least - found.bound <= max(tolerance * least, 1e-12):
            break
        members = np.vstack([members, worst.weights])
        charges = np.append(charges, worst.weights @ losses - worst.value)
    assert best is not None
    return best
