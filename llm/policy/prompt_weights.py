"""Worst-case weights over prompts, and the two places where they can enter policy optimisation.

The value of prompt i is the mean return of its samples, its loss the negative value; the adversary picks a distribution
q over the n prompts of the *effective* batch (gather the ranks first), and n q_i multiplies what belongs to prompt i.

    version A (``scale_rewards``):  surrogate(advantages(n q r)) + n q inside + outside
    version B (``scale_losses``):   n q surrogate(advantages(r)) + n q inside + outside

**They coincide** where both maps are positively homogeneous in each prompt: advantages(c r) = c advantages(r), and
surrogate(c A) = c surrogate(A), for c >= 0 that may differ by prompt. ``clipped_surrogate`` is, at every ratio and
clip; so are rewards as they are, ``leave_one_out``, and ``generalised_advantages`` with values 0 or with values scaled
by the same n q. ``inside`` and ``outside`` are added in the same way by both.

**They differ** where that fails:

- ``whitened`` advantages: the shift mixes prompts, and the division undoes the common scale of A.
- Advantages divided by the standard deviation of their own prompt (GRPO): c cancels, and A is plain training for every
  weight but 0.
- A value function: A scales the rewards against values that were not scaled, so V must learn the targets n q R, which
  move with the adversary; B leaves values and targets alone.
- KL charged to the reward *after* A's scaling, in ``advantages``: A leaves the charge unweighted, B weights it.

A KL or entropy term of the loss is *inside* if the adversary's values count it (worst case of V - beta KL) and
*outside* if it regularises the policy on all prompts alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..adversary.equal_losses import Accuracy
from ..adversary.rules import Reweighting, advance, reweighted

RewardMap = Callable[[Tensor], Tensor]
"""Rewards ``(prompts, samples)`` or ``(prompts, samples, length)`` to advantages, as the surrogate reads them."""


class Weighted(NamedTuple):
    """Where the weights of the prompts went.

    Attributes:
        advantages: As the surrogate reads them.
        factors: Of the surrogate loss of each sample, shape ``(prompts, samples)``.
        multipliers: n q, which terms inside are multiplied by, the same shape.
    """

    advantages: Tensor
    factors: Tensor
    multipliers: Tensor

    def losses(self, surrogate: Tensor, *, inside: Tensor | float = 0.0, outside: Tensor | float = 0.0) -> Tensor:
        """Losses ``(prompts, samples)``, not reduced: the caller takes the mean.

        Args:
            surrogate: Of ``advantages``, one loss per sample.
            inside: Terms of the loss that belong to the adversary's values and are multiplied too, for example
                ``beta * kl_estimate(...)``; a number or shape ``(prompts, samples)``.
            outside: Terms that are not multiplied, for example ``-coefficient * entropy(...)``.
        """
        return self.factors * surrogate + self.multipliers * inside + outside


class Version(Protocol):
    """What ``scale_rewards`` and ``scale_losses`` have in common, so that a trainer holds either."""

    def __call__(self, rewards: Tensor, multipliers: Tensor, advantages: RewardMap) -> Weighted:
        """From rewards ``(prompts, samples[, length])`` and n q ``(prompts, samples)`` to what a loss needs."""
        ...


def prompt_multipliers(
    returns: Tensor,
    rule: Reweighting | None,
    *,
    rows: np.ndarray | None = None,
    reference: Tensor | None = None,
    accuracy: Accuracy | None = None,
) -> Tensor:
    """Worst-case multipliers n q_i of the prompts, one per sample.

        q = argmin_q <q, V>,   V_i = mean_j R_ij,   over the ambiguity set around the reference

    A rule of ``llm.adversary.rules`` is asked with the losses -V in the same way. At radius 0, or without a rule, every
    multiplier is exactly 1.

    Args:
        returns: Return of every sample, whatever the value is to include (a KL charge or not), shape
            ``(prompts, samples)``. Not advantages over a baseline of the prompt: their means are rounding errors,
            which no set can tell from a signal.
        rule: A set or a rule over the whole training set, names of columns already bound; None for equal weights.
        rows: Positions of these prompts in the training set, for rules that have places (``by=source``); None takes
            the rule as it is.
        reference: Masses of the prompts, shape ``(prompts,)``, sum 1; None means 1/n each.
        accuracy: Of the values: what is closer is equal; None takes them as exact.

    Returns:
        Shape ``(prompts, samples)``, in the dtype of the returns, without gradient: sum over prompts is n.

    >>> from dro_core import TotalVariation
    >>> prompt_multipliers(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), TotalVariation(0.25))
    tensor([[0.5000, 0.5000],
            [1.5000, 1.5000]])
    """
    losses = -returns.detach().double().mean(dim=1)
    equal = torch.full_like(losses, 1 / len(losses))
    masses = equal if reference is None else reference.double()
    if rule is not None:
        here = rule if rows is None else rule.take(rows)
        given, asked = None if reference is None else masses, torch.ones_like(losses, dtype=torch.bool)
        masses = reweighted(here, losses, reference=given, accuracy=accuracy, asked=asked)
    # A quotient, since n (1/n) is not 1 for n = 49; its rounding in float64 is gone in the dtype of the returns.
    return (masses / equal).to(returns.dtype)[:, None].expand_as(returns)


def split_multipliers(
    returns: Tensor,
    rule: Reweighting | None,
    *,
    rows: np.ndarray | None = None,
    reference: Tensor | None = None,
    accuracy: Accuracy | None = None,
) -> Tensor:
    """Multipliers n q_i that do not depend on the answers they multiply: each half is weighed by the other's values.

    The weights of ``prompt_multipliers`` are a function of the returns beside them: a prompt whose answers came out
    badly is weighed up *and* its answers are the bad ones, so the mean of n q_i grad is not that of the worst case.
    Here the gradient of a prompt is unbiased given the weights; these are noisier, from half as many answers.

    Args:
        returns: Shape ``(prompts, samples)``, at least two samples; the halves alternate.
        rule: As for ``prompt_multipliers``.
        rows: As for ``prompt_multipliers``.
        reference: As for ``prompt_multipliers``.
        accuracy: As for ``prompt_multipliers``.

    Returns:
        Shape ``(prompts, samples)``: one number for the even samples of a prompt and one for the odd.

    >>> from dro_core import TotalVariation
    >>> split_multipliers(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), TotalVariation(0.25))
    tensor([[1.5000, 0.5000],
            [0.5000, 1.5000]])
    """
    found = torch.empty_like(returns)
    for mine, other in ((0, 1), (1, 0)):
        half = prompt_multipliers(returns[:, other::2], rule, rows=rows, reference=reference, accuracy=accuracy)
        found[:, mine::2] = half[:, :1]
    return found


def advance_prompts(
    returns: Tensor,
    rule: Reweighting | None,
    rows: np.ndarray,
    *,
    reference: Tensor | None = None,
    accuracy: Accuracy | None = None,
) -> None:
    """Move a rule that keeps a state by one step, from all answers. Arguments: see ``prompt_multipliers``."""
    if rule is not None:
        masses = None if reference is None else reference.double()
        losses = -returns.detach().double().mean(dim=1)
        asked = torch.ones_like(losses, dtype=torch.bool)  # those without a mass, too: they tell of themselves
        advance(rule.take(rows), losses, reference=masses, accuracy=accuracy, asked=asked)


def held_out_value(
    returns: Tensor,
    rule: Reweighting | None,
    *,
    rows: np.ndarray | None = None,
    reference: Tensor | None = None,
    accuracy: Accuracy | None = None,
) -> Tensor:
    """The worst-case value with weights from one half of the answers and values from the other, a scalar.

    The weighted mean of the returns that chose the weights lies below the worst case of the true values, by an order of
    1/samples. This is an unbiased estimate of what weights from half the answers do, which is no lower than it.

    Args:
        returns: Shape ``(prompts, samples)``; with one sample there is nothing to hold out, and it is nan.
        rule: As for ``prompt_multipliers``.
        rows: As for ``prompt_multipliers``.
        reference: As for ``prompt_multipliers``.
        accuracy: As for ``prompt_multipliers``.
    """
    if returns.shape[1] < 2:
        return returns.new_tensor(float("nan"))
    multipliers = split_multipliers(returns, rule, rows=rows, reference=reference, accuracy=accuracy)
    return torch.stack([(multipliers[:, half::2] * returns[:, half::2]).mean() for half in (0, 1)]).mean()


def scale_rewards(rewards: Tensor, multipliers: Tensor, advantages: RewardMap) -> Weighted:
    """Version A of 2503.00539: the rewards are multiplied by n q before baseline and whitening.

    Args:
        rewards: Shape ``(prompts, samples)``, or ``(prompts, samples, length)`` for rewards of tokens.
        multipliers: n q, at least 0, shape ``(prompts, samples)``.
        advantages: From rewards to advantages: baseline, whitening, or both.

    The module says when its losses equal those of ``scale_losses``.

    >>> rewards, factors = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]])
    >>> weighted = scale_rewards(rewards, factors, lambda r: r - 1.0)
    >>> weighted.losses(-weighted.advantages, inside=1.0, outside=10.0)
    tensor([[11.,  7.]])
    """
    factors = multipliers.reshape(multipliers.shape + (1,) * (rewards.ndim - multipliers.ndim))
    return Weighted(advantages(factors * rewards), torch.ones_like(multipliers), multipliers)


def scale_losses(rewards: Tensor, multipliers: Tensor, advantages: RewardMap) -> Weighted:
    """Version B of 2503.00539: the policy loss of each sample is multiplied by n q. Arguments: see ``scale_rewards``.

    The mean of its losses is sum_i q_i loss_i / samples over the prompts, so at ratio 1 its gradient is that of the
    worst-case value, whatever the advantages are, as long as they are unbiased in each prompt.

    >>> rewards, factors = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]])
    >>> weighted = scale_losses(rewards, factors, lambda r: r - 1.0)
    >>> weighted.losses(-weighted.advantages, inside=1.0, outside=10.0)
    tensor([[12.,  8.]])
    """
    return Weighted(advantages(rewards), multipliers, multipliers)
