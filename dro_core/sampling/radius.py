"""Which radius, from a confidence level: how far the truth may lie from a sample of n."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special as _untyped  # pyright: ignore[reportMissingTypeStubs]

from .._solvers import arrays
from .._solvers.sizes import Size
from ..sets.ambiguity import AmbiguitySet, checked_number
from ..sets.burg import Burg, BurgPenalty
from ..sets.composition import Grouped
from ..sets.divergences import KL, CressieRead, Hellinger
from ..sets.penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty
from ..sets.sizes import checked_size
from ..sets.sorted import ChiSquare, CVaR, Spectral, TotalVariation
from ..sets.transport import Wasserstein

_special: Any = _untyped  # ships no type hints

_CAP = "a cap on q/p leaves out every truth of which the sample shows too little; use ChiSquare"
_NO_RADIUS: dict[type, str] = {
    TotalVariation: "max_ratio leaves out every truth of which the sample shows too little; drop it",
    CVaR: _CAP,
    Spectral: _CAP,
    Wasserstein: "rates depend on dimension and tails; on known atoms, TotalVariation's times the largest cost does",
    Grouped: "for the mixture of groups take the radius of its inner set, atoms=(number of groups)",
    KLPenalty: "a penalty has no radius; use KL",
    ChiSquarePenalty: "a penalty has no radius; use ChiSquare",
    CressieReadPenalty: "a penalty has no radius; use CressieRead",
    BurgPenalty: "a penalty has no radius; use Burg",
}


def _divergence_radius(n: Any, delta: float, atoms: int | None) -> Any:
    if atoms is None:
        return max(float(_special.ndtri(1 - delta)), 0.0) ** 2 / (2 * n)
    return float(_special.chdtri(atoms - 1, delta)) / (2 * n)


def _total_variation_radius(n: Any, delta: float, atoms: int | None) -> Any:
    if atoms is None:
        return np.minimum(1.0, np.sqrt(_divergence_radius(n, delta, None) / 2))
    # The distance is the largest excess mass of an event: either Hoeffding for each of the 2^k - 2 proper events,
    # or its mean, at most sqrt((k - 1) / n) / 2, and McDiarmid, for one observation moves it by at most 1/n.
    log_events = atoms * math.log(2) + math.log1p(-(2.0 ** (1 - atoms)))
    by_union = np.sqrt((log_events - math.log(delta)) / (2 * n))
    by_mean = np.sqrt((atoms - 1) / n) / 2 + np.sqrt(-math.log(delta) / (2 * n))
    return np.minimum(1.0, np.minimum(by_union, by_mean))


def _answer(radius: Any) -> Any:
    return float(radius) if np.ndim(radius) == 0 else radius


def radius_from_confidence(
    ambiguity: type[AmbiguitySet] | AmbiguitySet, n: Size, delta: float, *, atoms: int | None = None
) -> Any:
    """Return the radius at which the set around n independent observations covers the truth.

    z and chi2_d are the upper ``delta`` quantiles of the normal law and of chi-square with d degrees of freedom:

    | | one mean (no ``atoms``) | the whole distribution on k ``atoms`` |
    |---|---|---|
    | ChiSquare, KL, CressieRead, Burg | z^2 / (2n) [DGN21] | chi2_{k-1} / (2n) [BT13] |
    | Hellinger | half of that | half of that |
    | TotalVariation | z / (2 sqrt n) | sqrt(log((2^k - 2) / delta) / (2n)) [W03] or, if smaller, |
    | | | sqrt((k - 1) / n) / 2 + sqrt(log(1 / delta) / (2n)) |

    *One mean*: P(E_truth l <= robust loss) -> 1 - delta, for a loss l of finite variance fixed beforehand; for a
    trained model it holds of the optimal value, if its minimiser is unique [DGN21]. *Whole distribution*:
    P(truth in the set) -> 1 - delta, hence for all losses and trained models at once. ``atoms=d + 1`` in a
    divergence covers the means of d losses at once.

    What is asymptotic: everything but TotalVariation with atoms, which holds at every n. A small n, or an atom
    expected less than 10 times, covers less (KL loses least: .94 instead of .95 at n = 60 and an atom of .1,
    ChiSquare .91), as no divergence gives weight to what the sample has not shown.

    The 1/2: for phi''(1) = 1 (Hellinger: 1/2), sup_q <q, l> = mean + sqrt(2 radius Var l) + o(n^-1/2), to
    match with z sqrt(Var l / n); [DGN21] has phi''(1) = 2. TotalVariation(r) contains ChiSquare(2 r^2); its z is
    exact for a fair coin and generous for a small variance.

    Args:
        ambiguity: ``ChiSquare``, ``KL``, ``CressieRead``, ``Burg``, ``TotalVariation``: the class or any such set.
        n: Number of independent observations, at least 1; or an array, as of the visits to each state and action.
        delta: Probability of missing the truth, in (0, 1).
        atoms: Number of possible outcomes (prompt sources, say), all known, to cover their whole distribution.

    Returns:
        The radius, in the unit of the set; a numpy array of radii for an array n, which makes a set of one per problem.

    Raises:
        TypeError: Not an ambiguity set.
        ValueError: A number out of range, or a set for which theory gives no radius; the message says why.

    Example:
        >>> from dro_core import ChiSquare, TotalVariation
        >>> round(radius_from_confidence(ChiSquare, 1000, 0.05), 6)
        0.001353
        >>> round(radius_from_confidence(TotalVariation, 1000, 0.05, atoms=5), 4)
        0.0566
    """
    counts = checked_size("n", "the number of observations", "[1, inf)", n, "Count independent ones only.")
    checked_number("delta", "the probability of missing the truth", "(0, 1)", delta, "Use for example 0.05.")
    if atoms is not None and (not isinstance(atoms, int) or isinstance(atoms, bool) or atoms < 2):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"`atoms` is the number of possible outcomes, an integer of at least 2, got {atoms!r}.")
    given = counts if isinstance(counts, float) else arrays.fetched(arrays.namespace_of(counts), counts)
    kind = ambiguity if isinstance(ambiguity, type) else type(ambiguity)
    if not issubclass(kind, AmbiguitySet):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"ambiguity must be a set or its class, such as ChiSquare, got {ambiguity!r}.")
    if issubclass(kind, (ChiSquare, KL, CressieRead, Burg)):
        return _answer(_divergence_radius(given, delta, atoms))
    if issubclass(kind, Hellinger):
        return _answer(_divergence_radius(given, delta, atoms) / 2)
    if issubclass(kind, TotalVariation) and getattr(ambiguity, "max_ratio", None) is None:
        return _answer(_total_variation_radius(given, delta, atoms))
    why = _NO_RADIUS.get(kind, "no theorem is known")
    raise ValueError(f"no radius of {kind.__name__} is known to cover the truth: {why}.")
