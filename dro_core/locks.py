"""One at a time in a folder, or at a file: a lock that the system takes back when its process is gone, by kill -9 too.

``flock`` holds on local disks, on NFS (Linux turns it into a lock of the server), on Lustre mounted with ``flock``, and
on Ceph. Where the file system has no locks we say so and go on. A machine that is lost keeps its locks on NFS until the
server gives up its lease, 90 seconds by default.

The other packages write into folders, too, so it stands here, and needs nothing of the solvers.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .messages import check_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "in-use.lock"  # gone when nobody works in the folder
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_log = logging.getLogger(__name__)


class FolderInUse(RuntimeError):
    """Another process works in the folder, or writes the file; the message says which."""


class _Held(NamedTuple):
    """A lock of this process.

    Attributes:
        descriptor: The open file; None where the file system has no locks.
        made: The folders that were made for it, the innermost first.
    """

    descriptor: int | None
    made: list[Path]


_held: dict[Path, _Held] = {}  # by the file that is locked


@contextmanager
def locked(folder: str | Path) -> Generator[None]:
    """Inside, no other process gets the lock of the folder; within the same process it may be taken again.

    The folder is made where it is missing, and is gone again if nothing was put into it.

    Raises:
        FolderInUse: Another process has it; one sentence with its id and host.
        NotADirectoryError, PermissionError: There can be no such folder, or nothing written to it.
    """
    place = Path(folder).resolve()
    check_folder(folder)
    with _holding(place / LOCK, f"{place} is in use by", "choose another output folder"):
        yield


@contextmanager
def locked_file(file: str | Path) -> Generator[None]:
    """Inside, no other process gets the lock of the file, which lies beside it; within the same process one may.

    Raises:
        FolderInUse: Another process has it; one sentence with its id and host.
    """
    place = Path(file).resolve()
    with _holding(place.with_name(f"{place.name}.{LOCK}"), f"{place} is about to be written by", "name another file"):
        yield


@contextmanager
def _holding(lock: Path, taken: str, instead: str) -> Generator[None]:
    if lock in _held:
        yield
        return
    _held[lock] = _take(lock, taken, instead)
    try:
        yield
    finally:
        _release(lock, _held.pop(lock))


def _take(lock: Path, taken: str, instead: str) -> _Held:
    made = [place for place in lock.parents if not place.exists()]
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # somebody who failed has just removed the folder
            continue
        try:
            locks = fcntl is not None and _locks(descriptor, lock)
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise FolderInUse(f"{taken} {owner}: wait for its end, stop it, or {instead}") from None
        if not locks:
            os.close(descriptor)
            lock.unlink(missing_ok=True)
            return _Held(None, made)
        if _is_still(descriptor, lock):
            break
        os.close(descriptor)  # its last owner removed it between our opening and locking it
    with suppress(OSError):  # a full disk: it is locked all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    return _Held(descriptor, made)


def _locks(descriptor: int, lock: Path) -> bool:
    """Lock an open file; whether the file system can.

    Raises:
        BlockingIOError: Another process has it.
    """
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        _log.warning(
            "the file system of %s has no locks: see to it yourself that one run at a time uses it", lock.parent
        )
        return False
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> str:
    try:
        told = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {told['process']:d} on {told['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # which has only just taken it


def _release(lock: Path, held: _Held) -> None:
    if held.descriptor is None:
        return
    with suppress(OSError):  # removed while it is locked: whoever waits for it sees that it is another file
        lock.unlink()
    os.close(held.descriptor)
    for place in held.made:
        with suppress(OSError):  # not empty
            place.rmdir()


def _forget() -> None:
    """A forked helper that outlives its parent must not keep the parent's locks."""
    for held in _held.values():
        if held.descriptor is not None:
            with suppress(OSError):
                os.close(held.descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
