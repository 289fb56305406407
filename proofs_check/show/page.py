"""The verdicts as one self-contained page: no network, no script, fit for a keyboard, print and colour-blind eyes."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dro_core.pages import house_style
from proofs_check.claim import Claim, Relation, Verdict
from proofs_check.show.figures import figure
from proofs_check.show.sources import certificate_of, source_of
from proofs_check.show.text import as_row, details, summary, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proofs_check.report import Report

_SYMBOLS = dict(zip(Verdict, "✓✗∅?≈", strict=True))
_WITNESS = {"worst instance", "simplest counterexample", "a side raised", "left side", "right side", "margin"}
_OWN = {"verdict", "reason", "statement", "by hand", "mutants"}  # shown by the template itself


def page(
    reports: Sequence[Report],
    claims: Mapping[str, Claim[Any]],
    *,
    budget: str,
    seed: int,
    unchecked: Sequence[str] = (),
    registry: str = "",
    advance: Callable[[], object] = lambda: None,
) -> str:
    """Return the page as HTML.

    Args:
        reports: what was checked; with ``curves=True`` where a figure is to show a curve.
        claims: the claims by label.
        budget: "quick" or "full".
        seed: of the search.
        unchecked: claims that an interrupted run did not get to.
        registry: "module:name" of the claims, where they are not ours.
        advance: called once per claim, whose figure is what takes time.

    Raises:
        ModuleNotFoundError: if jinja2 or matplotlib is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("proofs_check.show"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    sections: list[dict[str, Any]] = []
    for report in sorted(reports, key=_first):
        sections.append(_section(report, claims[report.label]))
        advance()
    return environment.get_template("verdicts.html.j2").render(
        style=house_style(),
        title=f"Verdicts on the claims of {registry}" if registry else "Verdicts on the theory of robust RLHF",
        registry=registry,
        sections=sections,
        tags=_tags(sections),
        summary=summary(reports),
        budget=budget,
        seed=seed,
        version=version("robust-rlhf"),
        unchecked=unchecked,
    )


def _section(report: Report, claim: Claim[Any]) -> dict[str, Any]:
    """What the template shows of one claim."""
    _, verdict, evidence, tightness, instances, refuted, corners, alone = as_row(report)
    return {
        "label": report.label,
        "statement": claim.statement,
        "domain": report.domain,
        "verdict": verdict,
        "symbol": _SYMBOLS[report.verdict],
        "kind": report.verdict.value if report.as_expected else "surprise",
        "evidence": f"{evidence} for {report.family}" if report.family else evidence,
        "tightness": tightness,
        "instances": instances,
        "refuted": refuted,
        "corners": corners,
        "alone": alone,
        "seconds": f"{report.seconds:.1f}",
        "reason": report.reason,
        "by_hand": claim.by_hand,
        "facts": _ordered([(name, text) for name, text in details(claim, report) if name not in _OWN], report),
        "powers": {name: told(power) for name, power in report.powers.items()},
        "figure": figure(report, claim),
        "caption": _caption(report, claim),
        "tags": {"verdict": kind_of(report), "evidence": report.evidence.value},
        "certificate": certificate_of(report, claim),
        "source": source_of(claim),
    }


def _ordered(facts: list[tuple[str, str]], report: Report) -> list[tuple[str, str]]:
    """Of a refuted claim the witness comes first."""
    return sorted(facts, key=lambda fact: fact[0] not in _WITNESS) if report.verdict is Verdict.REFUTED else facts


def kind_of(report: Report) -> str:
    """The verdict, or that it is another one than expected."""
    return report.verdict.value if report.as_expected else "surprise"


def _first(report: Report) -> int:
    """Where a claim stands on the page: what surprises before what is refuted, and what is upheld last."""
    order = ["surprise", Verdict.REFUTED.value, Verdict.UPHELD.value]
    return order.index(kind) * 2 if (kind := kind_of(report)) in order else 3


def _tags(sections: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many claims have which verdict and which evidence, for the boxes that show and hide them."""
    found: dict[str, dict[str, int]] = {"verdict": {}, "evidence": {}}
    for section in sections:
        for kind, tag in section["tags"].items():
            found[kind][tag] = found[kind].get(tag, 0) + 1
    return found


def _caption(report: Report, claim: Claim[Any]) -> str:
    if report.curve and claim.curve:
        return f"Both sides of the claim over {claim.curve.axis}."
    where = "on" if claim.relation is Relation.EQUAL else "on or above"
    return (
        f"Each dot is an instance, both sides in units of its scale; the claim says that every dot lies {where} the "
        "diagonal."
    )
