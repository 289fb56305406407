"""Advantages of the G answers to one prompt under published objectives, and what each is in expectation.

Every function takes rewards ``(*batch, G)`` and returns advantages A of that shape, without a gradient; the estimate
of a prompt's gradient is 1/G sum_j A_j grad log pi(y_j | x). For rewards 0 or 1 with pass rate p its expectation is a
multiple w(p) of grad p, which the docstrings give: a prompt weight, whether it was meant or not. Only w = 1 is unbiased
for p itself.

Sources: [GRPO] Shao et al., 2402.03300; [DrGRPO] Liu et al., 2503.20783; [MaxRL] Tajwar et al., 2602.02710;
[RS] 2509.24261; [pass@k] Walder & Karkhanis, 2505.15201; [T7] theory.md, section 7.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from .tokens import leave_one_out

__all__ = [
    "group_mean", "group_standardised", "leave_one_out", "max_of_k", "maximum_likelihood", "prompt_weight",
    "risk_seeking",
]  # fmt: skip


def group_mean(rewards: Tensor) -> Tensor:
    """A_j = r_j - mean r: GRPO without the standard deviation, Dr. GRPO [DrGRPO].

    w = (G - 1) / G: the baseline holds the answer itself. The same factor for every prompt, so only a step size.

    >>> group_mean(torch.tensor([0.0, 1.0]))
    tensor([-0.5000,  0.5000])
    """
    rewards = _checked(rewards, least=1)
    return rewards - rewards.mean(dim=-1, keepdim=True)


def group_standardised(rewards: Tensor, *, floor: float = 0.0) -> Tensor:
    """A_j = (r_j - mean r) / (std r + floor), 0 where all rewards are equal; std with G - 1: [GRPO], as TRL has it.

    w is about 1 / sqrt(p (1 - p)) where both outcomes are likely in a group, and ends at (G - 1) / sqrt(G) at p = 0 and
    1. No worst case of a set that treats prompts alike: it grows again above p = 1/2 [T7].

    Args:
        rewards: ``(*batch, G)``, G at least 2.
        floor: Added to the standard deviation, at least 0.

    >>> group_standardised(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]])
    """
    rewards = _checked(rewards, least=2)
    rewards = rewards - rewards[..., :1]  # equal rewards are then 0, whose mean does not round
    spread = rewards.std(dim=-1, keepdim=True) + floor
    return torch.where(spread > floor, group_mean(rewards) / spread.clamp_min(torch.finfo(spread.dtype).tiny), 0.0)


def max_of_k(rewards: Tensor, k: int) -> Tensor:
    """Advantages of the expected best of k answers, unbiased for k <= G; for rewards 0 or 1 that is pass@k [pass@k].

        A_j = k E_S max(r_j - max_S r, 0),   S a random choice of k - 1 of the other answers.

    Subtracting the best of S, which does not depend on y_j, leaves the mean as it is. w = k (1 - p)^(k-1), the
    derivative of 1 - (1-p)^k. k = 1 is r itself: subtract a baseline, as ``leave_one_out`` does.

    Args:
        rewards: ``(*batch, G)``.
        k: From 1 to G.

    Raises:
        ValueError: k outside.

    >>> max_of_k(torch.tensor([0.0, 0.0, 1.0]), 2)
    tensor([0., 0., 2.])
    """
    rewards = _checked(rewards, least=1)
    size = rewards.shape[-1]
    if not 1 <= k <= size:
        raise ValueError(f"the best of {k} cannot be estimated from {size} answers: draw at least {max(k, 1)}")
    if k == 1:
        return rewards
    ordered, order = rewards.sort(dim=-1)
    # Place i is the best of S if the rest of S lies below it: C(i, k-2) of the C(G-1, k-1) choices for a j above i.
    ways = torch.tensor([math.comb(i, k - 2) / math.comb(size - 1, k - 1) for i in range(size)], dtype=rewards.dtype)
    gains = (ordered[..., :, None] - ordered[..., None, :]).tril(-1)  # of place j over the smaller place i
    return torch.zeros_like(rewards).scatter(-1, order, k * gains @ ways.to(rewards.device))


def maximum_likelihood(rewards: Tensor, *, baseline: bool = True) -> Tensor:
    """A_j = r_j / mean r - 1, 0 where all failed: the truncated maximum likelihood of G answers [MaxRL].

    Without the baseline, A_j = r_j / mean r, w = (1 - (1-p)^G) / p and not 1 / p: its objective is the sum of
    -(1-p)^k / k over k <= G, log p cut short. The baseline is left out where all failed, which costs (1 - p)^(G-1).

    Args:
        rewards: ``(*batch, G)``, at least 0.
        baseline: Whether to subtract it.

    Raises:
        ValueError: A negative reward.

    >>> maximum_likelihood(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    rewards = _checked(rewards, least=1)
    if (rewards < 0).any():
        raise ValueError(f"maximum likelihood is of successes: rewards must be at least 0, got {rewards.min():g}")
    mean = rewards.mean(dim=-1, keepdim=True)
    shares = rewards / torch.where(mean > 0, mean, 1.0)
    return torch.where(mean > 0, shares - float(baseline), 0.0)


def risk_seeking(rewards: Tensor, beta: float) -> Tensor:
    """A_j = (e^(beta r_j) / mean e^(beta r) - 1) / beta: the gradient of 1/beta log mean e^(beta r) [RS].

    For many answers w tends to 1 / (beta p + beta / (e^beta - 1)), the worst case of a reverse-KL set over prompts
    [T7]; with G answers it is less. beta -> 0 is ``group_mean``.

    Args:
        rewards: ``(*batch, G)``.
        beta: Positive; per unit of reward.

    Raises:
        ValueError: beta is not positive.

    >>> risk_seeking(torch.tensor([0.0, 1.0]), 1.0)
    tensor([-0.4621,  0.4621])
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}: near 0 it is the plain mean, group_mean")
    rewards = _checked(rewards, least=1)
    return (torch.softmax(beta * rewards, dim=-1) * rewards.shape[-1] - 1) / beta


class GroupAdvantage(Protocol):
    """Rewards ``(*batch, G)`` to advantages of that shape."""

    def __call__(self, rewards: Tensor, /) -> Tensor:
        """See the functions of this module."""
        ...


def prompt_weight(advantage: GroupAdvantage, rate: float, size: int) -> float:
    """w: the expectation of an estimate as a multiple of grad p, exactly, over all 2^G outcomes of G answers.

        w = E 1/G sum_j A_j (r_j - p) / (p (1 - p)),   since grad log P(r_j) = (r_j - p) / (p (1 - p)) grad p.

    Args:
        advantage: Which estimate.
        rate: p, in (0, 1).
        size: G, at most 16.

    Raises:
        ValueError: A rate or size outside.

    >>> round(prompt_weight(group_mean, 0.3, 4), 12)
    0.75
    """
    if not 0 < rate < 1 or not 1 <= size <= 16:
        raise ValueError(f"a rate in (0, 1) and 1 to 16 answers can be enumerated, got {rate} and {size}")
    outcomes = torch.tensor(list(product((0.0, 1.0), repeat=size)), dtype=torch.float64)
    chances = (rate**outcomes * (1 - rate) ** (1 - outcomes)).prod(dim=-1)
    scores = (outcomes - rate) / (rate * (1 - rate))
    return float(chances @ (advantage(outcomes) * scores).mean(dim=-1))


def _checked(rewards: Tensor, *, least: int) -> Tensor:
    if rewards.ndim == 0 or rewards.shape[-1] < least:
        raise ValueError(f"a group needs at least {least} answers, got rewards of shape {tuple(rewards.shape)}")
    return rewards.detach() if rewards.is_floating_point() else rewards.detach().float()
