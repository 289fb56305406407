"""What did not fit, and what tokens do not show: counted pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.text.encoding import Seen


@dataclass
class Truncation:
    """What did not fit into ``max_length``, and what the tokens do not show.

    Attributes:
        pairs: Pairs encoded.
        prompts_cut: Pairs whose prompt lost tokens.
        prompts_absent: Pairs that show nothing of their prompt but its frame.
        answers_cut: Answers that lost tokens, out of ``2 * pairs``.
        tokens_cut: Tokens lost altogether.
        left_out: Why pairs were left out -> how many.
        lost: What chat templates leave out of prompts ("system", "thoughts", "tool_calls", "tools", "turn") -> pairs.
    """

    pairs: int = 0
    prompts_cut: int = 0
    prompts_absent: int = 0
    answers_cut: int = 0
    tokens_cut: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    def add(self, seen: Seen) -> None:
        """Count a pair; of one that is left out, why alone."""
        if seen.reason or seen.item is None:
            self.left_out[seen.reason] = self.left_out.get(seen.reason, 0) + 1
            return
        self.pairs += 1
        self.prompts_cut += seen.item["window"].cut > 0
        self.prompts_absent += seen.absent
        self.answers_cut += seen.answers_cut
        self.tokens_cut += seen.tokens_cut
        for what in seen.lost:
            self.lost[what] = self.lost.get(what, 0) + 1
