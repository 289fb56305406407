"""Answers of code that would harm a training: none passes, and nothing is left of what it did."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import pytest

from llm.rewards.checkers.unit_tests import checker

SECONDS = 1.5
RIGHT = "\ndef f(x):\n    return 2 * x\n"
TESTS = {"tests": "assert f(2) == 4"}
SEALED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
HARM = {  # what the code does before it defines what is right
    "raises": "1 / 0",
    "ends the process": "import os\nos._exit(0)",
    "exits": "import sys\nsys.exit(0)",
    "hangs": "while True: pass",
    "sleeps": "import time\ntime.sleep(60)",
    "takes memory": "x = bytearray(2**31)",
    "recurses": "def g(): g()\ng()",
    "crashes": "import ctypes\nctypes.string_at(0)",
    "prints gigabytes": "while True: print('x' * 10**6)",
    "writes a large file": "open('x', 'w').write('x' * 2**21)",
    "writes many files": "i = 0\nwhile True:\n    i += 1\n    open(str(i), 'w').write('x' * 10**6)",
    "reads input": "input()",
    "swaps the assertion": "import builtins\nbuiltins.AssertionError = ZeroDivisionError\ndef f(x): assert False",
}
SEALED_HARM = {
    "forks": "import os\nos.fork()",
    "starts a program": "import subprocess\nsubprocess.run(['true'])",
    "starts a process": "import multiprocessing as m\np = m.Process(target=print)\np.start()\np.join()",
    "becomes another program": "import os\nos.execv('/bin/true', ['true'])",
    "opens a connection": "import socket\nsocket.socket()",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "writes elsewhere": "open({outside!r}, 'w').write('x')",
    "removes elsewhere": "import os\nos.remove({victim!r})",
    "moves elsewhere": "import os\nos.rename({victim!r}, {outside!r})",
    "changes modes": "import os\nos.chmod({victim!r}, 0)",
    "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (9999, 9999))",
}
FINE = {
    "nothing": "",
    "writes in its folder": "open('x', 'w').write('x' * 1000)\nassert open('x').read()",
    "starts a thread": "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
    "prints": "print('hello')",
    "finds nothing of the environment": "import os\nassert not {k for k in os.environ if k != 'LC_CTYPE'}, os.environ",
    "imports": "import math, json, collections, re, itertools, random",
}


def scored(code, tmp_path):
    victim, outside = tmp_path / "victim", tmp_path / "outside"
    victim.write_text("x")
    told = code.replace("{victim!r}", repr(str(victim))).replace("{outside!r}", repr(str(outside)))
    begun = time.perf_counter()
    score = checker(seconds=SECONDS, memory=256).score(told + RIGHT, TESTS)
    assert time.perf_counter() - begun < SECONDS + 5
    assert victim.read_text() == "x"
    assert victim.stat().st_mode & 0o600
    assert not outside.exists()
    return score


@pytest.mark.parametrize("harm", HARM)
def test_harm_scores_nothing(harm, tmp_path):
    code = HARM[harm]
    if harm == "swaps the assertion":
        assert checker().score(code, TESTS) == 0.0
    else:
        assert scored(code, tmp_path) == 0.0


@pytest.mark.skipif(not SEALED, reason="limits of this system alone: docs/rewards.md says which")
@pytest.mark.parametrize("harm", SEALED_HARM)
def test_harm_beyond_the_process_is_refused(harm, tmp_path):
    assert scored(SEALED_HARM[harm], tmp_path) == 0.0


@pytest.mark.parametrize("fine", FINE)
def test_what_harms_nobody_passes(fine, tmp_path):
    assert scored(FINE[fine], tmp_path) == 1.0


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = {entry for entry in os.listdir("/proc") if entry.isdigit()} if Path("/proc").is_dir() else set()
    code = (
        "import threading, time\nopen('left', 'w').write('x')\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    )
    assert checker(seconds=SECONDS).score(code + RIGHT, TESTS) == 1.0  # the verdict is there before the thread ends
    assert list(tmp_path.iterdir()) == []
    names = [Path("/proc", entry, "cmdline") for entry in set(os.listdir("/proc")) - before if entry.isdigit()]
    assert not [name for name in names if name.exists() and b"inside.py" in name.read_bytes()]


def test_many_answers_are_run_side_by_side_and_stay_in_order():
    right = [number % 3 != 0 for number in range(12)]
    texts = [RIGHT if fine else "def f(x): return x" for fine in right]
    check = checker(seconds=20)
    assert check.scores is not None
    assert check.scores(texts, [TESTS] * 12) == [float(fine) for fine in right]
