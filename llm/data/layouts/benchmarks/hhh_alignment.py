"""HuggingFaceH4/hhh_alignment: a dialogue and two choices with labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from llm.data.layouts.base import (
    Columns,
    Comparison,
    Layout,
    Malformed,
    Undecided,
    answer,
    field,
    having,
    items,
    text_of,
    unpacked,
)
from llm.data.layouts.plain.transcripts import spoken


def _read(columns: Columns) -> Iterator[Comparison]:
    """The choice labelled 1 against those labelled 0.

    Its parts (harmless, helpful, honest, other) are configurations, not a column: read from the hub or a folder
    in its layout, the configuration is the category.
    """
    targets = unpacked(field(columns, "targets"))
    if not isinstance(targets, Mapping):
        raise Malformed(f"'targets' should hold choices and labels, found {type(targets).__name__}")
    choices, labels = items(targets, "choices"), items(targets, "labels")
    if len(choices) != len(labels):
        raise Malformed(f"'targets' has {len(choices)} choices but {len(labels)} labels")
    right, wrong = ([c for c, label in zip(choices, labels, strict=True) if label == kind] for kind in (1, 0))
    if not right or not wrong:
        raise Undecided("tie")
    prompt, category = spoken(answer(columns, "input")), columns.get("category") or columns.get("config")
    for chosen, rejected in itertools.product(right, wrong):
        yield Comparison(prompt, text_of(chosen), text_of(rejected), category=category)


LAYOUT = Layout("hhh-alignment", "{input, targets: {choices, labels}}", having("input", "targets"), _read)
