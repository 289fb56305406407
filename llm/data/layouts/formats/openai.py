"""OpenAI's preference format: an input of messages and tools, a preferred and a non-preferred output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm.data.layouts.base import Columns, Comparison, Layout, Malformed, field, having, said, unpacked
from llm.data.layouts.tools import LEFT_OUT, tools_of, with_tools
from llm.data.layouts.turns import compared, messages


def _read(columns: Columns) -> Iterator[Comparison]:
    asked = unpacked(field(columns, "input"))
    if not isinstance(asked, Mapping):
        raise Malformed(f"'input' should hold messages, found {said(asked)}")
    outputs = {name: unpacked(field(columns, name)) for name in ("preferred_output", "non_preferred_output")}
    pair = compared(outputs, with_tools(messages(asked, "messages"), asked.get("tools")), *outputs)
    yield pair._replace(noted=(LEFT_OUT,) if asked.get("tools") and not tools_of(pair.prompt) else ())


LAYOUT = Layout(
    "openai-preference",
    "{input: {messages, tools}, preferred_output, non_preferred_output}",
    having("input", "preferred_output", "non_preferred_output"),
    _read,
)
