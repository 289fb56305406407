"""Did the model see the pairs as they stand in their file? What was cut, and what an audit of a finished run found."""

from __future__ import annotations

from collections.abc import Callable

from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord

SUBJECTS = {  # beside answers that were cut, which runs without an audit know of, too
    "prompts that the model saw": ("prompt_absent", "prompt_cut"),
    "pairs that can be told apart": ("token_identical", "suite_identical"),
    "what the chat template leaves out": ("system_lost", "thoughts_lost", "tool_calls_lost"),
    "texts as the tokenizer reads them": ("unknown_token_share", "special_token_text", "double_framing"),
    "what the labels say": ("duplicates", "contradictions", "negative_margins", "longer_wins"),
    "suites apart from the training pairs": ("overlap",),
}


def seen_as_they_stand(*subjects: str) -> Callable[[RunRecord], Verdict]:
    """A check of these subjects of an audit."""

    def examine(run: RunRecord) -> Verdict:
        if run.concerns is None:
            return Unchecked("what the model saw of its pairs is not recorded")
        found = [concern for concern in run.concerns if concern["subject"] in subjects]
        if not found:
            return None
        title, evidence, remedy = (
            "; ".join(dict.fromkeys(concern[part] for concern in found)) for part in ("title", "evidence", "remedy")
        )
        return Finding(Severity.WARNING, title, evidence, remedy)

    return examine


def answers_cut(run: RunRecord) -> Verdict:
    """Answers longer than ``max_length``, of the pairs that were trained on, else of all."""
    cut = run.truncation
    if not cut.get("pairs"):
        return Unchecked("what was cut is known of finished runs only")
    share, limit = cut["answers_cut"] / (2 * cut["pairs"]), run.config.get("max_length")
    if share < 0.01:
        return None if run.concerns is None else seen_as_they_stand("answers_cut")(run)
    return Finding(
        Severity.PROBLEM if share >= 0.1 else Severity.WARNING,
        "answers were cut",
        f"{cut['answers_cut']} of {2 * cut['pairs']} answers ({share:.0%}) are longer than max_length {limit} and lost "
        "their end",
        "raise max_length as far as the model reads, or leave such pairs out",
    )
