"""What is done to the comparisons of every layout: columns beside it join the prompt, rendered texts become turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache

from llm.data.layouts.base import Chat, Columns, Comparison, Dropped, Layout, Malformed, said, unless_nan, unpacked
from llm.data.layouts.rendered import asked, turned
from llm.data.layouts.tools import LEFT_OUT, tools_of, with_tools
from llm.data.layouts.turns import messages

_SYSTEM = ("system", "system_prompt")
_SEEN_OR_HEARD = ("image", "images", "video", "videos", "audio", "audios")
BESIDE = (*_SYSTEM, "tools", *_SEEN_OR_HEARD)  # the columns of a record that are looked at in every layout


def finished(layout: Layout) -> Layout:
    """The same layout, its comparisons with system text and tools of their record, and with rendered texts in turns.

    Raises (while it reads):
        Dropped: A picture, a film or a sound stands beside the texts.
        Malformed: The system column is no text or says something else than the chat's own system turn; a rendered
            text cannot be taken apart.
    """
    return replace(layout, read=_finished(layout.read))


@cache
def _finished(own: Callable[[Columns], Iterable[Comparison]]) -> Callable[[Columns], Iterator[Comparison]]:
    """One for each reader, by which layouts that are read alike are known."""

    def read(columns: Columns) -> Iterator[Comparison]:
        for name in _SEEN_OR_HEARD:
            if columns.get(name) and not isinstance(columns[name], str | int | float):
                raise Dropped(f"content that is no text ({name})")
        for comparison in own(columns):
            done = turned(comparison)
            prompt = with_tools(with_system(done.prompt, columns), columns.get("tools"))
            lost = (LEFT_OUT,) * (bool(unpacked(unless_nan(columns.get("tools")))) and not tools_of(prompt))
            yield done._replace(prompt=prompt, noted=(*done.noted, *lost))

    return read


def with_system(chat: Chat, columns: Columns) -> Chat:
    """A chat with the text of the system column as its first turn, where there is one and it has none.

    Raises:
        Malformed: The column is no text, or the chat has another system turn already.
    """
    name = next((name for name in _SYSTEM if name in columns), "")
    text = unless_nan(columns.get(name))
    if text is not None and not isinstance(text, str):
        raise Malformed(f"{name!r} should be text, found {said(text)}")
    if not text or not text.strip() or not any(message["content"].strip() for message in chat):
        return chat  # a system text alone asks nothing
    own = [message["content"] for message in chat if message["role"] in ("system", "developer")]
    if not own:
        return ({"role": "system", "content": text}, *chat)
    if own[0].strip() != text.strip():
        raise Malformed(
            f"the column {name!r} says {text[:40]!r}, but the chat has a system turn, {own[0][:40]!r}: keep one of them"
        )
    return chat


def prompt_alone(columns: Columns) -> Chat:
    """The chat in the column ``prompt`` of a record without answers: as the prompt of a comparison is read.

    Raises:
        Malformed: There is none, or it is neither a text nor messages.
        Dropped: A message holds more than text.
    """
    chat = messages(columns, "prompt", role="user")
    while len(chat) == 1 and chat[0]["role"] == "user" and (found := asked(chat[0]["content"])):
        chat = found[0]
    return with_tools(with_system(chat, columns), columns.get("tools"))
