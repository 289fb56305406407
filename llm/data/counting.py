"""What counts as right and what as independent: one rule each, for training, evaluations, reports and sweeps.

A pair is right where the model gives its chosen answer the higher score, and wrong where it gives it the lower one. A
tie says nothing and counts one half, so that a model that cannot tell answers apart, a policy against itself say, has
the 50 % of a coin. Ties are counted beside every accuracy, because a coin's 50 % and a tie's look the same.

Pairs about one prompt are judged alike, so they are no independent draws: intervals treat them as one unit, as they do
pairs that name one ``question_id``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .pairs import Pair

RULE = "a tie counts one half"
EARLIER_RULE = "a tie counts as an error, as in versions before ties counted one half"


def credit(margins: ArrayLike) -> NDArray[np.float64]:
    """What every margin earns, of its shape: 1 above 0, 1/2 at 0, 0 below; nan stays nan.

    >>> credit([2.0, 0.0, -0.5]).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.heaviside(np.asarray(margins, dtype=np.float64), 0.5)


def ties(margins: ArrayLike) -> int:
    """How many margins are exactly 0.

    >>> ties([2.0, 0.0, -0.5])
    1
    """
    return int(np.sum(np.asarray(margins) == 0))


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


def asked(chat: Sequence[Any]) -> str:
    """A chat as text that is equal where chats are; "" where nothing is asked."""
    return json.dumps(list(chat)) if any(message["content"].strip() for message in chat) else ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
