"""Records of a data set on the Hugging Face hub, or of a local folder laid out like one, streamed row by row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from llm.data.formats.opened import DataError, Record, Records

if TYPE_CHECKING:
    from types import ModuleType

SPELLING = "hf://datasets/OWNER/NAME[@REVISION][/CONFIG]:SPLIT, where SPLIT may end in [START:STOP]"
_TAIL = r"(?::(?P<split>\w+(?:\.\w+)*)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?)?"
# One slash where pathlib has been at it.
_REMOTE = re.compile(
    r"hf:/{1,2}datasets/(?P<place>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/:]+))?(?:/(?P<part>[^:]+))?" + _TAIL
)
_LOCAL = re.compile(r"(?P<place>.+?)" + _TAIL)
_ALIASES = {"~parquet": "refs/convert/parquet"}  # as in huggingface_hub's file system


@dataclass(frozen=True)
class Address:
    """Where a data set is and which of its rows are meant.

    Attributes:
        text: As the user wrote it.
        place: "OWNER/NAME" on the hub, or a local folder.
        part: A configuration, or a folder inside; None for the only or default configuration.
        split: None for the only one.
        revision: Branch, tag or commit; None for the latest.
        start: First row, from 0.
        stop: Row after the last one; None for the end.
    """

    text: str
    place: str
    part: str | None = None
    split: str | None = None
    revision: str | None = None
    start: int = 0
    stop: int | None = None

    @property
    def stem(self) -> str:
        """The data set's name, part and split: what pairs without an id are called after."""
        return "-".join(filter(None, (Path(self.place).name, self.part, self.split)))

    @property
    def name(self) -> str:
        """The address, without the folders above a local data set: where it lies is nobody's business."""
        here = str(Path(self.place).parent) + os.sep
        return self.text.removeprefix(here) if Path(self.place).is_dir() else self.text


def address_of(source: str | os.PathLike[str]) -> Address | None:
    """Return the data set that ``source`` names, or None if it is a plain file.

    Raises:
        DataError: It starts like a hub address but is none.
    """
    text = os.fspath(source)
    if text.startswith("hf:"):
        if found := _REMOTE.fullmatch(text):
            return _address(text, found, found["place"], found["part"])
        raise DataError(f"{text} is no address of a data set; write {SPELLING}.")
    if Path(text).is_file() or not (found := _LOCAL.fullmatch(text)):
        return None
    folder = Path(found["place"])
    if _is_saved(folder):
        return _address(text, found, str(folder), None)
    named = folder.is_dir() or found["split"] is not None
    if named and _has_card(folder.parent) and not _has_card(folder):
        return _address(text, found, str(folder.parent), folder.name)
    return _address(text, found, str(folder), None) if folder.is_dir() else None


def _is_saved(folder: Path) -> bool:
    """Whether the folder was written by ``save_to_disk``, of a ``Dataset`` or a ``DatasetDict``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _has_card(folder: Path) -> bool:
    """Whether the folder is a data set's: a README of the hub begins with its metadata, others do not."""
    card = folder / "README.md"
    if not card.is_file():
        return False
    with card.open("rb") as stream:
        return stream.read(3) == b"---"


def _address(text: str, found: re.Match[str], place: str, part: str | None) -> Address:
    groups = {"revision": None} | found.groupdict()
    revision = unquote(groups["revision"]) if groups["revision"] else None
    stop = int(groups["stop"]) if groups["stop"] else None
    start = int(groups["start"] or 0)
    if stop is not None and stop <= start:
        raise DataError(f"{text} asks for no row: in [START:STOP], STOP must be larger than START.")
    return Address(text, place, part, groups["split"], _ALIASES.get(revision or "", revision), start, stop)


def hub_records(address: Address) -> Records:
    """The rows in order; the name of the configuration, if one was given, is the column ``config``.

    Raises:
        DataError: On iteration: the package datasets is missing, the hub cannot be reached, or there is no such part
            or split.
    """
    return Records(partial(_rows, address))


def _rows(address: Address, read_as: list[str]) -> Iterator[Record]:
    from llm.data.formats.cells import unpacked_row

    rows = _split(address, _opened(address))
    rows = rows.skip(address.start) if address.start else rows
    named = {"config": address.part} if address.part else {}
    stream = iter(rows)
    number = address.start
    while number != address.stop:  # rows.take(n) would look one row further
        number += 1
        try:
            row = next(stream)
        except StopIteration:
            return
        except Exception as error:  # whatever the file system, the format or the network raise
            raise DataError(f"{address.text}, row {number}: {_said(error)}.") from error
        place = f"row {number}"
        yield Record(place, named | unpacked_row(address.text, place, row, read_as))


def _opened(address: Address) -> Mapping[str, object]:
    """Open the data set and return its splits, without reading a row."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f'{address.text} is read by the package datasets, which is not installed: pip install "robust-rlhf[data]".'
        ) from error
    try:
        return _loaded(address, datasets)
    except DataError:
        raise
    except Exception as error:  # likewise
        raise DataError(f"{address.text} cannot be opened: {_said(error)}{_remedy(address, error)}.") from error


def _loaded(address: Address, datasets: ModuleType) -> Mapping[str, object]:
    """What ``save_to_disk`` wrote, or the part by its name, else as a folder, as in Anthropic/hh-rlhf."""
    if _is_saved(Path(address.place)):
        saved = datasets.load_from_disk(address.place)
        return saved if isinstance(saved, Mapping) else {str(saved.split or "train"): saved}
    load = partial(datasets.load_dataset, address.place, revision=address.revision, streaming=True)
    if address.part is None:
        return load()
    known = datasets.get_dataset_config_names(address.place, revision=address.revision)
    if address.part in known:
        return load(address.part)
    try:
        return load(data_dir=address.part)
    except FileNotFoundError as error:
        raise DataError(
            f"{address.text}: {address.part!r} is neither a folder nor a configuration of {address.place}; "
            f"the configurations are {', '.join(known)}."
        ) from error


def _split(address: Address, splits: Mapping[str, object]) -> Any:
    if address.split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if address.split is not None and address.split in splits:
        return splits[address.split]
    said = "which split is meant is not said" if address.split is None else f"there is no split {address.split!r}"
    stated = address.text if address.split is None else address.text[: address.text.rindex(f":{address.split}")]
    example = f"{stated}:{next(iter(splits))}"
    raise DataError(f"{address.text}: {said}; the splits are {', '.join(splits)}: write {example}, for instance.")


def _said(error: Exception) -> str:
    """Return what an error of another package says, as part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 400 else text[:400] + " ...").rstrip(".")


def _remedy(address: Address, error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return (
            "; without a network, fetch it elsewhere with "
            f"`hf download --repo-type dataset {address.place} --local-dir FOLDER` and give the folder"
        )
    return ""
