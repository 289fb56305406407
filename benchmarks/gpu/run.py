"""Everything that only a GPU can tell, in eight minutes: `make gpu`.

    python benchmarks/gpu/run.py               # on the GPU, eight minutes, then the pages
    python benchmarks/gpu/run.py --resume      # what an interrupted run left
    python benchmarks/gpu/run.py --stages truth   # this one anew, beside the others of the JSON
    python benchmarks/gpu/run.py --dry-run     # every stage at tiny size on this CPU: to see that it works, no evidence
    python benchmarks/gpu/run.py --page        # the pages again from the JSON of an earlier run

Nothing is installed and the network is not used; docs/gpu.md says what may lie in the folder that ``--carried`` names.
Every stage is a process of its own with a time limit, and each result is written down as it comes: a stage that hangs,
fails or runs out of memory costs itself alone, and what ends the run costs what was being measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # the tree is not installed on a bare machine
sys.path.insert(0, str(HERE.parent))

from children import followed, records_of, stage_of, written  # noqa: E402
from gpu_results import RESULTS, SCHEMA, Record, put  # noqa: E402
from journal import (  # noqa: E402
    Journal,
    NoRun,
    check_same_machine,
    earlier,
    is_whole,
    kept_records,
    said,
    say_what_failed,
    spent,
)  # fmt: skip
from surroundings import Setting, about, missing, unpacked  # noqa: E402

LIMIT, DRY_LIMIT = 480.0, 240.0  # seconds, all stages together
LEAST = 5.0  # a stage with less time is not begun


class Stage(NamedTuple):
    """A module with ``measure(setting, say)``, the seconds it may take, the packages without which it is skipped."""

    name: str
    module: str
    limit: float
    needs: tuple[str, ...] = ()


# Below 5.19, transformers scales the loss of a window wrongly.
TRAINER = ("transformers>=5.23", "accelerate", "yaml", "rich")
STAGES = (  # most valuable first
    Stage("solver", "stage_solver", 80, ("array_api_compat",)),
    Stage("gradients", "stage_gradients", 50, ("array_api_compat", *TRAINER)),
    Stage("training", "stage_training", 140, ("array_api_compat", *TRAINER)),
    Stage("policy", "stage_policy", 40, ("array_api_compat", *TRAINER)),
    Stage("truth", "stage_truth", 110, ("array_api_compat", *TRAINER)),
    Stage("options", "stage_options", 50, ("array_api_compat", *TRAINER)),
)


def run(options: argparse.Namespace) -> Journal:
    """Run the stages one after the other; returns the journal.

    Raises:
        NoRun: There is no device, no room, or an earlier run that this one cannot go on with.
    """
    begun = time.monotonic()
    goes_on = options.resume or (options.stages and options.json.is_file())
    before = earlier(options.json, dry=options.dry_run) if goes_on else None
    with scratch_folder() as scratch:
        env = environment(unpacked(options.carried, scratch / "site"))
        found = {"schema": SCHEMA, "dry": options.dry_run, "stages": {}, "seconds": 0.0} | about(env, options.carried)
        if not options.dry_run and found["device"] is None:
            raise NoRun("there is no CUDA device here: --dry-run shows on a CPU that everything works")
        if before is not None:
            check_same_machine(options.json, before, found)
            found["stages"] = dict(before.get("stages", {}))
            found["seconds"] = spent(found)
        journal = Journal(options.json, found)
        try:
            for stage in STAGES:
                if is_wanted(stage.name, options, found):
                    left = options.limit - (time.monotonic() - begun)
                    carried_out(stage, setting_of(options), env, scratch, left, journal, go_on=options.resume)
        except (KeyboardInterrupt, SystemExit):
            goes_on_with = "" if journal.place == options.json else f" --json {journal.place}"
            where = f"in {journal.place}: --resume{goes_on_with} goes on" if journal.place else "printed below"
            said(f"stopped; what was measured is {where}")
            raise
        finally:
            journal.close()
    return journal


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what does not last.

    Raises:
        NoRun: There is no room for one.
    """
    try:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError as error:
        raise NoRun(f"there is no room for temporary files ({error}): set TMPDIR to a folder that has some") from error
    with folder as name:
        yield Path(name)


def setting_of(options: argparse.Namespace) -> Setting:
    """What every stage is told."""
    return Setting(tiny=options.dry_run, carried=str(options.carried))


def is_wanted(name: str, options: argparse.Namespace, found: Record) -> bool:
    """Whether this start runs a stage."""
    asked = bool(options.stages) and name in options.stages
    if options.stages and not asked:
        return False
    return not (options.resume and is_whole(found["stages"].get(name), asked=asked))


def environment(paths: list[str]) -> dict[str, str]:
    """What a stage runs in: the tree and what was carried along, no network, one thread a library."""
    own = [*paths, str(HERE), str(HERE.parent), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "KINETO_LOG_LEVEL": "99"}
    one = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}  # several would be DataParallel
    return {
        **os.environ,
        **quiet,
        **one,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(own),
    }


def carried_out(
    stage: Stage, setting: Setting, env: dict[str, str], scratch: Path, left: float, journal: Journal, *, go_on: bool
) -> None:
    """One stage in a process of its own; its records, and how it ended, are in the journal as soon as they are known.

    Whatever ends the run, the journal has the records until then, under the status "interrupted". With ``go_on`` the
    stage measures only what an earlier start has not. One that cannot begin leaves what an earlier start found.
    """
    revision, before = journal.found.get("revision"), journal.found["stages"].get(stage.name)
    kept = kept_records(before, revision) if go_on else []
    told, lacking, begun = scratch / f"{stage.name}.jsonl", missing(stage.needs, env), time.monotonic()
    past = before["seconds"] if before is not None and kept else 0.0

    def note(status: str, why: str) -> None:
        seconds = round(past + time.monotonic() - begun, 1)
        records = [*kept, *records_of(told)]
        journal.note(stage.name, {"status": status, "why": why, "revision": revision, "seconds": seconds, "records": records})  # noqa: E501  # fmt: skip

    status, why, limit = "interrupted", "the run was stopped", min(stage.limit, left)
    if lacking or limit < LEAST:
        status, why = ("skipped", f"needs {', '.join(lacking)}") if lacking else ("out of time", "the run's time was used up before it")  # noqa: E501  # fmt: skip
        if before is None or not before["records"]:
            note(status, why)
        said(f"{stage.name}: {status} ({why})")
        return
    try:
        known = written(scratch / f"{stage.name}.kept", kept)
        given = json.dumps(replace(setting, earlier=str(known)).within(limit))
        command = [sys.executable, __file__, "--stage", stage.module, str(told), given]
        status, why = followed(command, told, env, limit, lambda: note(status, why))
    finally:
        note(status, why)
        last = journal.found["stages"][stage.name]
        said(f"{stage.name}: {status}, {len(last['records'])} results, {last['seconds']:.0f} s" + why_of(why))


def why_of(why: str) -> str:
    """In brackets, where there is something to say."""
    return f" ({why})" if why else ""


def seconds(text: str) -> float:
    """A time limit from the command line."""
    found = float(text)
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return found


def parsed(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="every stage at tiny size on the CPU; no evidence")
    parser.add_argument("--resume", action="store_true", help="measure what an interrupted run left")
    parser.add_argument(
        "--page", action="store_true", help="run nothing; make FILE the results of this tree and write the pages"
    )
    parser.add_argument(
        "--stages", nargs="+", choices=[stage.name for stage in STAGES], help="these only; others in FILE are kept"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    parser.add_argument("--carried", type=Path, default=ROOT / ".gpu", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--limit", type=seconds, metavar="SECONDS", help="for all stages together")
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.limit is None:
        options.limit = DRY_LIMIT if options.dry_run else LIMIT
    options.json = options.json or (ROOT / "runs" / "gpu-dry.json" if options.dry_run else RESULTS)
    return options


def pages(path: Path) -> int:
    """Every page, from the results in the file, which become those of the tree.

    Raises:
        NoRun: The file holds no real run of this version, or the tree cannot be written.
    """
    if path != RESULTS:
        earlier(path, dry=False)
    try:
        from gpu_page import write_every

        if path != RESULTS:
            put(RESULTS, path.read_text(encoding="utf-8"))
        write_every()
    except OSError as error:
        raise NoRun(f"the pages could not be written ({error})") from error
    except ModuleNotFoundError as error:
        raise NoRun(f"the pages need an environment of this project ({error}): take the JSON to one") from error
    return 0


def page_of(found: Record) -> None:
    """The page of a run that has just ended; a tree that cannot be written does not cost the results."""
    from gpu_page import PAGE, write

    try:
        write(found)
    except OSError as error:
        said(f"{PAGE} could not be written ({error}): --page --json FILE does it where it can be")


def stopped(number: int, frame: object) -> None:
    """Leave through every ``finally``, which end the stage and keep its records."""
    del frame
    raise SystemExit(128 + number)


def main(given: list[str] | None = None) -> int:
    """Run, then write the page of a real run; status 1 where a stage failed or results are not where they should be."""
    options = parsed(given)
    if options.stage:
        stage_of(*options.stage)
        return 0
    if options.page:
        return pages(options.json)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, stopped)
    try:
        journal = run(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    found = journal.found
    if options.json == RESULTS:
        page_of(found)
    say_what_failed(found)
    said(f"{journal.place or 'above'}: {found['seconds']:.0f} s in all")
    return int(journal.place != options.json or any(stage["status"] == "failed" for stage in found["stages"].values()))


if __name__ == "__main__":
    sys.exit(main())
