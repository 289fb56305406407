"""``exact``: the answer is the text of the column ``answer``, or one of its texts.

Case, Unicode forms, spaces at the ends and how many stand between words do not count, nor a full stop at the end.
"""

from __future__ import annotations

import unicodedata

from .base import Checker, Row, given, said

OPTIONS: dict[str, object] = {}
ARGUMENT = False


def normal(text: object) -> str:
    """The text without what does not count.

    >>> normal(" The  Cat. ") == normal("the cat")
    True
    """
    folded = unicodedata.normalize("NFKC", str(text)).casefold()
    return " ".join(folded.split()).removesuffix(".").rstrip()


def checker() -> Checker:
    """Exact match with ``answer``."""

    def score(text: str, row: Row) -> float:
        wanted = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
        return float(normal(said(text)) in {normal(said(str(one))) for one in wanted})

    return Checker(score, lambda row: None if given(row, "answer") is not None else "no `answer`")
