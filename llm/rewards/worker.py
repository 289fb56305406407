"""The other side of a checker: a process that loads it, and scores what it is sent, until it is told no more.

Run by ``bench``; messages are JSON. Whatever the checker prints, forks, breaks or waits for happens here, not in the
training. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module, util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .checkers.base import Checker, checker_of
from .names import RewardError, RewardPart, search_path

_GIVEN = ("prompts", "completions")
_NOT_GIVEN = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
_SEARCH = 10.0  # seconds to look for the answer at which a function fails


class NoScores(Exception):
    """What a checker did that is no score: what to say of it, and the row of the answer, where it is known."""

    def __init__(self, said: str, row: int | None = None) -> None:
        super().__init__(said)
        self.row = row


class CheckerSide:
    """A checker by name."""

    def __init__(self, part: RewardPart) -> None:
        self.checker: Checker = checker_of(*part.options())

    def lacks(self, row: Mapping[str, object]) -> str | None:
        """What the columns of a prompt lack to be checked."""
        return self.checker.lacks(row)

    def scores(self, asked: Mapping[str, Any], at: Callable[[int], None]) -> object:
        """A score for every answer; ``at`` is told which one is looked at."""
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in asked["completions"]]
        rows = asked["rows"]
        if self.checker.scores:
            return self.checker.scores(texts, rows)
        found = []
        for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
            at(number)
            try:
                found.append(self.checker.score(text, row))
            except Exception as error:
                raise NoScores(_raised(error), number) from error
        return found


class FunctionSide:
    """A function with the signature of TRL's reward functions."""

    def __init__(self, part: RewardPart) -> None:
        self.function = _loaded(part)
        parameters = inspect.signature(self.function).parameters.values()
        self.open = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        needed = [p.name for p in parameters if p.name in self.names and p.default is p.empty]
        if wrong := [name for name in needed if name in _NOT_GIVEN]:
            raise RewardError(f"{part.name} wants {wrong[0]}, which is not given here: give it a default.")
        self.needed = [name for name in needed if name not in _GIVEN]

    def lacks(self, row: Mapping[str, object]) -> str | None:
        """The first column that the function wants and the prompt has not."""
        return next((f"no `{name}`" for name in self.needed if row.get(name) is None), None)

    def scores(self, asked: Mapping[str, Any], at: Callable[[int], None]) -> object:
        """What the function gives; where it raises, the answer at which it does is looked for one by one."""
        try:
            return self._called(asked)
        except Exception as error:
            raise NoScores(_raised(error), self._culprit(asked)) from error

    def _culprit(self, asked: Mapping[str, Any]) -> int | None:
        end = time.monotonic() + _SEARCH
        for row in range(len(asked["rows"])):
            if time.monotonic() > end:
                return None
            try:
                self._called({name: values[row : row + 1] for name, values in asked.items()})
            except Exception:
                return row
        return None

    def _called(self, asked: Mapping[str, Any]) -> object:
        rows: Sequence[Mapping[str, object]] = asked["rows"]
        columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
        told = {name: list(asked[name]) for name in _GIVEN} | {
            name: values for name, values in columns.items() if name not in (*_GIVEN, *_NOT_GIVEN)
        }
        if not self.open:
            told = {name: values for name, values in told.items() if name in self.names}
        found = self.function(**told)
        return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found


async def _awaited(found: Awaitable[object]) -> object:
    return await found


def _loaded(part: RewardPart) -> Callable[..., object]:
    place, _, name = part.name.rpartition(":")
    try:
        if place.endswith(".py"):
            if not Path(place).is_file():
                raise RewardError(f"{part.name}: there is no file {place}.")
            sys.path.insert(0, str(Path(place).resolve().parent))
            spec = util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = util.module_from_spec(spec)
            sys.modules[Path(place).stem] = module
            spec.loader.exec_module(module)
        else:
            module = import_module(place)
    except RewardError:
        raise
    except (Exception, SystemExit) as error:
        raise RewardError(f"{part.name} cannot be loaded: {_raised(error)}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise RewardError(
            f"{part.name}: there is no function {name!r} in {place}; it has {', '.join(known) or 'none'}."
        )
    return function


def _raised(error: BaseException) -> str:
    """What was raised and where, in one line."""
    said = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if said else ''}{said[:300]}{where}"


def as_scores(found: Any, count: int) -> list[float | None]:
    """Scores as numbers, or None for what is not scored: of a list, a tuple, or an array of numpy or torch.

    True and False count as 1 and 0.

    Raises:
        NoScores: They are something else, not one for each answer, or not finite.
    """
    if hasattr(found, "tolist"):
        found = found.tolist()
    if not isinstance(found, list | tuple):
        raise NoScores(f"gave {_kind(found)} where a list of {count} scores is needed")
    if len(found) != count:
        raise NoScores(f"gave {len(found)} scores for {count} answers")
    return [_score(value, row) for row, value in enumerate(found)]


def _score(value: Any, row: int) -> float | None:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None:
        return None
    if not isinstance(value, bool | int | float):
        raise NoScores(f"gave {_kind(value)} where a number is needed", row)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NoScores(f"gave {number}, and an answer that is not to be scored is None", row)
    return number


def _kind(value: object) -> str:
    return f"{type(value).__name__} ({str(value)[:60]!r})" if isinstance(value, str) else f"a {type(value).__name__}"


def serve(part: RewardPart, connection: Connection) -> None:
    """Load, then answer until the other side is gone."""
    own = os.getpid()
    try:
        side: object = CheckerSide(part) if part.kind == "checker" else FunctionSide(part)
    except RewardError as error:
        _send(connection, {"unusable": str(error)})
        return
    _send(connection, {"ready": True})
    while True:
        try:
            asked = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        try:
            if "lacks" in asked:
                answer: dict[str, object] = {"lacks": [side.lacks(row) for row in asked["lacks"]]}
            else:
                found = side.scores(asked, lambda row: _send(connection, {"at": row}))
                answer = {"scores": as_scores(found, len(asked["rows"]))}
        except NoScores as error:
            answer = {"refused": str(error), "row": error.row}
        if os.getpid() != own:
            os._exit(0)  # a fork of the checker that came back from it, too
        with contextlib.suppress(Exception):  # the checker may have closed it
            sys.stdout.flush()
        _send(connection, answer)


def _send(connection: Connection, message: Mapping[str, object]) -> None:
    connection.send_bytes(json.dumps(message).encode())


def main() -> None:
    """Arguments: the name of the checker, the number of the open connection, the search path as JSON."""
    name, number = sys.argv[1:3]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # killed with the training
    sys.path[:] = [*dict.fromkeys([*sys.path, *search_path()])]
    serve(RewardPart(name), Connection(int(number)))


if __name__ == "__main__":
    main()
