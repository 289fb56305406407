"""Moves between instances: numbers, ties, ends of ranges, powers of two, atoms dropped and dimensions added."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import exp, frexp, log
from typing import TYPE_CHECKING, Any

from proofs_check.hunt.forms import (
    GRID,
    Form,
    Leaf,
    Path,
    along_axes,
    leaves_of,
    length_of,
    linked_fields,
    on_grid,
    with_leaves,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

_BISECTIONS = 24
_MANY = (0.55, 0.85)  # how often one move is enough, and at most two
_LONGER = (2, 4)  # times the longest seen; and where instances say how much work they are
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Moves:
    """Random moves for the instances of one claim.

    Attributes:
        form: what the instances have in common.
        admits: whether an instance meets the assumptions; false where that cannot even be asked.
        rng: what is drawn from.
        turns: field -> where its range was last cut, so that the next cut falls into the largest gap.
    """

    form: Form
    admits: Callable[[Any], bool]
    rng: random.Random
    turns: dict[str, float] = field(default_factory=dict[str, float])

    def share(self, name: str) -> float:
        """The next share of a field's range: multiples of the golden ratio, which leave no gap for long."""
        self.turns[name] = (self.turns.get(name, self.rng.random()) + _GOLDEN) % 1
        return self.turns[name]

    def beside(self, instance: Any, others: Sequence[Any]) -> Any:
        """Return another instance, one to three moves away; it need not meet the assumptions."""
        drawn = self.rng.random()
        for _ in range(1 + sum(drawn > share for share in _MANY)):
            move = self.rng.choices(_MOVES, _WEIGHTS)[0]
            instance = move(self, instance, self.rng.choice(others))
        return instance

    def place(self, instance: Any) -> tuple[Path, Leaf]:
        """A leaf, every field being as likely as any other."""
        places: dict[str, list[tuple[Path, Leaf]]] = {}
        for path, leaf in leaves_of(instance):
            places.setdefault(path[0], []).append((path, leaf))
        return self.rng.choice(self.rng.choice(list(places.values())))

    def fitted(self, path: Path, value: float, like: Leaf) -> Leaf:
        """A number as the field takes it: whole or on the grid, within the range to try."""
        bounded = min(max(value, self.form.bottom(path[0])), self.form.top(path[0]))
        return round(bounded) if isinstance(like, int) else on_grid(bounded)


def _number(change: Callable[[Moves, str, Any], float]) -> Callable[[Moves, Any, Any], Any]:
    """Make a move of a change of one number; a word becomes another one that was seen."""

    def move(moves: Moves, instance: Any, other: Any) -> Any:
        path, leaf = moves.place(instance)
        if isinstance(leaf, str):
            return with_leaves(instance, {path: moves.rng.choice(moves.form.values[path[0]])})
        return with_leaves(instance, {path: moves.fitted(path, change(moves, path[0], leaf), leaf)})

    return move


@_number
def _nudged(moves: Moves, name: str, leaf: Any) -> float:
    step = moves.rng.choice((1, 1, 2, 3)) if isinstance(leaf, int) else 2.0 ** -moves.rng.randint(0, 14)
    return leaf + moves.rng.choice((-step, step))


@_number
def _scaled(moves: Moves, name: str, leaf: Any) -> float:
    return leaf * moves.rng.choice((0.25, 0.5, 0.5, 2.0, 2.0, 4.0, -1.0))


@_number
def _power_of_two(moves: Moves, name: str, leaf: Any) -> float:
    power = 2.0 ** frexp(leaf)[1] if leaf else 1.0
    beside = moves.rng.choice((-1, 0, 0, 1)) if isinstance(leaf, int) else 0
    return power * moves.rng.choice((0.5, 1.0)) + beside


@_number
def _end(moves: Moves, name: str, leaf: Any) -> float:
    low, high = moves.form.lows[name], moves.form.highs[name]
    return moves.rng.choice((0.0, 1.0, low, high, low, high, 1.0 - leaf, moves.form.top(name)))


@_number
def _anywhere(moves: Moves, name: str, leaf: Any) -> float:
    low, high = moves.form.lows[name], moves.form.highs[name]
    if moves.rng.random() < 0.5 or low < 0:
        return low + (high - low) * moves.share(name)
    least = max(low, 1.0 if isinstance(leaf, int) else 1 / 1024)
    return exp(moves.rng.uniform(log(least), log(max(min(moves.form.top(name), 64 * high), least))))


@_number
def _seen(moves: Moves, name: str, leaf: Any) -> float:
    return float(moves.rng.choice(moves.form.values[name]))


def _tied(moves: Moves, instance: Any, other: Any) -> Any:
    """One number becomes equal to another of the instance, of the same field if there is one."""
    path, leaf = moves.place(instance)
    same = [one for p, one in leaves_of(instance) if type(one) is type(leaf) and p != path]
    near = [one for p, one in leaves_of(instance) if p[0] == path[0] and p != path]
    return with_leaves(instance, {path: moves.rng.choice(near or same or [leaf])})


def _to_the_edge(moves: Moves, instance: Any, other: Any) -> Any:
    """One number goes as far as the assumptions let it."""
    path, leaf = moves.place(instance)
    if isinstance(leaf, str) or not moves.admits(instance):
        return instance
    form, name = moves.form, path[0]
    ends = (form.bottom(name), form.lows[name], min(form.top(name), 4 * max(form.highs[name], 1.0)))
    inside, outside = float(leaf), moves.rng.choice(ends)
    if moves.admits(far := with_leaves(instance, {path: moves.fitted(path, outside, leaf)})):
        return far
    unit = 1.0 if isinstance(leaf, int) else 1 / GRID
    for _ in range(_BISECTIONS):
        middle = inside + round((outside - inside) / 2 / unit) * unit
        if middle in (inside, outside):
            break
        if moves.admits(with_leaves(instance, {path: moves.fitted(path, middle, leaf)})):
            inside = middle
        else:
            outside = middle
    return with_leaves(instance, {path: moves.fitted(path, inside, leaf)})


def _row(change: Callable[[Moves, list[Any]], Sequence[Any]]) -> Callable[[Moves, Any, Any], Any]:
    """Make a move of a change of all numbers in one tuple, or of one row of a table."""

    def move(moves: Moves, instance: Any, other: Any) -> Any:
        path, leaf = moves.place(instance)
        if len(path) < 2 or isinstance(leaf, str):
            return instance
        row = [(p, one) for p, one in leaves_of(instance) if p[:-1] == path[:-1]]
        changed = change(moves, [one for _, one in row])
        return with_leaves(instance, {p: moves.fitted(p, new, old) for (p, old), new in zip(row, changed, strict=True)})

    return move


@_row
def _flat(moves: Moves, row: list[Any]) -> Sequence[Any]:
    return [moves.rng.choice(row)] * len(row)


@_row
def _spike(moves: Moves, row: list[Any]) -> Sequence[Any]:
    """One entry large, or small, and all others equal."""
    rest, one = moves.rng.sample((min(row), max(row)), 2)
    at = moves.rng.randrange(len(row))
    return [one if k == at else rest for k in range(len(row))]


@_row
def _two_valued(moves: Moves, row: list[Any]) -> Sequence[Any]:
    return [moves.rng.choice((min(row), max(row))) for _ in row]


@_row
def _ladder(moves: Moves, row: list[Any]) -> Sequence[Any]:
    low, high = min(row), max(row)
    return [low + (high - low) * k / max(len(row) - 1, 1) for k in range(len(row))]


@_row
def _shuffled(moves: Moves, row: list[Any]) -> Sequence[Any]:
    return moves.rng.sample(row, len(row))


@_row
def _shaken(moves: Moves, row: list[Any]) -> Sequence[Any]:
    """Every entry changes a little."""
    size = max(abs(float(one)) for one in row) * 2.0 ** -moves.rng.randint(1, 10)
    return [one + moves.rng.uniform(-size, size) for one in row]


@_row
def _stretched(moves: Moves, row: list[Any]) -> Sequence[Any]:
    factor = moves.rng.choice((0.5, 2.0, -1.0))
    return [factor * one for one in row]


def _lengthened(moves: Moves, instance: Any, other: Any) -> Any:
    """Atoms dropped, doubled, or a dimension beyond those seen."""
    if not moves.form.axes:
        return _nudged(moves, instance, other)
    at = moves.rng.randrange(len(moves.form.axes))
    group, longest = moves.form.axes[at], _LONGER[moves.form.free] * moves.form.longest[at]
    length = length_of(instance, group)
    order, kind = list(range(length)), moves.rng.randrange(4)
    if not length:
        return instance
    if kind == 0 and length > 1:
        order.remove(moves.rng.randrange(length))
    elif kind == 1 and length > 1:
        order = sorted(moves.rng.sample(order, moves.rng.randint(1, length - 1)))
    elif kind == 2 and length < longest:
        order.insert(at := moves.rng.randrange(length), at)
    elif length < longest:
        order = [k % length for k in range(moves.rng.randint(length + 1, longest))]
    return along_axes(instance, group, order)


def _borrowed(moves: Moves, instance: Any, other: Any) -> Any:
    """One field of another instance, with those that are as long as it."""
    name = moves.rng.choice([one.name for one in fields(instance)])
    return replace(instance, **{one: getattr(other, one) for one in linked_fields(moves.form, name)})


_MOVES = (
    *(_nudged, _scaled, _power_of_two, _end, _anywhere, _seen, _tied, _to_the_edge, _lengthened, _borrowed),
    *(_flat, _spike, _two_valued, _ladder, _shuffled, _stretched, _shaken),
)
_WEIGHTS = (4, 2, 1, 3, 4, 2, 2, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1)
