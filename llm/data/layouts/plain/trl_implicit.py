"""TRL's implicit prompt: chosen and rejected are whole conversations that share it."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout
from llm.data.layouts.turns import messages, parted
from llm.data.layouts.verdicts import rated_margin


def _fits(columns: Columns) -> bool:
    return isinstance(columns.get("chosen"), list) and isinstance(columns.get("rejected"), list)


def _read(columns: Columns) -> Iterator[Comparison]:
    margin = rated_margin(columns)
    yield parted(messages(columns, "chosen"), messages(columns, "rejected"))._replace(margin=margin)


LAYOUT = Layout("trl-implicit", "", _fits, _read)
