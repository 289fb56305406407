"""Files that are whole or not there, whatever ends a write: an error, a kill, a full disk.

All packages write files, so it stands here, and needs nothing of the solvers.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path, *, unlocked: bool = False, durable: bool = False) -> Generator[BinaryIO]:
    """Inside, write to this stream, which is ``path`` afterwards; until then, and after an error, that is what it was.

    A kill leaves ``NAME.partial`` beside it, which no reader takes for the file. A device or a pipe is written to as it
    is.

    Args:
        path: The file.
        unlocked: Several processes may write it at once: each has a partial file of its own.
        durable: It is on the disk before it is there, so that a power failure leaves the old one or the new one.

    Raises:
        OSError: It cannot be written.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            yield stream
        return
    partial = path.with_name(f"{path.name}{f'.{os.getpid()}' if unlocked else ''}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
