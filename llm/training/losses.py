"""Preference losses, one value per pair: the reduction belongs to the caller.

Every loss is a function of the margin h of a pair, positive where the model agrees with the label: a difference of
rewards, or for a policy beta times the difference of its log-ratios to the reference (``dpo_margins``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dro_core.spec import Form, read

from ..adversary.equal_losses import Accuracy, log_ratio_rounding

PairLoss = Callable[[Tensor], Tensor]
"""Margins ``(n,)`` to losses ``(n,)``."""


@dataclass(frozen=True)
class Sigmoid:
    """l(h) = -log sigmoid(h), in nats: the negative log-likelihood of the label [R23]."""

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return -logsigmoid(margins)


@dataclass(frozen=True)
class IPO:
    """l(h) = (h/beta - 1/(2 beta))^2, with log-ratios summed over tokens, as printed in 2310.12036.

    Code bases that divide the log-ratios by the number of tokens train on another loss.
    """

    beta: float

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return ((margins - 0.5) / self.beta) ** 2


@dataclass(frozen=True)
class ConservativeDPO:
    """l(h) = -(1-e) log sigmoid(h) - e log sigmoid(-h): labels are wrong with probability e, 0 <= e < 1/2."""

    flip: float

    def __post_init__(self) -> None:
        _check_flip(self.flip)

    def __call__(self, margins: Tensor) -> Tensor:
        """From margins ``(n,)`` to losses ``(n,)``."""
        return -(1 - self.flip) * logsigmoid(margins) - self.flip * logsigmoid(-margins)


@dataclass(frozen=True)
class UnbiasedDPO:
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

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise ValueError(f"the gradient penalty of wdpo must be at least 0, got {self.penalty}")


def softened(pair_loss: PairLoss, margins: Tensor, preferences: Tensor) -> Tensor:
    """The mean loss p l(h) + (1 - p) l(-h) of a label that is right with probability p.

    Args:
        pair_loss: l, from margins to losses.
        margins: h, shape ``(n,)``.
        preferences: p, shape ``(n,)``.
    """
    return preferences * pair_loss(margins) + (1 - preferences) * pair_loss(-margins)


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
    raise ValueError(
        "regret: looks at losses beyond the least that a label allows, which is known of the losses sigmoid, wdpo and "
        "ipo: choose one of these, or leave regret: out"
    )


def _check_flip(flip: float) -> None:
    if not 0 <= flip < 0.5:
        raise ValueError(
            f"the share of flipped labels must lie in [0, 0.5), got {flip}: half flipped labels say nothing"
        )


def parse_pair_loss(spec: str, *, beta: float) -> PairLoss:
    """Read a loss from text: ``sigmoid``, ``ipo``, ``cdpo:0.1``, ``rdpo:0.1`` or ``wdpo:0.01``.

    Raises:
        ValueError: Unknown name, or a number that is missing, malformed or outside its interval.

    >>> parse_pair_loss("cdpo:0.1", beta=0.1)
    ConservativeDPO(flip=0.1)
    """
    forms: dict[str, Form[PairLoss]] = {
        "sigmoid": Form(Sigmoid, "sigmoid"),
        "ipo": Form(partial(IPO, beta), "ipo"),
        "cdpo": Form(ConservativeDPO, "cdpo:0.1", "flip"),
        "rdpo": Form(UnbiasedDPO, "rdpo:0.1", "flip"),
        "wdpo": Form(GradientPenalised, "wdpo:0.01", "penalty"),
    }
    return read(spec, forms, "loss")


def dpo_accuracy(
    single: Accuracy, pair_loss: Callable[[Tensor], Tensor], *, beta: float, precision: torch.dtype, tokens: int
) -> Accuracy:
    """How far apart two computations of the same DPO loss may end, by the slope of the loss at a margin of 0.

    Args:
        single: Of a loss that is no difference of sums.
        pair_loss: From margins to losses.
        beta: Strength of the KL regularisation.
        precision: Of the forward passes.
        tokens: Of the longest answer.
    """
    margin = torch.zeros(1, requires_grad=True)
    (slope,) = torch.autograd.grad(pair_loss(margin).sum(), margin)
    spread = beta * log_ratio_rounding(precision, tokens=tokens) * (1.0 if single.logistic else float(slope.abs()))
    return replace(single, absolute=max(single.absolute, spread))
