"""Files that are whole or not there, after an error, a full disk, a kill, and several writers at once."""

from __future__ import annotations

import ast
import os
import signal
import threading
from pathlib import Path

import pytest

from dro_core.files import whole

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=[True, False], ids=["there", "new"])
def file(request, tmp_path):
    """A file that is there, or is not."""
    if request.param:
        (tmp_path / "a.csv").write_bytes(b"old")
    return tmp_path / "a.csv"


def content(file):
    return file.read_bytes() if file.exists() else None


@pytest.mark.parametrize("unlocked", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_changes_at_the_end_and_at_once(file, unlocked, durable):
    before = content(file)
    with whole(file, unlocked=unlocked, durable=durable) as stream:
        stream.write(b"new")
        stream.flush()
        assert content(file) == before
        partial = f"a.csv.{os.getpid()}.partial" if unlocked else "a.csv.partial"
        assert partial in names(file.parent)
    assert content(file) == b"new"
    assert names(file.parent) == ["a.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_what_was_there_and_nothing_else(file, error):
    before, there = content(file), names(file.parent)
    with pytest.raises(error), whole(file) as stream:  # noqa: PT012 (half of a write is what fails)
        stream.write(b"half")
        raise error
    assert (content(file), names(file.parent)) == (before, there)


def test_a_full_disk_leaves_what_was_there_and_nothing_else(file):
    """The disk is full at the end only, when the last bytes leave the buffer: no write has failed until then."""
    before, there = content(file), names(file.parent)
    (file.parent / "a.csv.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), whole(file) as stream:
        stream.write(b"new")
    assert (content(file), names(file.parent)) == (before, there)


def test_a_durable_file_is_on_the_disk_before_it_takes_its_name(file, monkeypatch):
    before, calls = content(file), []

    def synced(descriptor):
        calls.append((os.fstat(descriptor).st_size, content(file)))

    monkeypatch.setattr("dro_core.files.os.fsync", synced)
    with whole(file, durable=True) as stream:
        stream.write(b"new")
    assert calls == [(3, before)]


def test_a_kill_leaves_what_was_there_and_a_file_that_the_next_write_replaces(file):
    before = content(file)
    if (child := os.fork()) == 0:
        with whole(file) as stream:
            stream.write(b"half")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert content(file) == before
    assert "a.csv.partial" in names(file.parent)
    with whole(file) as stream:
        stream.write(b"new")
    assert (content(file), names(file.parent)) == (b"new", ["a.csv"])


def test_processes_without_a_lock_do_not_write_into_each_others_file(file):
    with whole(file, unlocked=True) as stream:
        stream.write(b"ours")
        if (child := os.fork()) == 0:
            with whole(file, unlocked=True) as other:
                other.write(b"of another process")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert content(file) == b"of another process"
    assert (content(file), names(file.parent)) == (b"ours", ["a.csv"])


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with whole(pipe) as stream:
        stream.write(b"new")
    reader.join(10)
    assert read == [b"new"]
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


def moves(call):
    """Whether a call moves a file: ``path.replace(other)``, ``os.rename(one, other)``, and the like."""
    owner, name = (call.func.value, call.func.attr) if isinstance(call.func, ast.Attribute) else (None, "")
    of_system = isinstance(owner, ast.Name) and owner.id in ("os", "shutil")
    of_path = len(call.args) == 1 and not call.keywords  # texts and dates take more
    return name in ("replace", "rename", "move") and (of_system or of_path)


def test_no_package_replaces_a_file_by_hand():
    """What llm moves to its place beside are folders."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in ("dro_core", "synthetic", "proofs_check", "llm", "benchmarks", "experiments")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and moves(node)
    }
    folders = {"llm/run/folder.py", "llm/training/resuming.py", "llm/models/fetching.py"}
    assert found - folders == {"dro_core/files.py"}
