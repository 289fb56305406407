"""Losses of a policy and of its value function, one per sequence: the reduction over sequences belongs to the caller.

That is the seam where worst-case weights enter (``llm.policy.prompt_weights``). Tensors of tokens have shape
``(*batch, length)``, with a boolean mask of the response; what stands outside it, nan included, is never read and gets
no gradient. Every loss sums over tokens and divides by ``divisor``: 1 for the policy gradient of the sequence,
``mask.sum(-1)`` for the mean over tokens of GRPO (2402.03300), a constant for Dr. GRPO (2503.20783). A ratio of whole
sequences instead of tokens is the case ``length = 1``.

Sources: [PPO] Schulman et al., 1707.06347; [H22] Huang et al. 2022, The 37 implementation details of PPO; [S20]
Schulman 2020, Approximating KL divergence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

KLEstimator = Callable[[Tensor, Tensor], Tensor]
"""From log-probabilities of the same tokens under the policy and the reference to one estimate per token."""


def clipped_surrogate(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    divisor: Tensor | float = 1.0,
) -> Tensor:
    """Clipped surrogate loss of every sequence [PPO, eq. 7], not reduced over sequences.

        l = -sum_t min(rho_t A_t, clamp(rho_t, 1 - clip, 1 + clip) A_t) / divisor,   rho_t = exp(logp_t - old_logp_t)

    Positively homogeneous in the advantages: min(rho c A, clamp(rho) c A) = c min(rho A, clamp(rho) A) for c >= 0, and
    false for c < 0. Where rho = 1 the loss is -sum_t A_t / divisor, known before any forward pass, and its gradient is
    that of -sum_t A_t log pi_t / divisor.

    Args:
        logps: Log-probabilities of the tokens in nats, shape ``(*batch, length)``; carry the gradient.
        old_logps: The same under the policy that wrote them.
        advantages: The same shape, or one that broadcasts to it, as ``A[..., None]``; constants.
        mask: Which positions are tokens of the response, boolean, the same shape.
        clip: Half the width of the interval of ratios, at least 0; ``inf`` turns clipping off.
        divisor: Of the sum over tokens, a number or shape ``(*batch,)``.

    Returns:
        Shape ``(*batch,)``.

    >>> one = torch.ones(1, 2)
    >>> clipped_surrogate(torch.tensor([[0.5, -0.5]]), 0 * one, one, one.bool(), clip=0.2)
    tensor([-1.8065])
    """
    _check_clip(clip)
    ratio = _log_ratio(logps, old_logps, mask).exp()
    advantages = advantages.detach().expand_as(ratio).masked_fill(~mask, 0.0)
    gains = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -_over_tokens(gains, mask, divisor)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    targets: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    divisor: Tensor | float = 1.0,
) -> Tensor:
    """Squared error of a value function that may move by ``clip`` from its old values, per sequence [H22, detail 9].

        l = sum_t 1/2 max((v_t - R_t)^2, (v'_t - R_t)^2) / divisor,   v'_t = old_t + clamp(v_t - old_t, -clip, clip)

    Args:
        values: Shape ``(*batch, length)``; carry the gradient.
        old_values: Those behind the advantages, the same shape.
        targets: R, advantages plus old values, the same shape.
        mask: Which positions are tokens of the response, boolean, the same shape.
        clip: At least 0, in the unit of the rewards; ``inf`` gives half the squared error.
        divisor: Of the sum over tokens, a number or shape ``(*batch,)``.

    Returns:
        Shape ``(*batch,)``.

    >>> clipped_value_loss(torch.tensor([[1.0]]), torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([[True]]))
    tensor([0.3200])
    """
    _check_clip(clip)
    values, old_values, targets = (x.masked_fill(~mask, 0.0) for x in (values, old_values.detach(), targets.detach()))
    near = old_values + (values - old_values).clamp(-clip, clip)
    errors = torch.maximum((values - targets).square(), (near - targets).square())
    return _over_tokens(errors / 2, mask, divisor)


def entropy(logits: Tensor, mask: Tensor, *, divisor: Tensor | float = 1.0) -> Tensor:
    """Entropy of the next token in nats, -sum_a pi(a) log pi(a), summed over the tokens of every sequence.

    Args:
        logits: Shape ``(*batch, length, vocabulary)``; -inf forbids an action, which then adds nothing.
        mask: Shape ``(*batch, length)``, boolean.
        divisor: Of the sum over tokens, a number or shape ``(*batch,)``.

    Returns:
        Shape ``(*batch,)``.

    >>> entropy(torch.zeros(1, 3, 4), torch.tensor([[True, True, False]]), divisor=2)
    tensor([1.3863])
    """
    logs = logits.masked_fill(~mask[..., None], 0.0).log_softmax(dim=-1)
    terms = -(logs.exp() * logs.masked_fill(logs == -torch.inf, 0.0)).sum(dim=-1)
    return _over_tokens(terms, mask, divisor)


def k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """k1 = log(pi / ref): mean KL(pi || ref) under pi, may be negative; its own gradient has mean 0 [S20].

    As a loss it therefore teaches nothing: ``kl_loss`` gives it the gradient of the divergence of whole answers.
    """
    return logps - ref_logps


def k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """k2 = log(pi / ref)^2 / 2: biased as a value; as a loss its gradient has the mean of grad KL(pi || ref) [S20].

    Of the KL of the *next token* at the places that were visited: what a token does to the places after it is left out.
    """
    return (logps - ref_logps).square() / 2


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """k3 = ref / pi - 1 - log(ref / pi): mean KL(pi || ref) under pi, never negative [S20].

    As a loss, which is how GRPO uses it, its gradient has the mean of grad KL(ref || pi), the other direction, and as
    with k2 that of the next token alone.
    """
    return torch.expm1(ref_logps - logps) - (ref_logps - logps)


def kl_estimate(
    logps: Tensor,
    ref_logps: Tensor,
    mask: Tensor,
    *,
    estimator: KLEstimator = k3,
    divisor: Tensor | float = 1.0,
) -> Tensor:
    """Estimate of the KL divergence of the policy from the reference along every sequence, in nats.

    The tokens must be drawn from the policy; ``k1``, ``k2``, ``k3`` say what that estimates, as a value and as a loss.

    Args:
        logps: Shape ``(*batch, length)``, in nats.
        ref_logps: The same under the reference policy; a constant.
        mask: Boolean, the same shape.
        estimator: ``k1``, ``k2`` or ``k3``.
        divisor: Of the sum over tokens, a number or shape ``(*batch,)``.

    Returns:
        Shape ``(*batch,)``.

    >>> kl_estimate(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.5]]), torch.ones(1, 2).bool(), estimator=k2)
    tensor([0.2500])
    """
    logps, ref_logps = (x.masked_fill(~mask, 0.0) for x in (logps, ref_logps.detach()))
    return _over_tokens(estimator(logps, ref_logps), mask, divisor)


def kl_to_go(
    logps: Tensor, old_logps: Tensor, ref_logps: Tensor, mask: Tensor, *, divisor: Tensor | float = 1.0
) -> Tensor:
    """Estimate of KL(pi || ref) over whole answers, with a gradient whose mean is that of this divergence.

        value: sum_t c_t,   c_t = log pi_t - log ref_t
        gradient: sum_t grad rho_t sum_{s >= t} c_s,   rho_t = pi_t / old_t

    grad KL = E [(sum_t grad log pi_t) (sum_s c_s)], and the terms with s < t have mean 0 [derived]. So a token answers
    for all that follows it, as in a policy gradient; ``k2`` as a loss keeps the terms with s = t alone. Exact at
    rho = 1; later the ratios of single tokens stand in for those of what came before, as in PPO.

    Args:
        logps: Shape ``(*batch, length)``, in nats; carry the gradient.
        old_logps: The same under the policy that wrote the tokens.
        ref_logps: The same under the reference policy; a constant.
        mask: Boolean, the same shape.
        divisor: Of the sum over tokens, a number or shape ``(*batch,)``.

    Returns:
        Shape ``(*batch,)``.

    >>> logps = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    >>> ref, mask = torch.tensor([[-1.5, -1.5]]), torch.ones(1, 2).bool()
    >>> loss = kl_to_go(logps, logps.detach(), ref, mask)
    >>> loss.sum().backward()
    >>> loss.tolist(), logps.grad.tolist()
    ([0.0], [[0.0, -0.5]])
    """
    charges = (logps.detach() - ref_logps.detach()).masked_fill(~mask, 0.0)
    to_go = charges.flip(-1).cumsum(-1).flip(-1)
    moving = _log_ratio(logps, old_logps, mask).exp() * to_go
    return _over_tokens(moving - moving.detach() + charges, mask, divisor)


def clip_fraction(logps: Tensor, old_logps: Tensor, mask: Tensor, *, clip: float = 0.2) -> Tensor:
    """Share of the tokens whose ratio lies outside [1 - clip, 1 + clip], a scalar; 0 without tokens [H22].

    >>> clip_fraction(torch.tensor([0.5, 0.1]), torch.zeros(2), torch.tensor([True, True]))
    tensor(0.5000)
    """
    _check_clip(clip)
    ratio = _log_ratio(logps.detach(), old_logps, mask).exp()
    outside = ((ratio - 1).abs() > clip).to(ratio.dtype)  # the ratio of padding is 1
    return outside.sum() / mask.sum().clamp_min(1)


def explained_variance(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(targets - values) / Var(targets) over all tokens, a scalar: 1 is perfect, below 0 worse than a constant.

    nan where the targets are all equal.

    >>> explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), torch.tensor([True, True]))
    tensor(1.)
    """
    targets, values = targets.detach()[mask], values.detach()[mask]
    total, left = (x.var(correction=0) for x in (targets, targets - values))
    return torch.where(total > 0, 1 - left / total, torch.nan)


def _log_ratio(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    return logps.masked_fill(~mask, 0.0) - old_logps.detach().masked_fill(~mask, 0.0)


def _over_tokens(terms: Tensor, mask: Tensor, divisor: Tensor | float) -> Tensor:
    """Sum over the tokens, divided; a sequence without tokens has 0, also where the divisor counts them."""
    total = terms.masked_fill(~mask, 0.0).sum(dim=-1)
    return total / (torch.where(divisor == 0, 1, divisor) if isinstance(divisor, Tensor) else divisor)


def _check_clip(clip: float) -> None:
    if not clip >= 0:
        raise ValueError(f"`clip` must be at least 0, got {clip}: use inf to turn clipping off")
