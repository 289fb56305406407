"""The inner problem on the device: time by set and size, waits for the host, capture in a graph, agreement."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from clock import Record, kept_going, settle, timed, warm
from contestants import RACES, Race
from race import draw_losses
from surroundings import Setting

from dro_core import robust_loss, worst_case

SIZES, BATCHES = (64, 1024, 16384, 2**17, 2**20), ((4096, 64), (64, 4096))
TINY_SIZES, TINY_BATCHES = (64, 256), ((8, 64),)
BACKWARD = (1024, 2**20)  # sizes at which the gradient is timed as well
DTYPES = {"float32": torch.float32, "float64": torch.float64}
Say = Callable[[Record], Any]


def measure(setting: Setting, say: Say) -> None:
    """All records of the stage; the most telling cells come first."""
    torch.set_grad_enabled(True)
    warm(setting.device)
    races = [race for race in RACES if race.batched]
    still = [race for race in races if waits(race, setting, say)]  # what the targets ask for comes first
    sizes = TINY_SIZES if setting.tiny else (1024, 2**20, 64, 16384, 2**17)
    shapes = [(1, n) for n in sizes] + list(TINY_BATCHES if setting.tiny else BATCHES)
    for batch, n in shapes:
        for dtype in DTYPES:
            floors(batch, n, dtype, setting, say)
            for race in races:
                if setting.left <= 0:
                    return
                cell(race, batch, n, dtype, setting, say)
        if (batch, n) == shapes[1]:  # after the sizes of the targets: a capture that fails may harm what follows
            for race in races:
                graph(race, setting, say, waits=race not in still)


def cell(race: Race, batch: int, n: int, dtype: str, setting: Setting, say: Say) -> None:
    """One set at one shape: time forward, and backward where the page asks for it, with the error against the host."""
    place = described(race.name, batch, n, dtype, setting) | {"who": "ours", "kind": "ours"}
    wanted = [mode for mode in modes(batch, n, setting) if not setting.has(**place, mode=mode)]
    if not wanted:
        return
    ambiguity, drawn = placed(race, n, setting.device), draw_losses(batch, n, dtype)
    drawn = drawn if batch > 1 else drawn[0]
    for mode in wanted:
        with kept_going(say, **place, mode=mode):
            losses = torch.tensor(drawn, device=setting.device, requires_grad=mode == "backward")
            if mode == "forward":
                told = {"error": disagreement(worst_case(losses, ambiguity), drawn, race.ambiguity(n))}
                call = partial(worst_case, losses, ambiguity)
            else:
                told, call = {}, partial(step, losses, ambiguity)
            say({**place, "mode": mode, **told, **timed(call, setting.device, budget=0.05)})


def placed(race: Race, n: int, device: str) -> Any:
    """The set of a race, its labels where the losses are: from main memory every call would wait for a copy."""
    made: Any = race.ambiguity(n)
    return replace(made, groups=torch.as_tensor(made.groups, device=device)) if hasattr(made, "groups") else made


def modes(batch: int, n: int, setting: Setting) -> list[str]:
    """The gradient is timed where the page asks for it."""
    return ["forward", *(["backward"] if batch == 1 and (n in BACKWARD or setting.tiny) else [])]


def step(leaf: torch.Tensor, ambiguity: Any) -> None:
    """The robust loss and its gradient."""
    leaf.grad = None
    robust_loss(leaf, ambiguity).backward()


def disagreement(found: Any, drawn: np.ndarray, ambiguity: Any) -> float:
    """Relative error of the value against this solver on the host in float64, which the tests hold against others."""
    host = np.asarray(worst_case(drawn.astype(np.float64), ambiguity).value)
    value = found.value.detach().double().cpu().numpy()
    return float(f"{np.max(np.abs(value - host) / np.maximum(np.abs(host), 1e-300)):.3g}")


def described(name: str, batch: int, n: int, dtype: str, setting: Setting) -> Record:
    """Where a record belongs, in the words of the other benchmark."""
    return {"set": name, "batch": batch, "n": n, "dtype": dtype, "device": setting.device, "library": "torch"}


def floors(batch: int, n: int, dtype: str, setting: Setting, say: Say) -> None:
    """What one sort, one softmax and one projection on the simplex by sorting take; the floor stands for every set."""
    losses = torch.tensor(draw_losses(batch, n, dtype), device=setting.device)
    for name, call in contestants(losses):
        place = described("", batch, n, dtype, setting) | {"mode": "forward", "who": f"floor: {name}", "kind": "floor"}
        if not setting.has(**place):
            with kept_going(say, **place):
                say({**place, **timed(call, setting.device, budget=0.05)})


def contestants(losses: torch.Tensor) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Formulas of a few array operations each."""
    counts = torch.arange(1, losses.shape[-1] + 1, device=losses.device, dtype=losses.dtype)

    def sparsemax() -> torch.Tensor:
        """The closest point of the simplex, by sorting: what entmax does at alpha = 2."""
        ordered = losses.sort(dim=-1, descending=True).values
        surplus = ordered.cumsum(-1) - 1
        size = (counts * ordered > surplus).sum(-1, keepdim=True)
        return (losses - surplus.gather(-1, size - 1) / size).clamp(min=0)

    yield "torch.sort", lambda: losses.sort(dim=-1)
    yield "torch.softmax", lambda: losses.softmax(-1)
    yield "sparsemax by sorting", sparsemax


def waits(race: Race, setting: Setting, say: Say) -> bool:
    """How often a call waits for the device; the library's own look at the values is off, as it is by default.

    Returns:
        Whether the forward call was seen to wait nowhere.
    """
    n = TINY_SIZES[0] if setting.tiny else 1024
    losses = torch.tensor(draw_losses(1, n, "float32")[0], device=setting.device, requires_grad=True)
    ambiguity, still = placed(race, n, setting.device), False
    calls = {
        "forward": lambda: worst_case(losses.detach(), ambiguity),
        "backward": lambda: robust_loss(losses, ambiguity).backward(),
    }
    for mode, call in calls.items():
        what = {"set": race.name, "n": n, "mode": mode, "what": "synchronisations"}
        with kept_going(say, **what):
            found = synchronisations(call, setting.device)
            still = still or (mode == "forward" and found == 0)
            if not setting.has(**what):
                say({**what, "synchronisations": found})
    return still


def synchronisations(call: Callable[[], Any], device: str) -> int | None:
    """Count by torch's own detector how often a call waits for the GPU; None where there is none."""
    call()
    if device != "cuda":
        return None
    settle(device)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in seen)  # not torch's notice on the mode


def graph(race: Race, setting: Setting, say: Say, *, waits: bool) -> None:
    """Capture a call in a CUDA graph, replay it on other losses, compare with the call itself.

    One that waits for the host is not tried: the failed capture would leave the allocator without its blocks.
    """
    what = {"set": race.name, "n": 1024, "what": "graph"}
    if setting.device != "cuda" or setting.has(**what):
        return
    if waits:
        say({**what, "failed": "it waits for the device, which a graph cannot hold"})
        return
    first, second = (torch.tensor(draw_losses(rows, 1024, "float32")[0], device="cuda") for rows in (1, 2))
    with kept_going(say, **what):
        off, replay = captured(placed(race, 1024, "cuda"), first, second)
        say({**what, "off": off, **timed(replay, "cuda", budget=0.05)})


def captured(ambiguity: Any, first: torch.Tensor, second: torch.Tensor) -> tuple[float, Callable[[], Any]]:
    """The largest difference of n q between a replay on ``second`` and the call itself, and the replay."""
    still, side = first.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            worst_case(still, ambiguity)
    torch.cuda.current_stream().wait_stream(side)
    made = torch.cuda.CUDAGraph()
    with torch.cuda.graph(made):
        kept = worst_case(still, ambiguity)
    still.copy_(second)
    made.replay()
    settle("cuda")
    off = float((kept.weights - worst_case(second, ambiguity).weights).abs().max() * len(second))
    return off, made.replay
