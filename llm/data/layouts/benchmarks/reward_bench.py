"""allenai/reward-bench: its subset becomes the source, its section the category."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, answer, field, having, question

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


def _read(columns: Columns) -> Iterator[Comparison]:
    subset = answer(columns, "subset")
    yield Comparison(
        question(answer(columns, "prompt")),
        answer(columns, "chosen"),
        answer(columns, "rejected"),
        id=numbered(subset, columns),
        source=subset,
        category=_SECTION.get(subset, subset),
    )


def numbered(subset: str, columns: Columns) -> str:
    """What names a record: its id inside its subset."""
    return f"{subset}/{field(columns, 'id')}"


LAYOUT = Layout(
    "reward-bench",
    "{prompt, chosen, rejected, chosen_model, rejected_model, subset, id}",
    having("prompt", "chosen", "rejected", "chosen_model", "rejected_model", "subset", "id"),
    _read,
)
