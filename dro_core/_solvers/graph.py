"""Worst-case weights and values in torch's gradient graph: what depends on the losses, and how, to second order.

Values are linear in a change of the losses that is exactly zero, and carries the gradient: they keep their bits. In an
eager graph hooks compute products with the Jacobian of the weights when a second derivative asks for them, and
never before. Where hooks are not to be had (torch.func, torch.compile, forward mode) a quadratic form in that change
has the same derivatives. A third derivative is infinite or NaN, never a silent zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .arrays import Array

Product = Callable[[Array], Array]  # the Jacobian of the weights times vectors, (*batch, n)


def is_tensor(array: Array) -> bool:
    """Whether the array is a torch tensor, which may stand in a gradient graph."""
    return hasattr(array, "detach")


def _has_hooks(losses: Array, weights: Array) -> bool:
    """Whether both are plain tensors of an eager graph, which no transform of torch holds in its hands."""
    torch: Any = sys.modules["torch"]
    if torch.compiler.is_compiling() or torch.autograd.forward_ad.unpack_dual(losses).tangent is not None:
        return False
    try:
        return all(array.data_ptr() is not None for array in (losses, weights))
    except RuntimeError:  # without storage
        return False


def _change(losses: Array, weights: Array, *, masked: bool) -> Array:
    """Return the change of the losses, exactly zero; if ``masked`` without those of no weight, which may be NaN."""
    change = losses - losses.detach()
    if not masked:
        return change
    torch: Any = sys.modules["torch"]
    return torch.where(weights == 0, torch.zeros_like(change), change)


def _plain(array: Array) -> Array:
    torch: Any = sys.modules["torch"]
    return array if type(array) is torch.Tensor else array.as_subclass(torch.Tensor)


def connected_weights(losses: Array, weights: Array, product: Product, *, masked: bool) -> Array:
    """Return the weights with their Jacobian in the graph of the losses."""
    torch: Any = sys.modules["torch"]
    if not _has_hooks(losses, weights):
        change = _change(losses, weights, masked=masked)
        return weights + (product(change) + change**1.5)
    if not (losses.requires_grad and torch.is_grad_enabled()):
        return weights
    change = _change(losses, weights, masked=masked)

    def move(upstream: Array | None) -> Array | None:
        if upstream is None:  # which stands for zero
            return None
        moved = product(upstream)
        return moved + upstream * _change(losses, weights, masked=masked) ** 0.5 if torch.is_grad_enabled() else moved

    change.register_hook(move)
    return weights + change


def connected_value(losses: Array, weights: Array, value: Array, product: Product, *, masked: bool) -> Array:
    """Return the value ``(*batch,)`` with the weights as its gradient, and their Jacobian as its second derivative."""
    torch: Any = sys.modules["torch"]
    change = _change(losses, weights, masked=masked)
    if not _has_hooks(losses, weights):
        return value + torch.sum(change * (weights + product(change) / 2) + change**2.5, dim=-1)
    gained = _plain(weights) * _plain(change)  # a subclass may put another node on top
    if gained.grad_fn is not None:

        def differentiable(_: Any, upstream: tuple[Array | None, ...]) -> tuple[Array | None, ...] | None:
            if upstream[0] is None or not torch.is_grad_enabled():
                return None
            return None, upstream[0] * connected_weights(losses, weights, product, masked=masked)

        gained.grad_fn.register_hook(differentiable)
    return value + torch.sum(gained, dim=-1)
