"""Evaluate a study at every point of its grid and for every seed: in parallel, once, and so that it can be resumed."""

from __future__ import annotations

import hashlib
import json
import traceback
from contextlib import closing
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from dro_core.files import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from dro_core.clusters.pool import Pool

Scalar = int | float | str | None
Record = dict[str, Scalar]
if TYPE_CHECKING:
    Evaluate = Callable[[Mapping[str, Any], int], list[Record]]


class Task(NamedTuple):
    """One evaluation: a point of the grid of the study, and a seed."""

    study: str
    version: int
    point: Mapping[str, Scalar]
    seed: int

    @property
    def digest(self) -> str:
        """The name of the file with the outcome; changes with everything the outcome may depend on.

        Example:
            >>> task = Task("bias", 1, {"n": 8, "ambiguity": "tv:0.2"}, 0)
            >>> task.digest == Task("bias", 1, {"ambiguity": "tv:0.2", "n": 8}, 0).digest
            True
            >>> task.digest == task._replace(version=2).digest
            False
        """
        text = json.dumps([self.study, self.version, dict(self.point), self.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


class Failure(NamedTuple):
    """A task that raised or whose process died: the last line of the error, and the whole traceback."""

    task: Task
    error: str
    trace: str


class Attempt(NamedTuple):
    """What came of a task: its digest, its records, and what went wrong, as error and traceback."""

    digest: str
    records: list[Record]
    failure: tuple[str, str] | None


class Outcome(NamedTuple):
    """What a run leaves: one row per record in the order of the tasks, the failures, how many were there before."""

    rows: list[Record]
    failures: list[Failure]
    reused: int


def run(
    evaluate: Evaluate,
    tasks: Sequence[Task],
    folder: Path,
    *,
    pool: Pool,
    fresh: bool = False,
    advance: Callable[[], object] = lambda: None,
) -> Outcome:
    """Evaluate the tasks that have no file in ``folder`` yet, and collect the records of all of them.

    Every finished task is written at once, to one file under its digest, so that a run that was interrupted goes on
    where it stopped, and a changed grid pays for its new points only. A task that raises, or whose process dies, leaves
    no file and does not stop the others; a file that was damaged is as good as none. Rows do not depend on the pool or
    on what was there before.

    Args:
        evaluate: A pure function of (point, seed), returning flat records of JSON scalars.
        tasks: What to evaluate.
        folder: Made if need be.
        pool: Where.
        fresh: Whether to evaluate what is there again.
        advance: Called once per task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_digest = {task.digest: task for task in tasks}
    found = {} if fresh else {digest: kept for digest in by_digest if (kept := _stored(folder, digest)) is not None}
    for _ in found:
        advance()
    reused, failures = len(found), dict[str, Failure]()
    waiting = [task for digest, task in by_digest.items() if digest not in found]
    with closing(_attempts(pool, evaluate, waiting)) as attempts:
        for digest, records, failure in attempts if waiting else ():
            if failure is None:
                found[digest] = _store(folder, by_digest[digest], records)
            else:
                failures[digest] = Failure(by_digest[digest], *failure)
            advance()
    rows = [
        {"seed": task.seed, **task.point, **record}
        for digest, task in by_digest.items()
        for record in found.get(digest, ())
    ]
    return Outcome(rows, [failures[digest] for digest in by_digest if digest in failures], reused)


def _attempts(pool: Pool, evaluate: Evaluate, tasks: Sequence[Task]) -> Generator[Attempt]:
    """What comes of the tasks, in any order; a process or worker that dies costs its own task alone."""
    attempt = partial(_attempt, evaluate)
    if pool.is_here and pool.jobs == 1:
        yield from map(attempt, tasks)
        return
    with closing(pool.answers(attempt, tasks, threads=1)) as answers:
        for answer in answers:
            yield answer.value or Attempt(answer.item.digest, [], _told(answer.error))


def _attempt(evaluate: Evaluate, task: Task) -> Attempt:
    """Runs in a worker. Errors come back as text: not every exception survives the way between processes."""
    from threadpoolctl import threadpool_limits

    try:
        # One thread everywhere: how a sum is shared among threads changes its last bits.
        with threadpool_limits(1):
            records = evaluate(dict(task.point), task.seed)
        return Attempt(task.digest, _plain(records), None)
    except Exception as error:  # whatever a study raises must not stop the others
        return Attempt(task.digest, [], _told(error))


def _told(error: Exception | None) -> tuple[str, str]:
    return f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))


def _plain(records: Any) -> list[Record]:
    """Numpy scalars become Python's; what a table has no cell for is refused."""
    plain = [
        {name: value.item() if hasattr(value, "item") else value for name, value in row.items()} for row in records
    ]
    for row in plain:
        for name, value in row.items():
            if not isinstance(value, Scalar):
                kind = type(value).__name__
                raise TypeError(f"field {name} must hold a number, text or None, got a {kind}: write several records.")
            if isinstance(value, float) and not isfinite(value):
                raise ValueError(f"field {name} must be finite, got {value}: use None for what does not exist.")
    return plain


def _store(folder: Path, task: Task, records: list[Record]) -> list[Record]:
    """Keep the records of a task: a file under its final name is always complete."""
    content = {**task._asdict(), "point": dict(task.point), "records": records}
    with whole(folder / f"{task.digest}.json", unlocked=True) as stream:
        stream.write((json.dumps({**content, "sha256": _seal(content)}, indent=1) + "\n").encode())
    return records


def _stored(folder: Path, digest: str) -> list[Record] | None:
    """The records of a task; None if they were never there or were damaged from outside."""
    try:
        content = json.loads((folder / f"{digest}.json").read_text(encoding="utf-8"))
        earlier = content.keys() == {*Task._fields, "records"}  # from before there was a checksum
        return content["records"] if earlier or content.pop("sha256") == _seal(content) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
