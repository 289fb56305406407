"""Which part of a prompt the answers to it are read after, where not everything fits.

All answers to a prompt are read after the same tokens of it. What frames the conversation (special tokens, names of
roles) is kept. Of the room that it leaves the answers get what the longest of them needs, up to half, or all that the
prompt leaves; the prompt gets the rest, and loses its middle: it begins with what is asked for, and ends with what is
replied to. Then answers lose their ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm.text.tokens import Frame, Tokens


class Window(NamedTuple):
    """What is read of a prompt.

    Attributes:
        start: As many of its first tokens,
        end: and of its last ones;
        cut: those between them are not read.
    """

    start: int
    end: int
    cut: int


class Room(NamedTuple):
    """What fits: of the prompt, and how many tokens of every answer, those after its text included."""

    window: Window
    answer: int


def room_for(prompt: int, answers: Sequence[int], max_length: int, frame: Frame) -> Room:
    """Divide ``max_length`` tokens between a prompt of ``prompt`` tokens and its answers, frames included.

    Raises:
        ValueError: ``max_length`` leaves no room for text.
    """
    least = sum(frame)
    if max_length <= least:
        raise ValueError(
            f"max_length includes the {least} tokens that stand around the texts of a conversation (special tokens, "
            f"names of roles) and must be at least {least + 1}, got {max_length}; use 128 or more for real text."
        )
    room, said = max_length - least, max(prompt - frame.start - frame.end, 0)
    answer = min(max(answers), frame.after + max(room // 2, room - said, 1))
    kept = min(prompt, max_length - answer)
    if kept == prompt:
        return Room(Window(prompt, 0, 0), answer)
    start = frame.start + (kept - frame.start - frame.end + 1) // 2
    return Room(Window(start, kept - start, prompt - kept), answer)


def whole_from(prompt: int, answer: int, frame: Frame) -> int:
    """The least ``max_length`` at which a prompt of ``prompt`` tokens is whole beside answers of at most ``answer``."""
    said = max(prompt - frame.start - frame.end, 0)
    return min(prompt + answer, sum(frame) + max(2 * said - 1, said + 1))


@dataclass(frozen=True)
class Sequences:
    """Answers after the same part of their prompt.

    Attributes:
        rows: Ids, and where the answer stands in them, of every answer.
        room: What fitted.
        answers_cut: Answers that lost tokens.
    """

    rows: list[tuple[list[int], tuple[int, int]]]
    room: Room
    answers_cut: int


def sequences(tokens: Sequence[Tokens], max_length: int, frame: Frame) -> Sequences:
    """Cut conversations that share a prompt to ``max_length`` tokens, after the same part of that prompt."""
    first = tokens[0].ids
    shared = min(found.answer for found in tokens)
    for other in tokens[1:]:
        while other.ids[:shared] != first[:shared]:
            shared -= 1
    room = room_for(shared, [len(found.ids) - shared for found in tokens], max_length, frame)
    window = room.window
    before = [*first[: window.start], *first[shared - window.end : shared]]
    rows = [_row(before, found, shared, room.answer) for found in tokens]
    return Sequences(rows, room, sum(len(found.ids) - shared > room.answer for found in tokens))


def _row(before: list[int], found: Tokens, shared: int, room: int) -> tuple[list[int], tuple[int, int]]:
    ids, start = found.ids, len(before)
    if len(ids) - shared <= room:
        return [*before, *ids[shared:]], (start, start + found.end - shared)
    after = ids[found.text_end :]
    kept = ids[shared : shared + room - len(after)]
    return [*before, *kept, *after], (start, start + len(kept))
