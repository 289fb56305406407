"""Did the model see the pairs as they stand in their file? The concerns of the audit of a finished run."""

from __future__ import annotations

from collections.abc import Callable

from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord

# Answers that were cut are in ``llm.doctor.learning``, which knows them of runs without an audit, too.
SUBJECTS = {
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
