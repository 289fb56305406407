"""Worst-case weights and values in torch's gradient graph: what depends on the losses and on the size of the set.

Values are linear in a change of the losses that is exactly zero, and carries the gradient: they keep their bits. In an
eager graph hooks compute products with the Jacobian of the weights when a second derivative asks for them, and
never before. Where hooks are not to be had (torch.func, torch.compile, forward mode) a quadratic form in that change
has the same derivatives. What is not known is infinite or NaN, never a silent zero: third derivatives, and with a size
in the graph the second ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .arrays import Array, cast, inner
from .problem import Problem

if TYPE_CHECKING:
    from ..sets.ambiguity import AmbiguitySet, Dual


class Answer(NamedTuple):
    """Weights ``(*batch, n)``, value and dual ``(*batch,)`` outside any graph, and what they answer."""

    losses: Array
    ambiguity: AmbiguitySet
    problem: Callable[[], Problem]  # once more, when a derivative asks for it
    weights: Array
    value: Array
    dual: Dual
    masked: bool  # whether losses without mass, which may be NaN, are there

    def product(self, vectors: Array) -> Array:
        """Return the Jacobian of the weights times ``vectors``, ``(*batch, n)``."""
        problem = self.problem()
        weights, exact = (cast(problem.xp, part, problem.xp.float64) for part in (self.weights, vectors))
        found = self.ambiguity.jacobian_product(problem, weights, self.dual.multiplier[..., None], exact)
        return cast(problem.xp, found, vectors.dtype)

    def slope(self, sizes: Array) -> Array:
        """Return d value / d size, ``(*batch,)``."""
        problem = self.problem()
        weights, value = (cast(problem.xp, part, problem.xp.float64) for part in (self.weights, self.value))
        mean = (problem.shift + problem.scale * inner(problem.xp, weights, problem.losses))[..., 0]
        rows: Any = problem.size(sizes)
        return self.ambiguity.core.sensitivity(rows[..., 0], value, mean, self.dual)

    def change(self) -> Array:
        """Return the change of the losses, exactly zero; if ``masked`` without those of no weight."""
        change = self.losses - self.losses.detach()
        if not self.masked:
            return change
        torch: Any = sys.modules["torch"]
        return torch.where(self.weights == 0, torch.zeros_like(change), change)

    def sizes(self) -> Array | None:
        """Return the size of the set if a gradient may flow to it."""
        sizes = self.ambiguity.sizes
        return sizes if is_tensor(sizes) and may_have_gradient(sizes) else None


def is_tensor(array: Array) -> bool:
    """Whether the array is a torch tensor, which may stand in a gradient graph."""
    return hasattr(array, "detach")


def is_transformed(array: Array) -> bool:
    """Whether the array is a tensor without storage, which stands for others in a transform of torch."""
    try:
        return is_tensor(array) and array.data_ptr() is None
    except RuntimeError:
        return True


def may_have_gradient(tensor: Array) -> bool:
    """Whether a gradient may flow to a tensor: eager, in forward mode, or in a transform of torch."""
    return bool(tensor.requires_grad) or not _has_hooks(tensor, tensor)


def require_no_gradient(ambiguity: AmbiguitySet) -> None:
    """Raise TypeError where losses that are no tensor would cut the gradient of a size."""
    sizes = ambiguity.sizes
    if is_tensor(sizes) and may_have_gradient(sizes):
        name = f"{type(ambiguity.core).__name__}.{ambiguity.core.size}"
        raise TypeError(f"`{name}` is in a gradient graph: give the losses as a tensor, too, or detach it.")


def _has_hooks(losses: Array, weights: Array) -> bool:
    """Whether both are plain tensors of an eager graph, which no transform of torch holds in its hands."""
    torch: Any = sys.modules["torch"]
    dual = torch.autograd.forward_ad.unpack_dual(losses).tangent is not None
    return not (dual or torch.compiler.is_compiling() or is_transformed(losses) or is_transformed(weights))


def _plain(array: Array) -> Array:
    torch: Any = sys.modules["torch"]
    return array if type(array) is torch.Tensor else array.as_subclass(torch.Tensor)


def connected_weights(answer: Answer) -> Array:
    """Return the weights with their Jacobian in the graph of the losses."""
    torch: Any = sys.modules["torch"]
    losses, weights, sizes = answer.losses, answer.weights, answer.sizes()
    if sizes is not None:
        weights = weights + (((sizes - sizes.detach()) ** 0.5)[..., None]).to(weights)
    if not _has_hooks(losses, weights):
        change = answer.change()
        return weights + (answer.product(change) + change**1.5)
    if not (losses.requires_grad and torch.is_grad_enabled()):
        return weights
    change = answer.change()

    def move(upstream: Array | None) -> Array | None:
        if upstream is None:  # which stands for zero
            return None
        moved = answer.product(upstream)
        return moved + upstream * answer.change() ** 0.5 if torch.is_grad_enabled() else moved

    change.register_hook(move)
    return weights + change


def connected_value(answer: Answer) -> Array:
    """Return the value ``(*batch,)``: its gradient are the weights, its Hessian is their Jacobian."""
    torch: Any = sys.modules["torch"]
    losses, weights, value, sizes = answer.losses, answer.weights, answer.value, answer.sizes()
    change = answer.change()
    if sizes is not None:
        moved = (sizes - sizes.detach()).to(value.device)
        both = moved + torch.sum(change, dim=-1)
        value = value + (answer.slope(sizes) * moved + both**1.5).to(value.dtype)
    if not _has_hooks(losses, weights):
        return value + torch.sum(change * (weights + answer.product(change) / 2) + change**2.5, dim=-1)
    gained = _plain(weights) * _plain(change)  # a subclass may put another node on top
    if gained.grad_fn is not None:

        def differentiable(_: Any, upstream: tuple[Array | None, ...]) -> tuple[Array | None, ...] | None:
            if upstream[0] is None or not torch.is_grad_enabled():
                return None
            return None, upstream[0] * connected_weights(answer)

        gained.grad_fn.register_hook(differentiable)
    return value + torch.sum(gained, dim=-1)
