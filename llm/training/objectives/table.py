"""All losses of DPO by name; each is that of one pair alone, so that every set and rule can weigh it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dro_core.spec import Form, read

from ...run.kinds import has_reference
from .. import losses
from . import scores

if TYPE_CHECKING:
    from ..config import DPOConfig


def objectives(beta: float) -> dict[str, Form[losses.PairLoss]]:
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
        "nca_pair": Form(scores.NCA, "nca_pair"),
        "bco_pair": Form(scores.BCO, "bco_pair"),
        "sppo_hard": Form(partial(scores.SPPO, beta), "sppo_hard"),
        "apo_zero": Form(scores.APOZero, "apo_zero"),
        "apo_down": Form(scores.APODown, "apo_down"),
        "simpo": Form(losses.SimPO, "simpo:0.5", "gamma"),
        "orpo": Form(partial(scores.ORPO, beta), "orpo"),
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


def parse_pair_loss(spec: str, *, beta: float) -> losses.PairLoss:
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
