"""openbmb/UltraFeedback: an instruction and four completions with their scores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from llm.data.layouts.base import (
    Columns,
    Comparison,
    Layout,
    Malformed,
    answer,
    having,
    items,
    number,
    question,
)
from llm.data.layouts.labels import from_ratings
from llm.data.layouts.verdicts import best_and_lower

_SCALE = (1.0, 10.0)  # of a score; they were taken out of what a model wrote, and a few are none
_OUTSIDE = "a score lies outside its scale from 1 to 10, so nothing is said of how sure the label is"


def _read(columns: Columns) -> Iterator[Comparison]:
    """The best answer against one of the others, as ultrafeedback_binarized does.

    "Best" is the highest ``overall_score``, the first of equals. The other one is drawn uniformly from the
    answers with a lower score by a hash of the instruction, so that every reading draws the same.
    """
    instruction = answer(columns, "instruction")
    (best, chosen), others = best_and_lower(map(_rated, items(columns, "completions")))
    score, rejected = _drawn(others, instruction)
    known = _SCALE[0] <= score < best <= _SCALE[1]
    yield Comparison(
        question(instruction),
        chosen,
        rejected,
        margin=best - score,
        preference=from_ratings((best, score), _SCALE) if known else None,
        noted=() if known else (_OUTSIDE,),
    )


def _rated(completion: object) -> tuple[float | None, str]:
    if not isinstance(completion, Mapping):
        raise Malformed(f"'completions' should hold objects with response and overall_score, found {completion!r:.40}")
    return number(completion, "overall_score"), answer(completion, "response")


_Choice = TypeVar("_Choice")


def _drawn(choices: Sequence[_Choice], seed: str) -> _Choice:
    digest = hashlib.sha256(seed.encode(errors="surrogatepass")).digest()
    return choices[int.from_bytes(digest[:8], "big") % len(choices)]


LAYOUT = Layout(
    "ultrafeedback",
    "{instruction, completions: [{response, overall_score}]}",
    having("instruction", "completions"),
    _read,
)
