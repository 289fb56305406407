"""What is costly and only read: built by the first test that asks, in whichever worker, and handed to all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

Facts = dict[str, tuple[int, int]]


class BuiltOnce:
    """Folders built under a lock. At the end of the session a test that wrote into one is found out."""

    def __init__(self, base: Path) -> None:
        self.base, self.seen = base, dict[Path, Facts]()

    def __call__(self, name: str, build: Callable[[Path], object]) -> Path:
        folder = self.base / f"once-{name}"
        with FileLock(self.base / f"once-{name}.lock"):
            if not folder.exists():
                partial = self.base / f"once-{name}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                build(partial)
                partial.rename(folder)
        self.seen.setdefault(folder, _facts(folder))
        return folder

    def verify(self) -> None:
        changed = [folder.name for folder, facts in self.seen.items() if _facts(folder) != facts]
        assert not changed, f"a test wrote into what all share: {changed}"


def _facts(folder: Path) -> Facts:
    """Size and time of every file in it."""
    files = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    return {str(file.relative_to(folder)): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
