"""openbmb/UltraFeedback: an instruction and four completions with their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm.data.layouts.base import (
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Undecided,
    answer,
    having,
    items,
    number,
    question,
)


def _read(columns: Columns) -> Iterator[Comparison]:
    """The best answer against one of the others, as ultrafeedback_binarized does.

    "Best" is the highest ``overall_score``, the first of equals. The other one is drawn uniformly from the
    answers with a lower score by a hash of the instruction, so that every reading draws the same.
    """
    instruction = answer(columns, "instruction")
    rated = [(score, text) for score, text in map(_rated, items(columns, "completions")) if score is not None]
    if len(rated) < 2:
        raise Dropped("fewer than two rated answers")
    best, chosen = max(rated, key=lambda pair: pair[0])
    others = [(score, text) for score, text in rated if score < best]
    if not others:
        raise Undecided("tie")
    score, rejected = _drawn(others, instruction)
    yield Comparison(question(instruction), chosen, rejected, margin=best - score)


def _rated(completion: object) -> tuple[float | None, str]:
    if not isinstance(completion, Mapping):
        raise Malformed(f"'completions' should hold objects with response and overall_score, found {completion!r:.40}")
    return number(completion, "overall_score"), answer(completion, "response")


def _drawn(choices: Sequence[Any], seed: str) -> Any:
    digest = hashlib.sha256(seed.encode(errors="surrogatepass")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


LAYOUT = Layout(
    "ultrafeedback",
    "{instruction, completions: [{response, overall_score}]}",
    having("instruction", "completions"),
    _read,
)
