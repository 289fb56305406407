"""Checkers by name as reward functions of TRL's trainers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..rewards.bench import bench_of
from ..rewards.names import SECONDS, RewardError, RewardPart

RewardFunction = Callable[..., list[float | None]]


def reward_function(name: str, *, seconds: float = SECONDS) -> RewardFunction:
    """A checker as TRL's trainers take reward functions: ``reward_funcs=reward_function("number")``.

    It is asked in a process of its own, with the columns of ``train_dataset`` that it wants, such as ``answer``.

    Args:
        name: Of a checker or a function, as ``reward_model`` of a policy run has it (docs/rewards.md), without a
            weight: TRL's ``reward_weights`` are its weights.
        seconds: Within which a batch must be scored.

    Returns:
        A function of prompts, completions and columns, each a list; its scores are None where an answer is not scored.

    Raises:
        RewardError: The name is none of a checker or function, or cannot be loaded.
    """
    part = RewardPart.of(name, "reward_function")
    if part.kind not in ("checker", "function") or part.weight != 1:
        raise RewardError(f"reward_function takes a checker or a function, without a weight, got {name!r}")
    bench = bench_of(part)

    def reward(prompts: Sequence[object], completions: Sequence[object], **columns: object) -> list[float | None]:
        here = {
            column: values
            for column, values in columns.items()
            if column != "completion_ids" and isinstance(values, list) and len(values) == len(prompts)
        }
        rows = [{column: values[place] for column, values in here.items()} for place in range(len(prompts))]
        return bench.scores(prompts, completions, rows, seconds)

    reward.__name__ = part.label
    return reward
