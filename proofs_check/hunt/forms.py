"""What the instances of a claim have in common, read off those that its corners and its strategy gave."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Leaf = bool | int | float | str
Path = tuple[Any, ...]  # field, then indices
Axis = tuple[str, int]  # field, depth of nesting

GRID = 2.0**20  # floats that the search makes are multiples of 1 / GRID
_AHEAD = 2  # how many times the largest number seen to try
_FAR = ((64, 16), (20, 4))  # the same from that size on: what is drawn so large is no exponent of an enumeration
_FARTHEST = 4096
_KEPT = 64  # values of a field


@dataclass(frozen=True)
class Form:
    """Fields, their ranges and the axes along which instances grow.

    Attributes:
        lows: field -> smallest number seen; nothing smaller is tried, unless the field also held negative ones.
        highs: field -> largest number seen.
        values: field -> some of the leaves seen.
        axes: groups of axes that always have the same length (or one a multiple of the other), with block lengths.
        longest: length of each group that was seen.
        free: whether instances say how much work they are, so that whole numbers may grow as far as that allows.
        flat: whether instances hold nothing but single numbers and words.
    """

    lows: Mapping[str, float]
    highs: Mapping[str, float]
    values: Mapping[str, tuple[Leaf, ...]]
    axes: tuple[tuple[tuple[Axis, int], ...], ...]
    longest: tuple[int, ...]
    free: bool
    flat: bool

    def top(self, name: str) -> float:
        """The largest number to try for a field."""
        high = max(self.highs[name], 1.0)
        if not isinstance(self.values[name][0], int):
            return _AHEAD * high
        if self.free:
            return GRID * high
        far = next((times * high for size, times in _FAR if self.flat and high >= size), 0.0)
        return max(_AHEAD * high, min(far, _FARTHEST))

    def bottom(self, name: str) -> float:
        """The smallest one."""
        return self.lows[name] if self.lows[name] >= 0 else min(_AHEAD * self.lows[name], -self.top(name))


def form_of(instances: Sequence[Any]) -> Form:
    """Return what the instances have in common; there must be one at least."""
    leaves: dict[str, list[Leaf]] = {}
    for instance in instances:
        for path, leaf in leaves_of(instance):
            leaves.setdefault(path[0], []).append(leaf)
    numbers = {name: [x for x in found if not isinstance(x, str)] for name, found in leaves.items()}
    lows = {name: float(min(found)) for name, found in numbers.items() if found}
    axes = tuple(_linked(instances))
    return Form(
        lows={name: 0.0 if 0 < low < 1 else low for name, low in lows.items()},
        highs={name: float(max(found)) for name, found in numbers.items() if found},
        values={name: tuple(dict.fromkeys(found))[:_KEPT] for name, found in leaves.items()},
        axes=axes,
        longest=tuple(max(length_of(instance, group) for instance in instances) for group in axes),
        free="work" in dir(instances[0]),
        flat=all(len(path) == 1 for path, _ in leaves_of(instances[0])),
    )


def work_of(instance: Any) -> float:
    """How many cases the sides go through, as the instance says; else how many numbers it holds."""
    try:
        work = getattr(instance, "work", None)
    except OverflowError:
        return inf
    return float(work) if work is not None else float(sum(1 for _ in leaves_of(instance)))


def leaves_of(instance: Any) -> Iterator[tuple[Path, Leaf]]:
    """Yield every number and word of an instance, with where it stands."""
    for field in fields(instance):
        yield from _below((field.name,), getattr(instance, field.name))


def _below(path: Path, value: Any) -> Iterator[tuple[Path, Leaf]]:
    if isinstance(value, tuple):
        for k, one in enumerate(cast("tuple[Any, ...]", value)):
            yield from _below((*path, k), one)
    else:
        yield path, value


def with_leaves(instance: Any, changes: Mapping[Path, Leaf]) -> Any:
    """Return the instance with other leaves at some places."""

    def changed(path: Path, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(changed((*path, k), one) for k, one in enumerate(cast("tuple[Any, ...]", value)))
        return changes.get(path, value)

    names = {path[0] for path in changes}
    return replace(instance, **{name: changed((name,), getattr(instance, name)) for name in names})


def length_of(instance: Any, group: Sequence[tuple[Axis, int]]) -> int:
    """How long an instance is along a group of axes, in blocks; 0 if it is ragged there."""
    (name, depth), block = group[0]
    return (_length(getattr(instance, name), depth) or 0) // block


def along_axes(instance: Any, group: Sequence[tuple[Axis, int]], order: Sequence[int]) -> Any:
    """Return the instance with the entries ``order`` of a group of axes, which may leave out and repeat some."""
    changes: dict[str, Any] = {}
    for (name, depth), block in group:
        places = [k * block + j for k in order for j in range(block)]
        changes[name] = _picked(changes.get(name, getattr(instance, name)), depth, places)
    return replace(instance, **changes)


def linked_fields(form: Form, name: str) -> set[str]:
    """The fields that change their length together with one, itself included."""
    names = {name}
    for _ in form.axes:
        for group in form.axes:
            together = {axis[0] for axis, _ in group}
            names |= together if together & names else set()
    return names


def on_grid(value: float) -> float:
    """The nearest number that the search may try."""
    return float(np.round(value * GRID) / GRID)


def _picked(value: Any, depth: int, places: Sequence[int]) -> Any:
    if depth:
        return tuple(_picked(one, depth - 1, places) for one in value)
    return tuple(value[k] for k in places)


def _length(value: Any, depth: int) -> int | None:
    """The common length of all tuples at a depth; None if there are none or they differ."""
    if not isinstance(value, tuple):
        return None
    entries = cast("tuple[Any, ...]", value)
    if not depth:
        return len(entries)
    lengths = {_length(one, depth - 1) for one in entries}
    return lengths.pop() if len(lengths) == 1 else None


def _linked(instances: Sequence[Any]) -> Iterator[tuple[tuple[Axis, int], ...]]:
    """Axes whose length varies, those of proportional lengths together; a ragged axis belongs to none."""
    lengths: dict[Axis, list[int]] = {}
    for field in fields(instances[0]):
        for depth in range(3):
            found = [_length(getattr(one, field.name), depth) for one in instances]
            if None not in found and 0 not in found and len(set(found)) > 1:
                lengths[field.name, depth] = [n for n in found if n is not None]
    rest = sorted(lengths, key=lambda axis: (max(lengths[axis]), axis))
    while rest:
        first = rest[0]
        group = [(axis, block) for axis in rest if (block := _ratio(lengths[axis], lengths[first]))]
        yield tuple(group)
        rest = [axis for axis in rest if axis not in dict(group)]


def _ratio(lengths: Sequence[int], units: Sequence[int]) -> int:
    """The whole number of units in every length; 0 if there is none."""
    ratios = {divmod(length, unit) for length, unit in zip(lengths, units, strict=True)}
    block, rest = ratios.pop()
    return block if not ratios and not rest else 0
