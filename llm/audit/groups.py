"""Which groups a file has, and what a set that compares groups or an effective batch would have of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import expm1, log1p

from ..data.overview import compared
from ..data.pairs import Pair
from ..run.files import JsonObject

_FEW = 2.0  # pairs of a group in an effective batch, below which its mean loss is that of single pairs


class GroupCounts:
    """Counts pairs by source, category and question; holds names and hashes."""

    def __init__(self) -> None:
        self.sources, self.categories = Counter[str](), Counter[str]()
        self._questions = Counter[tuple[bytes, str | None]]()

    def add(self, pair: Pair) -> None:
        """Count a pair."""
        self.sources[pair.source or "unknown"] += 1
        self.categories[pair.category or "unknown"] += 1
        self._questions[compared(pair)[0], pair.question_id or None] += 1

    def records(self, batch: int | None = None) -> dict[str, JsonObject]:
        """Of every column how many groups it has, their sizes, and with an effective batch how many of them it shows.

        ``shown`` is the mean number of groups in a batch that is drawn at random, ``pairs_each`` how many pairs each of
        those has on average. Questions are those of ``llm.data.questions``.
        """
        counts = {"source": self.sources, "category": self.categories, "question": self._by_question()}
        return {name: _record(found, batch) for name, found in counts.items() if found}

    def _by_question(self) -> Counter[bytes | str]:
        named: dict[bytes, str] = {}
        for prompt, question in self._questions:
            if question:
                named.setdefault(prompt, question)
        counts = Counter[bytes | str]()
        for (prompt, question), count in self._questions.items():
            counts[question or named.get(prompt) or prompt] += count
        return counts


def _record(counts: Counter[object], batch: int | None) -> JsonObject:
    total, sizes = counts.total(), sorted(counts.values())
    found: dict[str, object] = {
        "groups": len(sizes), "smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1],
    }  # fmt: skip
    if batch:
        shown = sum(1.0 if n == total else -expm1(batch * log1p(-n / total)) for n in sizes)
        found |= {"batch": batch, "shown": round(shown, 2), "pairs_each": round(min(batch, total) / shown, 2)}
    return found


def advice(records: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """A sentence on every column: whether a set should compare its groups."""
    for column, found in records.items():
        yield f"{_named(column)}: {_sizes(found)}{_use(column, found)}"


def _named(column: str) -> str:
    return "questions" if column == "question" else f"by={column}"


def _sizes(found: Mapping[str, object]) -> str:
    groups, smallest, largest = found["groups"], found["smallest"], found["largest"]
    each = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    return f"{groups:,} group{'' if groups == 1 else 's'} of {each} pair{'' if largest == 1 else 's'}"


def _use(column: str, found: JsonObject) -> str:
    groups, batch = found["groups"], found.get("batch")
    if column == "question":
        return "; intervals and held-out pairs go by these" if found["largest"] > 1 else "; every pair asks its own"
    if groups == 1:
        return "; with one group there is nothing to compare, leave by= out"
    if found["largest"] == 1:
        return "; every group is one pair, which by= cannot improve on"
    if not batch:
        return ""
    said = f"; {batch} pairs a step show {found['shown']:.1f} of them, {found['pairs_each']:.1f} pairs each"
    if found["pairs_each"] < _FEW:
        needed = _batch_for(found)
        return f"{said}: too few for a mean, raise the effective batch to {needed} or compare pairs"
    return said


def _batch_for(found: JsonObject) -> int:
    """The effective batch at which a group that is shown has two pairs, were all groups of one size."""
    groups, batch = found["groups"], int(found["batch"])
    while batch / (groups * -expm1(batch * log1p(-1 / groups))) < _FEW:
        batch += max(batch // 8, 1)
    return batch
