"""tatsu-lab/alpaca_farm: an instruction with its input, two outputs, and the number of the preferred one."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, answer, having
from llm.data.layouts.formats.alpaca import asked
from llm.data.layouts.verdicts import first_wins


def _read(columns: Columns) -> Iterator[Comparison]:
    first = first_wins(columns, "preference", ("1",), ("2",))
    sides = ("output_1", "output_2") if first else ("output_2", "output_1")
    chosen, rejected = (answer(columns, name) for name in sides)
    yield Comparison(asked(columns), chosen, rejected)


LAYOUT = Layout(
    "alpaca-farm",
    "{instruction, input, output_1, output_2, preference}",
    having("instruction", "output_1", "output_2", "preference"),
    _read,
)
