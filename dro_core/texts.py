"""Texts of names, numbers and options taken apart and put together again: what ``spec`` gives a meaning to."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .sets.ambiguity import in_text

Option = tuple[str, str | None]
# Not the sign of a number or of its exponent: a name follows, and a number or a name stands before.
_PLUS = re.compile(r"(?<=[^:/+\s])\s*\+\s*(?=[^\W\d])")
_KEY = re.compile(r"\s*[^\W\d]\w*\s*=")  # an option where a number or a name would stand: balanced:by=source


def number_in(text: str) -> float | None:
    """The number that a text is, if it is one."""
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class Spec:
    """A text taken apart; ``str`` puts it together again, without spaces and with numbers at their shortest.

    Every text is a Spec, whether or not anybody knows its names: what does not fit is kept as a name.

    Attributes:
        name: What stands first.
        numbers: After the colon.
        inner: What stands after them, where a rule wraps another: ``tv:0.2`` in ``micro:8:tv:0.2``.
        options: Key and value of all parts after a comma, in order; None for a value without an equals sign. They
            stand at the end, so the outermost Spec has those of the inner ones too.
        plus: What a plus sign adds to the innermost name: ``kl_penalty:0.1`` in ``micro:8:cvar:0.4+kl_penalty:0.1``.

    >>> Spec.of("micro:8:tv:0.20, by = source")
    Spec(name='micro', numbers=(8.0,), inner=Spec(name='tv', numbers=(0.2,), inner=None, options=(), plus=()), \
options=(('by', 'source'),), plus=())
    >>> str(Spec.of("micro:8:tv:0.20, by = source"))
    'micro:8:tv:0.2,by=source'
    """

    name: str
    numbers: tuple[float, ...] = ()
    inner: Spec | None = None
    options: tuple[Option, ...] = ()
    plus: tuple[Spec, ...] = ()

    @classmethod
    def of(cls, text: str) -> Spec:
        """Take a text apart."""
        head, *parts = text.split(",")
        first, *more = _PLUS.split(head)
        if ":" in first and _KEY.match(last := first[first.rindex(":") + 1 :]):
            first, parts = first[: first.rindex(":")], [last, *parts]
        layers: list[tuple[str, tuple[float, ...]]] = []
        for piece in first.split(":"):
            numbers = [number_in(part) for part in piece.split("/")]
            if layers and not layers[-1][1] and None not in numbers:
                layers[-1] = (layers[-1][0], tuple(number for number in numbers if number is not None))
            else:
                layers.append((piece.strip(), ()))
        spec: Spec | None = None
        for name, known in reversed(layers):
            spec = cls(name, known, spec, plus=tuple(map(cls.of, more)) if spec is None else ())
        assert spec is not None
        return replace(spec, options=tuple(_option(part) for part in parts))

    def layers(self) -> list[Spec]:
        """This one and what stands inside it, from the outermost."""
        found: list[Spec] = [self]
        while (inner := found[-1].inner) is not None:
            found.append(inner)
        return found

    def __str__(self) -> str:
        layers = ((layer.name, layer.numbers) for layer in self.layers())
        head = ":".join(piece for name, numbers in layers for piece in (name, *filter(None, [in_text(numbers)])))
        sum_of = "+".join([head, *map(str, self.layers()[-1].plus)])
        return ",".join([sum_of, *map(part_of, self.options)])


def _option(part: str) -> Option:
    key, equals, value = (piece.strip() for piece in part.partition("="))
    return key, value if equals else None


def part_of(option: Option) -> str:
    """An option as it is written."""
    return option[0] if option[1] is None else f"{option[0]}={option[1]}"
