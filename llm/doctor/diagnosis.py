"""What a diagnosis is made of: findings with their evidence and a remedy, and checks that could not be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .record import RunRecord


class Severity(Enum):
    """How bad: only problems make the exit status 1."""

    PROBLEM = "problem"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        severity: How bad.
        title: What is wrong.
        evidence: The numbers that say so.
        remedy: What to try.
    """

    severity: Severity
    title: str
    evidence: str
    remedy: str


@dataclass(frozen=True)
class Unchecked:
    """Why a check says nothing about a run."""

    reason: str


Verdict = Finding | Unchecked | None  # None: looked at, and nothing found


class Check(NamedTuple):
    """One question to a run, and what it is about in a few words."""

    subject: str
    examine: Callable[[RunRecord], Verdict]
