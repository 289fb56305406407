"""How wrong a model can become under any shift of a given size, and how sure finitely many test pairs make of it.

P is the distribution the test pairs were drawn from, A the event that the model ranks a pair wrongly, e = P(A) its
error. For a set of distributions Q around P, sup Q(A) depends on e alone, because the loss is 0 or 1:

    total variation   sup { Q(A) : TV(Q, P) <= r }                          = min(1, e + r)
    chi-square        sup { Q(A) : Q << P, E_P (dQ/dP - 1)^2 <= r }         = min(1, e + sqrt(r e (1 - e)))

Both are nondecreasing in e, so an upper confidence limit of e, put in its place, bounds the error under every shift
of every size r at once, with the confidence of that one limit: there is nothing to correct for the number of radii.
The bounds say nothing about a shift that is larger than r, and r of a shift yet to come is never known.

Keys: [CP34] Clopper & Pearson 1934; [H63] Hoeffding 1963; [B04] Bentkus 2004; [LTT] Angelopoulos, Bates, Candes,
Jordan & Lei, 2110.01052; [derived] the docstring has the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from .intervals import Clusters, cluster_means

Array = NDArray[np.float64]


class ErrorLimit(NamedTuple):
    """An error and its one-sided upper confidence limit.

    Attributes:
        error: Mean over the independent units.
        limit: At least the true error with the asked confidence.
        units: Independent units: pairs, or questions where pairs share one.
        method: "Clopper-Pearson" or "Hoeffding-Bentkus".
    """

    error: float
    limit: float
    units: int
    method: str


def tv_error(error: ArrayLike, radius: ArrayLike) -> Array:
    """Largest error under any shift of total variation at most ``radius``: min(1, error + radius).

    Proof [derived]: Q(A) - P(A) <= TV(Q, P) by definition of the latter. Equality: move mass min(r, 1 - e) from the
    complement of A onto a point of A, or, if A is empty in P, onto any pair that the model ranks wrongly. A shift
    that P has to dominate cannot do that: there e = 0 stays 0, and the bound still holds.

    Args:
        error: P(A) in [0, 1], any shape.
        radius: 1/2 ||Q - P||_1 in [0, 1]; broadcast against ``error``.

    Raises:
        ValueError: A number outside its interval.

    >>> tv_error(0.25, [0.0, 0.5, 1.0]).tolist()
    [0.25, 0.75, 1.0]
    """
    e = _inside(error, "error", 1.0)
    return np.minimum(1.0, e + _inside(radius, "radius", 1.0))


def chi_square_error(error: ArrayLike, radius: ArrayLike) -> Array:
    """Largest error under any Q << P with E_P (dQ/dP - 1)^2 <= ``radius``: min(1, e + sqrt(radius e (1 - e))).

    Proof [derived]: by Jensen, for a given Q(A) = s the smallest E_P (dQ/dP - 1)^2 is that of the density which is
    s/e on A and (1 - s)/(1 - e) off it: (s - e)^2 / (e (1 - e)). It is a density for every s in [0, 1]; solving for s
    gives the formula, and s = 1 is reached from radius (1 - e)/e on. e = 0 stays 0, as Q << P.
    Nondecreasing in e: concave in e where uncapped, and equal to 1 at both e = 1/(1 + radius) and e = 1.

    The radius has no factor 1/2: it is twice that of ``dro_core.ChiSquare``.

    Args:
        error: P(A) in [0, 1], any shape.
        radius: Nonnegative; broadcast against ``error``.

    Raises:
        ValueError: A number outside its interval.

    >>> chi_square_error(0.2, [0.0, 1.0, 4.0, 9.0]).round(3).tolist()
    [0.2, 0.6, 1.0, 1.0]
    """
    e = _inside(error, "error", 1.0)
    return np.minimum(1.0, e + np.sqrt(_inside(radius, "radius", np.inf) * e * (1.0 - e)))


SHIFTS: dict[str, Callable[[ArrayLike, ArrayLike], Array]] = {
    "total variation": tv_error,
    "chi-square": chi_square_error,
}


def error_limit(errors: ArrayLike, clusters: Clusters = None, *, confidence: float = 0.95) -> ErrorLimit:
    """Upper confidence limit for the error of a model, from its errors on test pairs.

    Assumed: the questions, with their pairs, are independent draws from P. Nothing is assumed about the dependence of
    pairs within a question. The error is that of drawing a question, then one of its pairs: every question counts
    once, however many pairs it has. Where each pair is a question of its own that is the plain error.

    If the unit errors are all 0 or 1 the limit is exact [CP34]; question averages and averages over training seeds
    lie in between, and get the limit of ``bounded_limit``. With averages over seeds the error is that of a model
    drawn from these seeds.

    Args:
        errors: Shape (n,), in [0, 1]: 1 where the pair is ranked wrongly, or the share of seeds that do.
        clusters: One label per pair, as in ``llm.statistics.intervals``.
        confidence: In (0, 1).

    Raises:
        ValueError: No errors, errors outside [0, 1] or a confidence outside (0, 1).

    >>> error_limit([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).limit.__round__(4)
    0.3942
    """
    means = cluster_means(errors, clusters)
    if not len(means):
        raise ValueError("An error limit needs at least one test pair, got none.")
    units, mean = len(means), float(means.mean())
    if np.all((means == 0.0) | (means == 1.0)):
        limit, method = exact_limit(int(means.sum()), units, confidence=confidence), "Clopper-Pearson"
    else:
        limit, method = bounded_limit(mean, units, confidence=confidence), "Hoeffding-Bentkus"
    return ErrorLimit(mean, limit, units, method)


def exact_limit(wrong: int, trials: int, *, confidence: float = 0.95) -> float:
    """One-sided upper limit for a binomial probability [CP34]: the p with P(Binomial(trials, p) <= wrong) = 1 - c.

    >>> exact_limit(0, 10).__round__(4)  # 1 - 0.05 ** (1 / 10)
    0.2589
    """
    _check_confidence(confidence)
    if not 0 <= wrong <= trials or trials < 1:
        raise ValueError(f"wrong must lie between 0 and trials, and trials be at least 1; got {wrong} of {trials}.")
    return 1.0 if wrong == trials else float(special.betaincinv(wrong + 1, trials - wrong, confidence))


def bounded_limit(mean: float, units: int, *, confidence: float = 0.95) -> float:
    """One-sided upper limit for the mean of independent variables in [0, 1], without any other assumption [LTT].

    The largest p that the smaller of two tail bounds for "the average of n such variables is at most ``mean``"
    does not reject: exp(-n KL(mean || p)) [H63] and e P(Binomial(n, p) <= ceil(n mean)) [B04].

    >>> round(bounded_limit(0.1, 10), 3), round(bounded_limit(0.1, 1000), 3)
    (0.455, 0.122)
    """
    _check_confidence(confidence)
    if not 0.0 <= mean <= 1.0 or units < 1:
        raise ValueError(f"mean must lie in [0, 1] and units be at least 1; got {mean} of {units} units.")
    low, high = mean, 1.0
    for _ in range(60):  # halving [0, 1] sixty times reaches the last digit
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(mean, units, middle) > 1.0 - confidence else (low, middle)
    return high


def _tail(mean: float, units: int, p: float) -> float:
    """A bound on P(average of ``units`` variables in [0, 1] with mean p >= ``mean`` is at most ``mean``)."""
    divergence = special.rel_entr(mean, p) + special.rel_entr(1.0 - mean, 1.0 - p)
    count = np.ceil(units * mean - 1e-9)  # a sum of 3 units must not become 4 by rounding
    binomial = special.bdtr(count, units, p) if count < units else 1.0
    return float(min(np.exp(-units * divergence), np.e * binomial))


def _inside(values: ArrayLike, name: str, top: float) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if not np.all((array >= 0.0) & (array <= top)):
        span = "[0, 1]" if top == 1.0 else "[0, inf)"
        raise ValueError(f"{name} must lie in {span}, got {values}. Errors are shares, radii are sizes of a shift.")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}. Usual: 0.95.")
