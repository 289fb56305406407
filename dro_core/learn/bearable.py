"""Of a fit that learned nothing: at which size of its set that begins."""

from __future__ import annotations

import numpy as np

from .._solvers.arrays import Array
from ..collapse.margins import EXACT
from ..collapse.radius import collapse_radius
from ..sets.ambiguity import AmbiguitySet
from ..sets.composition import Grouped
from ..sets.sorted import CVaR


def useful_below(ambiguity: AmbiguitySet, rows: Array, reference: Array) -> float | None:
    """Return the size from which on nothing is learned from these examples, an end that a useful set stays clear of.

    None where it is not known for the set, or where the set is smaller and the fit constant for another reason.

    Args:
        ambiguity: With groups of these rows, if with any.
        rows: Shape ``(n, d)``, features with their label's sign, a column for the intercept included.
        reference: p, shape ``(n,)``.
    """
    inner = ambiguity.inner if isinstance(ambiguity, Grouped) else ambiguity
    kind = getattr(inner, "spec", None)
    if inner.core is not inner or kind not in EXACT or getattr(inner, "max_ratio", None) is not None:
        return None
    groups = ambiguity.groups if isinstance(ambiguity, Grouped) else None
    found = collapse_radius(rows, type(inner), reference=reference, groups=groups, folds=0, seeds=())
    size = float(np.asarray(getattr(inner, inner.size)))
    known = found.weights is not None
    reached = size <= found.radius if isinstance(inner, CVaR) else size >= found.radius
    return found.radius if known and reached else None
