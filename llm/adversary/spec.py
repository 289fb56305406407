"""Sets and rules as text: the grammar of ``dro_core.spec`` with the names that this room adds."""

from __future__ import annotations

import math

from dro_core import KLPenalty
from dro_core.spec import Form, read, set_forms

from .comparisons import Focal, Hardest, PerMicroBatch, RandomSubset, Shuffled
from .geometry import PromptDiscrepancy, PromptTransport
from .group_controls import Balanced, PermutedGroups
from .radius.auto import FORM, Auto, in_share
from .regret import Regret
from .rules import DrDPO, GroupAscent, Reweighting, layers
from .weightings.estimates import Pooled, Running, Shrunk
from .weightings.rule import FORMS

GEOMETRIES = frozenset({PromptTransport.spec, PromptDiscrepancy.spec})


def _group_ascent(rate: float, by: str) -> GroupAscent:
    if not by:
        raise ValueError("gr_dpo names no column after by=; write for example 'gr_dpo:0.1,by=source'.")
    return GroupAscent(rate, by)


def _shuffled(inner: Reweighting | None, within: str = "") -> Shuffled:
    return Shuffled(_weighing(inner), within or None)


def _balanced(by: str) -> Balanced:
    if not by:
        raise ValueError("balanced names no column after by=; write for example 'balanced:by=source'.")
    return Balanced(by)


def _permuted_groups(inner: Reweighting | None) -> PermutedGroups:
    if not names_in(_weighing(inner), "groups"):
        raise ValueError(
            f"permuted_groups deals the labels of groups anew, and {inner} has no groups: name a column, as in "
            "'permuted_groups:tv:0.2,by=source'."
        )
    return PermutedGroups(_weighing(inner))


def _per_micro_batch(size: float, inner: Reweighting | None) -> PerMicroBatch:
    if not math.isfinite(size):
        raise ValueError(f"micro: takes the size of a micro-batch, at least 1, got {size}")
    return PerMicroBatch(_weighing(inner), int(size))


def _regret(inner: Reweighting | None) -> Regret:
    return Regret(_weighing(inner))


def _running(decay: float, inner: Reweighting | None) -> Running:
    return Running(decay, _weighing(inner))


def _shrunk(pseudo: float, inner: Reweighting | None) -> Shrunk:
    return Shrunk(pseudo, _weighing(inner))


def _pooled(inner: Reweighting | None, by: str) -> Pooled:
    if not by:
        raise ValueError("pooled names no column after by=; write for example 'pooled:tv:0.2,by=source'.")
    return Pooled(_weighing(inner), by)


def _weighing(inner: Reweighting | None) -> Reweighting:
    if inner is None:
        raise ValueError("erm has equal weights, of which nothing can be made: name a set, as in 'shuffled:tv:0.2'.")
    return inner


RULES: dict[str, Form[Reweighting | None]] = {
    "dr_dpo": Form(DrDPO, "dr_dpo:1", "temperature"),
    "kldpo": Form(KLPenalty, "kldpo:1", "temperature"),
    "gr_dpo": Form(_group_ascent, "gr_dpo:0.1,by=source", "rate", options={"by": str}, needed=["by"]),
    "random": Form(RandomSubset, "random:0.4", "share"),
    "hardest": Form(Hardest, "hardest:0.1,factor=4", "share", options={"factor": float}, needed=["factor"]),
    "focal": Form(Focal, "focal:2", "gamma"),
    "balanced": Form(_balanced, "balanced:by=source", options={"by": str}, needed=["by"]),
    "permuted_groups": Form(_permuted_groups, "permuted_groups:tv:0.2,by=source", inner="set"),
    "shuffled": Form(_shuffled, "shuffled:tv:0.2", inner="set", options={"within": str}),
    "micro": Form(_per_micro_batch, "micro:8:tv:0.2", "size", inner="set"),
    "regret": Form(_regret, "regret:tv:0.2", inner="set"),
    "running": Form(_running, "running:0.9:tv:0.2", "share of the past", inner="set"),
    "shrunk": Form(_shrunk, "shrunk:4:tv:0.2", "number of pseudo-answers", inner="set"),
    "pooled": Form(_pooled, "pooled:tv:0.2,by=source", inner="set", options={"by": str}, needed=["by"]),
    **FORMS,
    "wasserstein": Form(PromptTransport, "wasserstein:0.1", "radius"),
    "mmd": Form(PromptDiscrepancy, "mmd:0.1", "radius"),
}


def names_in(rule: Reweighting | None, *attributes: str) -> list[str]:
    """The columns that a set or rule names, as it names them: those of its groups, and within which it deals."""
    found = (getattr(part, name, None) for part in layers(rule) for name in attributes or ("groups", "within"))
    return [name for name in found if isinstance(name, str)]


def parse_reweighting(spec: str) -> Reweighting | None:
    """Read a set, as ``dro_core.parse_ambiguity`` does, or a rule; None is ``erm``.

    Rules: ``dr_dpo:1``, ``kldpo:1`` (weights prop. to exp(l/t), 2502.01930), ``gr_dpo:0.1,by=source``, those to compare
    with (``random:0.4``, ``hardest:0.1,factor=4``, ``focal:2``, ``shuffled:SET[,within=COLUMN]``, ``micro:8:SET``,
    ``balanced:by=COLUMN``, ``permuted_groups:SET``), those of prompts (``wasserstein:0.1``, ``mmd:0.2``) and
    ``regret:SET``, which sees losses less the least that soft labels allow; those of prompts by their pass rates
    (``maxrl``, ``rs_grpo:2``, all of ``llm.adversary.weightings``), and what else a set may see of prompts
    (``running:0.9:SET``, ``shrunk:4:SET``, ``pooled:SET,by=COLUMN``). A SET is anything that can be read, rules
    included.

    ``tv:auto=0.5`` takes that share of the radius that the pairs bear (``llm.adversary.radius``) in place of a number.

    Raises:
        ValueError: As ``dro_core.parse_ambiguity``.

    >>> parse_reweighting("kldpo:0.5"), parse_reweighting("dr_dpo:2"), parse_reweighting("erm")
    (KLPenalty(temperature=0.5), DrDPO(temperature=2.0), None)
    >>> str(parse_reweighting("micro:8:tv:0.2, by = source"))
    'micro:8:tv:0.2,by=source'
    """
    forms: dict[str, Form[Reweighting | None]] = {**set_forms(), **RULES}
    measured = in_share(spec)
    if measured is None:
        return read(spec, forms, "ambiguity")
    try:
        return read(measured, {**forms, Auto.spec: FORM}, "ambiguity")
    except ValueError as error:
        raise ValueError(str(error).replace(repr(measured), repr(spec))) from None
