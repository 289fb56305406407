"""`robust-rlhf simulate`: evaluate a study on a grid, in parallel and resumable; write curves, slopes and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from dro_core import parse_ambiguity
from dro_core.command_line.pace import Pace
from dro_core.command_line.parser import INTERRUPTED, Parser, UsageError, refused
from dro_core.command_line.pools import add_pool, pool_of
from dro_core.locks import FolderInUse, locked
from dro_core.messages import check_folder, one_line

from .grid import Task, run
from .results import write
from .studies import NAMES, Choices, study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dro_core.clusters.pool import Pool

    from .grid import Outcome
    from .studies import Study

_MOST = 10**6
_NO_RESULT = ("output", "jobs", "backend", "address", "resume")  # options that change no number
_SHOWN = 10  # failures on the screen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 if every point was evaluated, 1 if some failed, 2 if the request makes no sense or another process works in
        the folder, 130 after Ctrl-C.
    """
    console = Console(stderr=True, soft_wrap=True)
    try:
        arguments = parser().parse_args(argv)
        chosen = study(arguments.study)
        tasks, pool = _tasks(chosen, arguments), pool_of(arguments, alone=1)
        with locked(arguments.output):
            return _simulate(chosen, tasks, pool, arguments, console)
    except ModuleNotFoundError as error:
        return refused(_missing(error))
    except (UsageError, FolderInUse, OSError) as error:
        return refused(error)


def _simulate(chosen: Study, tasks: Sequence[Task], pool: Pool, arguments: argparse.Namespace, console: Console) -> int:
    try:
        outcome = _run(chosen, tasks, pool, arguments, console)
    except KeyboardInterrupt:
        folder = arguments.output / "points"
        done = sum((folder / f"{task.digest}.json").exists() for task in tasks)
        console.print(one_line(f"Interrupted: {done} of {len(tasks)} points are kept in {folder}."), markup=False)
        console.print("Run the same command again to go on from there.")
        return INTERRUPTED
    summary = write(
        chosen, outcome, arguments.output, choices=_choices(chosen, arguments), parameters=_parameters(arguments)
    )
    _report(arguments.output, summary, outcome, len(tasks), console)
    return int(bool(outcome.failures))


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name not in _NO_RESULT}


def _run(chosen: Study, tasks: Sequence[Task], pool: Pool, arguments: argparse.Namespace, console: Console) -> Outcome:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    count = "1 point" if len(tasks) == 1 else f"{len(tasks)} points"
    console.print(f"simulate {chosen.name}: {count}.")
    pace = Pace(len(tasks), "points", lambda line: None if console.is_terminal else console.print(line))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"simulate {chosen.name}", total=len(tasks))

        def advance() -> None:
            progress.advance(bar)
            pace.advance()

        return run(
            chosen.evaluate,
            tasks,
            arguments.output / "points",
            pool=pool,
            fresh=not arguments.resume,
            advance=advance,
        )


def _choices(chosen: Study, arguments: argparse.Namespace) -> Choices:
    given = {name: getattr(arguments, name) for name in chosen.options if getattr(arguments, name) is not None}
    return Choices(full=arguments.grid == "full", **given)


def _tasks(chosen: Study, arguments: argparse.Namespace) -> list[Task]:
    check_folder(arguments.output, flag="--output")
    choices = _choices(chosen, arguments)
    seeds = (arguments.seeds or chosen.seeds[choices.full]) if any(chosen.seeds) else 1
    try:
        points = chosen.points(choices)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return [Task(chosen.name, chosen.version, point, seed) for point in points for seed in range(seeds)]


def parser() -> Parser:
    """What the command takes."""
    about = "Convergence studies with known answers: curves over T, n, radius, dimension, and the theory."
    told = Parser("robust-rlhf simulate", description=about)
    commands = told.add_subparsers(dest="study", required=True, metavar="|".join(NAMES))
    for name in NAMES:
        known = study(name)
        command = commands.add_parser(name, help=known.title, description=known.about)
        _add_common(command, known)
        _add_own(command, known)
    return told


def _add_common(command: Parser, known: Study) -> None:
    folder = Path("runs") / "simulate" / known.name
    seeds = "nothing here is random, so it changes nothing" if not any(known.seeds) else f"default {known.seeds[0]}"
    if known.seeds[0] != known.seeds[1]:
        seeds += f", {known.seeds[1]} on the full grid"
    command.add_output("where it is kept (default: %(default)s)", type=Path, default=folder, metavar="DIR")
    command.add_argument("--grid", choices=("quick", "full"), default="quick", help="a few minutes, or many")
    command.add_argument("--seeds", type=_whole(1, 10_000), metavar="N", help=f"how many seeds ({seeds})")
    add_pool(command, jobs="processes, or points at a time on a cluster (default: 1, or all its workers)")
    command.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="reuse the points that are in DIR (default), or evaluate them again",
    )


def _add_own(command: Parser, known: Study) -> None:
    own: dict[str, tuple[Callable[[str], Any], str, str]] = {
        "ambiguity": (_spec, "SPEC", "ambiguity sets, such as tv:0.2 or cvar:0.3"),
        "n": (_whole(1, _MOST), "N", "minibatch or sample sizes"),
        "steps": (_whole(1, _MOST), "T", "number of steps"),
        "radius": (_number(0, 1), "RADIUS", "radii of total-variation balls, in [0, 1]"),
        "dimension": (_whole(1, 1000), "D", "numbers of features"),
    }
    for name in known.options:
        kind, shown, text = own[name]
        many = {} if name == "steps" else {"nargs": "+", "action": _Tuple}
        command.add_argument(f"--{name}", type=kind, metavar=shown, help=text, **many)


class _Tuple(argparse.Action):
    """Different values in the order given: a grid has no point twice."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, tuple(dict.fromkeys(values)))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.lstrip("+-").isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"must be a whole number in [{low}, {high}], got {text}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a number in [{low}, {high}], got {text}")
        return value

    return read


def _spec(text: str) -> str:
    try:
        ambiguity = parse_ambiguity(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return "erm" if ambiguity is None else str(ambiguity)


def _missing(error: ModuleNotFoundError) -> str:
    if (error.name or "").split(".")[0] in ("synthetic", "dro_core"):
        raise error
    return f"{error.name} is not installed: pip install 'robust-rlhf[theory]'"


def _report(folder: Path, summary: Mapping[str, Any], outcome: Outcome, total: int, console: Console) -> None:
    if summary["slopes"]:
        Console().print(_slope_table(summary["slopes"]))
    done = total - len(outcome.failures)
    console.print(f"{done} of {total} points are there, {outcome.reused} of them from an earlier run.")
    picture = f", {summary['study']}.html" + (f", {summary['study']}.png" if outcome.rows else "")
    console.print(one_line(f"Written to {folder}: curves.csv, summary.json{picture}."), markup=False)
    for failed in outcome.failures[:_SHOWN]:
        console.print(f"failed: {dict(failed.task.point)}, seed {failed.task.seed}: {failed.error}", markup=False)
    if outcome.failures:
        console.print(
            f"{len(outcome.failures)} points failed (tracebacks in summary.json); the same command tries them again."
        )


def _slope_table(slopes: Sequence[Mapping[str, Any]]) -> Table:
    numbers = (Column(name, no_wrap=True) for name in ("slope", "95 % over seeds", "fitted on", "ends with"))
    table = Table("panel", "curve", *numbers)
    table.title = "Exponents of power laws"
    table.caption = "ends with: the exponent of the last third of the curve; a floor: less than half of the whole one"
    for fitted in slopes:
        name = fitted["curve"] + (f" ({fitted['theory']})" if fitted["theory"] else "")
        interval = "" if fitted["low"] is None else f"[{fitted['low']:.3f}, {fitted['high']:.3f}]"
        end = "" if fitted["end"] is None else f"{fitted['end']:.3f}{' floor' * fitted['floor']}"
        on = f"{fitted['first']:g} to {fitted['last']:g}"
        table.add_row(*map(escape, (fitted["panel"], name, f"{fitted['value']:.3f}", interval, on, end)))
    return table
