"""Where a claim was tested: the ranges of what the search has seen, in one line."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NAMES = 6  # of a field of texts


def domain(seen: Sequence[Any]) -> str:
    """Return the range of every field over the instances, as text; of a tuple its lengths and its entries.

    Example:
        >>> from proofs_check.claims.inner.inner_problem import WeightedLosses
        >>> domain([WeightedLosses((0.0, 1.0), (1.0, 3.0), 0.25), WeightedLosses((2.0,) * 3, (1.0,) * 3, 0.5)])
        'losses: 2 to 3 in [0, 2]; masses: 2 to 3 in [1, 3]; radius in [0.25, 0.5]'
    """
    if not seen or not is_dataclass(seen[0]):
        return ""
    columns = ((f.name, [getattr(x, f.name) for x in seen]) for f in fields(seen[0]))
    return "; ".join(text for text in (_range(name, values) for name, values in columns) if text)


def _range(name: str, values: list[Any]) -> str:
    entries = [entry for value in values for entry in _entries(value)]
    if not entries:
        return ""
    if isinstance(entries[0], str):
        texts = sorted({str(entry) for entry in entries})
        return f"{name}: {', '.join(texts[:_NAMES])}{', ...' if len(texts) > _NAMES else ''}"
    low, high = f"{min(entries):.4g}", f"{max(entries):.4g}"
    ends = f"= {low}" if low == high else f"in [{low}, {high}]"
    if not isinstance(values[0], tuple):
        return f"{name} {ends}"
    lengths = [len(list(_entries(value))) for value in values]
    count = f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
    return f"{name}: {count} {ends}"


def _entries(value: Any) -> Iterator[Any]:
    """The numbers or texts in a value, however deep."""
    if isinstance(value, tuple):
        for part in cast("tuple[Any, ...]", value):
            yield from _entries(part)
    elif isinstance(value, str | int | float):
        yield value
