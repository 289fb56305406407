"""``regex``: a pattern is found in the answer; it stands behind the colon, or in ``pattern`` or ``answer``."""

from __future__ import annotations

import re

from ..names import RewardError
from .base import Checker, Row, given

OPTIONS: dict[str, object] = {}
ARGUMENT = True


def checker(pattern: str | None) -> Checker:
    """Search for the pattern, as ``re.search`` does; ``^`` and ``$`` tie it to the ends, ``(?i)`` ignores case.

    Raises:
        RewardError: It is no regular expression.
    """
    if pattern is not None and (wrong := _wrong(pattern)):
        raise RewardError(f"regex: {pattern!r} is no regular expression ({wrong}).")

    def of(row: Row) -> str | None:
        return pattern if pattern is not None else given(row, "pattern", "answer")

    def lacks(row: Row) -> str | None:
        wanted = of(row)
        if wanted is None:
            return "no `pattern` and no `answer`"
        return "no regular expression in `pattern` or `answer`" if _wrong(str(wanted)) else None

    return Checker(lambda text, row: float(re.search(str(of(row)), text) is not None), lacks)


def _wrong(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error)
    return None
