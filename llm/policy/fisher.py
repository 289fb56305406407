"""Natural gradients without the Fisher matrix: its products with vectors, and conjugate gradients.

Everything is built from log-probabilities that the caller computed with a graph. With J their Jacobian in the
parameters and w nonnegative weights of the same shape,

    F = J^T diag(w) J,   g = J^T (w * advantages),   direction = (F + damping I)^-1 g.

The product J v is the derivative of J^T u in u, so two backward passes per product are enough, for every model that can
be differentiated twice (attention of transformers: ``attn_implementation="eager"``).

Sources: [P94] Pearlmutter 1994, fast multiplication by the Hessian; [TRPO] Schulman et al., 1502.05477, appendix C;
[AKLM21] Agarwal, Kakade, Lee, Mahajan, 1908.00261; conjugate gradients: Hestenes & Stiefel 1952.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import grad

Product = Callable[[Tensor], Tensor]
"""v of shape ``(d,)`` to a matrix times v."""


def sampled_weights(log_probabilities: Tensor, prompt_weights: Tensor) -> Tensor:
    """w_ij = q_i / K: F_q estimated from K answers per prompt that the policy drew.

    Args:
        log_probabilities: Of the answers, summed over tokens, in nats, shape ``(prompts, K)``; or of their tokens,
            shape ``(prompts, K, length)``, 0 on padding, which has the same mean and leaves out cross terms of mean 0.
        prompt_weights: q, shape ``(prompts,)``.
    """
    shares = prompt_weights / log_probabilities.shape[1]
    return shares.reshape(-1, *[1] * (log_probabilities.ndim - 1)).expand_as(log_probabilities)


def fisher_product(log_probabilities: Tensor, parameters: Iterable[Tensor], weights: Tensor) -> Product:
    """Return v -> F v, F = J^T diag(weights) J, by double backward [P94].

    Args:
        log_probabilities: Any shape, with a graph that reaches the parameters; kept until the product is dropped.
        parameters: Leaves of the graph, d entries in all; vectors hold them flattened, one after the other.
        weights: Constants of the same shape as the log-probabilities.

    >>> theta = torch.zeros(2, requires_grad=True)
    >>> logs = theta.log_softmax(0)[None]
    >>> fisher_product(logs, [theta], logs.exp())(torch.tensor([1.0, 0.0]))
    tensor([ 0.2500, -0.2500])
    """
    leaves = list(parameters)
    probe = torch.zeros_like(log_probabilities, requires_grad=True)
    pulled = _pullback(log_probabilities, leaves, probe, create_graph=True)  # J^T probe, linear in the probe

    def product(vector: Tensor) -> Tensor:
        (pushed,) = grad(pulled, probe, grad_outputs=vector, retain_graph=True)  # J vector
        return _pullback(log_probabilities, leaves, weights.detach() * pushed)

    return product


def policy_gradient(
    log_probabilities: Tensor, parameters: Iterable[Tensor], weights: Tensor, advantages: Tensor
) -> Tensor:
    """Ascent direction g = J^T (weights * advantages) of the weighted value, shape ``(d,)``; arguments as above."""
    return _pullback(log_probabilities, list(parameters), (weights * advantages).detach())


class Solution(NamedTuple):
    """Where conjugate gradients stopped.

    Attributes:
        vector: Shape ``(d,)``.
        residual: ||target - A vector|| / ||target||, computed anew, not by the recursion; 0 for a target of 0.
        steps: Products used to get there.
        solved: Whether the residual is within the tolerance. If not: more steps, more damping, or a target outside the
            range of the matrix.
    """

    vector: Tensor
    residual: float
    steps: int
    solved: bool


def conjugate_gradient(
    product: Product, target: Tensor, *, damping: float = 0.0, tolerance: float = 1e-6, max_steps: int = 100
) -> Solution:
    """Solve (A + damping I) x = target, A symmetric and nonnegative, from x = 0 until the residual is small.

    All iterates lie in the span of target, A target, A^2 target, ..., so with damping 0 and a target in the range of A
    the limit is the smallest solution A^+ target, also where A is singular. There, rounding makes later iterates
    diverge if the tolerance asks for more than the products are good for: the iterate of least residual is returned.

    Args:
        product: v -> A v.
        target: Shape ``(d,)``.
        damping: At least 0, in the unit of A.
        tolerance: Of the residual relative to the target, positive.
        max_steps: At least 0.

    >>> conjugate_gradient(lambda v: torch.tensor([2.0, 4.0]) * v, torch.tensor([1.0, 1.0])).vector
    tensor([0.5000, 0.2500])
    """
    _check_solver(damping, tolerance)
    x, residual = torch.zeros_like(target), target.clone()
    direction, steps, square = residual, 0, float(target.dot(target))
    goal, best, least = tolerance**2 * square, x, square
    while square > goal and steps < max_steps:
        image = product(direction) + damping * direction
        curvature = float(direction.dot(image))
        steps += 1
        if not curvature > 0:  # rounding, or what is left of the target lies in the kernel
            break
        x = x + square / curvature * direction
        residual = residual - square / curvature * image
        previous, square = square, float(residual.dot(residual))
        direction = residual + square / previous * direction
        if square < least:
            best, least = x, square
    return _checked_solution(product, target, best, damping, tolerance, steps)


def natural_direction(
    log_probabilities: Tensor,
    parameters: Iterable[Tensor],
    weights: Tensor,
    advantages: Tensor,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-6,
    max_steps: int = 100,
) -> Solution:
    """(F_q + damping I)^-1 g_q; with damping 0 F_q^+ g_q, the step of robust natural policy gradient [AKLM21].

    The same weights stand in F and in g, so g lies in the range of F whatever the advantages are.

    Args:
        log_probabilities: As for ``sampled_weights``, or of all answers; with a graph.
        parameters: Leaves of the graph, d entries in all.
        weights: What one of these two returned for the worst-case q.
        advantages: The shape of the log-probabilities; constants.
        damping: At least 0; a share of the mean diagonal of F is usual where answers are sampled.
        tolerance: Of the relative residual.
        max_steps: Of conjugate gradients, two backward passes each.

    Returns:
        ``vector`` is what to add to the parameters, times a step size.
    """
    leaves = list(parameters)
    target = policy_gradient(log_probabilities, leaves, weights, advantages)
    product = fisher_product(log_probabilities, leaves, weights)
    return conjugate_gradient(product, target, damping=damping, tolerance=tolerance, max_steps=max_steps)


def _pullback(outputs: Tensor, leaves: list[Tensor], cotangent: Tensor, *, create_graph: bool = False) -> Tensor:
    """J^T cotangent, flat; parameters the outputs do not depend on have 0."""
    parts = grad(
        outputs,
        leaves,
        grad_outputs=cotangent,
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return torch.cat([part.reshape(-1) for part in parts])


def _checked_solution(
    product: Product, target: Tensor, x: Tensor, damping: float, tolerance: float, steps: int
) -> Solution:
    scale = float(target.norm())
    error = float((target - product(x) - damping * x).norm()) / scale if scale > 0 else 0.0
    return Solution(x, error, steps, error <= 2 * tolerance)  # the recursion and this differ by rounding


def _check_solver(damping: float, tolerance: float) -> None:
    if not damping >= 0:
        raise ValueError(f"`damping` must be at least 0, got {damping}: a negative one makes the matrix indefinite")
    if not tolerance > 0:
        raise ValueError(f"`tolerance` is a relative residual and must be positive, got {tolerance}: try 1e-6")
