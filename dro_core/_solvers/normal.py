"""Normal equations: weighted Gram matrices of many rows, and their solution."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import scipy.linalg as _linalg  # pyright: ignore[reportMissingTypeStubs]
from numpy.linalg import LinAlgError

from .arrays import Array

linalg: Any = _linalg  # scipy ships no type hints

_ROWS = 8192  # at a time, so that their weighted copy stays small


def gram(rows: Array, weights: Array) -> Array:
    """Return rows' diag(weights) rows, ``(k, k)``, for rows ``(n, k)`` and nonnegative weights ``(n,)``."""
    found = np.zeros((rows.shape[1], rows.shape[1]))
    for first in range(0, len(rows), _ROWS):
        scaled = rows[first : first + _ROWS] * np.sqrt(weights[first : first + _ROWS, None])
        found += scaled.T @ scaled
    return found


def factor(matrix: Array) -> Callable[[Array], Array]:
    """Factor a positive semidefinite matrix, scaled to a unit diagonal plus a rounding error; return its solver.

    Raises:
        LinAlgError: It is not positive semidefinite up to rounding.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix * scale * scale[:, None]
    for jitter in (0.0, 1e-14, 1e-11, 1e-8):  # rounding can leave a small negative eigenvalue
        scaled[np.diag_indices_from(scaled)] = 1 + jitter
        with suppress(LinAlgError):
            factored = linalg.cho_factor(scaled, check_finite=False)
            return lambda right: scale * linalg.cho_solve(factored, scale * right, check_finite=False)
    raise LinAlgError("the Newton system is not positive definite; scale the features or raise the penalty.")
