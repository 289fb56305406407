"""Everything that only a GPU can tell, in eight minutes: `make gpu`.

    python benchmarks/gpu/run.py               # on the GPU, eight minutes, then the pages
    python benchmarks/gpu/run.py --resume      # the stages that an interrupted run left
    python benchmarks/gpu/run.py --dry-run     # every stage at tiny size on this CPU: to see that it works, no evidence
    python benchmarks/gpu/run.py --page        # the pages again from the JSON of an earlier run

Nothing is installed and the network is not used; docs/gpu.md says what may lie in the folder that ``--carried`` names.
Every stage is a process of its own with a time limit, and writes down each result as it has it: a stage that hangs,
fails or runs out of memory costs itself alone, and keeps what it had.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # the tree is not installed on a bare machine
sys.path.insert(0, str(HERE.parent))

from gpu_results import RESULTS, SCHEMA, Record  # noqa: E402
from surroundings import Setting, about, missing, unpacked  # noqa: E402

LIMIT, DRY_LIMIT = 480.0, 240.0  # seconds, all stages together


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


class NoRun(SystemExit):
    """The run cannot start; the message says why."""


class Journal:
    """The JSON of a run, written after every stage; what no disk takes is kept and shown at the end."""

    def __init__(self, path: Path, found: Record) -> None:
        self.path, self.found, self.lost = path, found, False

    def write(self) -> None:
        """Put what is known into the file, through a second one: a reader never sees half of it."""
        partial = self.path.with_name(self.path.name + ".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self.found, indent=1, allow_nan=False) + "\n")
            partial.replace(self.path)
            self.lost = False
        except OSError as error:
            if not self.lost:
                said(f"{self.path} could not be written ({error}); the results are kept and printed at the end")
            self.lost = True


def said(text: str) -> None:
    """One line for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def earlier(path: Path, *, dry: bool) -> dict[str, Record]:
    """The finished stages of an interrupted run.

    Raises:
        NoRun: There is none, or one that this version cannot go on with.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise NoRun(f"there is no run to resume: {path} cannot be read ({error})") from error
    if not isinstance(found, dict) or not isinstance(found.get("stages"), dict | None):
        raise NoRun(f"{path} is no record of a run: start a new one")
    if found.get("schema") != SCHEMA:
        raise NoRun(f"{path} was written by another version (schema {found.get('schema')}): start a new run")
    if found.get("dry") != dry:
        raise NoRun(f"{path} is {'a dry' if found.get('dry') else 'a real'} run: resume it as such, or start a new one")
    return {name: stage for name, stage in found.get("stages", {}).items() if stage["status"] in ("done", "skipped")}


def run(options: argparse.Namespace) -> Record:
    """Run the stages one after the other; returns what the JSON holds."""
    setting = Setting(tiny=options.dry_run, carried=str(options.carried))
    kept = earlier(options.json, dry=options.dry_run) if options.resume else {}
    with tempfile.TemporaryDirectory() as scratch:
        paths = unpacked(options.carried, Path(scratch, "site"))
        env = environment(paths)
        found = {"schema": SCHEMA, "dry": options.dry_run, "stages": kept} | about(env, options.carried)
        found["seconds"] = spent(found)
        if not options.dry_run and found["device"] is None:
            raise NoRun("there is no CUDA device here: --dry-run shows on a CPU that everything works")
        journal, begun = Journal(options.json, found), time.monotonic()
        for stage in STAGES:
            if stage.name in kept or (options.stages and stage.name not in options.stages):
                continue
            left = options.limit - (time.monotonic() - begun)
            result = carried_out(stage, setting, env, Path(scratch), left)
            journal.found["stages"][stage.name] = result
            journal.found["seconds"] = spent(journal.found)
            journal.write()
            said(f"{stage.name}: {result['status']}, {len(result['records'])} results, {result['seconds']:.0f} s"
                 + (f" ({result['why']})" if result["why"] else ""))  # fmt: skip
    if journal.lost:
        sys.stdout.write(json.dumps(journal.found) + "\n")
    return journal.found


def spent(found: Record) -> float:
    """Seconds of all stages, those of an earlier start with them."""
    return round(sum(stage["seconds"] for stage in found["stages"].values()), 1)


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


def carried_out(stage: Stage, setting: Setting, env: dict[str, str], scratch: Path, left: float) -> Record:
    """One stage in a process of its own: its records, and how it ended."""
    lacking = missing(stage.needs, env)
    if lacking:
        return {"status": "skipped", "why": f"needs {', '.join(lacking)}", "seconds": 0.0, "records": []}
    limit = min(stage.limit, left)
    if limit < 5:
        return {"status": "out of time", "why": "the run's time was used up before it", "seconds": 0.0, "records": []}
    told, log = scratch / f"{stage.name}.jsonl", scratch / f"{stage.name}.log"
    command = [sys.executable, __file__, "--stage", stage.module, str(told), json.dumps(setting.within(limit))]
    begun = time.monotonic()
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
        )
        try:
            child.wait(limit)
            status, why = ("done", "") if child.returncode == 0 else ("failed", last_line(log, child.returncode))
        except subprocess.TimeoutExpired:
            status, why = "out of time", f"stopped after {limit:.0f} s"
        finally:
            ended(child)
    return {"status": status, "why": why, "seconds": round(time.monotonic() - begun, 1), "records": records_of(told)}


def ended(child: subprocess.Popen[bytes]) -> None:
    """End a stage with all it started; one that hangs in the driver is left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(5)


def last_line(log: Path, status: int) -> str:
    """What a failed stage said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"ended with status {status}")[:300]


def records_of(told: Path) -> list[Record]:
    """The records of a stage; a last one that was cut off is left out."""
    found: list[Record] = []
    for line in told.read_text().splitlines() if told.exists() else []:
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def leave_with(parent: int) -> None:
    """End this stage when the run is gone, so that it does not hold the device."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def stage_of(name: str, told: str, setting: str) -> None:
    """Inside the process of a stage: measure, and write every record down at once."""
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    module = importlib.import_module(name)
    with Path(told).open("a", buffering=1) as stream:
        module.measure(
            Setting(**json.loads(setting)), lambda record: stream.write(json.dumps(record, allow_nan=False) + "\n")
        )


def parsed(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--dry-run", action="store_true", help="every stage at tiny size on the CPU; no evidence")
    parser.add_argument("--resume", action="store_true", help="run the stages that an interrupted run left")
    parser.add_argument("--page", action="store_true", help="run nothing; write the pages from the JSON")
    parser.add_argument("--stages", nargs="+", choices=[stage.name for stage in STAGES], help="these only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    parser.add_argument("--carried", type=Path, default=ROOT / ".gpu", metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="for all stages together")
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    options.limit = options.limit or (DRY_LIMIT if options.dry_run else LIMIT)
    options.json = options.json or (ROOT / "runs" / "gpu-dry.json" if options.dry_run else RESULTS)
    return options


def main(given: list[str] | None = None) -> int:
    """Run, then write the pages of a real run; status 1 where a stage failed."""
    options = parsed(given)
    if options.stage:
        stage_of(*options.stage)
        return 0
    if options.page:
        from gpu_page import write_every

        write_every()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the finally that ends the stage
    found = run(options)
    if options.json == RESULTS:
        from gpu_page import write

        write(found)
    said(f"{options.json}: {found['seconds']:.0f} s in all" if found.get("seconds") else "nothing was left to do")
    return int(any(stage["status"] == "failed" for stage in found["stages"].values()))


if __name__ == "__main__":
    sys.exit(main())
