"""What an audit found, as one value, and as plain dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..data.overview import Cases
from ..run.files import JsonObject

SHARE_WHOLE = 0.95
"""Share of the prompts that is whole at ``Audit.length``."""


@dataclass(frozen=True)
class Identical:
    """Pairs of one file whose two sequences are the same, which nothing can be learned from or be judged by.

    Attributes:
        cases: How many, and which.
        pairs: Pairs of the file.
        by_category: Name -> how many of them, and of how many pairs; only where there are some.
        by_source: The same.
    """

    cases: Cases = field(default_factory=Cases)
    pairs: int = 0
    by_category: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    by_source: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def record(self) -> dict[str, object]:
        """As plain dictionaries."""
        parts = {"category": self.by_category, "source": self.by_source}
        return {
            **self.cases.record(),
            "pairs": self.pairs,
            **{
                f"by_{name}": {key: {"count": n, "pairs": of} for key, (n, of) in found.items()}
                for name, found in parts.items()
            },
        }


@dataclass(frozen=True)
class Audit:
    """What a model sees of the pairs of one file; counts are of pairs, with the ids of the first ones.

    Attributes:
        file: Its name.
        max_length: Tokens that are read of a sequence.
        pairs: All that are usable.
        prompt_whole_both: The whole prompt is read before both answers.
        prompt_cut: A part of the prompt is not read,
        prompt_absent: and these show nothing of it but its frame.
        same_window: Both answers are read after the same tokens.
        answers_cut: An answer, or both, lost tokens.
        token_identical: The two sequences are the same.
        unknown_token_share: Of the tokens that are read, those that stand for anything unknown.
        special_token_text: A text reads like a special token, of this tokenizer or of a common chat format.
        double_framing: The pair is rendered already, and the template frames it once more.
        system_lost: The chat template leaves a system turn out, or refuses it.
        thoughts_lost: It leaves thoughts out of earlier answers, or out of one that is compared: then the pair is.
        tool_calls_lost: It leaves calls of tools out, or their definitions.
        ignored_columns: Columns with text that were not read -> records with text there.
        duplicates: The same prompt and answers stand earlier.
        contradictions: Comparisons that are labelled both ways.
        negative_margins: The rejected answer is rated better.
        longer_wins: Share in which the chosen answer is the longer one; equal lengths count one half.
        sources: Name -> pairs.
        prompts: Different ones.
        overlap: Suite -> "pairs" and "prompts" that are in training, too -> "exact" and "near".
        suites: Suite -> its token-identical pairs.
        left_out: Why other pairs are not read -> how many.
        groups: Column -> number and sizes of its groups, see ``llm.audit.groups``.
        length: The least ``max_length`` at which SHARE_WHOLE of the prompts are whole; None where none is read.
    """

    file: str
    max_length: int
    pairs: Cases
    prompt_whole_both: Cases
    prompt_cut: Cases
    prompt_absent: Cases
    same_window: Cases
    answers_cut: Cases
    token_identical: Identical
    unknown_token_share: float
    special_token_text: Cases
    double_framing: Cases
    system_lost: Cases
    thoughts_lost: Cases
    tool_calls_lost: Cases
    ignored_columns: Mapping[str, int]
    duplicates: Cases
    contradictions: Cases
    negative_margins: Cases
    longer_wins: float
    sources: Mapping[str, int]
    prompts: int
    overlap: Mapping[str, Mapping[str, Mapping[str, Cases]]]
    suites: Mapping[str, Identical] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, JsonObject] = field(default_factory=dict)
    length: int | None = None

    def as_json(self) -> JsonObject:
        """The counts as plain dictionaries: ``{"count": n, "examples": [ids]}``; shares as numbers."""
        return {
            **{name: getattr(self, name).record() for name in CASES},
            "pairs": self.pairs.record() | {"max_length": self.max_length},
            "token_identical": self.token_identical.record()
            | {"by_file": {self.file: self.token_identical.cases.count}}
            | {"by_suite": {name: found.record() for name, found in self.suites.items()}},
            "unknown_token_share": self.unknown_token_share,
            "ignored_columns": _names(self.ignored_columns) | {"records": dict(self.ignored_columns)},
            "longer_wins": self.longer_wins,
            "sources": _names(self.sources) | {"pairs": dict(self.sources), "groups": dict(self.groups)},
            "prompts": {"count": self.prompts, "whole_at": {"share": SHARE_WHOLE, "max_length": self.length}},
            "overlap": {
                name: {what: {how: cases.record() for how, cases in found.items()} for what, found in parts.items()}
                for name, parts in self.overlap.items()
            },
        }  # fmt: skip


CASES = (
    "pairs", "prompt_whole_both", "prompt_cut", "prompt_absent", "same_window", "answers_cut", "special_token_text",
    "double_framing", "system_lost", "thoughts_lost", "tool_calls_lost", "duplicates", "contradictions",
    "negative_margins",
)  # fmt: skip
"""Attributes of an audit that are counts of pairs."""


def _names(found: Mapping[str, int]) -> dict[str, object]:
    return {"count": len(found), "examples": list(found)[:3]}
