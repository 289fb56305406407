"""Ambiguity sets as text, taken apart: what kind they are, how large, and where plain training lies on that scale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dro_core import CVaR, parse_ambiguity
from dro_core.sets.ambiguity import Ball
from dro_core.sets.composition import Composite


class Sized(NamedTuple):
    """One set on the scale of its kind.

    Attributes:
        kind: Name and options without the size: "tv", "tv,max_ratio=4", "adaptive:tv".
        size: The number after the colon.
        quantity: What the number is: "radius", "alpha", ...
        plain: The size at which the set is plain training; None where there is none on the scale.
    """

    kind: str
    size: float
    quantity: str
    plain: float | None


def sized(text: str) -> Sized | None:
    """Take an ambiguity set apart; None for plain training and what has no single size.

    >>> sized("tv:0.2,max_ratio=4")
    Sized(kind='tv,max_ratio=4', size=0.2, quantity='radius', plain=0.0)
    >>> sized("cvar:0.3").plain, sized("erm")
    (1.0, None)
    """
    found = re.fullmatch(r"((?:[A-Za-z_]\w*:)*)([A-Za-z_]\w*):([-+.\deE]+)((?:,.*)?)", text)
    if found is None:
        return None
    try:
        size = float(found[3])
    except ValueError:
        return None
    quantity, plain = _scale([f"{found[2]}:{found[3]}{found[4]}", f"{found[2]}:{found[3]}"])
    return Sized(found[1] + found[2] + found[4], size, quantity, plain)


def kind_of(text: str) -> str:
    """The kind of a set, or the whole text where it has no size.

    >>> kind_of("kl:0.3"), kind_of("erm")
    ('kl', 'erm')
    """
    parts = sized(text)
    return text if parts is None else parts.kind


def _scale(texts: Sequence[str]) -> tuple[str, float | None]:
    """Quantity and plain size of the first text that names a set."""
    for text in texts:
        try:
            ambiguity = parse_ambiguity(text)
        except ValueError:  # a rule that is no set, or the option of one
            continue
        while isinstance(ambiguity, Composite):
            ambiguity = ambiguity.inner
        if isinstance(ambiguity, CVaR):
            return ambiguity.size, 1.0
        if ambiguity is not None:
            return ambiguity.size, 0.0 if isinstance(ambiguity, Ball) else None
    return "size", None
