"""Arithmetic in characters, whose one right answer is known: a policy's pass rate is the probability of that text."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SIGNS = "_;=0123456789+-*cr"
"""The vocabulary: padding, the end of an answer, and what prompts are written in."""
PAD, END = 0, 1
WIDTH, LONGEST = 7, 5
"""Characters of a prompt, padded in front, and of an answer with its end."""
MIXTURE = (0.15, 0.2, 0.25, 0.25, 0.15)

Maker = Callable[[np.random.Generator], tuple[str, str]]


def _copy(rng: np.random.Generator) -> tuple[str, str]:
    digits = f"{rng.integers(100, 1000)}"
    return f"c{digits}=", digits


def _reverse(rng: np.random.Generator) -> tuple[str, str]:
    digits = f"{rng.integers(100, 1000)}"
    return f"r{digits}=", digits[::-1]


def _small(rng: np.random.Generator) -> tuple[str, str]:
    a, b = int(rng.integers(10, 100)), int(rng.integers(0, 10))
    return f"{a}+{b}=", f"{a + b}"


def _large(rng: np.random.Generator) -> tuple[str, str]:
    a, b = (int(one) for one in rng.integers(10, 100, 2))
    return f"{a}+{b}=", f"{a + b}"


def _product(rng: np.random.Generator) -> tuple[str, str]:
    a, b = int(rng.integers(10, 50)), int(rng.integers(2, 10))
    return f"{a}*{b}=", f"{a * b}"


SOURCES: dict[str, Maker] = {
    "copied": _copy, "reversed": _reverse, "small sums": _small, "large sums": _large, "products": _product,
}  # fmt: skip


class Tasks(NamedTuple):
    """Prompts with their answers.

    Attributes:
        prompts: Tokens ``(n, WIDTH)``.
        answers: Tokens ``(n, LONGEST)``, padded after the end.
        source: Places in SOURCES, ``(n,)``.
    """

    prompts: Tensor
    answers: Tensor
    source: np.ndarray


def encoded(text: str, width: int, *, front: bool) -> list[int]:
    """Tokens of a text, padded in front or behind."""
    padded = text.rjust(width, SIGNS[PAD]) if front else text.ljust(width, SIGNS[PAD])
    return [SIGNS.index(sign) for sign in padded]


def tasks(rng: np.random.Generator, count: int, *, without: Collection[str] = (), again: bool = False) -> Tasks:
    """``count`` tasks in the shares of MIXTURE.

    Args:
        rng: Where they come from.
        count: How many; 300 of each of two sets are there without repetition, not many more.
        without: Prompts that are left out.
        again: Whether a task may be there more than once.
    """
    counts = np.diff(np.round(np.cumsum([0.0, *MIXTURE]) * count)).astype(int)
    made: list[tuple[str, str, int]] = []
    for place, (maker, wanted) in enumerate(zip(SOURCES.values(), counts, strict=True)):
        seen, first = set(without), len(made)
        while len(made) - first < wanted:
            prompt, answer = maker(rng)
            if prompt not in seen:
                made.append((prompt, answer + SIGNS[END], place))
                seen |= set() if again else {prompt}
    prompts, answers, source = zip(*made, strict=True)
    return Tasks(
        torch.tensor([encoded(one, WIDTH, front=True) for one in prompts]),
        torch.tensor([encoded(one, LONGEST, front=False) for one in answers]),
        np.array(source),
    )


def texts(part: Tasks) -> set[str]:
    """The prompts as they are written."""
    return {"".join(SIGNS[token] for token in row).lstrip(SIGNS[PAD]) for row in part.prompts.tolist()}
