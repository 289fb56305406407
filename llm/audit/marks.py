"""Texts of the data that look like what chat templates write."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..data.pairs import Pair
from ..text.rendering import Renderer

# Of common chat formats: a text with one of them may have been rendered once already.
_KNOWN = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<|begin_of_text|>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "[INST]",
    "[/INST]", "<<SYS>>",
)  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, _KNOWN)))
_TURN = (
    r"(?:<s>\s*)?(?:<\|im_start\|>|<\|start_header_id\|>|<\|begin_of_text\|>|<start_of_turn>|\[INST\]|"
    r"<\|(?:user|system|assistant)\|>|###\s?(?:Instruction|System|Human|User)\b|(?:Human|User|Assistant|System):\s)"
)
_WAITS = (
    r"(?:<\|im_start\|>\s*assistant|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<start_of_turn>\s*model|"
    r"\[/INST\]|<\|assistant\|>|###\s?(?:Response|Assistant|Output)\s*:?|(?:Assistant|AI|Model):)"
)
_RENDERED = re.compile(rf"\s*{_TURN}.*{_WAITS}\s*", re.DOTALL)
_OPENED = re.compile(rf"\s*{_WAITS}")
_WORDS = 3  # a prompt shorter than this may well begin both answers


def special(pair: Pair, renderer: Renderer) -> bool:
    """Whether a text of a pair reads like a special token, of this tokenizer or of a common chat format."""
    texts = [*(message["content"] for message in pair.prompt), pair.chosen, pair.rejected]
    return any(_SPECIAL.search(text) or next(renderer.matches(text), None) for text in texts)


def framed_twice(pair: Pair) -> bool:
    """Whether a pair brings a frame of its own, around which the chat template writes another.

    A message holds a whole rendered chat (it begins with a turn's marker and ends where an answer must come), or both
    answers begin with an assistant's marker, or with the whole prompt.
    """
    return any(_RENDERED.fullmatch(message["content"]) for message in pair.prompt) or _both_begin(
        (pair.chosen, pair.rejected), pair.prompt[-1]["content"].strip() if pair.prompt else ""
    )


def _both_begin(answers: Sequence[str], prompt: str) -> bool:
    if all(_OPENED.match(answer) for answer in answers):
        return True
    return len(prompt.split()) >= _WORDS and all(answer.lstrip().startswith(prompt) for answer in answers)
