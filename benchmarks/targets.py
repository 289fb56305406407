"""What was promised, held against what was measured: every target with met, missed or not measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gpu_results import records

Record = dict[str, Any]

USABLE = 1e-2  # a peer that errs by more does not solve the problem and is not raced against
UNCHECKED = {"kl_penalty": 3.0}  # over softmax and logsumexp, two calls that check nothing
EXACT = {"float64": 1e-9, "float32": 2.0**-23}  # a float32 answer cannot be closer than its rounding


@dataclass(frozen=True)
class Finding:
    """One target: the limit, the number found (None if not measured), whether smaller is better, where it was found."""

    target: str
    limit: float
    found: float | None
    where: str = ""
    smaller: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is met, None if it was not measured."""
        if self.found is None:
            return None
        return self.found <= self.limit if self.smaller else self.found >= self.limit

    @property
    def factor(self) -> float | None:
        """How many times better than the limit; below 1 it is missed."""
        if self.found is None:
            return None
        better, worse = (self.limit, self.found) if self.smaller else (self.found, self.limit)
        return math.inf if worse == 0 else better / worse


@dataclass(frozen=True)
class Duel:
    """Ours against the fastest usable peer of the same library and dtype in one cell."""

    ours: Record
    peer: Record

    @property
    def ratio(self) -> float:
        """Our time over the peer's."""
        return self.ours["seconds"] / self.peer["seconds"]

    def __str__(self) -> str:
        backward = ", backward" if self.ours["mode"] == "backward" else ""
        shape = f"n = {self.ours['n']:,}"
        return f"{self.peer['who']}, {self.ours['library']} {self.ours['dtype']}{backward}, {shape}"


def error_of(record: Record) -> float:
    """Return the error of a record; NaN counts as infinite."""
    error = record.get("error", math.inf)
    return math.inf if isinstance(error, str) else error


def _place(record: Record) -> tuple[Any, ...]:
    return tuple(record[key] for key in ("set", "batch", "n", "mode", "device", "library", "dtype"))


def duels(cells: Iterable[Record]) -> list[Duel]:
    """Pair ours with the fastest peer wherever both finished."""
    ours: dict[tuple[Any, ...], Record] = {}
    best: dict[tuple[Any, ...], Record] = {}
    for record in cells:
        if "seconds" not in record:
            continue
        place = _place(record)
        if record["kind"] == "ours":
            ours[place] = record
        elif record["kind"] == "peer" and error_of(record) <= USABLE:
            faster = place not in best or record["seconds"] < best[place]["seconds"]
            best[place] = record if faster else best[place]
    return [Duel(ours[place], peer) for place, peer in best.items() if place in ours]


def against_peers(cells: list[Record], name: str, *, small: bool) -> Finding:
    """The worst duel of one set, at n = 64 (twice the peer's time is allowed) or above it (no more than the peer's)."""
    target, limit = ("time over fastest peer, n = 64", 2.0) if small else ("time over fastest peer, n ≥ 512", 1.0)
    limit = UNCHECKED.get(name, limit)
    found = [duel for duel in duels(cells) if duel.ours["set"] == name and duel.ours["batch"] == 1]
    found = [duel for duel in found if (duel.ours["n"] == 64) == small]
    worst = max(found, key=lambda duel: duel.ratio, default=None)
    return Finding(target, limit, worst and worst.ratio, str(worst or "no usable peer finished"))


def _times(cells: list[Record], wanted: Callable[[Record], bool]) -> dict[tuple[Any, ...], float]:
    return {_place(one): one["seconds"] for one in cells if "seconds" in one and wanted(one)}


def batching(cells: list[Record], name: str) -> Finding:
    """How many times faster one batched call is than one call per problem, for 4,096 problems of n = 64."""

    def at(kind: str) -> dict[tuple[Any, ...], float]:
        return _times(
            cells,
            lambda one: (
                one["set"] == name and one["batch"] == 4096 and one["kind"] == kind and one["mode"] == "forward"
            ),
        )

    loop, batched = at("loop"), at("ours")
    gains = {place: loop[place] / seconds for place, seconds in batched.items() if place in loop}
    worst = min(gains, key=lambda place: gains[place], default=None)
    where = " ".join(worst[-2:]) if worst else ""
    return Finding("batch of 4,096 over one by one", 50.0, gains[worst] if worst else None, where, smaller=False)


def memory(found: list[Record], name: str) -> Finding:
    """The most memory of a forward call in multiples of the float64 input."""
    held = [one for one in found if one["set"] == name]
    worst = max(held, key=lambda one: one["times_input"], default=None)
    where = f"{worst['library']}, {worst['batch']:,} x {worst['n']:,}" if worst else ""
    return Finding("peak memory over input", 6.0, worst and worst["times_input"], where)


def _over_floor(cells: list[Record], name: str, floor: str, limit: float, n: int = 65536) -> Finding:
    def at(kind: str, who: str) -> float | None:
        seconds = _times(
            cells,
            lambda one: (
                (one["set"], one["batch"], one["n"], one["mode"]) == (name, 1, n, "forward")
                and (one["library"], one["dtype"], one["device"]) == ("numpy", "float64", "cpu")
                and one["kind"] == kind
                and one["who"] == who
            ),
        )
        return next(iter(seconds.values()), None)

    ours, least = at("ours", "ours"), at("floor", f"floor: {floor}")
    found = ours / least if ours is not None and least is not None else None
    return Finding(f"{name}: time over {floor}, numpy, n = {n:,}", limit, found)


def _accuracy(cells: list[Record], dtype: str) -> Finding:
    held = [one for one in cells if one["kind"] == "ours" and one["dtype"] == dtype]
    worst = max(held, key=error_of, default=None)
    where = f"{worst['set']}, {worst['library']}, {worst['batch']:,} x {worst['n']:,}" if worst else ""
    return Finding(f"relative error, {dtype}, every cell", EXACT[dtype], error_of(worst) if worst else None, where)


def _on_gpu(cells: list[Record], what: str, limit: float, number: Callable[[list[Record]], float]) -> Finding:
    if not cells:
        return Finding(what, limit, None, "not measured yet: `make gpu` measures it where there is one")
    return Finding(what, limit, number(cells))


def _worst_sort_ratio(cells: list[Record]) -> float:
    large = [one for one in cells if one.get("n") == 2**20 and one.get("dtype") == "float32" and "seconds" in one]
    floor = next(one["seconds"] for one in large if one["who"] == "floor: torch.sort")
    return max(one["seconds"] for one in large if one["kind"] == "ours" and one["mode"] == "forward") / floor


def _worst_small_call(cells: list[Record]) -> float:
    ours = [one for one in cells if one.get("n") == 1024 and one.get("kind") == "ours" and "seconds" in one]
    return 1e6 * max(one["seconds"] for one in ours)


def general(found: dict[str, Any]) -> list[Finding]:
    """The targets that are not per set."""
    cells, gpu = found["cells"], records("solver", found.get("on_gpu"))
    waits = [one for one in gpu if one.get("synchronisations") is not None]
    return [
        _accuracy(cells, "float64"),
        _accuracy(cells, "float32"),
        _over_floor(cells, "tv", "np.partition", 5.0),
        _over_floor(cells, "cvar", "np.partition", 5.0),
        _over_floor(cells, "chi2", "one pass", 60.0),
        _over_floor(cells, "kl", "one pass", 60.0),
        _on_gpu(gpu, "GPU: time over torch.sort, n = 2^20, float32", 3.0, _worst_sort_ratio),
        _on_gpu(gpu, "GPU: microseconds a call, n = 1,024", 200.0, _worst_small_call),
        _on_gpu(waits, "GPU: host synchronisations a call", 0.0, lambda w: max(one["synchronisations"] for one in w)),
    ]


def per_set(found: dict[str, Any], name: str) -> list[Finding]:
    """The four targets of one set."""
    cells = found["cells"]
    return [
        against_peers(cells, name, small=False),
        against_peers(cells, name, small=True),
        batching(cells, name),
        memory(found["memory"], name),
    ]
