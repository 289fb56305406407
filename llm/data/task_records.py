"""Records of generated tasks, where a file of prompts is asked for: ``task:addition?n=1000&seed=0``."""

from __future__ import annotations

import os
from collections.abc import Iterator

from llm.data.formats.opened import DataError, Record, Records


def is_task(source: str | os.PathLike[str]) -> bool:
    """Whether this names a task and no file."""
    return os.fspath(source).startswith("task:")


def task_records(source: str | os.PathLike[str]) -> Records:
    """The prompts of a task with answers, as records.

    Raises:
        DataError: The address makes no sense; on iteration, the task cannot make so many different questions.
    """
    from llm.tasks.address import TaskAddress, TaskError

    try:
        address = TaskAddress.of(os.fspath(source))
    except TaskError as error:
        raise DataError(str(error)) from error

    def read(_: list[str]) -> Iterator[Record]:
        from llm.tasks.library import records

        try:
            for number, row in enumerate(records(address), start=1):
                yield Record(f"question {number}", row)
        except TaskError as error:
            raise DataError(str(error)) from error

    return Records(read)
