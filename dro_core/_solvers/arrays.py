"""The one place for array-namespace quirks and for the dtype policy.

Everything is solved in float64, whatever comes in: in float32 a cumulative sum over 1e5 losses near 1000 is
off by one per cent of their range. Weights and values go back in the dtype of the losses; integers become
float64.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import array_api_compat as _untyped
import numpy as np

Array: TypeAlias = Any  # numpy.ndarray, torch.Tensor or any other array-API array
Namespace: TypeAlias = Any

array_api_compat: Any = _untyped  # ships no type hints
device = array_api_compat.device
_FEW = 32  # numbers that cost less one by one than a wait for the device
TINY = 2.0**-40  # a mass beside which rounding could hide a scenario
_LARGEST = 2.0**1022  # the range of losses below it is finite, too


def namespace_of(losses: Array, *others: Array | None) -> Namespace:
    """Return the array-API namespace that all given arrays share; TypeError when they share none."""
    given = [array for array in (losses, *others) if array is not None]
    if {*map(type, given)} == {np.ndarray}:
        return np
    try:
        if any(isinstance(array, (np.ma.MaskedArray, np.matrix)) for array in given):
            raise TypeError
        xp = array_api_compat.array_namespace(*given)
    except TypeError as error:
        kinds = " and ".join(type(array).__name__ for array in given)
        raise TypeError(
            f"losses and reference must be arrays of one library (numpy, torch, ...), got {kinds}; "
            "convert lists with numpy.asarray or torch.tensor, and fill masked arrays first."
        ) from error
    return np if array_api_compat.is_numpy_namespace(xp) else xp


def on_host(xp: Namespace) -> bool:
    """Whether values may steer Python: only where looking at them stalls no device and breaks no graph."""
    return xp is np


def as_numpy(array: Array) -> Any:
    """Return a numpy array itself, a view of an eager tensor in main memory, None for any other array.

    numpy sorts and selects several times faster than torch on a CPU, and may stop iterating when it is done.
    Tensors without values (meta, compiled, transformed by functorch) refuse, and are solved by torch.
    """
    if type(array) is np.ndarray:
        return array
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(array, torch.Tensor) or torch.compiler.is_compiling():
        return None
    if array.device.type != "cpu" or type(array) not in (torch.Tensor, torch.nn.Parameter):
        return None
    wide = array.detach() if array.dtype != torch.bfloat16 else array.detach().double()
    try:
        return wide.numpy()
    except (RuntimeError, TypeError):
        return None


def fetched(xp: Namespace, array: Array) -> Any:
    """Bring an array of any library to numpy, from a GPU too; what is not finite, and makes an answer NaN, as 0."""
    here = array if on_host(xp) else np.from_dlpack(array.cpu() if hasattr(array, "cpu") else array)
    return here if np.isfinite(here).all() else np.nan_to_num(here, nan=0.0, posinf=0.0, neginf=0.0)


def as_tensor(array: Any, dtype: Any = None) -> Array:
    """Return a numpy result as a tensor, without a copy where the dtypes agree."""
    torch: Any = sys.modules["torch"]
    tensor, dtype = torch.from_numpy(np.asarray(array)), dtype or torch.float64
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def fits(shape: tuple[int, ...], onto: tuple[int, ...]) -> bool:
    """Whether an array of this shape broadcasts onto another shape."""
    pairs = zip(reversed(shape), reversed(onto), strict=False)
    return len(shape) <= len(onto) and all(size in (1, other) for size, other in pairs)


def quiet(xp: Namespace) -> AbstractContextManager[Any]:
    """Silence numpy where it warns of what is guarded against afterwards."""
    return np.errstate(all="ignore") if xp is np else nullcontext()


def can_be_looked_at(condition: Array) -> bool:
    """Whether a condition has a value here and now: not in a compiled graph, on the meta device or under torch.vmap."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(condition, torch.Tensor):
        return True
    if torch.compiler.is_compiling():
        return False
    try:
        bool(condition.any())
    except RuntimeError:
        return False
    return True


def is_without_values(array: Array) -> bool:
    """Whether the array is a tensor on torch's meta device: a shape and a dtype, and nothing else."""
    return str(device(array)) == "meta"


def as_float64(xp: Namespace, array: Array, name: str) -> Array:
    """Cast to float64, outside any gradient graph; booleans and complex numbers are a TypeError."""
    if array.dtype == xp.float64:
        return array if xp is np else array.detach() if hasattr(array, "detach") else array
    if not xp.isdtype(array.dtype, ("real floating", "integral")):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}; cast it to a real dtype first.")
    return xp.astype(array.detach() if hasattr(array, "detach") else array, xp.float64)


def result_dtype(xp: Namespace, array: Array) -> Any:
    """Return the dtype that answers go back in: the array's own if it is floating, else float64."""
    return array.dtype if array.dtype == xp.float64 or xp.isdtype(array.dtype, "real floating") else xp.float64


def cast(xp: Namespace, array: Array, dtype: Any) -> Array:
    """Cast, without a copy or a call where there is nothing to do."""
    return array if array.dtype == dtype else xp.astype(array, dtype)


def asarray_like(xp: Namespace, value: Any, array: Array, *, dtype: Any = None) -> Array:
    """Bring numbers, a numpy array or an array of the library itself to the device of ``array``."""
    return xp.asarray(value, dtype=dtype or xp.float64, device=device(array))


def rows_like(xp: Namespace, rows: Array, array: Array) -> Array:
    """Bring float64 numbers, one per problem, in any library, to that of ``array``, outside any gradient graph."""
    rows = rows.detach() if hasattr(rows, "detach") else rows
    if on_host(xp):
        return np.asarray(rows.cpu() if hasattr(rows, "cpu") else rows)
    return rows if type(rows) is type(array) and device(rows) == device(array) else asarray_like(xp, rows, array)


def arange_like(xp: Namespace, count: int, array: Array, *, dtype: Any) -> Array:
    """0, 1, ... on the device of ``array``, made there: a copy from main memory would make the host wait."""
    return xp.arange(count, dtype=dtype, device=device(array))


def constants_like(xp: Namespace, values: Any, array: Array) -> Array:
    """Plain numbers in float64 on the device of ``array``; a few are written there one by one, for the same reason."""
    if on_host(xp) or len(values) > _FEW:
        return asarray_like(xp, values, array)
    return xp.stack([xp.full((), float(one), dtype=xp.float64, device=device(array)) for one in values])


def float64_like(xp: Namespace, value: Array | float, array: Array) -> Array:
    """Bring a plain number or an array to float64 on the device of ``array``."""
    if isinstance(value, (int, float)):
        return asarray_like(xp, float(value), array)
    return as_float64(xp, value, "a dual variable")


# On 64 losses a numpy call costs more than its arithmetic, and np.sum or np.clip twice what the ufunc behind it
# does. The functions down to ``at_most`` take that shorter way; sums and extremes keep the last axis, with length
# one. torch's own clamp, unlike the standard's clip, compiles with a bound that the compiler treats as a symbol.


def total(xp: Namespace, array: Array) -> Array:
    """Sum over the scenarios, the last axis."""
    return np.add.reduce(array, -1, keepdims=True) if xp is np else xp.sum(array, axis=-1, keepdims=True)


def count(xp: Namespace, chosen: Array) -> Array:
    """Count the scenarios where a condition holds, in float64."""
    if xp is np and chosen.ndim == 1:
        return np.array([np.count_nonzero(chosen)], np.float64)  # in a tenth of the time of a sum
    if xp is np and chosen.shape[-1] < 256:  # short rows in bytes, in half the time
        return np.add.reduce(chosen.view(np.uint8), -1, np.uint8, keepdims=True).astype(np.float64)
    return xp.sum(xp.astype(chosen, xp.float64), axis=-1, keepdims=True)


def highest(xp: Namespace, array: Array) -> Array:
    """Return the largest entry over the scenarios."""
    return np.maximum.reduce(array, -1, keepdims=True) if xp is np else xp.max(array, axis=-1, keepdims=True)


def lowest(xp: Namespace, array: Array) -> Array:
    """Return the smallest entry over the scenarios."""
    return np.minimum.reduce(array, -1, keepdims=True) if xp is np else xp.min(array, axis=-1, keepdims=True)


def inner(xp: Namespace, left: Array, right: Array) -> Array:
    """Inner product over the scenarios."""
    if xp is np:
        return xp.vecdot(left, right, axis=-1)[..., None]
    return xp.sum(left * right, axis=-1, keepdims=True)  # array_api_compat's vecdot has no rule for torch.vmap


def at_least(xp: Namespace, array: Array, floor: float) -> Array:
    """Raise every entry to ``floor``."""
    if xp is np:
        return np.maximum(array, floor)
    return array.clamp(min=floor) if hasattr(array, "clamp") else xp.clip(array, floor, None)


def at_most(xp: Namespace, array: Array, ceiling: float) -> Array:
    """Lower every entry to ``ceiling``."""
    if xp is np:
        return np.minimum(array, ceiling)
    return array.clamp(max=ceiling) if hasattr(array, "clamp") else xp.clip(array, None, ceiling)


def ranks(xp: Namespace, array: Array) -> Array:
    """Return 1, 2, ..., n in float64 for the n scenarios of ``array``, on its device."""
    stop = array.shape[-1] + 1
    return np.arange(1.0, stop) if xp is np else xp.arange(1, stop, dtype=xp.float64, device=device(array))


def sorted_descending(xp: Namespace, array: Array) -> Array:
    """Sort the last axis, largest first."""
    return np.sort(array, axis=-1)[..., ::-1] if on_host(xp) else xp.sort(array, axis=-1, descending=True, stable=False)


def descending_order(xp: Namespace, array: Array) -> Array:
    """Return the indices that sort the last axis, largest first."""
    if on_host(xp):
        return np.argsort(array, axis=-1)[..., ::-1]
    return xp.argsort(array, axis=-1, descending=True, stable=False)


def taken(xp: Namespace, array: Array, order: Array) -> Array:
    """Return the scenarios of ``array`` in an order of its own shape."""
    return array[order] if xp is np and order.ndim == 1 else xp.take_along_axis(array, order, axis=-1)


def sum_by_code(xp: Namespace, values: Array, codes: Array, count: int) -> Array:
    """Sum values ``(*batch, n)`` with equal codes in 0 ... count - 1, same shape: ``(*batch, count)``."""
    if on_host(xp):
        rows = values.reshape(-1, values.shape[-1])
        shifted = codes.reshape(rows.shape) + count * np.arange(len(rows))[:, None]
        sums = np.bincount(shifted.ravel(), weights=rows.ravel(), minlength=count * len(rows))
        return sums.astype(np.float64, copy=False).reshape(*values.shape[:-1], count)  # integers where there is none
    if hasattr(values, "scatter_add"):
        zeros = xp.zeros((*values.shape[:-1], count), dtype=values.dtype, device=device(values))
        return zeros.scatter_add(-1, codes, values)
    is_code = codes[..., None] == arange_like(xp, count, values, dtype=codes.dtype)
    return xp.sum(xp.where(is_code, values[..., None], 0.0), axis=-2)


def renumbered(codes: Array) -> Array:
    """Number the distinct codes from 0 on, in their order."""
    return namespace_of(codes).unique_inverse(codes).inverse_indices


def unequal_to_previous(xp: Namespace, ordered: Array) -> Array:
    """Whether each entry of the last axis differs from the one before it; false for the first."""
    first = xp.zeros_like(ordered[..., :1], dtype=xp.bool)
    return xp.concat([first, ordered[..., 1:] != ordered[..., :-1]], axis=-1)


def require_finite(xp: Namespace, losses: Array, bounds: tuple[Array, Array], reference: Array | None = None) -> None:
    """Raise ValueError naming the first index whose loss is NaN or infinite; ``bounds`` are the rows' extremes.

    With a reference, a loss of zero mass may be anything.
    """
    if xp is np and bounds[0].size == 1:
        fine = bounds[0].item() < _LARGEST and bounds[1].item() > -_LARGEST
    else:
        fine = bool(xp.all((bounds[0] < _LARGEST) & (bounds[1] > -_LARGEST)))  # false for NaN, too
    if fine:
        return
    if reference is not None:
        losses = xp.where(reference > 0, losses, 0.0)
    bad = ~xp.isfinite(losses)
    if not bool(xp.any(bad)):
        if bool(xp.all(xp.abs(losses) < _LARGEST)):
            return
        raise ValueError(f"losses must be smaller than {_LARGEST:.1e} in size; divide them by a constant first.")
    index = tuple(int(axis[0]) for axis in xp.nonzero(bad))
    where = index[0] if len(index) == 1 else index
    raise ValueError(
        f"losses must be finite, got {float(losses[index])} at index {where}; drop or clip that scenario first."
    )


def require_distribution(xp: Namespace, reference: Array, tolerance: float) -> bool:
    """Raise ValueError unless every row is nonnegative and sums to one; return whether some mass is tiny and not 0."""
    if xp is np:
        least = float(np.minimum.reduce(reference, None, initial=1.0))
    else:
        least = 1.0 if 0 in reference.shape else float(xp.min(reference))
    if not least >= 0:  # also catches NaN
        raise ValueError("reference must be nonnegative, got a negative or NaN mass; clip it at zero and renormalise.")
    error = xp.max(xp.abs(xp.sum(reference, axis=-1) - 1))
    if not bool(error <= tolerance):
        raise ValueError(
            f"reference must sum to 1 over its last axis, it is off by {float(error):.3g}; divide it by its sum."
        )
    return least < TINY and bool(xp.any((reference > 0) & (reference < TINY)))
