"""The one place for array-namespace quirks and for the dtype policy.

Everything is solved in float64, whatever comes in: in float32 a cumulative sum over 1e5 losses near 1000 is
off by one per cent of their range. Weights and values go back in the dtype of the losses; integers become
float64.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import array_api_compat as _untyped

Array: TypeAlias = Any  # numpy.ndarray, torch.Tensor or any other array-API array
Namespace: TypeAlias = Any

array_api_compat: Any = _untyped  # ships no type hints


def namespace_of(losses: Array, *others: Array | None) -> Namespace:
    """Return the array-API namespace that all given arrays share; TypeError when they share none."""
    given = [losses, *(other for other in others if other is not None)]
    try:
        return array_api_compat.array_namespace(*given)
    except TypeError as error:
        kinds = " and ".join(type(array).__name__ for array in given)
        raise TypeError(
            f"losses and reference must be arrays of one library (numpy, torch, ...), got {kinds}; "
            "convert lists with numpy.asarray or torch.tensor first."
        ) from error


def detach(array: Array) -> Array:
    """Cut the array from its gradient graph, where its library has one."""
    return array.detach() if hasattr(array, "detach") else array


def as_float64(xp: Namespace, array: Array, name: str) -> Array:
    """Cast to float64, outside any gradient graph; booleans and complex numbers are a TypeError."""
    if not xp.isdtype(array.dtype, ("real floating", "integral")):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}; cast it to a real dtype first.")
    return xp.astype(detach(array), xp.float64, copy=False)


def result_dtype(xp: Namespace, array: Array) -> Any:
    """Return the dtype that answers go back in: the array's own if it is floating, else float64."""
    return array.dtype if xp.isdtype(array.dtype, "real floating") else xp.float64


def float64_like(xp: Namespace, value: Array | float, array: Array) -> Array:
    """Bring a plain number or an array to float64 on the device of ``array``."""
    if isinstance(value, (int, float)):
        return xp.asarray(float(value), dtype=xp.float64, device=array_api_compat.device(array))
    return as_float64(xp, value, "a dual variable")


def uniform_like(xp: Namespace, losses: Array) -> Array:
    """Return the uniform distribution over the last axis, one per batch entry."""
    share = 1.0 / losses.shape[-1]
    return xp.full(losses.shape, share, dtype=xp.float64, device=array_api_compat.device(losses))


def total(xp: Namespace, array: Array) -> Array:
    """Sum over the scenarios, the last axis, which stays with length one."""
    return xp.sum(array, axis=-1, keepdims=True)


def is_checked(xp: Namespace, *, check_finite: bool | None) -> bool:
    """Decide whether to look at values: always on numpy, else on demand (it waits for the device)."""
    return array_api_compat.is_numpy_namespace(xp) if check_finite is None else check_finite


def require_finite(xp: Namespace, losses: Array) -> None:
    """Raise ValueError naming the first index whose loss is NaN or infinite."""
    bad = ~xp.isfinite(losses)
    if bool(xp.any(bad)):
        index = tuple(int(axis[0]) for axis in xp.nonzero(bad))
        where = index[0] if len(index) == 1 else index
        raise ValueError(
            f"losses must be finite, got {float(losses[index])} at index {where}; drop or clip that scenario first."
        )


def require_distribution(xp: Namespace, reference: Array, tolerance: float) -> None:
    """Raise ValueError unless every row is nonnegative and sums to one."""
    if not bool(xp.all(reference >= 0)):  # also catches NaN
        raise ValueError("reference must be nonnegative, got a negative or NaN mass; clip it at zero and renormalise.")
    error = xp.max(xp.abs(xp.sum(reference, axis=-1) - 1))
    if not bool(error <= tolerance):
        raise ValueError(
            f"reference must sum to 1 over its last axis, it is off by {float(error):.3g}; divide it by its sum."
        )
