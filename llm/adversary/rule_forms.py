"""The rules that text can name beside the sets of ``dro_core``: loaded with the first text that is no such set."""

from __future__ import annotations

import math

from dro_core import KLPenalty
from dro_core.spec import Form

from .comparisons import Focal, Hardest, PerMicroBatch, RandomSubset, Shuffled
from .geometry import PromptDiscrepancy, PromptTransport
from .group_controls import Balanced, PermutedGroups
from .regret import Regret
from .rules import DrDPO, GroupAscent, Reweighting, names_in
from .weightings.estimates import Pooled, Running, Shrunk
from .weightings.rule import FORMS


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
