"""What is wrong with a training run, in plain words: every check, its evidence, and what to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

from ..run.escaping import visible
from ..run.kinds import KINDS
from ..run.launch import said_of_processes
from ..run.terminal import Terminal, shown
from .bearing import more_than_bearable
from .diagnosis import Check, Finding, Severity, Unchecked
from .learning import TOO_FEW, ends_worse, held_out_rises, no_better_than_a_coin, not_finite, only_length
from .policies import over_optimised
from .processes import not_sharded
from .reading import SUBJECTS, answers_cut, seen_as_they_stand
from .record import RunRecord
from .signal import chases_unsolvable, coverage_lost, silent_prompts, weight_on_silent
from .weights import (
    did_not_act,
    likely_mislabelled,
    mostly_ignored,
    never_at_full_strength,
    one_source,
    single_examples,
    too_few_effective,
)

if TYPE_CHECKING:
    import pandas as pd

CHECKS = (
    Check("finite losses and gradients", not_finite),
    Check("a loss below that of a coin", no_better_than_a_coin),
    Check("a loss that does not rise", ends_worse),
    Check("the radius that the data bear", more_than_bearable),
    Check("effective sample size", too_few_effective),
    Check("weight on single examples", single_examples),
    Check("share of ignored examples", mostly_ignored),
    Check("weight by source", one_source),
    Check("weight on likely mislabelled pairs", likely_mislabelled),
    Check("whether the adversary acted", did_not_act),
    Check("schedule of the radius", never_at_full_strength),
    Check("worst held-out category", held_out_rises),
    Check("cut answers", answers_cut),
    *(Check(subject, seen_as_they_stand(*parts)) for subject, parts in SUBJECTS.items()),
    Check("length as the only thing learned", only_length),
    Check("sharding as it was asked for", not_sharded),
    Check("gold reward of a policy", over_optimised),
    Check("prompts that tell nothing", silent_prompts),
    Check("weight on prompts that tell nothing", weight_on_silent),
    Check("prompts with any right answer", coverage_lost),
    Check("weight on prompts that are never solved", chases_unsolvable),
)


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """The verdicts of all checks on one run; it prints as ``robust-rlhf doctor`` does.

    Attributes:
        run: What was looked at.
        findings: What is wrong, the worst first.
        checked: Subjects of the checks that were made.
        unchecked: Subject and reason of those that could not be.
    """

    run: RunRecord
    findings: list[Finding]
    checked: list[str]
    unchecked: dict[str, str]

    @property
    def table(self) -> pd.DataFrame:
        """The findings as a ``pandas.DataFrame``, the worst first, then every subject that was not checked, and why."""
        import pandas as pd

        rows = [asdict(finding) | {"severity": finding.severity.value} for finding in self.findings]
        rows += [
            {"severity": "not checked", "title": subject, "evidence": reason}
            for subject, reason in self.unchecked.items()
        ]
        return pd.DataFrame(rows, columns=[field.name for field in fields(Finding)])

    def caption(self) -> str:
        """What the checks together say where they found nothing; "" where they found something."""
        if self.findings:
            return ""
        unseen = TOO_FEW.reason if TOO_FEW.reason in self.unchecked.values() else ""
        return f"nothing found, but the checks for learning did not run: {unseen}" if unseen else "nothing found"

    def _repr_html_(self) -> str:
        said = f"<p>{escape(self.caption())}</p>" if self.caption() else ""
        found = self.table.to_html(index=False, border=0, na_rep="")
        return visible(f"{said}{found}<p>checked: {escape(', '.join(self.checked))}</p>")

    def __repr__(self) -> str:
        page = Terminal(file=StringIO(), width=120, soft_wrap=True)
        with page.capture() as captured:
            render(self, page)
        return captured.get().rstrip()

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.severity is Severity.PROBLEM for finding in self.findings)


def diagnose(run: RunRecord) -> Diagnosis:
    """Put every question to the run."""
    verdicts = {check.subject: check.examine(run) for check in CHECKS}
    findings = [verdict for verdict in verdicts.values() if isinstance(verdict, Finding)]
    unchecked = {subject: verdict.reason for subject, verdict in verdicts.items() if isinstance(verdict, Unchecked)}
    return Diagnosis(
        run=run,
        findings=sorted(findings, key=lambda finding: finding.severity is not Severity.PROBLEM),
        checked=[subject for subject in verdicts if subject not in unchecked],
        unchecked=unchecked,
    )


def as_json(diagnosis: Diagnosis) -> dict[str, object]:
    """The diagnosis as plain dictionaries and lists."""
    return {
        "run": str(diagnosis.run.folder),
        "kind": diagnosis.run.kind,
        "finished": diagnosis.run.finished,
        "steps": diagnosis.run.steps,
        "distribution": diagnosis.run.distribution,
        "findings": [asdict(finding) | {"severity": finding.severity.value} for finding in diagnosis.findings],
        "checked": diagnosis.checked,
        "unchecked": diagnosis.unchecked,
    }


def render(diagnosis: Diagnosis, console: Console) -> None:
    """Print the diagnosis."""
    run = diagnosis.run
    state = "" if run.finished else ", unfinished: as of its last checkpoint"
    kind = KINDS[run.kind].trained if run.kind else "run of unknown kind"
    ran = f"; {said_of_processes(run.distribution)}" if run.distribution else ""
    trained = f"{kind}, {run.config.get('ambiguity', 'erm')}, {run.steps} steps"
    console.print(shown(f"{run.folder}: {trained}{state}{ran}\n"))
    for finding in diagnosis.findings:
        style = "bold red" if finding.severity is Severity.PROBLEM else "bold yellow"
        console.print(shown(f"{finding.severity.value}: {finding.title}", style))
        console.print(shown(f"  evidence: {finding.evidence}\n  try: {finding.remedy}\n"))
    if not diagnosis.findings:
        console.print(f"{diagnosis.caption()}\n")
    console.print(shown(f"checked: {', '.join(diagnosis.checked)}"))
    for reason in dict.fromkeys(diagnosis.unchecked.values()):
        subjects = [subject for subject, why in diagnosis.unchecked.items() if why == reason]
        console.print(shown(f"not checked ({reason}): {', '.join(subjects)}"))
