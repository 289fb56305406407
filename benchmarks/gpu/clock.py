"""Times on a GPU: warmed up, by events of the device, median and quartiles; out of memory is a result."""

from __future__ import annotations

import gc
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from surroundings import Setting

Record = dict[str, Any]
_SAMPLE = 1e-3  # seconds that a sample lasts at least


def settle(device: str) -> None:
    """Wait for all that was asked of the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def warm(device: str, seconds: float = 0.3) -> None:
    """Work until the clocks have risen."""
    if device != "cuda":
        return
    square = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        square = (square @ square).clamp(-1, 1)
        settle(device)


def timed(call: Callable[[], Any], device: str, *, rounds: int = 15, budget: float = 0.5) -> Record:
    """Seconds of a call, as often as fits the budget: ``seconds`` (median), ``quartiles``, ``samples``.

    A sample repeats short calls until it lasts a millisecond and is measured by a pair of events of the device, so it
    holds what the host needs to launch the work and nothing of the host's waiting for it.
    """
    for _ in range(3):
        call()
    settle(device)
    pace = _sample(call, device, 1)
    repeats = max(1, int(_SAMPLE / max(pace, 1e-7)))
    rounds = max(3, min(rounds, int(budget / max(pace * repeats, 1e-9))))
    found = sorted(_sample(call, device, repeats) for _ in range(rounds))
    return spread(found)


def spread(found: list[float]) -> Record:
    """Median and quartiles of samples."""
    low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
    return {"seconds": _short(middle), "quartiles": [_short(low), _short(high)], "samples": len(found)}


def _sample(call: Callable[[], Any], device: str, repeats: int) -> float:
    if device != "cuda":
        begun = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - begun) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    settle(device)
    first.record()
    for _ in range(repeats):
        call()
    last.record()
    settle(device)
    return first.elapsed_time(last) / 1e3 / repeats


def _short(number: float) -> float:
    return float(f"{number:.4g}")


@contextmanager
def kept_going(say: Callable[[Record], Any], **what: Any) -> Iterator[None]:
    """Inside, what fails becomes a record; memory is given back, with what the traceback of a failure would hold."""
    try:
        yield
    except ModuleNotFoundError as error:
        say({**what, "skipped": str(error)})
    except Exception as error:
        say({**what, "failed": reason_of(error)})
        forget_frames(error)
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def reason_of(error: Exception) -> str:
    """One line; cuBLAS and the driver run out of memory under other names than torch."""
    told = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in told or "ALLOC_FAILED" in told:
        return "out of memory"
    return f"{type(error).__name__}: {told[:200]}"


def forget_frames(error: BaseException | None) -> None:
    """Clear the variables of every call that an error and those before it went through."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Room:
    """Whether another part of a stage fits into its time: as the longest so far took, and a tenth more."""

    def __init__(self, setting: Setting) -> None:
        self._setting, self._longest = setting, 0.0

    def is_left(self) -> bool:
        """For one more."""
        return self._setting.left > 1.1 * self._longest

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Inside, one part is measured; afterwards its trainer is gone, which cycles would keep on the device."""
        begun = time.monotonic()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                gc.collect()
                torch.cuda.empty_cache()
            self._longest = max(self._longest, time.monotonic() - begun)


def peak_gib(device: str) -> float | None:
    """Most that torch held since ``forget_peak``, GiB; None on a CPU."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 3) if device == "cuda" else None


def forget_peak(device: str) -> None:
    """Begin a new peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def matmul_rate(device: str, *, tiny: bool) -> float:
    """Floating-point operations a second of a bf16 matrix product of 8192: what a share of the peak is measured by."""
    size = 256 if tiny else 8192
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / timed(lambda: left @ right, device)["seconds"]
