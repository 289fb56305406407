"""Names that came from data, short enough for a page: whoever wrote them cannot push the numbers out of sight."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from ...run.files import JsonObject

LONGEST = 120  # characters of a name
_FINDINGS = 30  # below one sentence
MORE = "\N{HORIZONTAL ELLIPSIS}"


def brief(name: object, limit: int = LONGEST) -> str:
    """A long name without its middle: the ends tell names apart more often.

    >>> brief("a-very-long-category-name", 11)
    'a-ver…-name'
    """
    text = str(name)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}{MORE}{text[-tail:]}"


def breakable(name: object) -> Markup:
    """A name that may wrap after an underscore, comma, hyphen or slash, and whose writing direction stays its own."""
    wrapped = re.sub(r"([_,/-])(?=\w)", r"\1<wbr>", str(escape(brief(name))))
    return Markup(f"<bdi>{wrapped}</bdi>" if re.search(r"[^\x00-\x7f]", wrapped) else wrapped)


def name_of(record: JsonObject) -> str:
    """An arm in words: its ambiguity set, and its family where there are several."""
    name = brief(record["ambiguity"])
    return f"{name} ({brief(record['family'])})" if record["family"] else name


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in one sentence, as many as one can hold.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(map(brief, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def first_ones(findings: Sequence[str]) -> list[str]:
    """As many lines as a reader reads."""
    rest = len(findings) - _FINDINGS
    return [*findings[:_FINDINGS], *([f"and {rest} more: arms.csv has them all"] if rest > 0 else [])]
