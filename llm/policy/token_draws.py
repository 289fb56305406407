"""Which token is drawn: a function of the logits and of (seed, purpose, step, prompt, sample, token), nothing else.

``generate`` draws from torch's global generator, so that a row's answer depends on its batch mates, on how many there
are and on the process. Here every token of every answer has a uniform number of its own, and is where the cumulative
probabilities reach that number. What is left of a batch in an answer is the rounding of its logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor


class Purpose(Enum):
    """What answers are for: each has numbers of its own."""

    TRAINING = 0
    EVALUATION = 1
    BEST_OF_N = 2


@dataclass(frozen=True)
class Lots:
    """The uniform numbers of one rollout.

    Attributes:
        seed: Of the run.
        purpose: What the answers are for.
        step: Of the training; 0 elsewhere.
    """

    seed: int
    purpose: Purpose
    step: int = 0

    def of(self, prompt: int, sample: int, tokens: int) -> NDArray[np.float64]:
        """Numbers in [0, 1) for the first ``tokens`` tokens of one answer, ``(tokens,)``.

        Args:
            prompt: Its position among all prompts, wherever and with whichever others it is asked.
            sample: Which of the answers to it.
            tokens: More of them change none.
        """
        key = np.array([self.seed % 2**64, self.purpose.value], dtype=np.uint64)
        counter = np.array([0, sample, prompt, self.step], dtype=np.uint64)  # Philox counts the first word up
        bits = np.random.Philox(key=key, counter=counter)
        return np.random.Generator(bits).random(tokens)

    def seed_of(self, prompt: int) -> int:
        """A seed of at most 53 bits for all answers to a prompt, for whoever draws by a generator of its own."""
        told = [self.seed % 2**64, self.purpose.value, self.step, prompt]
        return int(np.random.SeedSequence(told).generate_state(1, np.uint64)[0] >> np.uint64(11))


class Draws(LogitsProcessor):
    """Draws the next token of every row and leaves ``generate`` no other choice.

    Args:
        numbers: Uniform, one per row and token, float64 ``(n, tokens)``.
        start: Columns before the first token.
        temperature: Logits are divided by it.
        top_p: Below 1, only the smallest set of that mass is drawn from.

    Attributes:
        tokens: What was drawn, ``(n,)`` per token so far.
        logps: Their log-probabilities in nats, before anything is cut off by ``top_p``, ``(n,)`` per token.
    """

    def __init__(self, numbers: Tensor, *, start: int, temperature: float, top_p: float) -> None:
        self.numbers, self.start, self.temperature, self.top_p = numbers, start, temperature, top_p
        self.tokens: list[Tensor] = []
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Zero at the drawn token and -inf elsewhere, ``(n, vocabulary)``."""
        probabilities = (scores.to(self.numbers.dtype) / self.temperature).softmax(dim=-1)
        kept = probabilities if self.top_p == 1 else _nucleus(probabilities, self.top_p)
        token = _reached(kept, self.numbers[:, input_ids.shape[1] - self.start])
        self.tokens.append(token)
        self.logps.append(probabilities.gather(1, token[:, None])[:, 0].log())
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


def _reached(masses: Tensor, numbers: Tensor) -> Tensor:
    """The first token of each row at which the sum of ``masses`` exceeds that share of the whole, ``(n,)``.

    Single precision can round a number to one, and a sum over many processors can step where a mass is zero: then the
    likeliest token stands in for one that has no mass.
    """
    sums = masses.cumsum(dim=-1)
    aims = numbers[:, None] * sums[:, -1:]
    found = torch.searchsorted(sums, aims, right=True).clamp(max=masses.shape[1] - 1)
    return torch.where(masses.gather(1, found) > 0, found, masses.argmax(dim=-1, keepdim=True))[:, 0]


def _nucleus(probabilities: Tensor, mass: float) -> Tensor:
    """Zero outside the smallest set of likeliest tokens that holds ``mass``."""
    sorted_, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = sorted_.cumsum(dim=-1) - sorted_
    return torch.zeros_like(probabilities).scatter(1, order, sorted_.where(before < mass, 0.0))
