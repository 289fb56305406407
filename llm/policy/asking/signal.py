"""Groups of answers that tell nothing: all of them have the same score, so none is better than another.

Under rewards of 0 and 1 these are the prompts that every answer solves and those that none does. Their advantages are
0 by every comparison of answers. What becomes of them is a setting (``silent_groups``): they count in the mean, so that
a step is the smaller the more there are; they are left out of it; or other prompts are asked in their place, as in DAPO
(2503.14476), until the step is full or ``draw_rounds`` are over, and what is still without a signal is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.prompts import Prompt
from ..rollouts import Answer

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


class Group(NamedTuple):
    """The answers to one prompt.

    Attributes:
        row: Place of the prompt in the training set.
        answers: With their tokens.
        texts: As the scorer reads them.
        scores: ``(samples,)``.
    """

    row: int
    answers: list[Answer]
    texts: list[str]
    scores: Array

    def charged(self, penalty: float) -> Array:
        """The scores, those of answers without an end less the penalty."""
        return (
            self.scores - penalty * np.array([not answer.ended for answer in self.answers]) if penalty else self.scores
        )


class Ask(Protocol):
    """Has prompts answered and scored."""

    def __call__(self, rows: Rows, /) -> list[Group]:
        """A group for each of the training prompts ``rows``, in their order."""
        ...


def tells(scores: Array) -> NDArray[np.bool_]:
    """Which groups have answers of different scores, ``(groups,)``, of scores ``(groups, samples)``; nan tells."""
    return ~(scores.max(axis=-1) == scores.min(axis=-1))


@dataclass
class StepGroups:
    """What one rank drew for a step.

    Attributes:
        groups: Those of the step.
        all_right: How many of all that were drawn had a score of 1 or more throughout.
        all_wrong: How many had one of 0 or less.
        alike: How many had any other score throughout.
        asked: How many were drawn.
    """

    groups: list[Group]
    all_right: int = 0
    all_wrong: int = 0
    alike: int = 0
    asked: int = 0

    @property
    def rows(self) -> Rows:
        """The prompts of the step, ``(groups,)``."""
        return np.array([group.row for group in self.groups], dtype=np.int64)

    @property
    def answers(self) -> list[Answer]:
        """Those of the step, prompt by prompt."""
        return [answer for group in self.groups for answer in group.answers]

    @property
    def texts(self) -> list[str]:
        """Of these answers."""
        return [text for group in self.groups for text in group.texts]

    @property
    def scores(self) -> Array:
        """Of these answers, ``(answers,)``."""
        return np.concatenate([group.scores for group in self.groups])

    def everywhere(self, accelerator: Any) -> Rows:
        """The prompts of the step on all ranks, in rank order."""
        return accelerator.gather(torch.tensor(self.rows, device=accelerator.device)).cpu().numpy()

    def told(self, accelerator: Any) -> dict[str, float]:
        """What the log says of all ranks: groups that tell nothing, as shares of all drawn, and how many per prompt."""
        here = [self.asked, len(self.groups), self.all_right, self.all_wrong, self.alike]
        counts = accelerator.gather(torch.tensor([here], device=accelerator.device)).sum(dim=0)
        asked, prompts, *silent = counts.tolist()
        shares = zip(("all_right", "all_wrong", "all_alike"), silent, strict=True)
        return {name: count / asked for name, count in shares} | {"groups_per_prompt": asked / prompts}

    def samples(self, prompts: Sequence[Prompt], kl: Sequence[float]) -> list[dict[str, Any]]:
        """Two of the answers of the step, for the log, with their ``kl`` ``(answers,)``."""
        asked = [prompts[group.row].messages[-1]["content"] for group in self.groups for _ in group.texts]
        told = list(zip(asked, self.texts, self.scores.tolist(), kl, strict=True))
        names = ("prompt", "answer", "score", "kl")
        return [dict(zip(names, one, strict=True)) for one in told[:: max(len(told) // 2, 1)]]

    def see(self, groups: list[Group], penalty: float) -> list[bool]:
        """Count groups; which of them tell something where an answer without an end is charged the penalty."""
        told = [bool(tells(group.charged(penalty))) for group in groups]
        silent = [float(group.scores[0]) for group, says in zip(groups, told, strict=True) if not says]
        self.asked += len(groups)
        right, wrong = sum(score >= 1 for score in silent), sum(score <= 0 for score in silent)
        self.all_right, self.all_wrong = self.all_right + right, self.all_wrong + wrong
        self.alike += len(silent) - right - wrong
        return told


def draw(ask: Ask, rows: Rows, *, others: Iterator[int], rounds: int, penalty: float = 0.0) -> StepGroups:
    """The groups of a step of one rank: as many as ``rows``, those that tell something first where there is a choice.

    Args:
        ask: Has prompts answered.
        rows: The prompts of the step.
        others: Prompts to ask in place of those without a signal, in this order.
        rounds: How often others are asked, as many as are missing each time; 0: never.
        penalty: Off the score of an answer without an end.
    """
    drawn = StepGroups([])
    groups = ask(rows)
    told = drawn.see(groups, penalty)
    for _ in range(rounds):
        silent = [place for place, says in enumerate(told) if not says]
        more = [row for _, row in zip(silent, others, strict=False)]
        if not more:
            break
        fresh = ask(np.array(more, dtype=np.int64))
        for place, group, says in zip(silent, fresh, drawn.see(fresh, penalty), strict=False):
            groups[place], told[place] = group, says
    drawn.groups = groups
    return drawn
