"""Reports for people: the table on the screen, one claim in full, and the page of verdicts in the documentation."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Column, Table

from proofs_check.claim import Claim, Evidence, Verdict
from proofs_check.evaluation import ROUNDING, TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from proofs_check._stored import Replayed
    from proofs_check.report import Control, Report

_COLOURS = {
    Verdict.UPHELD: "green",
    Verdict.REFUTED: "magenta",
    Verdict.VACUOUS: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.TOUCHING: "yellow",
}
_MARGINS = f"above {TOLERANCE:.0e} a violation, above {ROUNDING:.0e} touching, where exact arithmetic does not decide"
_BEYOND = (Verdict.REFUTED, Verdict.TOUCHING)
_LONGEST = 12  # entries of a tuple that are shown


def as_row(report: Report) -> tuple[str, ...]:
    """Return a claim as text: label, verdict, evidence, tightness, instances, then how many mutants were refuted.

    Refuted of all by corners and search together; by the corners; by the search without corners, "-" if not asked.
    Where exact arithmetic was asked about a share of the instances alone, their number says so.

    Example:
        >>> from proofs_check import check
        >>> from proofs_check.claims.minibatch.minibatch import tv_bias_root_n
        >>> as_row(check(tv_bias_root_n()))[:3]
        ('tv-bias-root-n', 'refuted', 'certified')
    """
    verdict = report.verdict.value
    if not report.as_expected:
        verdict += f" (expected: {report.expected.value})"
    tightness = "-" if report.tightness is None else f"{report.tightness:.4g}"
    powers = report.powers.values()
    refuted, corners = (_share([getattr(power, name) for power in powers]) for name in ("refuted", "corners"))
    alone = _share([power.alone for power in powers if power.alone is not None])
    seen = f"{report.checked}, {report.exact} exactly" if 0 < report.exact < report.checked else str(report.checked)
    return report.label, verdict, report.evidence.value, tightness, seen, refuted, corners, alone


def _share(outcomes: Sequence[bool]) -> str:
    return f"{sum(outcomes)} of {len(outcomes)}" if outcomes else "-"


def line(report: Report) -> str:
    """One finished claim in one line of rich markup.

    Example:
        >>> from proofs_check import check
        >>> from proofs_check.claims.minibatch.minibatch import tv_bias_root_n
        >>> line(check(tv_bias_root_n())).split("tightness")[0]
        'tv-bias-root-n: [magenta]refuted[/], certified, '
    """
    label, verdict, evidence, tightness, instances, *_ = map(escape, as_row(report))
    counts = f"tightness {tightness}, {instances} instances, {report.seconds:.1f} s"
    colour = _COLOURS[report.verdict] if report.as_expected else "bold red"
    return f"{label}: [{colour}]{verdict}[/], {evidence}, {counts}"


def table(reports: Sequence[Report]) -> Table:
    """Return the verdicts as a table that fits 80 columns; a verdict that is not the expected one has a mark."""
    head = [Column("claim", overflow="fold"), Column("verdict", no_wrap=True), Column("evidence", no_wrap=True)]
    numbers = [Column(name, justify="right", no_wrap=True) for name in ("tight", "seen", "mut.", "s")]
    shown = Table(*head, *numbers, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for report in reports:
        label, _, *rest, _, mutants, _, _ = map(escape, as_row(report))
        verdict, colour = report.verdict.value, _COLOURS[report.verdict]
        shown_as = f"[{colour}]{verdict}[/]" if report.as_expected else f"[bold red]{verdict} ![/]"
        shown.add_row(
            label, shown_as, *rest, str(report.checked), mutants.replace(" of ", "/"), f"{report.seconds:.1f}"
        )
    return shown


def marks() -> str:
    """What the head and the marks of ``table`` mean."""
    return (
        "tight: largest left side / right side found; seen: instances evaluated; mut.: false versions refuted, of all; "
        "s: seconds; !: not the verdict that was expected."
    )


def instance(report: Report) -> str:
    """The worst instance in one line, where the verdict speaks of it: beyond the bound, or shown as its reason says."""
    if report.worst is None or not (report.verdict in _BEYOND or "the instance shown" in report.reason):
        return ""
    return f" There: {'; '.join(_fields(report.worst.instance).splitlines())}."


def summary(reports: Sequence[Report]) -> str:
    """Return the counts in one sentence.

    Example:
        >>> summary([])
        '0 claims checked: all as expected.'
    """
    counts = {verdict: sum(r.verdict is verdict for r in reports) for verdict in Verdict}
    parts = [f"{count} {verdict.value}" for verdict, count in counts.items() if count]
    others = [report.label for report in reports if not report.as_expected]
    end = f"not as expected: {', '.join(others)}." if others else "all as expected."
    claims = "1 claim" if len(reports) == 1 else f"{len(reports)} claims"
    return f"{claims} checked: {', '.join([*parts, end])}"


def details(claim: Claim[Any], report: Report) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of everything there is to know about one checked claim; texts may have several lines."""
    yield "statement", claim.statement
    if claim.theorem:
        yield "theorem", claim.theorem
    yield "source", claim.reference
    yield "assumptions", "\n".join(claim.assumptions) or "none"
    _, verdict, evidence, tightness, instances, *_ = as_row(report)
    yield "verdict", f"{verdict} ({evidence})"
    if report.family and claim.proof is not None:
        yield "proved for", report.family
        yield "proof", claim.proof.reduction
    yield "reason", report.reason
    if claim.by_hand:
        yield "by hand", claim.by_hand
    rejected = f"; {report.rejected} did not meet the assumptions" if report.rejected else ""
    if report.domain:
        yield "tested on", report.domain
    yield "search", f"{instances} instances{rejected}; largest left / right {tightness}"
    yield from witness(report)
    if report.simplest is not None and report.worst is not None and report.simplest.instance != report.worst.instance:
        yield "simplest counterexample", _fields(report.simplest.instance)
    yield "mutants", "\n".join(f"{name}: {told(power)}" for name, power in report.powers.items()) or "none"


def told(power: Control) -> str:
    """How a mutant fared, in words.

    Example:
        >>> from proofs_check.report import Control
        >>> told(Control(refuted=True, corners=False, alone=True))
        'refuted, by the search alone'
    """
    ways = [name for name, found in (("the corners", power.corners), ("the search alone", power.alone)) if found]
    if not power.refuted:
        return "not refuted"
    return (
        f"refuted, by {' and by '.join(ways) or ('the search' if power.alone is None else 'the search from corners')}"
    )


def _fields(instance: Any) -> str:
    names = [f.name for f in fields(instance)] if is_dataclass(instance) else []
    return "\n".join(f"{name} = {shortened(getattr(instance, name))}" for name in names)


def witness(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the worst instance field by field, and both sides there."""
    worst = report.worst
    if worst is None:
        yield "worst instance", "none: no instance was evaluated"
        return
    yield "worst instance", _fields(worst.instance)
    if worst.error:
        yield "a side raised", worst.error
    yield "left side", f"{worst.lhs!r}"
    yield "right side", f"{worst.rhs!r}"
    yield "margin", f"{worst.margin:.3g} of the scale; {_MARGINS}"


def shortened(value: Any) -> str:
    """Return a value as text; of a long tuple its beginning.

    Example:
        >>> shortened(tuple(range(20)))
        '(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, and 8 more)'
    """
    if isinstance(value, tuple):
        parts = [shortened(part) for part in value[:_LONGEST]]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        more = [f"and {len(value) - _LONGEST} more"] if len(value) > _LONGEST else []  # pyright: ignore[reportUnknownArgumentType]
        return f"({', '.join(parts + more)}{',' if len(parts) == 1 and not more else ''})"
    return repr(value)


def replayed(result: Replayed) -> str:
    """One stored instance that was evaluated again, in one line."""
    if result.stored is None or result.again is None:
        return f"{result.label}: no instance was stored."
    old, new = result.stored, result.again
    if old.error or new.error:
        text = f"a side raised {old.error or 'nothing'!r}, now {new.error or 'nothing'!r}"
    elif not result.drift:
        text = f"unchanged since stored, left {new.lhs!r}, right {new.rhs!r}"
    else:
        kind = "unchanged up to rounding" if result.same else "changed"
        text = f"{kind}, stored left {old.lhs!r}, right {old.rhs!r}, now left {new.lhs!r}, right {new.rhs!r}"
    exact = {None: "", True: "; exact arithmetic still refutes it", False: "; exact arithmetic no longer refutes it"}
    return f"{result.label} ({result.verdict.value}): {text}{exact[result.exact]}."


def markdown(
    reports: Sequence[Report], claims: Mapping[str, Claim[Any]], *, budget: str, seed: int, registry: str = ""
) -> str:
    """Return the page of verdicts: the same text whenever claims, budget, seed and versions are the same.

    Args:
        reports: what was checked.
        claims: the claims by label.
        budget: "quick" or "full".
        seed: of the search.
        registry: "module:name" of the claims, where they are not ours.
    """
    head = (
        "claim",
        "statement",
        "verdict",
        "evidence",
        "tightness",
        "instances",
        "tested on",
        "mutants refuted",
        "by corners",
        "by search",
        "source",
    )
    own = f" --registry {registry}" if registry else ""
    rows = [_markdown_row(report, claims[report.label]) for report in reports]
    lines = [
        "# Verdicts",
        "",
        f"Made by `robust-rlhf verify{own} --budget {budget} --seed {seed} --markdown FILE`, version "
        f"{version('robust-rlhf')}. {summary(reports)}",
        "",
        "*Upheld* means that no violation was found and that every mutant, a false version of the claim, was refuted",
        "by the same search. A search never proves: only *proved* speaks of a whole family, which is named, decided by",
        "polynomials in exact arithmetic (theory.md section 4); outside of it the claim was searched like any other.",
        "Three columns count mutants: refuted of all; those that the corners, made by hand, refute; those the search",
        "refutes without corners (with the full budget, and then required where the evidence is *searched*).",
        "*Certified* rests on exact arithmetic, at every instance or, by the full budget, at the number that stands",
        "beside theirs: all corners, all within 1e-9 of the bound and one in eight others, chosen by a hash.",
        "*Exhaustive* rests on every case, *statistical* on confidence limits. *Re-checked* are those that",
        "`proofs_check/verifier.py` confirms from certificates, in a bare Python. Tightness is the largest left side /",
        "right side.",
        "*Tested on* are the ranges of the instances that were seen, by the names of their fields.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(report: Report, claim: Claim[Any]) -> str:
    """A vertical bar would end a cell, and an asterisk or an underscore would be taken for emphasis."""
    label, verdict, evidence, *numbers, refuted, corners, alone = as_row(report)
    evidence += f" for {report.family}" if report.family else ""
    if report.family or (claim.formula is not None and report.evidence is Evidence.CERTIFIED):
        evidence += ", re-checked"
    texts = (claim.statement, verdict, evidence, *numbers, report.domain, refuted, corners, alone, claim.reference)
    cells = [f"`{label}`", *(re.sub(r"([|*_\\]|<(?=[a-zA-Z!/]))", r"\\\1", text.replace("\n", " ")) for text in texts)]
    return f"| {' | '.join(cells)} |"
