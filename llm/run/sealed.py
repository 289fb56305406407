"""JSON that shows whether it is what was written: a changed digit is still JSON."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from .files import write_text

SEAL = "sha256"
_SETTLED = 2 * 10**9  # nanoseconds since the last change of a file whose hash is remembered
_hashes: dict[tuple[int, ...], str] = {}  # of this process


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object with the checksum of its content."""
    plain = json.loads(json.dumps(content))
    write_text(path, json.dumps({**plain, SEAL: _seal(plain)}))


def read_sealed(path: Path, *, earlier: Set[str] = frozenset()) -> dict[str, Any] | None:
    """What ``write_sealed`` wrote; None if it is missing, cut off or changed.

    Args:
        path: The file.
        earlier: The keys of a file from before there was a checksum, which is believed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop(SEAL, None)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    known = content.keys() == earlier if seal is None else seal == _seal(content)
    return content if known else None


def checksum(path: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read."""
    try:
        return file_hash(path)
    except OSError:
        return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text; a file that nobody has touched since is read once by a process.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        before = _state(stream.fileno())
        if (known := _hashes.get(before)) is not None:
            return known
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        after = _state(stream.fileno())
    # A clock that ticks slower than two writes follow each other would not show the second one.
    if before == after and time.time_ns() - max(after[-2:]) > _SETTLED:
        _hashes[after] = found
    return found


def text_hash(text: str) -> str:
    """SHA-256 of a text as hexadecimal text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _state(descriptor: int) -> tuple[int, ...]:
    """What a change of a file's content changes, whoever makes it."""
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def _seal(content: Mapping[str, object]) -> str:
    return text_hash(json.dumps(content, sort_keys=True))
