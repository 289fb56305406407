"""Anthropic's hh-rlhf, and other rendered chats: chosen and rejected are whole conversations in one text each."""

from __future__ import annotations

from collections.abc import Iterator

from llm.data.layouts.base import Chat, Columns, Comparison, Dropped, Layout, Malformed, field, reply, unless_nan
from llm.data.layouts.markup import TRANSCRIPT, merged
from llm.data.layouts.rendered import conversation
from llm.data.layouts.turns import DIFFER, parted


def _texts(columns: Columns) -> bool:
    """Two answers without a prompt, the first of them a text.

    Raises:
        Dropped: One of them is null here: the next record must decide.
    """
    if not {"chosen", "rejected"} <= columns.keys():
        return False
    if columns["chosen"] is None or columns["rejected"] is None:
        raise Dropped("empty answer")
    return "prompt" not in columns and isinstance(columns["chosen"], str)


def _transcripts(columns: Columns) -> Iterator[Comparison]:
    prompt, chosen = _split(field(columns, "chosen"))
    other_prompt, rejected = _split(field(columns, "rejected"))
    if prompt != other_prompt:
        raise Dropped(DIFFER)
    yield Comparison(prompt, chosen, rejected)


def _split(text: object) -> tuple[Chat, str]:
    """Cut a Human/Assistant transcript before its last answer."""
    turns = TRANSCRIPT.turns(_text(text))
    if not turns:
        raise Dropped("text is not a Human/Assistant transcript")
    if turns[-1].role != "assistant":
        raise Dropped("conversation does not end with an assistant turn")
    return merged(turns[:-1]), turns[-1].content


def _text(text: object) -> str:
    if unless_nan(text) is None:
        raise Dropped("empty answer")
    if not isinstance(text, str):
        raise Malformed(f"expected a whole conversation as text, found {type(text).__name__}")
    return text


def spoken(text: str) -> Chat:
    """Return the turns of a dialogue whose first speaker, the human, may go unnamed."""
    return merged(TRANSCRIPT.turns(text) or TRANSCRIPT.turns(f"Human: {text}") or ())


def _is_rendered(columns: Columns) -> bool:
    if not _texts(columns) or len(TRANSCRIPT.turns(columns["chosen"]) or ()) > 1:
        return False  # hh-rlhf's own reading counts what it cannot use
    try:
        return conversation(columns["chosen"]) is not None
    except Malformed:
        return True


def _rendered(columns: Columns) -> Iterator[Comparison]:
    sides = [conversation(_text(field(columns, name))) for name in ("chosen", "rejected")]
    if None in sides:
        raise Dropped("text is not a rendered conversation")
    chosen, rejected = ((*prompt, reply(answer)) for prompt, answer, _ in filter(None, sides))
    yield parted(chosen, rejected)


HH_RLHF = Layout(
    "hh-rlhf",
    "{chosen and rejected: '\\n\\nHuman: ...\\n\\nAssistant: ...'}",
    lambda columns: _texts(columns) and TRANSCRIPT.turns(columns["chosen"]) is not None,
    _transcripts,
)
RENDERED = Layout("rendered", "{chosen and rejected: '<|im_start|>user ... <|im_end|>'}", _is_rendered, _rendered)
