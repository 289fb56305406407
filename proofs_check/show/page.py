"""The verdicts as one self-contained page: no network, no script, fit for a keyboard, print and colour-blind eyes."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from proofs_check.claim import Claim, Relation, Verdict
from proofs_check.show.figures import figure
from proofs_check.show.text import as_row, details, summary, told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proofs_check.report import Report

_SYMBOLS = dict(zip(Verdict, "✓✗∅?≈", strict=True))
_OWN = {"verdict", "reason", "statement", "by hand", "mutants"}  # shown by the template itself


def page(
    reports: Sequence[Report],
    claims: Mapping[str, Claim[Any]],
    *,
    budget: str,
    seed: int,
    unchecked: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    Args:
        reports: what was checked; with ``curves=True`` where a figure is to show a curve.
        claims: the claims by label.
        budget: "quick" or "full".
        seed: of the search.
        unchecked: claims that an interrupted run did not get to.

    Raises:
        ModuleNotFoundError: if jinja2 or matplotlib is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("proofs_check.show"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("verdicts.html.j2").render(
        sections=[_section(report, claims[report.label]) for report in reports],
        summary=summary(reports),
        budget=budget,
        seed=seed,
        version=version("robust-rlhf"),
        unchecked=unchecked,
    )


def _section(report: Report, claim: Claim[Any]) -> dict[str, Any]:
    """What the template shows of one claim."""
    _, verdict, evidence, tightness, instances, corners, alone = as_row(report)
    return {
        "label": report.label,
        "statement": claim.statement,
        "verdict": verdict,
        "symbol": _SYMBOLS[report.verdict],
        "kind": report.verdict.value if report.as_expected else "surprise",
        "evidence": evidence,
        "tightness": tightness,
        "instances": instances,
        "corners": corners,
        "alone": alone,
        "seconds": f"{report.seconds:.1f}",
        "reason": report.reason,
        "by_hand": claim.by_hand,
        "facts": [(name, text) for name, text in details(claim, report) if name not in _OWN],
        "powers": {name: told(power) for name, power in report.powers.items()},
        "figure": figure(report, claim),
        "caption": _caption(report, claim),
    }


def _caption(report: Report, claim: Claim[Any]) -> str:
    if report.curve and claim.curve:
        return f"Both sides of the claim over {claim.curve.axis}."
    where = "on" if claim.relation is Relation.EQUAL else "on or above"
    return (
        f"Each dot is an instance, both sides in units of its scale; the claim says that every dot lies {where} the "
        "diagonal."
    )
