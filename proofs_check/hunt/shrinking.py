"""A counterexample made small: fewer atoms, smaller whole numbers, floats with fewer digits."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING, Any

from proofs_check.hunt.forms import Form, Leaf, Path, along_axes, leaves_of, length_of, with_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PAIRED = 6  # numbers of an instance of which two are changed at once


def shrink(instance: Any, violates: Callable[[Any], bool], *, form: Form, trials: int = 300) -> Any:
    """Return the simplest instance that was found to violate the claim still.

    Args:
        instance: one that violates it.
        violates: whether another one does; false where that cannot even be asked.
        form: what the instances of the claim have in common.
        trials: how often to ask.
    """
    tried = {instance}
    while True:
        for smaller in _smaller(instance, form):
            if smaller in tried or complexity(smaller) >= complexity(instance):
                continue
            if not trials:
                return instance
            tried.add(smaller)
            trials -= 1
            if violates(smaller):
                instance = smaller
                break
        else:
            return instance


def complexity(instance: Any) -> tuple[int, float, float]:
    """How many numbers an instance holds, of how many digits, and how large they are.

    Example:
        >>> from proofs_check.claims.preferences.shift_counterexamples import Coin
        >>> complexity(Coin(2, 1, 1)) < complexity(Coin(15, 5, 4))
        True
    """
    numbers = [Fraction(leaf) for _, leaf in leaves_of(instance) if not isinstance(leaf, str)]
    digits = sum(abs(x.numerator).bit_length() + 2 * x.denominator.bit_length() + (x < 0) / 2 for x in numbers)
    return len(numbers), digits, float(sum(map(abs, numbers)))


def _smaller(instance: Any, form: Form) -> Iterator[Any]:
    """Candidates, the boldest first."""
    for group in form.axes:
        length = length_of(instance, group)
        for k in reversed(range(length if length > 1 else 0)):
            yield along_axes(instance, group, [j for j in range(length) if j != k])
    places = [(path, leaf) for path, leaf in leaves_of(instance) if not isinstance(leaf, str)]
    for path, leaf in places:
        for one in _simpler(leaf, form, path[0]):
            yield with_leaves(instance, {path: one})
    if len(places) <= _PAIRED:
        for changes in _pairs(places, form):
            yield with_leaves(instance, changes)


def _pairs(places: Sequence[tuple[Path, Leaf]], form: Form) -> Iterator[dict[Path, Leaf]]:
    for (path, leaf), (other, same) in combinations(places, 2):
        for one in _simpler(leaf, form, path[0]):
            for two in _simpler(same, form, other[0]):
                yield {path: one, other: two}


def _simpler(leaf: Any, form: Form, name: str) -> Iterator[Leaf]:
    least = min(form.lows[name], 1.0)
    if isinstance(leaf, int):
        yield from (k for k in (0, 1, leaf // 2, leaf - 1, -leaf) if k >= least and abs(k) <= abs(leaf) and k != leaf)
        return
    candidates = [
        0.0,
        1.0,
        -1.0,
        *(round(leaf * 2**k) / 2**k for k in range(11)),
        leaf - 1,
        float(round(leaf / 2)),
        -leaf,
    ]
    yield from (x for x in dict.fromkeys(candidates) if x >= least and abs(x) <= abs(leaf) and x != leaf)
