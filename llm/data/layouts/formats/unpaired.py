"""Single answers with a label, as KTO learns from them: paired within a prompt where both labels exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from llm.data.layouts.base import Chat, Columns, Comparison, Layout, Malformed, Undecided, joined, unless_nan
from llm.data.layouts.formats.alpaca import asked
from llm.data.layouts.turns import messages, only_answer
from llm.data.records import Record

ALONE = "single answer: it stands alone, without one of the other label to its prompt"
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_LABEL_NAMES = ("label", "kto_tag")


def _fits(columns: Columns) -> bool:
    return columns.keys() >= {"prompt", "completion", "label"} or columns.keys() >= {"instruction", "output", "kto_tag"}


def _pairs(records: Iterator[Record]) -> Iterator[Record]:
    """Join the n-th good and the n-th bad answer to a prompt; what has no partner comes alone, at the end."""
    waiting: dict[bytes, list[Record]] = {}
    for record in records:
        others = waiting.setdefault(_key(record.columns), [])
        if others and _label(others[0].columns) != _label(record.columns):
            yield joined(others.pop(0), record)
        else:
            others.append(record)
    for record in (record for records in waiting.values() for record in records):
        yield Record(record.place, {"rows": (record.columns,)})


def _key(columns: Columns) -> bytes:
    asked_in = [columns.get(name) for name in ("system", "prompt", "instruction", "input", "history")]
    return hashlib.sha256(json.dumps(asked_in, default=str).encode()).digest()


def _label(columns: Columns) -> bool | None:
    return next((_LABELS.get(str(columns[name]).strip().lower()) for name in _LABEL_NAMES if name in columns), None)


def _read(columns: Columns) -> Iterator[Comparison]:
    rows = columns["rows"]
    for row in rows:
        if _label(row) is None:
            raise Malformed("'label' should be true or false")
    if len(rows) < 2:
        raise Undecided(ALONE)
    good, bad = rows if _label(rows[0]) else reversed(rows)
    chat = messages(good, "prompt", role="user") if "prompt" in good else asked(good)
    yield Comparison(chat, _answer(good, chat), _answer(bad, chat))


def _answer(columns: Columns, chat: Chat) -> str:
    name = "completion" if "completion" in columns else "output"
    if unless_nan(columns.get(name)) is None:
        return ""
    turns = messages(columns, name, role="assistant")
    return only_answer(turns[len(chat) :] if turns[: len(chat)] == chat else turns)


LAYOUT = Layout("unpaired", "{prompt, completion, label}, paired within a prompt", _fits, _read, _pairs, alone=True)
