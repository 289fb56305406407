"""Layouts of evaluation sets: RewardBench 1 and 2, HHH alignment, MT-Bench's human judgements."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from llm.data.layouts.base import (
    Columns,
    Comparison,
    Dropped,
    Layout,
    Malformed,
    Undecided,
    answer,
    field,
    having,
    items,
    messages,
    number,
    question,
    unpacked,
)
from llm.data.layouts.chats import parted, spoken

# The sections of RewardBench and their subsets, as its data set card lists them.
_SECTIONS = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": (
        "mt-bench-hard", "llmbar-natural", "llmbar-adver-neighbor", "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut", "llmbar-adver-manual",
    ),
    "Safety": (
        "refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "xstest-should-respond", "donotanswer",
    ),
    "Reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}  # fmt: skip
_SECTION = {subset: section for section, subsets in _SECTIONS.items() for subset in subsets}
# Questions 81 to 160 of MT-Bench, ten of each.
_MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


def _reward_bench(columns: Columns) -> Iterator[Comparison]:
    """Read allenai/reward-bench: its subset becomes the source, its section the category."""
    subset = answer(columns, "subset")
    yield Comparison(
        question(answer(columns, "prompt")),
        answer(columns, "chosen"),
        answer(columns, "rejected"),
        id=_numbered(subset, columns),
        source=subset,
        category=_SECTION.get(subset, subset),
    )


def _reward_bench_2(columns: Columns) -> Iterator[Comparison]:
    """Read allenai/reward-bench-2: every right answer against every wrong one, all of one question.

    The ids of its subsets overlap, so a question is named by both.
    """
    subset = answer(columns, "subset")
    named = _numbered(subset, columns)
    right, wrong = items(columns, "chosen"), items(columns, "rejected")
    if not right or not wrong:
        raise Dropped("empty answer")
    prompt = question(answer(columns, "prompt"))
    for chosen, rejected in itertools.product(right, wrong):
        yield Comparison(prompt, _text(chosen), _text(rejected), id=named, category=subset, question_id=named)


def _numbered(subset: str, columns: Columns) -> str:
    return f"{subset}/{field(columns, 'id')}"


def _text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise Malformed(f"an answer should be text, found {type(value).__name__}")
    return value or ""


def _has_lists(columns: Columns) -> bool:
    """RewardBench 2 has the columns of the first one, except for the models, and lists of answers."""
    return columns.keys() >= {"prompt", "chosen", "rejected", "subset", "num_correct", "num_incorrect"}


def _labelled(columns: Columns) -> Iterator[Comparison]:
    """Read HuggingFaceH4/hhh_alignment: the choice labelled 1 against those labelled 0.

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
        yield Comparison(prompt, _text(chosen), _text(rejected), category=category)


def _judged(columns: Columns) -> Iterator[Comparison]:
    """Read lmsys/mt_bench_human_judgments: two conversations and a winner, judged at turn 1 or 2.

    Both conversations hold both turns, whatever was judged, so they are cut after the judged one. At turn 2 the
    two models answer after their own first answers: such a comparison has no common prompt and is left out.
    """
    winner = answer(columns, "winner")
    if winner.startswith("tie"):
        raise Undecided("tie")
    if winner not in ("model_a", "model_b"):
        raise Malformed(f"'winner' should be model_a, model_b or tie, found {winner!r}")
    turn = int(number(columns, "turn") or 1)
    first, second = (_up_to(turn, columns, name) for name in ("conversation_a", "conversation_b"))
    if first[:-1] != second[:-1]:
        raise Undecided("later turn: the conversations differ before the judged answer")
    better, worse = (first, second) if winner == "model_a" else (second, first)
    yield parted(better, worse)._replace(category=_mt_bench_category(columns))


def _up_to(turn: int, columns: Columns, name: str) -> tuple:
    """Return the conversation up to, and with, its answer number ``turn``."""
    turns = messages(columns, name)
    ends = [place for place, message in enumerate(turns, start=1) if message["role"] == "assistant"]
    return turns[: ends[turn - 1]] if turn <= len(ends) else turns


def _mt_bench_category(columns: Columns) -> str | None:
    try:
        number_of_question = int(columns["question_id"])
    except (KeyError, TypeError, ValueError):
        return None
    return _MT_BENCH[(number_of_question - 81) // 10] if 81 <= number_of_question <= 160 else None


LAYOUTS = (
    Layout(
        "reward-bench-2",
        "{prompt, chosen and rejected: [texts], subset, id, num_correct, num_incorrect}",
        _has_lists,
        _reward_bench_2,
    ),
    Layout(
        "reward-bench",
        "{prompt, chosen, rejected, chosen_model, rejected_model, subset, id}",
        having("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset", "id"),
        _reward_bench,
    ),
    Layout("hhh-alignment", "{input, targets: {choices, labels}}", having("input", "targets"), _labelled),
    Layout(
        "mt-bench",
        "{question_id, conversation_a and conversation_b: [messages], winner, turn}",
        having("conversation_a", "conversation_b", "winner"),
        _judged,
    ),
)
