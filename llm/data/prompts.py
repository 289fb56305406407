"""Prompts to answer: those of a preference file, or a file of prompts alone.

Example:
    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "prompts.jsonl")
    ...     _ = path.write_text(json.dumps({"prompt": "2 + 2?", "source": "sums"}))
    ...     read_prompts(path).prompts[0].source
    'sums'
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm.data.columns import ColumnMap, columns_of
from llm.data.grouping.columns import kept_of
from llm.data.hub import address_of, hub_records
from llm.data.layouts import Dropped, Malformed, Message, layout_of, prompt_alone, unless_nan
from llm.data.layouts.labels import weight_in
from llm.data.layouts.mapped import renamed, with_history
from llm.data.pairs import DataError, Pair, read_pairs, set_in_words
from llm.data.questions import asked
from llm.data.records import Record, read_records
from llm.data.suggestions import prompted
from llm.data.task_records import is_task, task_records

_CONTRADICTED = "repeated prompt with another answer"
_BESIDE = ("kept", "weight", "answer", "beside", "as_text")  # what is known of a prompt beside what it says
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat that waits for an answer.

    Attributes:
        id: Unique inside its file.
        messages: The chat up to, and without, the answer.
        source: Where it comes from; the unit of a mixture (``by=source``).
        category: What it is about; the unit of a report.
        kept: Further columns that were asked for, by name, as text.
        weight: Reference mass relative to other prompts, above 0; None counts as 1.
        answer: What the file says is right, as text.
        beside: Columns that a checker may ask for, by name, as they stand in the file; only where asked for.
        as_text: Whether the file has the prompt as a text, and no chat.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = "unknown"
    category: str = "unknown"
    kept: tuple[tuple[str, str], ...] = ()
    weight: float | None = None
    answer: str | None = None
    beside: tuple[tuple[str, object], ...] = ()
    as_text: bool = False

    def answered(self, first: str, second: str) -> Pair:
        """The pair of two answers, for what works on pairs."""
        return Pair(self.id, self.messages, first, second, source=self.source, category=self.category, kept=self.kept)


@dataclass(frozen=True)
class PromptSet:
    """The usable prompts of one file and what became of the rest.

    Attributes:
        prompts: In file order; no chat twice, unless repeats were asked for.
        name: The file or data set, without the folders above it.
        sha256: Of the prompts as read.
        dropped: Why records were left out -> how many.
        read_as: How the file was read, where that was found out and not told.
        columns: The mapping it was read by, as text; None: by its own layout.
        names: The columns of the file.
    """

    prompts: list[Prompt]
    name: str
    sha256: str
    dropped: dict[str, int]
    read_as: tuple[str, ...] = ()
    columns: str | None = None
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return set_in_words(
            self, f"{len(self.prompts):,} prompts", (prompt.source for prompt in self.prompts), self.name
        )

    def describe(self) -> dict[str, object]:
        """What a report must say about it."""
        said: dict[str, object] = {
            "file": self.name,
            "sha256": self.sha256,
            "prompts": len(self.prompts),
            "dropped": self.dropped,
        }
        read = {"columns": self.columns, "read_as": list(self.read_as)}
        return said | {name: value for name, value in read.items() if value}


def read_prompts(
    source: str | os.PathLike[str],
    *,
    distinct: bool = True,
    columns: str | Mapping[str, str] | ColumnMap | None = None,
    shared: bool = False,
    keep: Sequence[str] = (),
    beside: bool = False,
) -> PromptSet:
    """Read prompts from whatever :func:`llm.data.pairs.read_pairs` reads, or from records with a ``prompt`` alone.

    The latter hold a text or a list of chat messages, and may name ``system``, ``id``, ``source``, ``category`` and
    ``weight``, and the right ``answer``. Empty prompts, and those of weight 0, are dropped and counted.

    Args:
        source: File or hub address.
        distinct: Drop and count repeated prompts too; the first that repeats a prompt with another answer is named. How
            often a prompt is asked is part of a mixture: without its repeats, prompts of a source with few different
            ones become rare.
        columns: As in ``read_pairs``; a mapping of the prompt alone is enough.
        shared: As in ``read_pairs``.
        keep: As in ``read_pairs``.
        beside: Keep all columns beside the prompt, for a checker; they are part of what the prompts are.

    Raises:
        DataError: The file cannot be read, a record has no prompt, or none is left.
    """
    opened = _opened(source, columns_of(columns), shared=shared)
    dropped, mapping = Counter[str](), opened.mapping
    first = next(opened.records, None)
    if _is_of_pairs(first, mapping):
        pairs = read_pairs(source, columns=mapping, keep=keep)
        found: Iterable[Prompt] = (Prompt(p.id, p.prompt, p.source, p.category, p.kept, p.weight) for p in pairs.pairs)
        read_as, names = list(pairs.read_as), pairs.names
    else:
        assert first is not None
        found = _prompts(itertools.chain([first], opened.records), opened, dropped, keep, beside=beside)
        read_as, names = opened.read_as, tuple(first.columns)
    prompts = list(_usable(found, dropped, distinct=distinct))
    if not prompts:
        raise DataError(f"{opened.name} holds no prompt that can be answered ({dict(dropped)}).")
    digest = hashlib.sha256("\n".join(_content(prompt, beside=beside) for prompt in prompts).encode())
    by = None if mapping is None else str(mapping)
    return PromptSet(prompts, opened.name, digest.hexdigest(), dict(dropped), tuple(read_as), by, names)


def _content(prompt: Prompt, *, beside: bool) -> str:
    """What a prompt is, whichever columns were asked for beside it; with them where something is checked by them."""
    said = {name: value for name, value in asdict(prompt).items() if name not in _BESIDE}
    said |= {} if prompt.weight is None else {"weight": prompt.weight}
    said |= {"answer": prompt.answer, "beside": prompt.beside} if beside else {}
    return json.dumps(said, default=str)


class _Opened(NamedTuple):
    """The records of a file by their own names, what it is called, and the mapping if they are read by it."""

    records: Iterator[Record]
    name: str
    read_as: list[str]
    mapping: ColumnMap | None


def _opened(source: str | os.PathLike[str], mapping: ColumnMap | None, *, shared: bool) -> _Opened:
    if is_task(source):
        records, name = task_records(source), os.fspath(source)
    elif (address := address_of(source)) is not None:
        records, name = hub_records(address), address.name
    else:
        records, name = read_records(Path(source)), Path(source).name
    if mapping is None:
        return _Opened(records, name, records.read_as, None)
    used, begun = mapping.looked_for(records, file=name, shared=shared)
    return _Opened(itertools.chain(begun, records), name, records.read_as, mapping if used else None)


def distinct_prompts(prompts: Iterable[Prompt], dropped: Counter[str], seen: dict[str, str | None]) -> Iterator[Prompt]:
    """The prompts that are not among those seen, with their answers, which they then are; others are counted.

    Of prompts that are the same with different answers the first stays, and the others are named.
    """
    for prompt in prompts:
        text = json.dumps(prompt.messages)
        if text not in seen:
            seen[text] = prompt.answer
            yield prompt
        elif seen[text] == prompt.answer:
            dropped["repeated prompt"] += 1
        else:
            if not dropped[_CONTRADICTED]:
                _log.warning(
                    "prompt %s repeats an earlier one with another answer: such prompts are left out", prompt.id
                )
            dropped[_CONTRADICTED] += 1


def subset(prompts: Sequence[Prompt], count: int | None, *, seed: int = 0) -> list[Prompt]:
    """A fixed random subset of at most ``count`` prompts, in file order."""
    if count is None or count >= len(prompts):
        return list(prompts)
    return [prompts[i] for i in sorted(np.random.default_rng(seed).permutation(len(prompts))[:count])]


def questions(prompts: Sequence[Prompt]) -> NDArray[np.intp]:
    """One integer per prompt, equal where the chats are: a chat that is asked twice is one question, for intervals."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(asked(p.messages), len(numbers)) for p in prompts], dtype=np.intp)


def _is_of_pairs(first: Record | None, mapping: ColumnMap | None) -> bool:
    if first is None:
        return True  # an empty file: the reader of pairs says what is wrong
    if mapping is not None:
        names = renamed(mapping, first.columns).keys()
        return names >= {"chosen", "rejected"} or names >= {"first", "second"}
    try:
        layout = layout_of(first.columns)
    except Dropped:
        return True
    return layout is not None and not (layout.alone and "prompt" in first.columns)


def _prompts(
    records: Iterable[Record], file: _Opened, dropped: Counter[str], keep: Sequence[str], *, beside: bool
) -> Iterator[Prompt]:
    for number, record in enumerate(records):
        columns = record.columns
        row = columns if file.mapping is None else renamed(file.mapping, columns)
        if "prompt" not in row:
            said = f"no 'prompt' here, found {', '.join(row) or 'nothing'}; {prompted(row)}"
            raise DataError(f"{file.name}, {record.names}: {said}.")
        try:
            chat = prompt_alone(row)
            chat = chat if file.mapping is None else with_history(chat, row)
            kept, weight = kept_of(columns, keep), weight_in(row)
        except Dropped as reason:
            dropped[str(reason)] += 1
            continue
        except Malformed as problem:
            raise DataError(f"{file.name}, {record.place}: {problem}.") from problem
        yield Prompt(
            str(unless_nan(row.get("id")) or f"{file.name.split('.')[0]}-{number:05d}"),
            chat,
            *(str(unless_nan(row.get(field)) or "unknown") for field in ("source", "category")),
            kept=kept,
            weight=weight,
            answer=_as_text(_answer(row, columns)),
            beside=_beside(row, columns) if beside else (),
            as_text=isinstance(row["prompt"], str) and [message["role"] for message in chat] == ["user"],
        )


def _answer(row: Mapping[str, object], columns: Mapping[str, object]) -> Any:
    """What is mapped as the answer, else what is called so."""
    return unless_nan(row["answer"] if "answer" in row else columns.get("answer"))


def _as_text(answer: object) -> str | None:
    if answer in (None, "", [], {}):
        return None
    return json.dumps(answer) if isinstance(answer, list | dict) else str(answer)


def _beside(row: Mapping[str, object], columns: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """All columns but the prompt, and the answer by our name."""
    found = {name: unless_nan(value) for name, value in columns.items() if name != "prompt"}
    answer = _answer(row, columns)
    return tuple((found | ({} if answer is None else {"answer": answer})).items())


def _usable(prompts: Iterable[Prompt], dropped: Counter[str], *, distinct: bool) -> Iterator[Prompt]:
    kept = (prompt for prompt in prompts if _says_something(prompt, dropped) and _counts(prompt, dropped))
    return distinct_prompts(kept, dropped, {}) if distinct else kept


def _says_something(prompt: Prompt, dropped: Counter[str]) -> bool:
    said = any(message["content"].strip() for message in prompt.messages)
    if not said:
        dropped["empty prompt"] += 1
    return said


def _counts(prompt: Prompt, dropped: Counter[str]) -> bool:
    if prompt.weight == 0:
        dropped["weight 0"] += 1
    return prompt.weight != 0
