"""A run of `make gpu` as if this CPU were a GPU, and small stages of every temper."""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import children
import journal
import run
import stage_gradients
import stage_options
import stage_policy
import stage_solver
import stage_training
import stage_truth
import surroundings

ROOT = Path(__file__).parents[1]
MODULES = (stage_solver, stage_gradients, stage_training, stage_policy, stage_truth, stage_options)
DEVICE = {"name": "a GPU", "gib": 8.0, "count": 1, "multiprocessors": 1, "capability": "9.0", "cuda": "13.0"}
HERE: dict = {"date": "2026-01-01", "revision": "abc", "cpu": "a CPU", "versions": {}, "device": DEVICE}


def measured():
    """The JSON of a run, as if this CPU were a GPU: every stage at tiny size, in this process."""
    setting, stages, threads = surroundings.Setting(tiny=True, carried="nowhere"), {}, torch.get_num_threads()
    for stage, module in zip(run.STAGES, MODULES, strict=True):
        records: list = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, in a stage's own process
            module.measure(setting, lambda record, kept=records: kept.append(json.loads(json.dumps(record))))
        stages[stage.name] = {"status": "done", "why": "", "seconds": 1.0, "records": records}
    torch.set_num_threads(threads)
    versions = {"python": "3.12", "torch": torch.__version__, "trl": None}
    about = {"schema": run.SCHEMA, "dry": False, "date": "2026-01-01", "revision": "abc", "device": DEVICE}
    return about | {"versions": versions, "stages": stages, "seconds": 6.0}


def found_in(once):
    """The same, measured once for all files that look at it."""
    folder = once("gpu-stages", lambda folder: (folder / "found.json").write_text(json.dumps(measured())))
    return json.loads((folder / "found.json").read_text())


def of(found, stage, **wanted):
    return [row for row in found["stages"][stage]["records"] if wanted.items() <= row.items()]


PATIENT = {
    "good": "def measure(setting, say):\n    say({'a': 1})\n",
    "hangs": "import time\ndef measure(setting, say):\n    say({'a': 1})\n    time.sleep(600)\n",
    "stubborn": "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "def measure(setting, say):\n    say({'a': os.getpid()})\n    os.fork()\n    time.sleep(600)\n",
    "fails": "def measure(setting, say):\n    say({'a': 1})\n    raise ValueError('the reason')\n",
    "nan": "def measure(setting, say):\n    say({'a': float('nan')})\n",
    "dies": "import os\ndef measure(setting, say):\n    say({'a': 1})\n    os.kill(os.getpid(), 9)\n",
    "parts": "import os, time\ndef measure(setting, say):\n    for part in range(3):\n"
    "        if not setting.has(part=part):\n            say({'part': part, 'pid': os.getpid()})\n"
    "        if part == 1 and os.path.exists(os.path.join(os.path.dirname(__file__), 'stuck')):\n"
    "            time.sleep(600)\n",
    "needy": "def measure(setting, say):\n    raise AssertionError('it was run')\n",
}


def mkstemp_in(folder):
    """Temporary files of a run, where the test can look."""
    make = tempfile.mkstemp
    return lambda **given: make(dir=folder, **given)


def tempered(tmp_path, monkeypatch):
    """Put small stages of every temper in the place of the real ones; returns their folder."""
    for name, text in PATIENT.items():
        (tmp_path / f"temper_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    needs = {"needy": ("no_such_package", "numpy>=99")}
    limits = {"hangs": 3.0, "stubborn": 3.0}
    made = [run.Stage(n, f"temper_{n}", limits.get(n, 60.0), needs.get(n, ())) for n in PATIENT]
    monkeypatch.setattr(run, "STAGES", tuple(made))
    monkeypatch.setattr(run, "about", lambda env, carried: dict(HERE))
    monkeypatch.setattr(run, "LEAST", 1.0)
    monkeypatch.setattr(children, "LOOK", 0.1)
    monkeypatch.setattr(journal.tempfile, "mkstemp", mkstemp_in(tmp_path))
    return tmp_path


def started(folder, *more):
    options = run.parsed(["--json", str(folder / "gpu.json"), "--carried", str(folder / "none"), *more])
    return run.run(options).found


def alive(group: int) -> list[str]:
    """Processes of a group that run; one that is dead and waits for its parent's look does not."""
    time.sleep(0.1)
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            found += [stat.parent.name] if int(its_group) == group and state != "Z" else []
    return found
