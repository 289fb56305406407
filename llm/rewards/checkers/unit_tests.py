"""``unit_tests``: the Python code of an answer passes the tests of its prompt, in a process of its own with limits.

The code is the last fenced block of the answer, else all of it. Tests are statements (``assert f(2) == 4``) in the
column ``tests`` or ``test_list``, a text or a list of texts, else in ``answer``; or a column ``test`` that defines
``check`` beside ``entry_point``, as in HumanEval. They run in the names that the code left, with the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .base import Checker, Row, block, given, positive
from .confined import Limits, passes

OPTIONS = {"seconds": positive, "memory": positive}
ARGUMENT = False


def tests_of(row: Row) -> str | None:
    """The tests of a prompt as one program; None where it has none."""
    if row.get("test") and row.get("entry_point"):
        return f"{row['test']}\ncheck({row['entry_point']})\n"
    found: object = given(row, "tests", "test_list", "answer")
    return "\n".join(map(str, found)) if isinstance(found, list) else None if found is None else str(found)


def checker(seconds: float = 4.0, memory: float = 512.0) -> Checker:
    """1 where all tests pass within ``seconds`` of time, of processor time too, and ``memory`` in MB."""
    limits = Limits(seconds, memory)

    def score(text: str, row: Row) -> float:
        return float(passes(block(text, "python", "py", "python3"), str(tests_of(row)), limits))

    def scores(texts: Sequence[str], rows: Sequence[Row]) -> list[float]:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with ThreadPoolExecutor(max_workers=cores or 1) as pool:
            return list(pool.map(score, texts, rows))

    return Checker(score, partial(_lacks), scores)


def _lacks(row: Row) -> str | None:
    tests = tests_of(row)
    if tests is None:
        return "no `tests`, `test_list` or `answer`"
    try:
        compile(tests, "tests", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "no Python in `tests`, `test_list` or `answer`"
    return None
