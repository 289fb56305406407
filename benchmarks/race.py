"""The clock: contestants take turns on the same losses."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from contestants import Contestant, Race
from peers import TIME_LIMIT

SAMPLE = 1e-3  # seconds one sample lasts at least; faster calls are repeated inside it
_LOOPED = 64  # problems of a batch that a contestant without batches solves; its time is scaled up to all


@dataclass(frozen=True)
class Effort:
    """How long to look: rounds of taking turns, seconds for one contestant in one cell, seconds for one call."""

    rounds: int
    seconds: float
    limit: float = TIME_LIMIT


FULL, QUICK = Effort(rounds=15, seconds=0.3), Effort(rounds=3, seconds=0.01, limit=0.2)


@dataclass(frozen=True)
class Cell:
    """What is raced: a set, a batch of problems of n scenarios, forward or forward and backward, on a device."""

    race: Race
    batch: int
    n: int
    gradient: bool = False
    device: str = "cpu"

    def problems(self, contestant: Contestant) -> int:
        """How many problems of the batch a contestant solves."""
        return self.batch if contestant.batched else min(self.batch, _LOOPED)


@dataclass
class Lane:
    """One contestant in one cell."""

    contestant: Contestant
    dtype: str
    call: Callable[[], Any]
    first: float = math.inf
    answer: Any = None
    failure: str | None = None
    repeats: int = 1
    rounds: int = 0
    samples: list[float] = field(default_factory=list)


def draw_losses(batch: int, n: int, dtype: str) -> np.ndarray:
    """Return softplus of minus N(1, 4) margins, ``(batch, n)``: the preference losses of a half-trained model."""
    margins = 1 + 2 * np.random.default_rng([batch, n]).standard_normal((batch, n))
    return np.logaddexp(0.0, -margins).astype(dtype)


def _native(losses: np.ndarray, cell: Cell, library: str) -> Any:
    """Bring losses to a library; one problem goes without a batch axis."""
    losses = losses if cell.batch > 1 else losses[0]
    if library == "numpy":
        return losses
    import torch

    return torch.tensor(losses, device=cell.device, requires_grad=cell.gradient)


def _with_gradient(solve: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any], tuple[Any, Any]]:
    """Append the backward pass; the gradient stands for the weights."""

    def step(leaf: Any) -> tuple[Any, Any]:
        leaf.grad = None
        value, weights = solve(leaf)
        (value if weights is None else (weights * leaf).sum(-1)).sum().backward()
        return value if value is None else value.detach(), leaf.grad

    return step


def _prepared(contestant: Contestant, cell: Cell, losses: np.ndarray) -> Callable[[], Any]:
    """Return the call to time: one for all problems, or one for each in a loop."""
    solve = contestant.make(cell.race.ambiguity(cell.n), cell.n, gradient=cell.gradient)
    step = _with_gradient(solve) if cell.gradient else solve
    given = _native(losses, cell, contestant.library)
    if cell.batch == 1 or contestant.batched:
        return lambda: step(given)
    rows = list(given[: cell.problems(contestant)])
    if cell.gradient:
        rows = [row.detach().requires_grad_() for row in rows]
    return lambda: [step(row) for row in rows]


def lane(contestant: Contestant, cell: Cell, losses: np.ndarray) -> Lane:
    """Prepare a contestant, outside the clock; what it raises becomes its result."""
    try:
        return Lane(contestant, str(losses.dtype), _prepared(contestant, cell, losses))
    except Exception as error:
        return Lane(contestant, str(losses.dtype), lambda: None, failure=_brief(error))


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"


def _synchronise(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def _sample(runner: Lane, device: str) -> float:
    """Return the seconds of one call; a contestant that raises is out."""
    _synchronise(device)
    start = time.perf_counter()
    try:
        for _ in range(runner.repeats):
            runner.answer = runner.call()
        _synchronise(device)
    except Exception as error:
        runner.failure, runner.rounds = _brief(error), 0
    return (time.perf_counter() - start) / runner.repeats


def _warm_up(runner: Lane, device: str, effort: Effort) -> None:
    """Call once or twice to see the pace; plan how often to call. The first call is kept only if it is very slow."""
    runner.first = _sample(runner, device)
    if runner.failure is not None or runner.first > effort.limit:
        runner.samples = [runner.first]
        return
    pace = min(_sample(runner, device) for _ in range(2 if runner.first < 0.5 else 1))
    runner.repeats = max(1, math.ceil(SAMPLE / max(pace, 1e-7)))
    least = 3 if pace < effort.limit / 5 else 1
    runner.rounds = max(least, min(effort.rounds, int(effort.seconds / max(pace, SAMPLE))))


def take_turns(runners: list[Lane], device: str, effort: Effort) -> None:
    """Time the lanes round robin, without the garbage collector."""
    for runner in runners:
        if runner.failure is None:
            _warm_up(runner, device, effort)
    gc.collect()
    gc.disable()
    try:
        for turn in range(effort.rounds):
            for runner in runners:
                if turn < runner.rounds and runner.failure is None:
                    runner.samples.append(_sample(runner, device))
    finally:
        gc.enable()
