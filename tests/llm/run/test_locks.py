"""One run at a time in a folder: the second is told who is there, and a process that is gone holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from forked import Forked, start_ranks
from signalled_runs import KINDS, SWEEP, arguments, ended, place_of, signalled, wait_for
from test_pipeline import write as write_pipeline
from yaml import safe_dump

from dro_core.locks import LOCK, FolderInUse, locked, locked_file
from llm.run.folder import start_output
from llm.run.states import clear
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def hold(folder, *children):
    """Hold a lock until killed, with a forked helper that lives on; of a file where the name is one."""
    with (locked_file if folder.suffix else locked)(folder):
        if children and not os.fork():
            sys.stdout.write(f"child {os.getpid()}\n")
            time.sleep(60)
        sys.stdout.write("held\n")
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    process = Forked(hold, tmp_path / "run")
    wait_for(lambda: "held" in process.said(), process)
    yield process
    process.kill()
    process.communicate(timeout=10)


def commands(kind, place, folder):
    """What would work in ``folder/run``."""
    if kind == "demo":
        return ["demo", "--output", str(folder / "run")]
    if kind == "sweep":
        (folder / "sweep.yaml").write_text(safe_dump(SWEEP))
        return ["sweep", "--config", str(folder / "sweep.yaml"), "--output", str(folder / "run")]
    if kind == "pipeline":
        return ["pipeline", "--config", str(write_pipeline(folder))]
    if kind in OTHERS:
        return [text.format(place=place, folder=folder) for text in OTHERS[kind].split()]
    return arguments(kind, place, folder / "run")


OTHERS = {  # they have no --resume of a run, and write into a folder all the same
    "simulate": "simulate bias --output {folder}/run",
    "evaluate": "evaluate {place}/start --suite {place}/train.jsonl --output {folder}/run",
    "export": "export {place}/start --to lm-eval --suite {place}/train.jsonl --output {folder}/run",
    "builtin": "data builtin {folder}/run",
}
FILES = {
    "json": "verify danskin --jobs 1 --json {file}",
    "html": "verify danskin --jobs 1 --html {file}",
    "markdown": "verify danskin --jobs 1 --markdown {file}",
    "report": "report {folder} -o {file}",
}


@pytest.mark.slow("it loads all claims")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(name, marks=pytest.mark.exhaustive) if name in ("html", "markdown") else name for name in FILES],
)
def test_a_file_is_written_by_one_at_a_time(kind, tmp_path, capsys):
    """Two checks would each take minutes, and the file be that of whoever ends last."""
    process = Forked(hold, tmp_path / "out.html")
    wait_for(lambda: "held" in process.said(), process)
    command = FILES[kind].format(file=tmp_path / "out.html", folder=tmp_path).split()
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "".join(said).count(f"is about to be written by process {process.pid} on {os.uname().nodename}: ") == 1
    process.kill()
    process.communicate(timeout=10)
    if kind == "report":  # of nothing
        assert main(command) == 2
        assert "about to be written" not in capsys.readouterr().err
    else:
        assert main(command) == 0
        assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.slow("every command, beside a process that holds its folder")
@pytest.mark.parametrize("kind", [*KINDS, "demo", "pipeline", "sweep", *OTHERS])
def test_whoever_comes_second_is_told_who_is_there(kind, place, tmp_path, holder, capsys):
    before = (tmp_path / "run" / LOCK).read_bytes()
    ways = [[], *([["--resume"], ["--overwrite"]] if kind in (*KINDS, "demo") else [])]
    for how in ways:
        assert main([*commands(kind, place, tmp_path), *how]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"is in use by process {holder.pid} on {os.uname().nodename}: " in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert (tmp_path / "run" / LOCK).read_bytes() == before


@pytest.mark.parametrize("helper", [False, True], ids=["alone", "its forked helper lives on"])
def test_a_killed_process_holds_nothing(helper, tmp_path):
    process = Forked(hold, tmp_path / "run", *["child"][:helper])
    wait_for(lambda: "held" in process.said() and (not helper or "child" in process.said()), process)
    with pytest.raises(FolderInUse), locked(tmp_path / "run"):
        pass
    process.kill()
    said = process.communicate(timeout=10)[0]
    with locked(tmp_path / "run"), locked(tmp_path / "run"):  # once more within the same process
        assert str(os.getpid()) in (tmp_path / "run" / LOCK).read_text()
    if helper:
        child = int(next(line for line in said.splitlines() if line.startswith("child")).split()[1])
        os.kill(child, signal.SIGKILL)  # it was alive until now
    assert not list((tmp_path / "run").iterdir())  # which another made


def contend(folder, seconds):
    """Take the lock as often as one can; whoever finds another inside says so."""
    end, taken = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            with locked(folder / "run"):
                inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
                taken += 1
                (folder / "inside").unlink()
                os.close(inside)
        except FolderInUse:
            pass
    sys.stdout.write(f"taken {taken}\n")


@pytest.mark.exhaustive(turns=8)
def test_no_two_are_ever_inside_though_the_file_comes_and_goes(tmp_path):
    crowd = [Forked(contend, tmp_path, 2.0) for _ in range(3)]
    said = ended(crowd)
    assert all(text.startswith("taken ") and int(text.split()[1]) > 20 for text in said), said
    assert not [*(tmp_path / "run").glob("*")]  # nobody left anything


def test_a_lock_on_a_file_that_its_last_owner_removes_is_taken_anew(tmp_path, monkeypatch):
    lock, flock, calls = tmp_path / "run" / LOCK, fcntl.flock, []

    def removed_before(descriptor, how):
        calls.append(how)
        if len(calls) == 1:
            lock.unlink()
            lock.touch()  # and the next one makes another
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with locked(tmp_path / "run"):
        other = os.open(lock, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
    assert len(calls) >= 2


def test_the_ranks_of_a_second_run_are_refused_together(place, tmp_path, holder):
    flags = ["--dataloader_drop_last", "true"]
    ranks = start_ranks(main, arguments("reward", place, tmp_path / "run", *flags))
    said = ended(ranks)
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert "".join(said).count(f"is in use by process {holder.pid}") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_free_again_if_no_step_of_its_run_was_kept(kind, place, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signalled(patch, kind, [signal.SIGALRM], 1)
        before = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(OSError("the machine broke")))
        assert main(arguments(kind, place, run)) == 2
        signal.signal(signal.SIGALRM, before)
    assert "the machine broke" in capsys.readouterr().err
    assert {path.name for path in run.iterdir()} - {"reference", "reference.npz"} == {"settings.json"}
    for other in ("stage.json", "mine.txt", "tensorboard/events", "job-7.out"):  # which make no run of it
        (run / other).parent.mkdir(exist_ok=True)
        (run / other).write_text("something else")
    (run / LOCK).write_text("{")  # and a kill -9 left the lock
    assert main(arguments(kind, place, run, "--ambiguity", "cvar:0.5", "--max_steps", "1")) == 0
    assert json.loads((run / "settings.json").read_text())["ambiguity"] == "cvar:0.5"
    assert (run / "mine.txt").read_text() == (run / "tensorboard" / "events").read_text() == "something else"
    assert not (run / LOCK).exists()
    assert main(arguments(kind, place, run)) == 2


def test_overwriting_keeps_the_lock_that_it_stands_on(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoint-3").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    with locked(run):
        mark = (run / LOCK).stat().st_ino
        start_output(run, {"seed": 1}, overwrite=True)
        assert (run / LOCK).stat().st_ino == mark
        assert {path.name for path in run.iterdir()} == {LOCK, "settings.json"}


def test_a_kill_while_overwriting_leaves_what_can_be_overwritten(tmp_path, monkeypatch):
    run = tmp_path / "run"
    for name in ("checkpoint-1", "model", "settings.json", "metrics.csv", "run.json"):
        (run / name).mkdir(parents=True) if "." not in name else (run / name).write_text("{}")
    deleted = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **_: deleted.append(path.name))
        patch.setattr("llm.run.states.shutil.rmtree", lambda path, **_: deleted.append(path.name))
        clear(run)
    assert sorted(deleted) == sorted(path.name for path in run.iterdir())
    assert deleted[-1] == "settings.json"  # without it nothing says that the rest may be deleted


def test_a_file_system_without_locks_is_named_and_used(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("dro_core.locks.fcntl.flock", refuse)
    with locked(tmp_path / "run"):
        (tmp_path / "run" / "made").write_text("x")
    assert "has no locks" in caplog.text
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["made"]
