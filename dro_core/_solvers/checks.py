"""Checks of features and reference masses that come as arrays in main memory."""

from __future__ import annotations

import numpy as np

from .arrays import Array


def checked_matrix(features: Array, name: str) -> Array:
    """Return features as a float64 matrix ``(n, d)`` with n, d > 0.

    Raises:
        TypeError: They are not real numbers.
        ValueError: Another shape, or a number that is not finite.
    """
    matrix = np.asarray(features)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have shape (n, d) with n, d > 0, one example a row, got {matrix.shape}.")
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {matrix.dtype}; encode the rest first.")
    matrix = matrix.astype(np.float64, copy=False)
    bad = np.argwhere(~np.isfinite(matrix))
    if bad.size:
        row, column = (int(place) for place in bad[0])
        raise ValueError(
            f"{name} must be finite, got {matrix[row, column]} in row {row}, column {column}; impute or drop it."
        )
    return matrix


def checked_masses(reference: Array | None, shape: tuple[int, ...]) -> Array:
    """Return reference masses ``shape`` that sum to 1 over the last axis; one row may serve a whole batch.

    Raises:
        ValueError: Another shape, a negative mass, or another sum.
    """
    if reference is None:
        return np.full(shape, 1 / shape[-1])
    masses = np.asarray(reference, dtype=np.float64)
    if masses.shape not in (shape, shape[-1:]):
        last = f"({shape[-1]},)" if len(shape) == 1 else f"{shape} or ({shape[-1]},)"
        raise ValueError(f"reference must have shape {last}, one mass per example, got {masses.shape}.")
    sums = masses.sum(axis=-1, keepdims=True)
    if not np.all(masses >= 0) or not np.all(np.abs(sums - 1) <= 1e-6):
        raise ValueError("reference must be nonnegative and sum to 1; clip it at zero and divide it by its sum.")
    return np.broadcast_to(masses / sums, shape)
