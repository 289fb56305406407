"""What a GPU was found to do: the records of `make gpu`, for the pages that speak of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dro_core.files import whole

RESULTS = Path(__file__).parent / "results" / "gpu.json"
SCHEMA = 2
Record = dict[str, Any]


def put(path: Path, text: str) -> None:
    """Write a file whole or not at all, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as stream:
        stream.write(text.encode())


def measured(path: Path = RESULTS) -> Record | None:
    """The JSON of a real run; None where there was none yet.

    Raises:
        ValueError: It is of another version, which these pages cannot read.
    """
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{path} was written by another version (schema {found.get('schema')}): measure again")
    return None if found["dry"] else found


def records(stage: str, found: Record | None) -> list[Record]:
    """The results of a stage, failures left out; none where nothing was measured."""
    kept = found["stages"].get(stage, {}).get("records", []) if found else []
    return [record for record in kept if "failed" not in record and "skipped" not in record]


def hardware(found: Record) -> str:
    """Date, device and versions in one line."""
    device, versions = found["device"], found["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    machine = f"{device['name']}, {device['gib']:g} GiB, CUDA {device['cuda']}"
    return f"{found['date']}, revision {found['revision']}, {machine}; {named}"
