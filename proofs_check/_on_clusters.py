"""Claims that are checked on a cluster, each in a process of its own beside the worker that has it."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

from dro_core.workers import WorkerDied
from proofs_check._tasks import Task, claims_of, unfinished
from proofs_check._workers import ATTEMPTS, Crew, Lost
from proofs_check.report import Report

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from dro_core.clusters.pool import Pool


def reports_from(pool: Pool, tasks: Sequence[Task]) -> Generator[Report | Lost]:
    """Yield reports as they are finished, and losses as they happen; they are those of a ``Crew``.

    Raises:
        ClusterError: There is no such cluster, it does not know these claims, or it is gone.
    """
    waiting, setup = list(tasks), (claims_of, (tasks[0].registry,))
    for attempt in range(1, ATTEMPTS + 1):
        given, waiting = waiting, list[Task]()
        if not given:
            return
        with closing(pool.answers(_checked, given, setup=setup, threads=1)) as answers:
            for answer in answers:
                if answer.value is not None:
                    yield answer.value
                elif attempt < ATTEMPTS and isinstance(answer.error, WorkerDied):
                    waiting.append(answer.item)
                    yield Lost(answer.item.label, str(answer.error))
                else:
                    yield unfinished(answer.item, f"It could not be checked: {answer.error}.")


def _checked(task: Task) -> Report:
    """Check a claim from a worker, whose own process has loaded what draws would depend on."""
    if task.certificates is not None and not task.certificates.is_dir():
        raise FileNotFoundError(f"{socket.gethostname()} does not see {task.certificates}, a folder for all machines")
    return next(news for news in Crew(1).reports([task]) if isinstance(news, Report))
