"""JSON that shows whether it is what was written: a changed digit is still JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from .files import write_text

SEAL = "sha256"


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with the checksum of its content, through a temporary file."""
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
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
