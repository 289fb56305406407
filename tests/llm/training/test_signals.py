"""SIGTERM, as schedulers send it: what Ctrl-C keeps is kept, one sentence is said, and nothing is left running."""

from __future__ import annotations

import json
import signal
import sys
import time

import numpy as np
import pytest
from checkpoint_runs import same_end, untimed
from forked import Forked
from signalled_runs import (
    KINDS,
    STEPS,
    arguments,
    history,
    losses,
    place_of,
    signalled,
    terminated,
    wait_for,
)

from llm.training.interrupts import StopRequest
from robust_rlhf import main

STOPPED = 4


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("kind", KINDS)
def test_a_terminated_run_saves_and_ends_as_if_it_had_not_been(kind, place, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(arguments(kind, place, whole)) == 0
    with monkeypatch.context() as patch:
        # Twice: schedulers send it to every process, and launchers pass theirs on.
        signalled(patch, kind, [signal.SIGTERM, signal.SIGTERM], STOPPED)
        before = signal.getsignal(signal.SIGTERM)
        assert main(arguments(kind, place, broken)) == 143
        assert signal.getsignal(signal.SIGTERM) == before
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1] == "robust-rlhf: interrupted; it goes on with --resume"
    assert [path.name for path in broken.glob("checkpoint-*")] == [f"checkpoint-{STOPPED}"]
    assert not (broken / "model").exists()
    assert main(arguments(kind, place, broken, "--resume")) == 0
    assert same_end(whole, broken)
    check_record(whole, broken)
    once = json.loads((broken / "run.json").read_text())
    (broken / "run.json").unlink()  # and the machine broke before the export: now there is no step left to take
    assert main(arguments(kind, place, broken, "--resume")) == 0
    check_record(whole, broken)
    assert losses(broken)[-1:] == losses(whole)[-1:]
    assert json.loads((broken / "run.json").read_text())["seconds"] == pytest.approx(once["seconds"], abs=2)


def check_record(whole, broken):
    """The history is that of a run in one go; what is a matter of time counts all sessions."""
    rows = [untimed(history(run)) for run in (whole, broken)]
    keys = {"total_flos", "epoch"}  # of the last row: not known when only the export is made again
    assert rows[0][:-1] == rows[1][:-1]
    assert {k: v for k, v in rows[0][-1].items() if k not in keys} == {
        k: v for k, v in rows[1][-1].items() if k not in keys
    }
    assert len(losses(whole)) == len(losses(broken))
    clock = json.loads((broken / f"checkpoint-{STOPPED}" / "clock.json").read_text())["seconds"]
    record = json.loads((broken / "run.json").read_text())
    assert record["seconds"] > clock
    for row in history(broken):
        assert row.get("train_runtime", np.inf) >= round(clock, 4)
        assert row.get("train_steps_per_second", 0) <= STEPS / clock


def sleeping(function, argv):
    """Run a command that sleeps where it would begin its work."""
    module, name = function.split(":")

    def sleep(*_, **__):
        sys.stdout.write("ready\n")
        time.sleep(60)

    setattr(__import__(module, fromlist=[name]), name, sleep)
    return main(argv)


STATELESS = {
    "evaluate": ("llm.api.judged:evaluate", ["evaluate", "model", "--suite", "train.jsonl"]),
    "report": ("llm.commands.report:build_content", ["report", "folder"]),
    "export": ("llm.export.export:export_model", ["export", "model", "--to", "lm-eval", "-o", "out"]),
    "doctor": ("llm.doctor.record:read_run", ["doctor", "run"]),
    "data": ("llm.data.overview:overview", ["data", "show", "train.jsonl"]),
    "models": ("llm.models.fetching:fetch", ["models", "fetch", "minilm"]),
}


@pytest.mark.parametrize(
    "name", ["evaluate", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in list(STATELESS)[1:])]
)
def test_a_command_without_a_state_just_ends(name, place):
    process = Forked(sleeping, *STATELESS[name], cwd=place, new_session=True)
    wait_for(lambda: "ready" in process.said(), process)
    assert terminated(process) == (143, "ready\nrobust-rlhf: interrupted\n")


def test_a_second_ctrl_c_stops_at_once_and_an_echo_does_not(monkeypatch):
    """A launcher passes on what the terminal has sent to its processes already."""
    now = [100.0]
    monkeypatch.setattr("llm.training.interrupts.time.monotonic", lambda: now[0])
    stop = StopRequest()
    stop.handle(signal.SIGINT, None)
    stop.handle(signal.SIGINT, None)
    now[0] += 5
    stop.handle(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        stop.handle(signal.SIGINT, None)
