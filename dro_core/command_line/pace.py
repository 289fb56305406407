"""How far a long run is where no bar can show it: a line now and then, for a log."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Item = TypeVar("Item")


@dataclass
class Pace:
    """Counts what is done, and says how far it is and how long the rest will take, at most once in ``every`` seconds.

    Args:
        total: How many there are.
        what: Of what, in the plural.
        say: Takes a line.
        every: Seconds between two lines.
        clock: Seconds, from anywhere.

    Example:
        >>> times = iter([0.0, 1.0, 9.0, 20.0, 21.0])
        >>> pace = Pace(40, "points", print, clock=lambda: next(times))
        >>> for _ in range(4):
        ...     pace.advance()
        3 of 40 points; at this pace the rest takes 4.1 minutes.
    """

    total: int
    what: str
    say: Callable[[str], object]
    every: float = 15.0
    clock: Callable[[], float] = time.monotonic
    done: int = field(default=0, init=False)
    _said: tuple[float, int] = field(init=False)

    def __post_init__(self) -> None:
        self._said = self.clock(), 0

    def advance(self, by: int = 1) -> None:
        """So many more are done."""
        self.done += by
        now, (then, before) = self.clock(), self._said
        if now - then < self.every or self.done == self.total:
            return
        self._said = now, self.done
        left = (now - then) / (self.done - before) * (self.total - self.done)
        rest = f"{left:.0f} seconds" if left < 90 else f"{left / 60:.1f} minutes"
        self.say(f"{self.done} of {self.total} {self.what}; at this pace the rest takes {rest}.")


def paced(items: Sequence[Item], what: str, *, shown: bool = True, every: float = 15.0) -> Iterator[Item]:
    """The items one by one; meanwhile standard error has a bar, or where no terminal shows one a line now and then.

    Args:
        items: All there are.
        what: What they are, in the plural.
        shown: Whether to say anything.
        every: Seconds between two lines.
    """
    if not shown:
        yield from items
        return
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import track

        yield from track(items, what, console=console, transient=True)
        return
    pace = Pace(len(items), what, lambda line: sys.stderr.write(f"{line}\n"), every)
    for item in items:
        yield item
        pace.advance()
