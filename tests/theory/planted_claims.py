"""A registry of claims that behave and misbehave, and runs of `robust-rlhf verify` on it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

LIGHT = ["tv-gap", "chi2-variance", "tv-bias-root-n"]
# Of PLANTED, all that come to an end by themselves: after "leaves" in another process than before.
ENDING = [
    *("draws", "plain", "other", "nowhere", "nan", "raises", "rejects", "leaves"),
    *("imports", "late", "loud", "false"),
]

# A registry of claims that behave and misbehave. `alone` counts its visits in a file beside the module.
PLANTED = '''
import os, sys, time, warnings
from dataclasses import dataclass, replace
from pathlib import Path
from hypothesis import strategies as st
from proofs_check import Claim, Instances, Verdict, mutant, stated
from proofs_check.claim import Curve

HERE = Path(__file__).parent

@dataclass(frozen=True)
class Number:
    value: float

def plain(label, **changes):
    """Twice as much is more."""
    start = Claim(
        label=label, statement="x <= 2x | x_1 > 0", reference="by hand", assumptions={"x > 0": lambda x: x.value > 0},
        instances=Instances(Number, (Number(1.0), Number(2.0)), st.integers(-1, 9).map(lambda k: Number(k / 4))),
        lhs=lambda x: x.value, rhs=lambda x: 2 * x.value, scale=lambda x: x.value, effort=0.1,
    )
    claim = replace(start, **changes)
    return claim.with_mutants(mutant(claim, "half", lhs=lambda x: x.value, rhs=lambda x: x.value / 2))

def alone(x):
    """Say who is at work; the first time, work until somebody kills us."""
    visited = (HERE / "pid").exists()
    (HERE / "pid.new").write_text(str(os.getpid()))
    (HERE / "pid.new").rename(HERE / "pid")
    if not visited:
        time.sleep(300)
    return x.value

def loud(x):
    print("NOISE"); os.write(1, b"NOISE"); os.write(2, b"NOISE"); warnings.warn("NOISE"); sys.stdin.read()
    return x.value

def imports(x):
    import proofs_check.registry
    return x.value

def fails(x):
    raise ZeroDivisionError("no side to see")

def thrice(x):
    return 3 * x.value

@stated
def false():
    """Three times as much is not at most twice as much."""
    return plain("false", lhs=thrice, expected=Verdict.REFUTED, by_hand="Take <x> = 1.",
                 violates=lambda x: 3 * x.value > 2 * x.value)

MANY = Instances(Number, (Number(1.0),), st.integers(1, 10**6).map(lambda k: Number(float(k))))
CLAIMS = (
    plain("plain"),
    plain("other", curve=Curve("value", tuple(Number(2.0**k) for k in range(8)))),
    plain("nowhere", assumptions={"never": lambda x: False}),
    plain("nan", lhs=lambda x: float("nan")),
    plain("raises", lhs=fails),
    plain("rejects", instances=Instances(Number, (Number(1.0),), st.nothing())),
    plain("leaves", lhs=lambda x: os._exit(3)),
    plain("loud", lhs=loud),
    plain("alone", lhs=alone),
    plain("imports", lhs=imports),
    plain("draws", effort=1.0, scale=lambda x: 1.0, instances=MANY),
    plain("late", effort=1.0, scale=lambda x: 1.0, instances=MANY),
    false(),
)
'''


def plant(folder, monkeypatch, text=PLANTED):
    """A registry in a module that has a name of its own in every test; returns the arguments that choose it."""
    name = "planted_" + re.sub(r"\W", "_", folder.name)
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    return ["--registry", f"{name}:CLAIMS"]


def stored(path="out.json"):
    with open(path) as file:
        return json.load(file)


def by_label(path="out.json"):
    return {report["label"]: report for report in stored(path)["reports"]}


def one_line(text):
    return " ".join(text.split())


def start(arguments, **options):
    command = (
        "import sys; from proofs_check.__main__ import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", command, *arguments], **pipes, **options)


class Run(NamedTuple):
    """How a run ended, what it said, and the folder it ran in."""

    status: int
    out: str
    err: str
    folder: Path


def run_once(once, name, arguments, seconds=120):
    """A run in a folder with the planted registry, made once for all tests that look at what it leaves behind."""

    def build(folder):
        (folder / "here").mkdir()
        (folder / "planted.py").write_text(PLANTED)
        paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = start(arguments, cwd=folder / "here", env=os.environ | {"PYTHONPATH": paths})
        said = process.communicate(timeout=seconds)
        (folder / "said.json").write_text(json.dumps([process.returncode, *said]))

    folder = once(name, build)
    return Run(*json.loads((folder / "said.json").read_text()), folder / "here")


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def alive(pid):
    """Whether a process runs; one that has ended but was not collected by its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def workers(children):
    """Those that check claims, of the children of any thread."""
    numbers = [number for file in children.parents[1].glob("*/children") for number in file.read_text().split()]
    return sorted(int(n) for n in numbers if b"serve()" in Path(f"/proc/{n}/cmdline").read_bytes())
