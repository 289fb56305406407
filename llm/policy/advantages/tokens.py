"""From rewards to advantages: token-level estimates, leave-one-out baselines, whitening, KL charged to the reward.

Tensors of tokens have shape ``(*batch, length)``; a boolean mask of that shape says which positions are tokens of the
response. What stands elsewhere, nan included, is never read, and results are 0 there. Nothing here carries a gradient.
Names indexed by time are those of rlax: a step goes from t-1 to t, with ``v_tm1`` the value before a token and ``r_t``
the reward for it.

Sources: [GAE] Schulman et al., 1506.02438; [RLOO] Kool, van Hoof, Welling 2019, and Ahmadian et al., 2402.14740;
[Z19] Ziegler et al., 1909.08593.
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(
    r_t: Tensor,
    v_tm1: Tensor,
    mask_t: Tensor,
    *,
    discount: float = 1.0,
    lambda_: float = 0.95,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates of every token [GAE, eq. 16].

        A_tm1 = delta_t + discount lambda A_t,   delta_t = r_t + discount v_t - v_tm1,

    where v_t is the value before the next token of the mask and ``bootstrap`` after the last. Positions outside the
    mask take no time wherever they stand: padding on either side, or the output of a tool in between. The targets of
    the value function are ``A_tm1 + v_tm1``. The map is positively homogeneous in (r, v, bootstrap) together, not in
    r alone.

    Args:
        r_t: Reward for each token, shape ``(*batch, length)``.
        v_tm1: Value before each token, the same shape.
        mask_t: Which positions are tokens of the response, boolean, the same shape.
        discount: In [0, 1], per token.
        lambda_: In [0, 1]: 0 gives one-step errors delta, 1 the return less the value.
        bootstrap: Value after the last token, shape ``(*batch,)``, of responses cut short; None where all have ended.

    Returns:
        Shape ``(*batch, length)``, 0 outside the mask.

    >>> one = torch.ones(1, 2)
    >>> generalised_advantages(torch.tensor([[0.0, 1.0]]), 0.5 * one, one.bool(), lambda_=1.0)
    tensor([[0.5000, 0.5000]])
    """
    _check_share("discount", discount)
    _check_share("lambda_", lambda_)
    r_t, v_tm1 = (x.detach().masked_fill(~mask_t, 0.0) for x in (r_t, v_tm1))
    v_t = torch.zeros_like(r_t[..., 0]) if bootstrap is None else bootstrap.detach()
    a_t, advantages = torch.zeros_like(v_t), torch.zeros_like(r_t)
    for t in reversed(range(r_t.shape[-1])):
        delta_t = r_t[..., t] + discount * v_t - v_tm1[..., t]
        a_t = torch.where(mask_t[..., t], delta_t + discount * lambda_ * a_t, a_t)
        v_t = torch.where(mask_t[..., t], v_tm1[..., t], v_t)
        advantages[..., t] = a_t
    return advantages.masked_fill(~mask_t, 0.0)


def leave_one_out(returns: Tensor) -> Tensor:
    """Advantages over the mean of the *other* samples of the same prompt [RLOO].

        A_ij = R_ij - sum_{k != j} R_ik / (K - 1) = K / (K - 1) (R_ij - mean_k R_ik)

    The baseline does not depend on the sample, so the policy gradient stays unbiased. The advantages of a prompt sum
    to 0 up to rounding: they do not tell a bad prompt from a good one, an adversary over prompts must see the returns.

    Args:
        returns: K >= 2 samples per prompt, shape ``(*batch, K)``.

    Returns:
        The same shape.

    Raises:
        ValueError: Fewer than two samples per prompt.

    >>> leave_one_out(torch.tensor([[1.0, 2.0, 6.0]]))
    tensor([[-3.0000, -1.5000,  4.5000]])
    """
    samples = returns.shape[-1]
    if samples < 2:
        raise ValueError(
            f"leave_one_out needs at least 2 samples per prompt, got {samples}: draw more, or subtract a value function"
        )
    returns = returns.detach()
    return (returns - returns.mean(dim=-1, keepdim=True)) * (samples / (samples - 1))


def whitened(advantages: Tensor, mask: Tensor | None = None, *, floor: float = 1e-8) -> Tensor:
    """Advantages with mean 0 and variance 1 over all entries of the mask, of all prompts together.

        (A - mean A) / sqrt(var A + floor),   var with N - 1 in the denominator

    One affine map for the whole tensor: it mixes prompts, and it undoes any common scale, so weights that are
    multiplied into the rewards before it are not those of the policy gradient after it. Over several ranks, gather
    first.

    Args:
        advantages: Any shape.
        mask: Boolean, the same shape; None for all entries.
        floor: Added to the variance, in squared units of the advantages; equal advantages become 0.

    Returns:
        The same shape, 0 outside the mask.

    >>> whitened(torch.tensor([1.0, 3.0])).tolist()
    [-0.7071067690849304, 0.7071067690849304]
    """
    mask = torch.ones_like(advantages, dtype=torch.bool) if mask is None else mask
    count = mask.sum()
    known = advantages.detach().masked_fill(~mask, 0.0)
    centred = (known - known.sum() / count.clamp_min(1)).masked_fill(~mask, 0.0)
    variance = centred.square().sum() / (count - 1).clamp_min(1)
    return centred * torch.rsqrt(variance + floor)


def penalised_rewards(scores: Tensor, logps: Tensor, ref_logps: Tensor, mask_t: Tensor, *, strength: float) -> Tensor:
    """Rewards of tokens: the KL charge on every token, the score of the response on its last one [Z19].

        r_t = -strength log(pi(y_t | x, y_<t) / ref(y_t | x, y_<t)) + 1[t is last] score

    Their sum is ``score - strength log(pi(y | x) / ref(y | x))``, whose mean is the value with a KL penalty. Its policy
    gradient is that of treating r as constant, since the mean of grad log pi is 0. A response without tokens has
    nowhere to put its score: all its rewards are 0.

    Args:
        scores: Of the responses, shape ``(*batch,)``.
        logps: Log-probabilities of the tokens under the policy that wrote them, in nats, shape ``(*batch, length)``.
        ref_logps: The same under the reference policy.
        mask_t: Which positions are tokens, boolean, shape ``(*batch, length)``.
        strength: At least 0, in the unit of the scores per nat.

    Returns:
        Shape ``(*batch, length)``, 0 outside the mask.

    >>> mask = torch.tensor([[True, True, False]])
    >>> penalised_rewards(torch.tensor([3.0]), torch.zeros(1, 3), -torch.ones(1, 3), mask, strength=0.5)
    tensor([[-0.5000,  2.5000,  0.0000]])
    """
    if not strength >= 0:
        raise ValueError(f"the strength of a KL penalty must be at least 0, got {strength}: 0 charges nothing")
    left = mask_t.flip(-1).cumsum(-1).flip(-1)  # tokens from here on, this one included
    charges = strength * (logps - ref_logps).detach().masked_fill(~mask_t, 0.0)
    return torch.where(mask_t & (left == 1), scores.detach()[..., None], 0.0) - charges


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` of generalised_advantages must lie in [0, 1], got {value}: for plain returns use 1")
