"""Which examples the results in a run folder stand for, so that a finished run is not judged twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from .files import JsonObject
from .finished import read_record

METRICS = "metrics.json"
JUDGED_ON = "judged_on"  # an entry of it


def judged_on(suites: Mapping[str, Sequence[object]]) -> dict[str, str]:
    """Suite name -> SHA-256 of its examples: of all that they hold, in their order.

    >>> judged_on({"a": [1, 2]}) == judged_on({"a": [1, 2]}) != judged_on({"a": [2, 1]})
    True
    """
    return {name: _digest(examples) for name, examples in suites.items()}


def _digest(examples: Sequence[object]) -> str:
    found = hashlib.sha256()
    for example in examples:
        found.update(repr(example).encode())
    return found.hexdigest()


def results_on(folder: Path, suites: Mapping[str, Sequence[object]]) -> JsonObject | None:
    """The summaries in a run folder by suite, where its model was judged on these and no others; else None.

    Raises:
        RunError: What is there is no record.
    """
    if not (folder / METRICS).exists():
        return None
    found = read_record(folder / METRICS, "suites")
    return found["suites"] if found.get(JUDGED_ON) == judged_on(suites) else None
