"""What peers get wrong, really run where the peer is on PyPI, else by the formula it publishes.

Each row states one number: what the peer gives, what we give, and the true one.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

WRONG = 0.005  # off by more than this share of the truth (of 1, if the truth is smaller) is wrong


@dataclass(frozen=True)
class Failure:
    """One number that a peer gets wrong; ``package`` is None for a formula as published."""

    peer: str
    package: str | None
    case: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    true: Any


def _told(number: Callable[[], Any]) -> float | str:
    """Return a number, or what was raised instead of one."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return float(number())
    except NotImplementedError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"


def is_wrong(given: float | str, true: float) -> bool:
    """Whether an answer is an error message, not a number, or off by more than ``WRONG``."""
    if isinstance(given, str) or not math.isfinite(given):
        return True
    return abs(given - true) > WRONG * max(1.0, abs(true))


def _written(given: float | str) -> float | str:
    """Return what JSON can hold."""
    return given if isinstance(given, str) or math.isfinite(given) else str(given)


def _row(failure: Failure) -> dict[str, Any]:
    record = {"peer": failure.peer, "kind": "run" if failure.package else "formula", "case": failure.case}
    if failure.package and importlib.util.find_spec(failure.package) is None:
        return {**record, "skipped": "not installed"}
    try:
        theirs, ours, true = _told(failure.theirs), _told(failure.ours), float(failure.true)
    except NotImplementedError as reason:
        return {**record, "skipped": str(reason)}
    judged = {"reproduced": is_wrong(theirs, true), "ours_right": not is_wrong(ours, true)}
    return {**record, "theirs": _written(theirs), "ours": _written(ours), "true": true, **judged}


def reproduce(rows: Iterable[Failure]) -> list[dict[str, Any]]:
    """Return one record per failure: theirs, ours, the truth, and whether the failure is still there."""
    return [_row(failure) for failure in rows]
