"""What is read of pairs, kept on disk: texts that a tokenizer has seen once are not tokenised again.

A file is called after all that its tokens depend on: the texts, the tokenizer with its template, the lengths, the
versions of the libraries and the code of this room. In it stand the tokens of all pairs one behind the other, and a row
of numbers for each pair. It is mapped into memory, and its first line is the checksum of the rest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from dro_core.files import whole
from dro_core.locks import FolderInUse, locked_file
from llm.data.layouts.tools import record_of
from llm.data.pairs import Pair
from llm.text.encoding import EncodedPair, Seen
from llm.text.window import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_SUFFIX = ".tokens"
_SUM, _ALIGNED = 65, 64  # bytes of the first line; numbers begin at a multiple of this
_COUNTS = [name for name in Seen._fields if name not in ("item", "reason", "lost")]
_PLACES = 11  # lengths of both sequences, the two spans, the window, reason and lost by their number
_COLUMNS = _PLACES + len(_COUNTS)
_LIBRARIES = ("transformers", "tokenizers", "jinja2")
_MAY_DIFFER = {"name_or_path", "tokenizer_file", "vocab_file", "merges_file", "model_max_length", "chat_template"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenCache:
    """Files of tokens in a folder, which may be deleted at any time.

    Attributes:
        folder: Where.
        most_bytes: After a file was written, those that were not used for longest are deleted until no more is left.
        least_pairs: Fewer are tokenised faster than they are worth keeping.
    """

    folder: Path
    most_bytes: int = 4 * 2**30
    least_pairs: int = 2000

    def read(
        self,
        pairs: Sequence[Pair],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        too_long: str,
        read: Callable[[], Iterable[Seen]],
    ) -> Iterable[Seen]:
        """What ``read()`` gives for these pairs: stored, if it was asked for before; else it is stored.

        Processes that ask for the same at once wait for the first. Where nothing can be written, nothing is stored.

        Raises:
            Exception: Whatever ``read`` raises.
        """
        if len(pairs) < self.least_pairs or not getattr(tokenizer, "is_fast", False):
            return read()
        file = self.folder / f"{fingerprint(pairs, tokenizer, max_length=max_length, too_long=too_long)}{_SUFFIX}"
        try:
            return self._stored(file) or self._made(file, read)
        except OSError as error:
            _log.warning("tokens are not kept in %s: %s", self.folder, error)
            return read()

    def _made(self, file: Path, read: Callable[[], Iterable[Seen]]) -> Iterable[Seen]:
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                with locked_file(file):
                    if (found := self._stored(file)) is None:
                        _write(file, read())
                        self._prune(file)
                        found = StoredTokens(file)
                    return found
            except FolderInUse:  # by somebody who is just tokenising these pairs
                time.sleep(0.2)

    def _stored(self, file: Path) -> StoredTokens | None:
        try:
            found = StoredTokens(file)
        except FileNotFoundError:
            return None
        except ValueError:
            _log.warning("%s was cut off or altered: its pairs are tokenised again", file)
            return None
        with suppress(OSError):
            os.utime(file)  # used just now
        return found

    def _prune(self, newest: Path) -> None:
        with suppress(OSError):  # another process may delete, too
            files = sorted(self.folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True)
            left = self.most_bytes - newest.stat().st_size
            for file in files:
                if file != newest:
                    left -= file.stat().st_size
                    if left < 0:
                        file.unlink()


class StoredTokens(Sequence[Seen]):
    """What is read of pairs, from a file.

    Args:
        file: As a ``TokenCache`` wrote it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not what was written.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            said, found = stream.readline(100).strip(), hashlib.file_digest(stream, "sha256").hexdigest()
            if said != found.encode():
                raise ValueError(f"{file} is not what was written")
            stream.seek(len(said) + 1)
            head = json.loads(stream.readline())
            numbers: NDArray[np.int32] = np.memmap(file, np.int32, "r", offset=stream.tell())
        self._reasons, self._lost = head["reasons"], [frozenset(names) for names in head["lost"]]
        self._rows = numbers[: head["pairs"] * _COLUMNS].reshape(-1, _COLUMNS)
        self._ids = numbers[self._rows.size :]
        self._starts = np.concatenate([[0], np.cumsum(self._rows[:, :2].sum(axis=1, dtype=np.int64))])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Seen: ...

    @overload
    def __getitem__(self, place: slice) -> list[Seen]: ...

    def __getitem__(self, place: int | slice) -> Seen | list[Seen]:
        if isinstance(place, slice):
            return [self[row] for row in range(*place.indices(len(self)))]
        row = range(len(self))[place]
        first, second, *spans, reason, lost = self._rows[row, :_PLACES].tolist()
        counts = {name: _typed(name, n) for name, n in zip(_COUNTS, self._rows[row, _PLACES:].tolist(), strict=True)}
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        item: EncodedPair | None = None
        if second:
            item = {
                "index": 0, "chosen": self._ids[start : start + first].tolist(),
                "rejected": self._ids[start + first : end].tolist(), "chosen_span": (spans[0], spans[1]),
                "rejected_span": (spans[2], spans[3]), "window": Window(*spans[4:]),
            }  # fmt: skip
        return Seen(item, self._reasons[reason], lost=self._lost[lost], **counts)


def fingerprint(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, *, max_length: int, too_long: str) -> str:
    """All that the tokens of pairs depend on, as 32 hexadecimal digits."""
    versions = {name: version(name) for name in _LIBRARIES}
    named = {name: value for name, value in tokenizer.init_kwargs.items() if name not in _MAY_DIFFER}
    digest = hashlib.sha256()
    for part in (
        _code(), [_COUNTS, versions, max_length, too_long], type(tokenizer).__qualname__, tokenizer_text(tokenizer),
        json.dumps(named, sort_keys=True, default=str),
    ):  # fmt: skip
        digest.update(json.dumps(part).encode() + b"\n")
    for pair in pairs:
        digest.update(json.dumps([pair.prompt, record_of(pair.chosen), record_of(pair.rejected)]).encode() + b"\n")
    return digest.hexdigest()[:32]


def tokenizer_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer does, as text: its rules or, of one in Python, its vocabulary; its template, special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    # How it was last called, which it remembers, says nothing about its tokens.
    kept = {name: rule for name, rule in rules.items() if backend is None or name not in ("truncation", "padding")}
    return json.dumps(kept, sort_keys=True) + str(tokenizer.chat_template) + str(tokenizer.special_tokens_map)


@cache
def _code() -> str:
    """A hash of what makes tokens of pairs: nobody has to remember to raise a number."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _typed(name: str, value: int) -> Any:
    return type(Seen._field_defaults[name])(value)


def _write(file: Path, read: Iterable[Seen]) -> None:
    """Write what is read, whole or not at all."""
    rows, ids = array("i"), array("i")
    reasons, lost = {"": 0}, {frozenset[str](): 0}
    for seen in read:
        item = seen.item
        places = [0] * 9
        if item is not None:
            ids.extend(item["chosen"])
            ids.extend(item["rejected"])
            places = [len(item["chosen"]), len(item["rejected"]), *item["chosen_span"], *item["rejected_span"]]
            places += item["window"]
        known = reasons.setdefault(seen.reason, len(reasons)), lost.setdefault(seen.lost, len(lost))
        rows.extend([*places, *known, *(int(getattr(seen, name)) for name in _COUNTS)])
    said = {"pairs": len(rows) // _COLUMNS, "reasons": list(reasons), "lost": [sorted(names) for names in lost]}
    head = json.dumps(said).encode()
    head += b" " * (-(_SUM + len(head) + 1) % _ALIGNED) + b"\n"
    digest = hashlib.sha256(head)
    digest.update(rows)
    digest.update(ids)
    with whole(file, unlocked=True) as stream:
        for part in (digest.hexdigest().encode() + b"\n", head, rows, ids):
            stream.write(part)
