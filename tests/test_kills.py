"""One random kill of every kind of run; `tests/kills.py` makes ten of each."""

from __future__ import annotations

import os
import random
import signal
import sys

import kills
import pytest
from forked import Forked

from robust_rlhf import main


@pytest.fixture(scope="module")
def given(once):
    return once("inputs of the kills", kills.inputs)


@pytest.mark.slow("a whole run, a killed one, and its continuation")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "policy" else pytest.mark.exhaustive) for name in kills.KINDS]
)
def test_killed_and_continued_ends_as_if_it_had_not_been(name, given, tmp_path):
    ends, off = kills.killed(kills.KINDS[name], given, tmp_path, kills=1, moments=random.Random(name))
    assert ends >= 1
    assert off == []


MOMENTS = [  # of the checkpoint after step 4, and of taking away the one before it
    ("os.mkdir", "checkpoint-4"),
    ("open", "checkpoint-4/ledger.npz"),
    ("open", "checkpoint-4/trainer_state.json"),
    ("open", "checkpoint-4/manifest.json.partial"),
    ("os.rename", "checkpoint-4/manifest.json.partial"),
    ("os.remove", "checkpoint-2/manifest.json"),
    ("os.remove", "checkpoint-2/trainer_state.json"),
    ("shutil.rmtree", "checkpoint-2"),
]


def dies_at(event, path, argv):
    """Run a command that is killed with -9 as it begins to do that to such a file."""

    def hook(found, arguments):
        if found == event and path in str(arguments[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return main(argv)


@pytest.fixture(scope="module")
def whole(given, once):
    """Undisturbed runs of six steps."""

    def build(folder):
        for name in ("reward", "policy"):
            kills.run(kills.training(name, given, folder / name, steps=6))

    return once("whole runs of the kills", build)


@pytest.mark.slow("a whole run, a killed one, and its continuation")
@pytest.mark.parametrize(
    ("name", "moment"),
    [
        pytest.param(
            name, moment, marks=[] if name == "policy" and moment[0] == "os.rename" else pytest.mark.exhaustive
        )
        for name in ("policy", "reward")
        for moment in MOMENTS
    ],
)
def test_a_kill_within_a_checkpoint_leaves_one_to_go_on_from(name, moment, given, whole, tmp_path):
    argv = [*kills.training(name, given, tmp_path / "run", steps=6), "--save_total_limit", "1"]
    process = Forked(dies_at, *moment, argv)
    said = process.communicate(120)[0]
    assert process.returncode == -signal.SIGKILL, said
    kills.run([*argv, "--resume"])
    assert kills.differences(kills.trained(tmp_path / "run"), kills.trained(whole / name)) == []
    found = {path.name for path in (tmp_path / "run").iterdir()}
    assert found == {"checkpoint-6", "model", "run.json", "seal.json", "settings.json"}  # nothing half-written


def test_one_bit_counts_as_a_difference():
    import numpy as np

    one = {"a": np.array([1.0, np.nan]), "b": np.zeros(2)}
    other = {"a": np.array([1.0, np.nan]), "b": np.array([0.0, 5e-324])}
    assert kills.differences(one, one) == []
    assert kills.differences(one, other) == ["b"]
    assert kills.differences(one, {"a": one["a"]}) == ["b"]
