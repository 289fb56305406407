"""Arrays that were kept on disk: numbers and text, never objects, which would bring code along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class UnreadableArrays(ValueError):
    """A file of arrays that is missing, damaged or holds something else."""


def read_arrays(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by name, checked against the checksums in it; ``names`` must be among them.

    Raises:
        UnreadableArrays: It cannot be read; the message names it.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if lacking := set(names) - arrays.keys():
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        return arrays
    except Exception as error:  # zipfile, zlib, pickle and numpy each have their own
        raise _unreadable(path, error) from error


def read_array(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file as a read-only memory map.

    Raises:
        UnreadableArrays: It cannot be read; the message names it.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableArrays:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else (str(error) or "it is cut off")
    return UnreadableArrays(f"{path} cannot be read ({reason.splitlines()[0]}): it is damaged, or not of our making")
