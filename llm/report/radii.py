"""Ambiguity sets as text, taken apart: what kind they are, how large, and where plain training lies on that scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dro_core import CVaR, parse_ambiguity
from dro_core.sets.ambiguity import Ball
from dro_core.sets.composition import Composite
from dro_core.spec import Spec


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
    try:
        spec = Spec.of(text)
    except ValueError:  # the name of a model
        return None
    names = [layer.name for layer in spec.layers()]
    numbers = [number for layer in spec.layers() for number in layer.numbers]
    size = spec.layers()[-1].numbers
    if spec.layers()[-1].plus or not all(map(str.isidentifier, names)):
        return None
    if numbers != [*size] or len(size) != 1 or not math.isfinite(size[0]):
        return None
    quantity, plain = _scale([Spec(names[-1], size, options=spec.options), Spec(names[-1], size)])
    return Sized(str(Spec(":".join(names), options=spec.options)), size[0], quantity, plain)


def kind_of(text: str) -> str:
    """The kind of a set, or the whole text where it has no size.

    >>> kind_of("kl:0.3"), kind_of("erm")
    ('kl', 'erm')
    """
    parts = sized(text)
    return text if parts is None else parts.kind


def _scale(specs: Sequence[Spec]) -> tuple[str, float | None]:
    """Quantity and plain size of the first one that names a set."""
    for spec in specs:
        try:
            ambiguity = parse_ambiguity(str(spec))
        except ValueError:  # a rule that is no set, or the option of one
            continue
        while isinstance(ambiguity, Composite):
            ambiguity = ambiguity.inner
        if isinstance(ambiguity, CVaR):
            return ambiguity.size, 1.0
        if ambiguity is not None:
            return ambiguity.size, 0.0 if isinstance(ambiguity, Ball) else None
    return "size", None
