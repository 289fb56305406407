"""What a process of a sweep does: it gets the context once, then one training after the other."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Generator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from transformers.utils.logging import disable_progress_bar

from dro_core.workers import Setup, packed

from ..run.terminal import quiet_libraries
from .context import SweepContext
from .plan import Cell
from .runs import Outcome, run_training

_CONTEXT = ".context-"
_contexts: list[SweepContext] = []
_places: list[str] = []


def begin(context: SweepContext) -> None:
    """The first call in every process."""
    quiet_libraries()
    disable_progress_bar()
    _contexts[:] = [context]


def train(cell: Cell) -> Outcome:
    """Carry out one training of the context that the process began with."""
    return run_training(cell, _contexts[0])


@contextmanager
def handed_over(context: SweepContext) -> Generator[Setup]:
    """How a worker of a cluster begins: it finds the context, while inside, in the folder of the results."""
    for left in context.folder.glob(f"{_CONTEXT}*"):  # by one that was killed
        left.unlink(missing_ok=True)
    with NamedTemporaryFile(dir=context.folder, prefix=_CONTEXT) as file:
        file.write(packed(context))
        file.flush()
        yield begin_elsewhere, (os.getcwd(), file.name)


def begin_elsewhere(place: str, file: str) -> None:
    """The first call in every worker of a cluster.

    Args:
        place: Where the command was given; names of files begin there.
        file: That holds the context.

    Raises:
        FileNotFoundError: This machine does not see the files of the sweep.
    """
    try:
        with chdir(place):
            begin(pickle.loads(Path(file).read_bytes()))
            for needed in _contexts[0].files():
                needed.stat()
    except OSError as error:
        raise FileNotFoundError(
            f"{socket.gethostname()} does not see {error.filename}: results, --cache and data of a sweep on a cluster "
            "belong on a file system that all its machines have at the same path"
        ) from error
    _places[:] = [place]


def train_elsewhere(cell: Cell, *, threads: int | None = None) -> Outcome:
    """As ``train``, in a worker of a cluster; a whole model with as many threads as where the command was given."""
    if threads:
        torch.set_num_threads(threads)
    with chdir(_places[0]):
        return train(cell)
