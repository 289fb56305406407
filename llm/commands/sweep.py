"""The command `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dro_core.command_line.pools import add_pool, pool_of
from dro_core.locks import locked

from ..run.escaping import one_line
from .shell import Arguments, Parser, add_columns, one_sentence_errors, parser_of

if TYPE_CHECKING:
    from dro_core.clusters.pool import Pool

    from ..features.features import FeatureCache
    from ..sweep.plan import SweepConfig


def parser() -> Parser:
    """What ``sweep`` takes."""
    told = parser_of("sweep", "Many trainings over models, sets, radii, seeds and data regimes, into one table.")
    told.add_argument("--config", required=True, help="a YAML file, or the name of a shipped sweep (heads)")
    told.add_output("folder of the results (default: %(default)s)", default="runs/sweep", metavar="DIR")
    told.add_argument("--data", help="builtin, or a folder with train.* and suites, instead of what the file says")
    told.add_argument(
        "--train-file", metavar="FILE", nargs="+", help="what to train on instead: files, each with :WEIGHT"
    )
    told.add_argument("--suites", metavar="FILE", nargs="+", help="files to judge by instead")
    add_columns(told)
    add_pool(told, jobs="heads at a time, or trainings on a cluster (default: all cores, or all its workers)")
    told.add_argument("--cache", metavar="DIR", help="folder of frozen features (default: beside the fetched models)")
    told.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    return told


@one_sentence_errors
def sweep(argv: Arguments) -> int:
    """Train over models, sets, radii, seeds and data regimes, into one table."""
    options = parser().parse_args(argv)
    pool = pool_of(options)
    from transformers.utils.logging import disable_progress_bar

    from ..features.features import FeatureCache, default_cache
    from ..sweep.plan import read_sweep

    disable_progress_bar()  # one for every file of weights; the one for the trainings is ours
    instead = {name: getattr(options, name) for name in ("data", "train_file", "suites", "columns")}
    config, text = read_sweep(options.config, **instead)
    cache = FeatureCache(Path(options.cache) if options.cache else default_cache(), progress=True)
    if options.dry_run:
        return _show_plan(config, Path(options.output), cache)
    with locked(options.output):
        return _run(config, text, Path(options.output), cache, pool)


def _run(config: SweepConfig, text: str, folder: Path, cache: FeatureCache, pool: Pool) -> int:
    from ..results.store import TABLE, read_results
    from ..run.progress import Steps
    from ..run.terminal import Terminal
    from ..sweep.sweep import Sweep

    console = Terminal(stderr=True)
    prepared = Sweep(config, text, folder, cache=cache)
    with Steps(desc="sweep", unit="training", dynamic_ncols=True) as bar:

        def report(done: int, planned: int, failed: int, note: str) -> None:
            said = f"{failed} failed; last: {note}" if failed and note else f"{failed} failed" if failed else note
            bar.n, bar.total = done, planned
            bar.set_postfix_str(one_line(said[:100]))

        counts = prepared.run(pool=pool, report=report)
    console.print(
        f"{counts['done']} trainings done, {counts['before']} were done before, {counts['failed']} failed: "
        f"{folder / TABLE}",
        soft_wrap=True,
    )
    for finding in read_results(folder).findings:
        if finding.kind == "damaged files":  # those that no start makes again
            console.print(finding.text, soft_wrap=True, markup=False)
    return 1 if counts["failed"] else 0


def _show_plan(config: SweepConfig, folder: Path, cache: FeatureCache) -> int:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..results.audits import summary
    from ..run.terminal import Terminal, shown
    from ..sweep.sweep import planned

    rows, audits = planned(config, folder, cache=cache)
    total, done = (sum(row[name] for row in rows) for name in ("trainings", "done"))
    table = Table(title=f"{total} trainings, {done} of them done", box=SIMPLE_HEAD)
    for name in ("model", "regime", "ambiguity", "trainings", "done"):
        table.add_column(name, justify="right" if name in ("trainings", "done") else "left")
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    console = Terminal()
    console.print(table)
    for name, found in audits.items():
        console.print(f"{name}: {summary(found['audit'])}", soft_wrap=True)
        for concern in found["concerns"]:
            console.print(f"  warning: {concern}", soft_wrap=True)
    return 0
