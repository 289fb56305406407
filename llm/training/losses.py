"""Preference losses, one value per pair: the reduction belongs to the caller.

Here are the functions of the margin h of a pair, positive where the model agrees with the label: a difference of
rewards, or of the scores of the two answers under a policy (``llm.judging.margins.answer_scores``). Losses that read
both scores are in ``objectives.scores``, and the table of all by name beside them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..adversary.equal_losses import Accuracy, log_ratio_rounding

Told = TypeVar("Told", Tensor, np.ndarray)


class PairLoss(ABC):
    """The loss of a pair by the scores of its answers, each beta log pi(y|x)/pi_ref(y|x) summed over the tokens of y.

    Attributes:
        reference: Whether scores are relative to a reference policy; otherwise they are of log pi(y|x).
        per_token: Whether they are divided by the number of tokens of y.
        of_scores: Whether the loss reads the scores of both answers, and not only their difference, the margin.
        logistic: Whether the loss is -log sigmoid(margin), so that margins can be told from it.
    """

    reference: ClassVar[bool] = True
    per_token: ClassVar[bool] = False
    of_scores: ClassVar[bool] = False
    logistic: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, told: Tensor, /) -> Tensor:
        """From margins ``(n,)``, or with ``of_scores`` from scores ``(n, 2)``, chosen first, to losses ``(n,)``."""


def margins_in(told: Told) -> Told:
    """The margins ``(n,)`` in what a loss reads: margins, or scores ``(n, 2)``."""
    return told if told.ndim == 1 else told[:, 0] - told[:, 1]


@dataclass(frozen=True)
class Sigmoid(PairLoss):
    """l(h) = -log sigmoid(h), in nats: the negative log-likelihood of the label [R23]."""

    logistic: ClassVar[bool] = True

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return -logsigmoid(margins)


class SigmoidPerToken(Sigmoid):
    """The same of log-ratios per token: the length-normalised DPO of 2411.15124, TRL's ``sigmoid_norm``."""

    per_token: ClassVar[bool] = True


@dataclass(frozen=True)
class IPO(PairLoss):
    """l(h) = (h/beta - 1/(2 beta))^2, with log-ratios summed over tokens, as printed in 2310.12036.

    Code bases that divide the log-ratios by the number of tokens train on another loss: ``IPOPerToken``.
    """

    beta: float

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return ((margins - 0.5) / self.beta) ** 2


class IPOPerToken(IPO):
    """The same of log-ratios per token: what TRL calls ``ipo``."""

    per_token: ClassVar[bool] = True


@dataclass(frozen=True)
class Hinge(PairLoss):
    """l(h) = max(0, 1 - h): SLiC (2305.10425) with the log-ratios of DPO, as in RSO (2309.06657)."""

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return torch.relu(1 - margins)


@dataclass(frozen=True)
class SimPO(PairLoss):
    """l(h) = -log sigmoid(h - gamma), of log-probabilities per token and without a reference: 2405.14734.

    gamma is the margin that is asked for, in the unit of h; the paper recommends some half of beta.
    """

    gamma: float

    reference: ClassVar[bool] = False
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.gamma < float("inf"):
            raise ValueError(f"the gamma of simpo is the margin that is asked for and at least 0, got {self.gamma}")

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return -logsigmoid(margins - self.gamma)


@dataclass(frozen=True)
class EXO(PairLoss):
    """l(h) = KL(q || p) of q = (s(h), s(-h)), s the sigmoid, and p = (1-e, e), 0 < e < 1/2: eq. 16 of 2402.00856."""

    flip: float

    def __post_init__(self) -> None:
        _check_flip(self.flip)
        if self.flip == 0:
            raise ValueError("exo_pair needs a share of flipped labels above 0, or its loss is infinite: take 0.001")

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        right, wrong = logsigmoid(margins), logsigmoid(-margins)
        return right.exp() * (right - np.log1p(-self.flip)) + wrong.exp() * (wrong - np.log(self.flip))


@dataclass(frozen=True)
class DiscoPOP(PairLoss):
    """l(h) = -(1-w) log s(h) + w exp(-h), s the sigmoid and w = s(h/tau): eq. 5 of 2406.08414, where tau is 0.05."""

    tau: float

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"the temperature tau of discopop must be positive, got {self.tau}")

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        scaled = margins / self.tau
        return torch.sigmoid(-scaled) * -logsigmoid(margins) + (logsigmoid(scaled) - margins).exp()


@dataclass(frozen=True)
class ConservativeDPO(PairLoss):
    """l(h) = -(1-e) log sigmoid(h) - e log sigmoid(-h): labels are wrong with probability e, 0 <= e < 1/2."""

    flip: float

    def __post_init__(self) -> None:
        _check_flip(self.flip)

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return -(1 - self.flip) * logsigmoid(margins) - self.flip * logsigmoid(-margins)


@dataclass(frozen=True)
class UnbiasedDPO(PairLoss):
    """l(h) = [-(1-e) log sigmoid(h) + e log sigmoid(-h)] / (1-2e), rDPO of 2403.00409.

    Its mean over labels flipped with probability e is the sigmoid loss of the true labels. It falls without bound as h
    grows, so a worst-case weight never rests long on a pair that is fitted far.
    """

    flip: float

    def __post_init__(self) -> None:
        _check_flip(self.flip)

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return ((self.flip - 1) * logsigmoid(margins) + self.flip * logsigmoid(-margins)) / (1 - 2 * self.flip)


@dataclass(frozen=True)
class GradientPenalised(Sigmoid):
    """l(h) + penalty ||grad_x l(h)||_2, x the input embeddings of the pair: WDPO of 2502.01930.

    Called with margins this is the first term; the trainer, which has the embeddings, adds the second.
    """

    penalty: float = 0.01

    logistic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise ValueError(f"the gradient penalty of wdpo must be at least 0, got {self.penalty}")


def softened(pair_loss: PairLoss, told: Tensor, preferences: Tensor) -> Tensor:
    """The mean loss p l(h) + (1 - p) l(-h) of a label that is right with probability p.

    Args:
        pair_loss: l, from margins or scores to losses.
        told: Margins h ``(n,)``, or scores ``(n, 2)``, of which a wrong label exchanges the two.
        preferences: p, shape ``(n,)``.
    """
    other = -told if told.ndim == 1 else told.flip(1)
    return preferences * pair_loss(told) + (1 - preferences) * pair_loss(other)


def least_losses(pair_loss: PairLoss, preferences: Tensor) -> Tensor:
    """The least of ``softened`` over all margins, ``(n,)``: of the sigmoid loss the entropy H(p) of the label in nats.

    Raises:
        ValueError: It is not known, or there is none.

    >>> least_losses(Sigmoid(), torch.tensor([1.0, 0.5])), least_losses(IPO(0.5), torch.tensor([0.0, 0.5]))
    (tensor([0.0000, 0.6931]), tensor([0., 1.]))
    """
    if isinstance(pair_loss, Sigmoid):
        return torch.special.entr(preferences) + torch.special.entr(1 - preferences)
    if isinstance(pair_loss, IPO):
        return preferences * (1 - preferences) / pair_loss.beta**2
    if isinstance(pair_loss, Hinge):
        return 2 * torch.minimum(preferences, 1 - preferences)
    raise ValueError(
        "regret: looks at losses beyond the least that a label allows, which is known of the losses sigmoid, wdpo, ipo "
        "and hinge, and of the first and third per token: choose one of these, or leave regret: out"
    )


def _check_flip(flip: float) -> None:
    if not 0 <= flip < 0.5:
        raise ValueError(
            f"the share of flipped labels must lie in [0, 0.5), got {flip}: half flipped labels say nothing"
        )


def dpo_accuracy(
    single: Accuracy, pair_loss: PairLoss, *, beta: float, precision: torch.dtype, tokens: int
) -> Accuracy:
    """How far apart two computations of the same DPO loss may end, by its slope where training begins.

    That is at a margin of 0, or at scores of 0; without a reference, at scores of -1 nat a token.

    Args:
        single: Of a loss that is no difference of sums.
        pair_loss: From margins or scores to losses.
        beta: Scale of the scores.
        precision: Of the forward passes.
        tokens: Of the longest answer.
    """
    begun = torch.full((1, 2), 0.0 if pair_loss.reference else -beta)
    told = (begun if pair_loss.of_scores else margins_in(begun)).requires_grad_()
    (slopes,) = torch.autograd.grad(pair_loss(told).sum(), told)
    slope = 1.0 if single.logistic else float(slopes.abs().mean())
    rounding = log_ratio_rounding(precision, tokens=1 if pair_loss.per_token else tokens)
    return replace(single, absolute=max(single.absolute, beta * rounding * slope))
