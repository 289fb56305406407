r"""What all commands say and how: text that cannot act on a terminal, and errors of files in a sentence.

A character that acts instead of showing (a control character, a change of the writing direction) is written as its
escape, ``\u202e``.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

# C0 but for tab and newline, DEL and C1; the marks, embeddings and isolates of bidirectional text; the separators that
# some readers take for a newline.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\N{ARABIC LETTER MARK}\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with every character that acts instead of showing as its escape; newlines and tabs are kept.

    >>> print(visible("a\x1b[2J\u202eb"))
    a\u001b[2J\u202eb
    """
    return _ACTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """The text as ``visible`` shows it, with single spaces for whatever white space it holds."""
    return " ".join(visible(str(text)).split())


def said(error: BaseException) -> str:
    """The error in one line; of one that the system has with a file, the file and the reason without a number.

    >>> said(FileNotFoundError(2, "No such file or directory", "a.csv"))
    'a.csv: no such file or directory'
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        files = [os.fsdecode(file) for file in (error.filename, error.filename2) if isinstance(file, str | bytes)]
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return one_line(f"{' and '.join(files) or error.filename}: {reason}")
    return one_line(error)


def check_folder(folder: str | Path, *, flag: str = "") -> None:
    """Refuse a place where no folder can be made, or nothing written; makes nothing.

    Args:
        folder: Which may be missing, and the folders around it too.
        flag: What named it, for the message.

    Raises:
        NotADirectoryError: It, or a part of its path, is a file.
        PermissionError: It may not be written to.
    """
    path = Path(folder)
    place = path.absolute()
    nearest, mode = next((part, mode) for part in (place, *place.parents) if (mode := _mode(part)) is not None)
    named = f"{flag} {folder}".strip()
    if not stat.S_ISDIR(mode):
        what = "is a file" if nearest == place else f"cannot be a folder, because {nearest} is a file"
        raise NotADirectoryError(f"{named} {what}: choose another folder")
    # Twice, because another process may remove an empty folder between two looks.
    if not _writable(nearest) and _mode(nearest) == mode and not _writable(nearest):
        where = "" if nearest == place else f" in {nearest}"
        raise PermissionError(f"{named} cannot be written to, no permission{where}: choose another folder")


def _mode(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
