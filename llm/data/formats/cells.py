"""Cells of tables that hold the turns of a chat as text: as JSON, or as Python prints its lists."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping

from llm.data.formats.opened import DataError, note

PYTHON = "Python lists in cells"
_TURN = ({"role", "content"}, {"from", "value"})
# Keys are in single quotes however the text in the turns is quoted; array( is numpy's.
_PRINTED = re.compile(r"\s*(array\()?\s*\[?\s*(array\()?\{\s*'(role|content|from|value)'\s*:")
_OPENING, _CLOSING = frozenset("[{("), frozenset("]})")


def unpacked_row(name: str, place: str, row: Mapping[str, object], read_as: list[str]) -> dict[str, object]:
    """The columns of a row of a table, turns of a chat unpacked.

    Raises:
        DataError: A cell holds turns as Python prints them, but cut off or in another way than a list of dictionaries.
    """
    return {column: _unpacked(name, place, column, cell, read_as) for column, cell in row.items()}


def _unpacked(name: str, place: str, column: str, cell: object, read_as: list[str]) -> object:
    """The turns in a cell that holds nothing else; other structures are left to the layouts, which expect them."""
    if not isinstance(cell, str) or cell[:1] not in ("[", "{", "a", " ", "\n") or cell.rstrip()[-1:] not in _CLOSING:
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        value = None
    if value is None and _PRINTED.match(cell):
        value = printed(cell)
        if not _are_turns(value):
            raise DataError(
                f"{name}, {place}: {column!r} looks like a list that Python printed, and cannot be read back; write "
                "such a table as JSON: df.to_json(path, orient='records', lines=True)."
            )
        note(read_as, PYTHON)
    return value if _are_turns(value) else cell


def _are_turns(value: object) -> bool:
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(isinstance(turn, dict) and any(keys <= turn.keys() for keys in _TURN) for turn in turns)


def printed(text: str) -> object:
    """The value of a literal as Python or numpy prints it, None where it is none; nothing in the text is run.

    numpy puts no commas between the elements of an array: ``[{'a': 1} {'a': 2}]``.
    """
    try:
        return ast.literal_eval(_with_commas(text.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def _with_commas(text: str) -> str:
    """Put a comma wherever two elements stand side by side; without it Python would join two texts to one."""
    if not re.search(r"[\]})'\"]\s+[\[{('\"bru]", text):
        return text
    starts, lines = [0], io.StringIO(text)
    for line in lines:
        starts.append(starts[-1] + len(line))
    lines.seek(0)
    parts, done, ended = [], 0, False
    for token in tokenize.generate_tokens(lines.readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            continue
        place = starts[token.start[0] - 1] + token.start[1]
        if ended and (token.type == tokenize.STRING or token.string in _OPENING):
            parts += [text[done:place], ","]
            done = place
        ended = token.type == tokenize.STRING or token.string in _CLOSING
    return "".join([*parts, text[done:]])
