"""`robust-rlhf verify`: check the claims and show the verdicts."""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
import threading
import warnings
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dro_core.command_line.parser import INTERRUPTED, Parser, UsageError, refused
from dro_core.command_line.pools import add_pool, pool_of
from dro_core.locks import FolderInUse
from dro_core.workers import cores
from proofs_check import FULL, QUICK
from proofs_check import _outputs as outputs
from proofs_check._on_clusters import reports_from
from proofs_check._outputs import BadRequest
from proofs_check._stored import BadFile, replay_file
from proofs_check._tasks import REGISTRY, Task, claims_of
from proofs_check._workers import Crew, Lost
from proofs_check.show import text as verdicts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from dro_core.clusters.pool import Pool
    from proofs_check.claim import Claim
    from proofs_check.report import Report

_BUDGETS = {"quick": QUICK, "full": FULL}
_ABOUT = """\
Try to refute the theorems that robust RLHF leans on. Every claim is searched for a counterexample, and so is every
mutant of it, a false version which the same search must refute. A search proves nothing: a claim is called proved only
where exact arithmetic decides it for a whole family, which is named."""
_EXITS = """\
exit status: 0 every verdict is the expected one; 1 one is not, or a replay differs; 2 the request makes no sense;
130 interrupted, with the finished claims kept."""


@dataclass(frozen=True)
class Outcome:
    """What was checked, in the order of the registry, and the labels that an interruption left out."""

    reports: tuple[Report, ...]
    unchecked: tuple[str, ...]

    @property
    def status(self) -> int:
        """The exit status."""
        if self.unchecked:
            return INTERRUPTED
        return int(not all(report.as_expected for report in self.reports))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        0 if every verdict is the expected one, 1 if not, 2 if the request makes no sense, 130 after Ctrl-C.
    """
    try:
        return _run(parser().parse_args(argv))
    except (UsageError, BadRequest, BadFile, FolderInUse, OSError) as error:
        return refused(error)
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted before any claim was checked.")
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    _reject_nonsense(arguments)
    claims = _claims(arguments.registry)
    labels = [arguments.show] if arguments.show else arguments.labels
    _reject_unknown(labels, claims)
    if arguments.list:
        return _list([claims[label] for label in labels or claims])
    if arguments.replay:
        return _replay(arguments.replay, claims, labels)
    chosen, pool = [claims[label] for label in dict.fromkeys(labels or claims)], pool_of(arguments)
    with outputs.reserved(arguments, chosen):
        outcome = _check(chosen, pool, arguments)
        outputs.write(outcome.reports, outcome.unchecked, claims, arguments, _say)
    return _show(outcome, claims, full=bool(arguments.show))


def parser() -> Parser:
    """What the command takes."""
    told = Parser("robust-rlhf verify", description=_ABOUT, epilog=_EXITS)
    add = told.add_argument
    add("labels", nargs="*", metavar="LABEL", help="claims to check (default: all)")
    add("--budget", choices=tuple(_BUDGETS), default="quick", help="how long to search (default: quick)")
    add_pool(told, jobs="processes, or claims at a time on a cluster (default: all cores, or all its workers)")
    add("--seed", type=int, default=0, metavar="S", help="of the search (default: 0)")
    add("--json", type=Path, metavar="FILE", help="store the reports, worst instances included")
    add("--html", type=Path, metavar="FILE", help="write a page with a figure per claim")
    add("--markdown", type=Path, metavar="FILE", help="write the table of verdicts")
    add("--certificates", type=Path, metavar="DIR", help="write what certified and proved verdicts rest on")
    add(
        "--registry",
        default=REGISTRY,
        metavar="MODULE:NAME",
        help="claims of your own: a tuple in a module, without .py, of this folder or PYTHONPATH",
    )
    instead = told.add_mutually_exclusive_group()
    instead.add_argument("--show", metavar="LABEL", help="check one claim and tell everything about it")
    instead.add_argument("--replay", type=Path, metavar="FILE", help="evaluate the instances of a --json FILE again")
    instead.add_argument("--list", action="store_true", help="list the claims without checking them")
    return told


def _reject_nonsense(arguments: argparse.Namespace) -> None:
    if arguments.seed < 0:
        raise BadRequest(f"--seed must be 0 or more, got {arguments.seed}.")
    others = [label for label in arguments.labels if label != arguments.show]
    if arguments.show and others:
        raise BadRequest(f"--show tells about one claim: leave out {', '.join(others)}.")
    outputs.reject_nonsense(arguments)


def _claims(registry: str) -> dict[str, Claim[Any]]:
    if registry != REGISTRY and "" not in sys.path:
        sys.path.insert(0, "")  # the module may lie in the current folder
    try:
        return {claim.label: claim for claim in claims_of(registry)}
    except ValueError as error:
        raise BadRequest(f"--registry: {error}") from error


def _reject_unknown(labels: Sequence[str], claims: Mapping[str, Claim[Any]]) -> None:
    unknown = [label for label in labels if label not in claims]
    if not unknown:
        return
    hints: list[str] = []
    for label in unknown:
        close = difflib.get_close_matches(label, claims, n=3, cutoff=0.5)
        close += [known for known in claims if label and label in known and known not in close]
        hints.append(f"No claim is called {label}{': did you mean ' + ' or '.join(close[:3]) + '?' if close else '.'}")
    raise BadRequest(f"{' '.join(hints)} `robust-rlhf verify --list` names all {len(claims)}.")


def _check(claims: Sequence[Claim[Any]], pool: Pool, arguments: argparse.Namespace) -> Outcome:
    """Check the claims in processes, telling about each as it is finished."""
    budget, curves = _BUDGETS[arguments.budget], arguments.html is not None
    folder = arguments.certificates and arguments.certificates.resolve()
    tasks = [Task(claim.label, arguments.registry, budget, arguments.seed, curves, folder) for claim in claims]
    found: dict[str, Report] = {}
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.print(f"Checking {len(tasks)} claims by the {arguments.budget} budget.")
    with _news(tasks, pool) as reports, _progress(console, len(tasks)) as progress:
        for news in reports:
            if isinstance(news, Lost):
                console.print(f"{news.label}: its process died ({news.why}); checking it again", markup=False)
                continue
            found[news.label] = news
            count = "" if console.is_terminal else f", {len(found)} of {len(tasks)}"
            console.print(f"{verdicts.line(news)}{count}")
            progress.advance(progress.task_ids[0])
    labels = [claim.label for claim in claims]
    unchecked = tuple(label for label in labels if label not in found)
    return Outcome(tuple(found[label] for label in labels if label in found), unchecked)


@contextmanager
def _news(tasks: Sequence[Task], pool: Pool) -> Generator[Iterator[Report | Lost]]:
    """What is reported of the tasks; the first Ctrl-C ends it and no more."""
    if pool.is_here:
        crew = Crew(min(pool.jobs or cores(), len(tasks)))
        with _interrupts(crew):
            yield crew.reports(tasks)
    else:
        with suppress(KeyboardInterrupt), closing(reports_from(pool, tasks)) as reports:
            yield reports


def _say(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, markup=False)


@contextmanager
def _interrupts(crew: Crew) -> Generator[None]:
    """Let the first Ctrl-C end the checking and no more; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        crew.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _progress(console: Console, total: int) -> Progress:
    bar = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*bar, console=console, transient=True, disable=not console.is_terminal)
    progress.add_task("checking", total=total)
    return progress


def _show(outcome: Outcome, claims: Mapping[str, Claim[Any]], *, full: bool) -> int:
    console = Console(highlight=False)
    if full:
        for report in outcome.reports:
            _print_pairs(console, [("claim", report.label), *verdicts.details(claims[report.label], report)])
    else:
        console.print(verdicts.table(outcome.reports))
        console.print(verdicts.marks(), markup=False, style="dim")
        for report in filter(lambda report: report.family, outcome.reports):
            console.print(f"{report.label}: proved for {report.family}.", markup=False)
    for report in outcome.reports:
        if not report.as_expected and not full:
            got, expected = report.verdict.value, report.expected.value
            told = f"{report.label}: {got}, expected {expected}. {report.reason}{verdicts.instance(report)}"
            console.print(told, markup=False)
    console.print(verdicts.summary(outcome.reports), markup=False)
    if outcome.unchecked:
        console.print(f"Interrupted. Not checked: {', '.join(outcome.unchecked)}.", markup=False)
    return outcome.status


def _print_pairs(console: Console, pairs: Iterable[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, text in pairs:
        grid.add_row(Text(name, style="bold"), Text(text))
    console.print(grid)


def _list(claims: Sequence[Claim[Any]]) -> int:
    console = Console(soft_wrap=True, highlight=False)
    pairs = [(c.label, f"{c.statement} (expected: {c.expected.value})") for c in claims]
    if console.is_terminal:
        _print_pairs(Console(), pairs)
        return 0
    for pair in pairs:  # one line each, for grep
        console.print("  ".join(pair), markup=False)
    return 0


def _replay(path: Path, claims: Mapping[str, Claim[Any]], labels: Sequence[str]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = replay_file(path, claims, labels)
    console = Console(soft_wrap=True, highlight=False)
    for result in results:
        console.print(verdicts.replayed(result), markup=False)
    different = [result.label for result in results if not result.same]
    console.print(f"Different: {', '.join(different)}." if different else "Everything stored is confirmed.")
    return int(bool(different))


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # `| head` has seen enough
        sys.exit(main())
