"""A sweep whose processes are killed or that is interrupted: the next start makes it whole."""

import json
import os
import random
import signal
import time
from functools import partial
from threading import Thread

import pytest
from small_sweeps import HEADS, KINDS, WHOLE, assert_same, prepared, quiet, sweep, undisturbed

import dro_core.workers as machinery
from dro_core.clusters.pool import Pool
from llm.results.store import read_results
from llm.sweep.process import train

KILLED = "WorkerDied: its process was ended by SIGKILL; the machine may be out of memory"


@pytest.fixture
def hands(monkeypatch):
    """Of the processes that a sweep starts."""
    seen = []

    class Noted(machinery._Hand):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            seen.append(self)

    monkeypatch.setattr(machinery, "_Hand", Noted)
    return seen


def meanwhile(condition, act):
    """Act once, as soon as something is the case."""

    def watch():
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if condition():
                act()
                return
            time.sleep(0.01)

    thread = Thread(target=watch)
    thread.start()
    return thread


def reached(folder, kind):
    """Whether it is in the middle of its work."""
    return any(folder.glob({"heads": "runs/*.json", "whole models": "full/*/checkpoint-*/trainer_state.json"}[kind]))


@pytest.mark.slow("it trains, with a process killed, and trains again")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "moment", [0, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in range(1, 5))], ids=lambda n: f"moment {n}"
)
@pytest.mark.usefixtures("forked_workers")
def test_a_killed_process_is_a_failed_row_and_the_next_start_fills_the_hole(
    once, hands, tmp_path, capsys, monkeypatch, kind, moment
):
    whole, folder = undisturbed(once, kind), tmp_path / "r"
    wait = random.Random(moment).uniform(0, 0.4) if moment else 0.0  # a head takes half a second

    def kill():
        time.sleep(wait)
        os.kill(hands[-1].process.pid, signal.SIGKILL)

    if moment == 0 and kind == "heads":  # from within: from outside it may have just written its result
        monkeypatch.setattr("llm.sweep.sweep.train", partial(_killed_once, tmp_path / "killed"))
        thread = Thread()
        thread.start()
    else:
        thread = meanwhile(lambda: reached(folder, kind), kill)
    status, said = sweep(folder, KINDS[kind]), capsys.readouterr().err
    thread.join()
    total = read_results(whole).table["run"].str[:12].nunique()
    table = read_results(folder).table
    failed = table[table["status"] == "failed"]
    assert "Traceback" not in said
    assert f"{total} trainings" in said or f"{total - 1} trainings done, 0 were done before, 1 failed" in said
    assert status == min(len(failed), 1)
    if moment == 0:
        assert set(failed["error"]) == {KILLED}
        assert failed["run"].str[:12].nunique() == 1
    assert sweep(folder, KINDS[kind]) == 0
    assert_same(folder, whole)


@pytest.fixture
def interruptible():
    """This process hears interrupts, which a suite in a shell's background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("it trains a whole model in a process of its own")
@pytest.mark.usefixtures("forked_workers", "hands", "interruptible")
def test_an_interrupt_lets_the_process_of_a_whole_model_save_a_checkpoint(once, tmp_path, capsys):
    whole, folder = undisturbed(once, "whole models"), tmp_path / "r"
    thread = meanwhile(lambda: reached(folder, "whole models"), lambda: os.kill(os.getpid(), signal.SIGINT))
    assert sweep(folder, WHOLE) == 130
    thread.join()
    assert "interrupted" in capsys.readouterr().err
    [training] = [path for path in (folder / "full").iterdir() if path.name.isalnum()]
    steps = [json.loads(file.read_text())["global_step"] for file in training.glob("checkpoint-*/trainer_state.json")]
    assert any(step % 4 for step in steps)  # not one of those that every run saves
    assert sweep(folder, WHOLE) == 0
    assert_same(folder, whole)


@pytest.mark.slow("processes die one after the other")
@pytest.mark.usefixtures("forked_workers")
def test_a_training_that_kills_its_process_every_time_ends(tmp_path, monkeypatch):
    folder = tmp_path / "r"
    settings = {**HEADS, "grid": {"ambiguity": ["erm", "tv:0.2"], "seeds": 2}}
    monkeypatch.setattr("llm.sweep.sweep.train", _deadly)
    started = prepared(folder, settings)
    for _ in range(2):
        counts = started.run(pool=Pool(jobs=2), report=quiet)
        assert counts == {"before": 0, "done": 0, "failed": 4}
        assert set(read_results(folder).table["error"]) == {KILLED}


def _killed_once(once, cell):
    """Train; the first of them is killed as it begins."""
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return train(cell)
    Thread(target=lambda: (time.sleep(0.02), _deadly(cell))).start()
    return train(cell)


def _deadly(cell):
    os.kill(os.getpid(), signal.SIGKILL)
