"""What a check found, as a record that can be stored, read back and replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from proofs_check.claim import Claim, Evidence, I, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Witness(NamedTuple):
    """The instance closest to, or furthest beyond, violation; margin = (lhs - rhs) / scale there.

    ``error`` says what a side raised, if it did; the numbers then are NaN.
    """

    instance: Any
    lhs: float
    rhs: float
    margin: float
    error: str = ""


class Control(NamedTuple):
    """How a mutant, a false version of a claim, fared.

    Attributes:
        refuted: whether corners and search together refute it.
        corners: whether the corners do by themselves.
        alone: whether the search does without corners; None if that was not asked, or there is nothing to draw.
    """

    refuted: bool
    corners: bool
    alone: bool | None = None


class CurvePoint(NamedTuple):
    """Both sides at one point of a claim's curve."""

    x: float
    lhs: float
    rhs: float


@dataclass(frozen=True)
class Report:
    """The outcome of one check.

    Attributes:
        label: the claim's name.
        verdict: the outcome.
        evidence: what it rests on.
        expected: the verdict that theory.md predicts.
        reason: one sentence that says why the verdict is this one.
        checked: instances on which both sides were evaluated.
        rejected: corners and draws that failed an assumption.
        worst: the instance with the largest margin, if any was admitted; the broken one if there is one.
        tightness: the largest lhs / rhs seen where rhs is at least a thousandth of the scale, if any.
        powers: how every mutant fared.
        seconds: time taken, mutants included.
        simplest: the simplest counterexample, if there is one.
        points: (lhs, rhs) in scales on the first instances evaluated.
        curve: both sides along the claim's curve, if asked for.
        family: what it is proved for, in words, if it is.
        domain: where the claim was tested, in words; empty if nobody looked.
        exact: of the instances checked, those that went to the claim's exact check of what it says, if it has one.
    """

    label: str
    verdict: Verdict
    evidence: Evidence
    expected: Verdict
    reason: str
    checked: int
    rejected: int
    worst: Witness | None
    tightness: float | None
    powers: Mapping[str, Control]
    seconds: float
    simplest: Witness | None = None
    points: tuple[tuple[float, float], ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    family: str = ""
    domain: str = ""
    exact: int = 0

    @property
    def controls(self) -> dict[str, Verdict]:
        """The verdict on every mutant: refuted, or upheld by a search that did not see through it."""
        return {k: Verdict.REFUTED if power.refuted else Verdict.UPHELD for k, power in self.powers.items()}

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the one that theory.md predicts."""
        return self.verdict is self.expected

    def to_json(self) -> dict[str, Any]:
        """Plain data with the worst instance itself, so that nobody needs the seed to see it again."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data |= {name: data[name].value for name in ("verdict", "evidence", "expected")}
        data["powers"] = {label: power._asdict() for label, power in self.powers.items()}
        for name, witness in (("worst", self.worst), ("simplest", self.simplest)):
            data[name] = witness and witness._asdict() | {"instance": asdict(witness.instance)}
        return cast("dict[str, Any]", _plain(data))


def _plain(value: Any) -> Any:
    """JSON has no infinities and no NaN: write their names, which ``float`` reads back."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in cast("list[Any]", value)]
    plain = cast("Any", value.item() if isinstance(value, np.generic) else value)
    return str(plain) if isinstance(plain, float) and not np.isfinite(plain) else plain


def instance_from_json(claim: Claim[I], data: Mapping[str, Any]) -> I:
    """The instance that `Report.to_json` stored."""
    return claim.instances.kind(**{name: _restored(value) for name, value in data.items()})


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_restored, cast("list[Any]", value)))
    return float(value) if value in ("nan", "inf", "-inf") else value
