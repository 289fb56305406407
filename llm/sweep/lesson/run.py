"""What ``robust-rlhf demo`` does where nothing else is asked for: the sweep ``demo``, its page, and one picture."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dro_core.clusters.pool import Pool
from dro_core.locks import locked

from ...features.features import FeatureCache
from ...report.content import build_content
from ...report.lesson.picture import caption, remarks, write_picture
from ...report.lesson.table import lesson_table
from ...report.page import write_report
from ...results.store import write_about
from ...run.environment import environment
from ...run.escaping import one_line, visible
from ...run.files import JsonObject
from ...run.folder import check_output, start_output
from ...run.resumption import ENVIRONMENT, OPTIONAL
from ...training.config import ConfigError
from ...training.settings import read_recipe
from ..plan import SweepConfig, parse_sweep, sweep_folder
from ..sweep import Sweep

SWEEP = "demo"
PICTURE = "demo.png"
_TITLE = "A shortcut, the set that repairs it, and wrong labels"


def run_lesson(
    seeds: int | None, output: Path, *, resume: bool, overwrite: bool, console: Console, command: Sequence[str]
) -> JsonObject:
    """Train the heads of the demo, write ``results/``, report.html and demo.png with its numbers beside it.

    Args:
        seeds: Of every arm; None: as the sweep says.
        output: Folder of all of it.
        resume: Keep what finished there before.
        overwrite: Delete it.
        console: Where to show what came out.
        command: That was called, for the page.

    Returns:
        The report, as ``llm.report.content.build_content`` makes it.

    Raises:
        ConfigError: ``seeds`` is below 1.
        FolderInUse: Another process works in the output folder.
        RuntimeError: A training failed.
    """
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    settings = lesson_settings(seeds)
    with locked(output):
        output = check_output(output, resume=resume, overwrite=overwrite)
        start_output(output, {"sweep": settings, OPTIONAL: [], ENVIRONMENT: environment()}, overwrite=overwrite)
        results = output / "results"
        _train(parse_sweep(settings), settings, results, output / "features", console)
        about = {"title": _TITLE, "command": shlex.join(command), "settings": {"sweep": SWEEP, "seeds": seeds}}
        write_about(results, about)
        return _report(output, results, console)


def lesson_settings(seeds: int | None) -> JsonObject:
    """The settings of the sweep, with so many seeds in place of its own."""
    settings = read_recipe(str(sweep_folder() / f"{SWEEP}.yaml"))
    if seeds is not None:
        settings["grid"] = [grid | {"seeds": seeds} for grid in settings["grid"]]
    return settings


def _train(config: SweepConfig, settings: Mapping[str, object], folder: Path, cache: Path, console: Console) -> None:
    sweep = Sweep(
        config, yaml.safe_dump(dict(settings), sort_keys=False), folder, cache=FeatureCache(cache, progress=True)
    )
    columns = (TextColumn("heads"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("heads", total=None, note="")
        line = _lines(console)

        def said(done: int, planned: int, failed: int, note: str) -> None:
            progress.update(bar, completed=done, total=planned, note=one_line(note[:100]))
            if not note:  # no radius that is looked for, no error
                line(done, planned)

        failures = sweep.run(pool=Pool(), report=said)["failed"]
    if failures:
        raise RuntimeError(f"{failures} trainings failed: see the notes in {folder}, then continue with --resume")


def _lines(console: Console) -> Callable[[int, int], None]:
    """Says how far the heads are at every tenth of them, where a bar is not shown: in files, logs and pipes."""
    tenths = -1

    def line(done: int, planned: int) -> None:
        nonlocal tenths
        if not console.is_terminal and 10 * done // planned > tenths:
            tenths = 10 * done // planned
            console.print(f"head {done} of {planned}")

    return line


def _report(output: Path, results: Path, console: Console) -> JsonObject:
    report = build_content(results)
    page, _ = write_report(report, output / "report.html")
    write_picture(report["lesson"], output / PICTURE)
    console.print(lesson_table(report["lesson"]))
    console.print(caption(report["lesson"]).replace("`", ""), markup=False, emoji=False)
    console.print(remarks(report["lesson"]), markup=False, emoji=False)
    console.print(f"Report: {visible(str(page))}, picture: {visible(str(output / PICTURE))}", markup=False, emoji=False)
    return report
