"""Features on disk: a file of them with its checksum, and the parts of one that is being computed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dro_core.files import whole

from ..run.files import write_text
from ..run.sealed import checksum

Features = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureParts:
    """Features of a long computation, kept in parts, so that it goes on where it was interrupted.

    Attributes:
        folder: Of the parts; None keeps nothing.
        tokens: A part ends with the batch that brings it to as many.
    """

    folder: Path | None = None
    tokens: int = 1

    def of(self, batches: Sequence[Rows], sizes: Sequence[int]) -> Iterator[tuple[Path | None, list[Rows]]]:
        """The batches in parts, each with its file; ``sizes`` are the tokens of each batch."""
        part: list[Rows] = []
        number, size = 0, 0
        for rows, tokens in zip(batches, sizes, strict=True):
            part.append(rows)
            size += tokens
            if size >= self.tokens:
                yield self._file(number), part
                part, number, size = [], number + 1, 0
        if part:
            yield self._file(number), part

    def clear(self) -> None:
        """Delete them: what they were for is on disk."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"{number:05d}.npy"


def write_features(file: Path, features: Features) -> None:
    """Write a file and its checksum, each whole or not at all; the folder is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file, unlocked=True) as stream:
        np.save(stream, features)
        stream.flush()
        write_text(_sum_of(file), str(checksum(Path(stream.name))))


def is_whole(file: Path) -> bool:
    """Whether a file is there and is what was written."""
    return file.exists() and _sum_of(file).exists() and _sum_of(file).read_bytes() == str(checksum(file)).encode()


def _sum_of(file: Path) -> Path:
    return file.with_suffix(".sha256")
