"""The import name that another package has, too."""

from __future__ import annotations

import importlib.util
from pathlib import Path

APART = "install robust-rlhf in an environment of its own, without the PyPI package `llm`"


def foreign(package: str = "llm") -> str | None:
    """A sentence where the import name ``llm`` means the unrelated PyPI package, which would fail strangely."""
    spec = importlib.util.find_spec(package)
    if package != "llm" or spec is None or spec.origin is None or (Path(spec.origin).parent / "adversary").is_dir():
        return None
    return f"the import name `llm` is taken by another package ({spec.origin}); {APART}"
