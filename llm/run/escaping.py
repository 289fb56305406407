r"""Names that came from data, settings and folders, written so that they stay text in the format around them.

JSON needs none of it: a name is written there as it is. Everything that a person, a browser, a spreadsheet or a
terminal reads passes one of these. A character that acts instead of showing (a control character, a change of the
writing direction) is written as its escape, ``\u202e``.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dro_core.messages import one_line as one_line
from dro_core.messages import visible as visible

_MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`*_[]|~$"}
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "\N{MINUS SIGN}": "$-$", "\N{EN DASH}": "--", "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
}  # fmt: skip
# Where a spreadsheet would begin a formula: at the start, behind spaces that it trims and apostrophes, and behind what
# separates cells in other countries; there too at a tab or a newline that begins a cell.
_FORMULA = re.compile(r"^(?=[\t\r\n])|(?:^|(?<=[;\t\r\n]))(?=[\s']*[=+@\uff1d\uff0b\uff20\uff0d-])")


def markdown(text: object) -> str:
    r"""The text inside a paragraph or a cell of a table of GitHub's Markdown.

    >>> print(markdown("ood_hhh | <b> x_"))
    ood_hhh \| &lt;b&gt; x\_
    """
    line = one_line(text)
    return "".join(
        sign if sign == "_" and line[place - 1 : place].isalnum() and line[place + 1 : place + 2].isalnum()
        else _MARKDOWN.get(sign, sign)
        for place, sign in enumerate(line)
    )  # fmt: skip


def markdown_row(*cells: object) -> str:
    """A row of a table in GitHub's Markdown; the cells are Markdown already."""
    return f"| {' | '.join(map(str, cells))} |"


def markdown_code(text: object) -> str:
    """The text as code; where it holds what no code span of a table can hold, as an element with the same look."""
    line = one_line(text)
    return f"<code>{markdown(text)}</code>" if not line or set(line) & set("`|\\") else f"`{line}`"


def latex(text: object) -> str:
    r"""The text inside a paragraph or a cell of a table of LaTeX.

    >>> print(latex("ood_hhh, 50 %"))
    ood\_hhh, 50 \%
    """
    line = one_line(text)
    guard = "{}" if line[:1] in ("[", "*") else ""  # after the end of a row these are its options
    return guard + "".join(_TEX.get(sign, sign) for sign in line)


def python_text(text: str) -> str:
    r"""A literal of Python in double quotes, on one line.

    >>> print(python_text('a"\n'))
    "a\"\n"
    """
    return visible(json.dumps(text, ensure_ascii=False))


def shell_word(text: str) -> str:
    r"""One word for a shell, quoted where needed; what acts instead of showing is an escape of bash.

    >>> print(shell_word("a b"), shell_word("a\x1bb"))
    'a b' $'a\u001bb'
    """
    if visible(text) == text and "\n" not in text:
        return shlex.quote(text)
    quoted = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"$'{visible(quoted)}'"


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV with the fields of all of them; texts are quoted, and None becomes an empty cell.

    Several numbers share a cell, with a space between two, to six places.

    Where a spreadsheet would compute a text, an apostrophe stands before it, and one more before those that are there:
    taken away again, every text is what it was.
    """
    rows = list(rows)
    fields = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    if fields:
        # Quoted, a line break of any kind stays in its cell.
        writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow([_inert(name) for name in fields])
        writer.writerows([_cell(row.get(name)) for name in fields] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return " ".join(f"{number:.6f}" for number in value) if isinstance(value, tuple) else _inert(value)


def _inert(value: Any) -> Any:
    return _FORMULA.sub("'", value) if isinstance(value, str) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII))


class VisibleFormatter(logging.Formatter):
    """Log lines in which names cannot act, and cannot look like lines of ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message in one line; a traceback below it keeps its own."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """All of it as ``visible`` shows it."""
        return visible(super().format(record))


def log_handlers(form: str) -> Sequence[logging.Handler]:
    """The handler of log lines on standard error, which write them in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(form))
    return [handler]
