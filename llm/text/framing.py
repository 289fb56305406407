"""Token ids of a conversation: its texts, the special tokens around them, and the room between.

Truncation. The answer is kept whole and the prompt loses its beginning, because what the answer replies to
stands at the end. An answer too long by itself keeps its beginning, and the prompt goes altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llm.data.pairs import Message
from llm.text.rendering import Texts


class Frame(NamedTuple):
    """The special tokens around one sequence."""

    prefix: list[int]
    suffix: list[int]

    def room(self, max_length: int) -> int:
        """How many tokens fit between them.

        Raises:
            ValueError: None do.
        """
        room = max_length - len(self.prefix) - len(self.suffix)
        if room < 1:
            raise ValueError(
                f"max_length includes the {max_length - room} special tokens of this tokenizer and must be "
                f"at least {max_length - room + 1}, got {max_length}; use 128 or more for real text."
            )
        return room


class Ids(NamedTuple):
    """Tokens of a prompt and an answer, none of them special."""

    prompt: list[int]
    answer: list[int]


def tokenised(batch: Sequence[tuple[Texts, ...]], tokenizer: Any) -> list[list[Ids]]:
    """Return (prompt, answer) ids for the sequences of every group; equal texts are tokenised once."""
    unique = list(dict.fromkeys(text for group in batch for texts in group for text in texts))
    ids = dict(zip(unique, token_ids(tokenizer, unique), strict=True))
    return [[Ids(ids[prompt], ids[answer]) for prompt, answer in group] for group in batch]


def token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids of every text without special tokens."""
    # verbose=False: a warning about texts longer than the model, which are truncated here anyway
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return encoded["input_ids"]


def frame_of(tokenizer: Any) -> Frame:
    """Learn the special tokens around one sequence from the tokenizer itself.

    They are what it adds around a probe. A beginning that only the chat template writes counts too. Where
    nothing is added at the end, the end-of-sequence token is: a causal classifier reads its score off the
    last token, which is then the same one for every text, cut or not (if it also pads, the last before it is read).
    """
    prefix, suffix = next(filter(None, (_around(tokenizer, probe) for probe in "a0.")), ([], []))
    if not prefix and tokenizer.chat_template and tokenizer.bos_token:
        chat: list[Message] = [{"role": "user", "content": "a"}]
        if tokenizer.apply_chat_template(chat, tokenize=False).startswith(tokenizer.bos_token):
            prefix = [tokenizer.bos_token_id]
    if not suffix and tokenizer.eos_token_id is not None:
        suffix = [tokenizer.eos_token_id]
    return Frame(prefix, suffix)


def _around(tokenizer: Any, probe: str) -> tuple[list[int], list[int]] | None:
    """Return the ids before and after ``probe`` in its full encoding, or None where it has no tokens."""
    (bare,), full = token_ids(tokenizer, [probe]), tokenizer(probe)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return None


class Joined(NamedTuple):
    """A sequence, special tokens included, and where its answer stands: first position, one past the last."""

    ids: list[int]
    span: tuple[int, int]


def joined(prompt: list[int], answer: list[int], frame: Frame, room: int) -> Joined:
    """One sequence, and the span of its answer: a policy must not learn to end where an answer was cut."""
    kept = answer[:room]
    start = max(0, len(prompt) - (room - len(kept)))
    sequence = [*frame.prefix, *prompt[start:], *kept, *frame.suffix]
    first = len(frame.prefix) + len(prompt) - start
    return Joined(sequence, (first, len(sequence) if len(kept) == len(answer) else first + len(kept)))
