"""From a raw record to comparisons: the layouts of preference data, one file each, told apart by their columns."""

from __future__ import annotations

import json
import re

from llm.data.layouts.base import (
    Columns,
    Comparison,
    Dropped,
    Lacking,
    Layout,
    Malformed,
    Message,
    Pair,
    Undecided,
    number,
    unless_nan,
)
from llm.data.layouts.benchmarks import hhh_alignment, judge_bench, mt_bench, reward_bench, reward_bench_2, rm_bench
from llm.data.layouts.finishing import finished, prompt_alone
from llm.data.layouts.formats import alpaca, argilla, openai, orca, sharegpt, step_dpo, unpaired
from llm.data.layouts.judged import (
    alpaca_farm,
    arena,
    helpsteer2,
    rankings,
    safe_rlhf,
    shp,
    ultrafeedback,
    unified_feedback,
    webgpt,
)
from llm.data.layouts.labels import labelled
from llm.data.layouts.plain import canonical, transcripts, trl_implicit
from llm.data.layouts.rendered import mentioned
from llm.data.layouts.tools import beside_text

__all__ = [
    "LAYOUTS", "Columns", "Comparison", "Dropped", "Lacking", "Layout", "Malformed", "Message", "Pair", "Undecided",
    "check", "finished", "known_layouts", "layout_of", "mentioned", "number", "prompt_alone", "unless_nan",
]  # fmt: skip

_PLAIN = tuple(map(labelled, (canonical.BINARIZED, canonical.CANONICAL, canonical.TRL, trl_implicit.LAYOUT)))
_WHOLE = tuple(map(labelled, (transcripts.RENDERED, transcripts.HH_RLHF)))
_PUBLISHED = (
    unified_feedback.LAYOUT, ultrafeedback.LAYOUT, helpsteer2.LAYOUT, helpsteer2.PREFERENCE, safe_rlhf.LAYOUT,
    shp.LAYOUT, webgpt.LAYOUT, rankings.NECTAR, alpaca_farm.LAYOUT,
    reward_bench_2.LAYOUT, reward_bench.LAYOUT, rm_bench.LAYOUT, hhh_alignment.LAYOUT, mt_bench.LAYOUT,
    judge_bench.LAYOUT, arena.LAYOUT, arena.WINNERS, step_dpo.LAYOUT,
)  # fmt: skip
_TOOLS = (
    openai.LAYOUT, argilla.LAYOUT, unpaired.LAYOUT, alpaca.LAYOUT, sharegpt.LAYOUT, orca.LAYOUT,
    rankings.LISTS,
)  # fmt: skip
# Whole conversations before the layouts of a question, the plain layouts last: their columns are part of some others.
LAYOUTS = tuple(finished(layout) for layout in (*_PUBLISHED, *_WHOLE, *_TOOLS, *_PLAIN))
_COMMON = {"prompt", "question", "instruction", "input", "chosen", "rejected", "id", "source", "label"}


def layout_of(columns: Columns) -> Layout | None:
    """Return the layout of a record, or None.

    Raises:
        Dropped: The columns of a known layout are there, but one is null here: the next record must decide.
    """
    return next((layout for layout in LAYOUTS if layout.fits(columns)), None)


def known_layouts(columns: Columns) -> str:
    """The layouts for a record that fits none: the plain ones and those that share a column with it, then names."""
    names = [name for name in columns if name and name not in _COMMON]

    def near(layout: Layout) -> bool:
        return any(re.search(rf"\b{re.escape(name)}\b", layout.shape) for name in names)

    plain, others = (*_PLAIN[1:], *_WHOLE), (*_PUBLISHED, *_TOOLS)
    told = [*(layout for layout in plain if layout.shape), *filter(near, (_PLAIN[0], *others))]
    untold = ", ".join(layout.name for layout in others if layout not in told)
    return "; ".join([*(f"{layout.name} {layout.shape}" for layout in told), f"and {untold}"])


def check(comparison: Comparison) -> None:
    """Let only comparisons pass that can be trained on.

    Raises:
        Dropped: The prompt or an answer is empty, the answers are equal, or the text is not valid Unicode.
    """
    prompt, chosen, rejected = comparison[:3]
    if not any(message["content"].strip() for message in prompt):
        raise Dropped("empty prompt")
    if not chosen.strip() or not rejected.strip():
        raise Dropped("empty answer")
    if chosen.strip() == rejected.strip():
        raise Dropped("chosen equals rejected")
    try:
        "".join((chosen, rejected, *(message["content"] for message in prompt))).encode()
        json.dumps([beside_text(message) for message in prompt], ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate from a \ud83d escape: no tokenizer takes it
        raise Dropped("text is not valid Unicode") from None
