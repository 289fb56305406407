"""Losses that read the scores of both answers of a pair, not only their difference.

A score is s = beta log pi(y|x)/pi_ref(y|x), or what the attributes of ``PairLoss`` say instead: c of the chosen answer,
r of the rejected one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..losses import PairLoss


@dataclass(frozen=True)
class OfScores(PairLoss):
    """A loss of both scores; with a wrong label they change places."""

    of_scores: ClassVar[bool] = True


@dataclass(frozen=True)
class NCA(OfScores):
    """l = -log s(c) - 1/2 log s(-c) - 1/2 log s(-r), s the sigmoid: pairs under NCA, 2402.05369.

    It keeps the chosen answer from becoming less likely, where a loss of the margin does not.
    """

    def __call__(self, scores: Tensor) -> Tensor:
        """From scores ``(n, 2)`` to losses ``(n,)``."""
        return -logsigmoid(scores[:, 0]) - 0.5 * logsigmoid(-scores).sum(dim=1)


@dataclass(frozen=True)
class BCO(OfScores):
    """l = -log s(c) - log s(-r), s the sigmoid: binary classification of the answers, 2404.04656.

    Without the shift of the rewards by their running mean, as in TRL: that is a number of the batch, not of the pair.
    """

    def __call__(self, scores: Tensor) -> Tensor:
        """From scores ``(n, 2)`` to losses ``(n,)``."""
        return -logsigmoid(scores[:, 0]) - logsigmoid(-scores[:, 1])


@dataclass(frozen=True)
class SPPO(OfScores):
    """l = (c/beta - 1/(2 beta))^2 + (r/beta + 1/(2 beta))^2: 2405.00675, eq. 4.7, with a winner that always wins."""

    beta: float

    def __call__(self, scores: Tensor) -> Tensor:
        """From scores ``(n, 2)`` to losses ``(n,)``."""
        return ((scores - scores.new_tensor([0.5, -0.5])) / self.beta).square().sum(dim=1)


@dataclass(frozen=True)
class APOZero(OfScores):
    """l = s(-c) + s(r), s the sigmoid: eq. 7 of 2408.06266, for chosen answers better than the model's own.

    That is the loss of KTO with its estimate of the divergence at 0.
    """

    def __call__(self, scores: Tensor) -> Tensor:
        """From scores ``(n, 2)`` to losses ``(n,)``."""
        return torch.sigmoid(-scores[:, 0]) + torch.sigmoid(scores[:, 1])


@dataclass(frozen=True)
class APODown(OfScores):
    """l = s(c) + s(r - c), s the sigmoid: eq. 8 of 2408.06266, for chosen answers worse than the model's own."""

    def __call__(self, scores: Tensor) -> Tensor:
        """From scores ``(n, 2)`` to losses ``(n,)``."""
        return torch.sigmoid(scores[:, 0]) + torch.sigmoid(scores[:, 1] - scores[:, 0])


@dataclass(frozen=True)
class ORPO(OfScores):
    """l = -u - beta log s(odds(u) - odds(v)), s the sigmoid: 2403.07691, where beta is called lambda.

    u and v are log pi(y|x) per token of the chosen and the rejected answer, odds(u) = u - log(1 - exp(u)). The first
    term imitates the chosen answer. There is no reference.
    """

    beta: float

    reference: ClassVar[bool] = False
    per_token: ClassVar[bool] = True

    def __call__(self, scores: Tensor) -> Tensor:
        """From scores ``(n, 2)`` to losses ``(n,)``; a probability of 1 counts as the largest number below it."""
        means = scores / self.beta
        below = means.clamp(max=-torch.finfo(means.dtype).eps)
        chosen, rejected = (below - _log1mexp(below)).unbind(dim=1)
        return -means[:, 0] - self.beta * logsigmoid(chosen - rejected)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, by whichever of two forms loses no digits."""
    return torch.where(x > -0.6931, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))
