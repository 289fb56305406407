"""What a check found, as a record that can be stored, read back and replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from proofs_check.claim import Claim, Evidence, I, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping


class Witness(NamedTuple):
    """The instance closest to, or furthest beyond, violation; margin = (lhs - rhs) / scale there."""

    instance: Any
    lhs: float
    rhs: float
    margin: float


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
        worst: the instance with the largest margin, if any was admitted.
        tightness: the largest lhs / rhs seen where rhs is at least a thousandth of the scale, if any.
        controls: the verdict on every mutant.
        seconds: time taken, mutants included.
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
    controls: Mapping[str, Verdict]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain data with the worst instance itself, so that nobody needs the seed to see it again."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data |= {name: data[name].value for name in ("verdict", "evidence", "expected")}
        data["controls"] = {label: verdict.value for label, verdict in self.controls.items()}
        if self.worst is not None:
            data["worst"] = self.worst._asdict() | {"instance": asdict(self.worst.instance)}
        return data


def instance_from_json(claim: Claim[I], data: Mapping[str, Any]) -> I:
    """The instance that `Report.to_json` stored."""
    fields = {name: tuple(cast("list[Any]", v)) if isinstance(v, list) else v for name, v in data.items()}
    return claim.instances.kind(**fields)
