"""All losses of DPO by name, and those that read the scores of both answers of a pair, not only their difference.

A score is s = beta log pi(y|x)/pi_ref(y|x), or what the attributes of ``PairLoss`` say instead: c of the chosen answer,
r of the rejected one, h = c - r. Each loss is that of one pair alone, so that every set and rule can weigh it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dro_core.spec import Form, read

from ..run.kinds import has_reference
from . import losses
from .losses import PairLoss

if TYPE_CHECKING:
    from .config import DPOConfig


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


def objectives(beta: float) -> dict[str, Form[PairLoss]]:
    """How the losses are written, by name, in the order of docs/training.md.

    Args:
        beta: Scale of the scores, by which some divide again.
    """
    return {
        "sigmoid": Form(losses.Sigmoid, "sigmoid"),
        "ipo": Form(partial(losses.IPO, beta), "ipo"),
        "hinge": Form(losses.Hinge, "hinge"),
        "cdpo": Form(losses.ConservativeDPO, "cdpo:0.1", "flip"),
        "rdpo": Form(losses.UnbiasedDPO, "rdpo:0.1", "flip"),
        "robust": Form(losses.UnbiasedDPO, "robust:0.1", "flip"),
        "wdpo": Form(losses.GradientPenalised, "wdpo:0.01", "penalty"),
        "exo_pair": Form(losses.EXO, "exo_pair:0.001", "flip"),
        "discopop": Form(losses.DiscoPOP, "discopop:0.05", "tau"),
        "sigmoid_norm": Form(losses.SigmoidPerToken, "sigmoid_norm"),
        "ipo_norm": Form(partial(losses.IPOPerToken, beta), "ipo_norm"),
        "nca_pair": Form(NCA, "nca_pair"),
        "bco_pair": Form(BCO, "bco_pair"),
        "sppo_hard": Form(partial(SPPO, beta), "sppo_hard"),
        "apo_zero": Form(APOZero, "apo_zero"),
        "apo_down": Form(APODown, "apo_down"),
        "simpo": Form(losses.SimPO, "simpo:0.5", "gamma"),
        "orpo": Form(partial(ORPO, beta), "orpo"),
    }


_SORTED = "sorts the log-ratios of a batch, so that no pair has a loss of its own to be weighed: take sigmoid or hinge"
NOT_OF_A_PAIR = {
    "aot": _SORTED,
    "aot_unpaired": _SORTED,
    "kto": "compares single answers with a divergence that is estimated over the batch, so that no pair has a loss of "
    "its own to be weighed: take apo_zero, which is KTO with that estimate at 0",
    "sft": "reads the chosen answers alone: use `train sft`, or orpo, which imitates and compares",
    "cpo": "adds a mean over the tokens of a batch to a loss of summed log-probabilities: take simpo or orpo, which "
    "need no reference either",
}


def parse_pair_loss(spec: str, *, beta: float) -> PairLoss:
    """Read a loss from text, in the grammar of sets: ``sigmoid``, ``cdpo:0.1``, ``simpo:0.5``, ...

    Raises:
        ValueError: Unknown name, one that is no loss of a pair, or a number that is missing, malformed or outside its
            interval.

    >>> parse_pair_loss("cdpo:0.1", beta=0.1)
    ConservativeDPO(flip=0.1)
    """
    name = spec.partition(":")[0].strip()
    if name in NOT_OF_A_PAIR:
        raise ValueError(f"loss {spec!r} is not offered: {name} {NOT_OF_A_PAIR[name]}")
    return read(spec, objectives(beta), "loss")


def check_reference(config: DPOConfig) -> None:
    """Refuse a reference where the loss has none, and one that the settings contradict.

    Raises:
        ValueError: One sentence with the remedy.
    """
    given = {"reference": config.reference != "auto"}
    given |= {name: bool(getattr(config, name)) for name in ("reference_model", "reference_cache")}
    if not has_reference(config.loss) and (set_anyway := [name for name, value in given.items() if value]):
        raise ValueError(f"loss {config.loss} needs no reference policy: leave {set_anyway[0]} out")
    if config.reference_kind() == "adapter" and not config.lora_rank:
        raise ValueError("reference=adapter switches the adapter off to get the reference: set lora_rank")
    if config.reference_kind() == "adapter" and config.reference_model:
        raise ValueError("reference=adapter takes the base model as reference: drop reference_model")
