"""The judge: holds every answer of a cell against the true value, and writes one record for each contestant."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import references
from contestants import Contestant, entries
from race import Cell, Effort, Lane, draw_losses, lane, take_turns

_ROWS = 32  # problems of a batch whose answers are checked


def _as_numpy(part: Any) -> np.ndarray:
    return np.asarray(part.detach().cpu().double() if hasattr(part, "detach") else part)


def _rows(runner: Lane, cell: Cell) -> Iterator[tuple[int, Any, Any]]:
    """Yield row number, value and weights of some problems of a cell."""
    answer = runner.answer
    problems = cell.problems(runner.contestant)
    step = max(1, problems // _ROWS)
    if isinstance(answer, list):
        yield from ((row, *answer[row]) for row in range(0, problems, step))
    elif cell.batch == 1:
        yield 0, *answer  # pyright: ignore
    else:
        value, weights = answer  # pyright: ignore
        for row in range(0, problems, step):
            yield row, None if value is None else value[row], None if weights is None else weights[row]


class Judge:
    """Holds the answers of one cell against the true values, each found once."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.ambiguity = cell.race.ambiguity(cell.n)
        self.truths: dict[tuple[str, int], np.longdouble] = {}

    def _truth(self, exact: np.ndarray, row: int, dtype: str) -> np.longdouble:
        if (dtype, row) not in self.truths:
            self.truths[dtype, row] = self.cell.race.truth(exact, self.ambiguity)
        return self.truths[dtype, row]

    def error(self, runner: Lane, losses: np.ndarray) -> float:
        """Return the largest relative error of the values returned, and of those the weights achieve."""
        worst = 0.0
        for row, value, weights in _rows(runner, self.cell):
            exact = losses[row].astype(np.float64)
            truth = self._truth(exact, row, runner.dtype)
            found = [] if value is None else [float(_as_numpy(value))]
            if weights is not None:
                read = runner.contestant.read
                q = read(weights, exact) if read else _as_numpy(weights)
                found.append(references.objective(exact, q, self.ambiguity))
            worst = max([worst, *(float(abs((one - truth) / truth)) for one in found)], key=_badness)
        return worst


def _badness(number: float) -> float:
    return math.inf if math.isnan(number) else number


class Pace:
    """What each contestant took before, to tell which cells would take too long."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, ...], dict[int, float]] = {}

    def _times(self, contestant: Contestant, dtype: str) -> dict[int, float]:
        return self.seen.setdefault((contestant.name, contestant.library, dtype), {})

    def note(self, runner: Lane, cell: Cell) -> None:
        """Remember the time of a cell, infinite where a solver stopped at its own time limit."""
        stopped = runner.failure is not None and "limit" in runner.failure
        size = cell.problems(runner.contestant) * cell.n
        self._times(runner.contestant, runner.dtype)[size] = (
            math.inf if stopped else min([runner.first, *runner.samples])
        )

    def too_slow(self, contestant: Contestant, cell: Cell, dtype: str, limit: float) -> str | None:
        """Say why a cell is not run, if at linear growth from an earlier one a call takes over the limit."""
        size = cell.problems(contestant) * cell.n
        times = self._times(contestant, dtype)
        before = max((seen for seen in times if seen <= size), default=None)
        if before is None or times[before] * size / before <= limit:
            return None
        told = "stopped" if math.isinf(times[before]) else f"{times[before]:.2g} s"
        return f"not run: {told} at {before:,} losses, over {limit:g} s expected"


def run_cell(cell: Cell, effort: Effort, pace: Pace) -> list[dict[str, Any]]:
    """Race everybody in one cell; return one record for each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a peer's warnings do not change its answer
        records, runners = [], []
        drawn = {dtype: draw_losses(cell.batch, cell.n, dtype) for dtype in ("float64", "float32")}
        for contestant in _starters(cell):
            for dtype in () if contestant.missing() else contestant.dtypes:
                reason = pace.too_slow(contestant, cell, dtype, effort.limit)
                if reason:
                    records.append(_record(cell, contestant, dtype, skipped=reason))
                else:
                    runners.append(lane(contestant, cell, drawn[dtype]))
        take_turns(runners, cell.device, effort)
        judge = Judge(cell)
        for runner in runners:
            if math.isfinite(runner.first):
                pace.note(runner, cell)
            records.append(_result(judge, runner, drawn[runner.dtype]))
    return records


def _starters(cell: Cell) -> list[Contestant]:
    """Everybody who can run the cell: only torch has gradients and devices; floors and loops run forward."""
    found = entries(cell.race, batch=cell.batch)
    if cell.gradient or cell.device != "cpu":
        found = [one for one in found if one.library == "torch"]
    return [one for one in found if one.kind in ("ours", "peer")] if cell.gradient else found


def _record(cell: Cell, contestant: Contestant, dtype: str, **result: Any) -> dict[str, Any]:
    return {
        "set": cell.race.name,
        "batch": cell.batch,
        "n": cell.n,
        "mode": "backward" if cell.gradient else "forward",
        "device": cell.device,
        "who": contestant.name,
        "kind": contestant.kind,
        "library": contestant.library,
        "dtype": dtype,
        **result,
    }


def _result(judge: Judge, runner: Lane, losses: np.ndarray) -> dict[str, Any]:
    """Turn a lane into a record: median and quartiles of the seconds for the cell, and the error."""
    cell = judge.cell
    if runner.failure is not None:
        return _record(cell, runner.contestant, runner.dtype, failed=runner.failure)
    share = cell.problems(runner.contestant) / cell.batch
    low, median, high = np.quantile(runner.samples, [0.25, 0.5, 0.75]) / share
    result = {"seconds": _short(median), "quartiles": [_short(low), _short(high)], "samples": len(runner.samples)}
    if runner.contestant.kind != "floor":
        wrong = judge.error(runner, losses)
        result["error"] = _short(wrong) if math.isfinite(wrong) else str(wrong)
    return _record(cell, runner.contestant, runner.dtype, **result)


def _short(number: float) -> float:
    return float(f"{number:.3g}")
