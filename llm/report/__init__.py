"""The report of whatever has results: its story, tables, tests and figures in one page.

``build_content`` reads a folder and does the statistics; ``write_report`` draws what stands in there. Both are loaded
when they are first used: the command tells what it takes without them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import build_content
    from .page import write_report

SMALLEST_GROUP = 30  # questions; a smaller category says too little to be called the worst
FAMILIES = 3  # of arms, with details

__all__ = ["FAMILIES", "SMALLEST_GROUP", "build_content", "write_report"]
_WHERE = {"build_content": "content", "write_report": "page"}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
