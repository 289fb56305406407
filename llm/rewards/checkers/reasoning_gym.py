"""``reasoning-gym``: the verifier of the generator that a prompt of ``task:reasoning-gym/...`` came from.

Its score lies in [0, 1]; an answer that it cannot parse has 0. What is judged stands inside the last ``<answer>`` tags,
else it is the whole answer without the spaces at its ends.
"""

from __future__ import annotations

from functools import lru_cache

from ...tasks.address import TaskAddress, TaskError
from ...tasks.reasoning_gym import library, opened
from ..names import RewardError
from .base import Checker, Row, said

OPTIONS: dict[str, object] = {}
ARGUMENT = False


def checker() -> Checker:
    """The score that the prompt's own generator gives.

    Raises:
        RewardError: The package reasoning-gym is missing.
    """
    made = lru_cache(maxsize=256)(lambda task: opened(TaskAddress.of(task)))
    try:
        library()
    except TaskError as error:
        raise RewardError(str(error)) from error

    def score(text: str, row: Row) -> float:
        generator = made(row["task"])
        entry = generator[int(row["index"])]
        try:
            return float(generator.score_answer(said(text).strip(), entry=entry))
        except Exception:  # verifiers parse what should be there: what they trip over is no right answer
            return 0.0

    def lacks(row: Row) -> str | None:
        if not str(row.get("task", "")).startswith("task:reasoning-gym/") or row.get("index") is None:
            return "no `task` and `index` of reasoning-gym"
        try:
            made(row["task"])
        except TaskError:
            return "no generator of reasoning-gym in `task`"
        return None

    return Checker(score, lacks)
