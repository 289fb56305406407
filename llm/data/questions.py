"""Which pairs depend on each other.

Pairs about one prompt are judged alike, so they are no independent draws: intervals treat them as one unit, as they do
pairs that name one ``question_id``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

from .layouts.base import Message
from .pairs import Pair


def questions(pairs: Sequence[Pair]) -> list[str | None]:
    """What makes pairs depend on each other: the question they name, else the prompt they share; None: nothing does.

    A pair that names no question belongs to that of the first pair with its prompt. Empty prompts are not shared.
    """
    prompts = [asked(pair.prompt) for pair in pairs]
    named: dict[str, str] = {}
    for pair, prompt in zip(pairs, prompts, strict=True):
        if prompt and pair.question_id:
            named.setdefault(prompt, pair.question_id)
    counts = Counter(prompts)
    own = {prompt: _short(prompt) for prompt, count in counts.items() if prompt and count > 1}
    return [
        pair.question_id or named.get(prompt) or own.get(prompt) for pair, prompt in zip(pairs, prompts, strict=True)
    ]


def asked(chat: Sequence[Message]) -> str:
    """A chat as text that is equal where chats are; "" where nothing is asked."""
    return json.dumps(list(chat)) if any(message["content"].strip() for message in chat) else ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
