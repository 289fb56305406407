"""llm-blender/Unified-Feedback: two conversations, two ratings; ``source`` is the data set of origin."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Columns, Comparison, Layout, having, number
from llm.data.layouts.turns import messages, parted
from llm.data.layouts.verdicts import difference


def _read(columns: Columns) -> Iterator[Comparison]:
    lead = difference(number(columns, "conv_A_rating"), number(columns, "conv_B_rating"))
    first, second = messages(columns, "conv_A"), messages(columns, "conv_B")
    better, worse = (first, second) if lead > 0 else (second, first)
    yield parted(better, worse)._replace(margin=abs(lead))


LAYOUT = Layout(
    "unified-feedback",
    "{conv_A and conv_B: [messages], conv_A_rating, conv_B_rating, source}",
    having("conv_A", "conv_B", "conv_A_rating", "conv_B_rating"),
    _read,
)
