"""Reports in a file: written whole or not at all, read with suspicion, evaluated again."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dro_core.files import whole
from proofs_check.claim import Claim, Verdict
from proofs_check.evaluation import TOLERANCE
from proofs_check.report import Report, Witness, instance_from_json
from proofs_check.search import replay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 1  # of the file; one number up whenever an older reader would misread it


class BadFile(ValueError):
    """The file is not one that `--json` wrote, or its claims are others; the message is one plain sentence."""


@dataclass(frozen=True)
class Replayed:
    """A stored worst instance, evaluated again.

    Attributes:
        label: of the claim.
        stored: both sides and the margin, as the file has them; None if the check found no instance.
        again: the same by the claim as it is now.
        verdict: as the file has it.
        exact: whether exact arithmetic still says that the instance violates the claim; None if it was not asked,
            because the verdict was another one or the claim has no exact check.
    """

    label: str
    stored: Witness | None
    again: Witness | None
    verdict: Verdict
    exact: bool | None

    @property
    def same(self) -> bool:
        """Whether both sides are the same, up to the rounding of another machine, and the refutation holds."""
        if self.stored is None or self.again is None:
            return True
        return self.exact is not False and self.stored.error == self.again.error and self.drift <= TOLERANCE

    @property
    def drift(self) -> float:
        """How far the margin and the sides have moved, relative to their size; 0 if bit for bit the same."""
        if self.stored is None or self.again is None:
            return 0.0
        return max(map(_distance, self.stored[1:4], self.again[1:4]))


def _distance(old: float, new: float) -> float:
    if old == new or (math.isnan(old) and math.isnan(new)):
        return 0.0
    return abs(old - new) / max(1.0, abs(old)) if math.isfinite(old) and math.isfinite(new) else math.inf


def write_json(path: Path, reports: Sequence[Report], *, budget: str, seed: int, unchecked: Sequence[str] = ()) -> None:
    """Store reports with their worst instances; ``unchecked`` names the claims of an interrupted run."""
    stored = {
        "format": FORMAT,
        "version": version("robust-rlhf"),
        "budget": budget,
        "seed": seed,
        "unchecked": list(unchecked),
        "reports": [report.to_json() for report in reports],
    }
    write_text(path, json.dumps(stored, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole: if that fails, an earlier one is still there."""
    with whole(path) as stream:
        stream.write(text.encode())


def replay_file(path: Path, claims: Mapping[str, Claim[Any]], labels: Sequence[str] = ()) -> tuple[Replayed, ...]:
    """Evaluate the worst instances of a stored run, or of one stored report, again.

    Args:
        path: a file of `--json`, or one report of it.
        claims: the claims by label.
        labels: which reports; all by default.

    Raises:
        BadFile: if the file cannot be read, is no such file, or its claims or instances are unknown here.
    """
    reports = _reports(path)
    found = [_text(report, "label", path) for report in reports]
    if missing := [label for label in labels if label not in found]:
        raise BadFile(f"{path} has no report on {', '.join(missing)}; it has {', '.join(found)}.")
    wanted = labels or found
    if unknown := [label for label in wanted if label not in claims]:
        raise BadFile(f"{path} has a report on {unknown[0]!r}, which is no claim of this registry.")
    return tuple(
        _again(claims[label], report, path) for label, report in zip(found, reports, strict=True) if label in wanted
    )


def _reports(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise BadFile(f"{path} is not a file that --json wrote: it holds no reports: name one that does.")
    record = cast("dict[str, Any]", data)
    if "worst" in record:
        return [record]
    reports = record.get("reports")
    if not isinstance(reports, list) or not all(isinstance(r, dict) for r in cast("list[Any]", reports)):
        raise BadFile(f"{path} is not a file that --json wrote: it holds no reports: name one that does.")
    if record.get("format") != FORMAT:
        raise BadFile(f"{path} has format {record.get('format')!r}, this version reads {FORMAT}: store it again.")
    return cast("list[dict[str, Any]]", reports)


def _text(report: Mapping[str, Any], name: str, path: Path) -> str:
    if not isinstance(report.get(name), str):
        raise BadFile(f"{path} is damaged: a report has no {name}.")
    return report[name]


def _again(claim: Claim[Any], report: Mapping[str, Any], path: Path) -> Replayed:
    try:
        verdict = Verdict(report["verdict"])
        worst = report["worst"]
        if worst is None:
            return Replayed(claim.label, None, None, verdict, None)
        lhs, rhs, margin = (float(worst[name]) for name in ("lhs", "rhs", "margin"))
        instance = instance_from_json(claim, worst["instance"])
        _reject_other_types(instance, claim)
        stored = Witness(instance, lhs, rhs, margin, str(worst.get("error", "")))
        exact = bool(claim.violates(instance)) if verdict is Verdict.REFUTED and claim.violates else None
    except KeyError as error:
        raise BadFile(f"{path} is damaged: the report on {claim.label} has no {error.args[0]}.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BadFile(f"{path} does not fit the claim {claim.label}: {error}.") from error
    except Exception as error:  # the exact check, on an instance with fields of another type
        raise BadFile(f"{path} does not fit the claim {claim.label}: {type(error).__name__}: {error}.") from error
    return Replayed(claim.label, stored, replay(claim, report), verdict, exact)


def _reject_other_types(instance: Any, claim: Claim[Any]) -> None:
    """A dataclass takes any value for a field: compare with an instance that the claim itself names."""
    for example in claim.instances.corners[:1]:
        for field in fields(example):
            kinds: list[type[Any]] = [type(getattr(one, field.name)) for one in (example, instance)]
            if kinds[0] is not kinds[1] and {str, tuple} & set(kinds):
                raise TypeError(f"{field.name} must be a {kinds[0].__name__}, got a {kinds[1].__name__}")
