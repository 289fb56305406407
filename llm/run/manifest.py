"""What a checkpoint consists of, written last: what is named there was whole when the checkpoint was done."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from .files import write_text
from .sealed import file_hash, text_hash

MANIFEST = "manifest.json"
FORMAT = 1  # of the manifest; one number up whenever an older reader would misread it
_OWN = "sha256 of this list"
_ZIPPED = (".bin", ".npz", ".pt", ".pth", ".pkl")  # torch and numpy keep a checksum of every array in these


class Damage(NamedTuple):
    """A file that is not what was written, and what is wrong with it."""

    file: Path
    what: str

    def __str__(self) -> str:
        return f"{self.file} {self.what}"


def write_manifest(
    folder: Path, *, name: str = MANIFEST, files: Iterable[str] | None = None, known: Mapping[str, object] | None = None
) -> None:
    """Name files below ``folder`` with their sizes and checksums; each is read once.

    Args:
        folder: Where.
        name: Of the manifest.
        files: Paths within the folder; None for all that is there.
        known: What is listed of others, and stays.
    """
    found = {file: _facts(folder / file) for file in (_names(folder) if files is None else files)}
    found = {**(known or {}), **found}
    write_text(folder / name, json.dumps({"format": FORMAT, "files": found, _OWN: _own(found)}, indent=1) + "\n")


def listed(folder: Path, name: str = MANIFEST) -> dict[str, Any] | Damage:
    """What the manifest of ``folder`` names, by path; what is wrong with it where it cannot be believed."""
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        newer, files = found["format"] > FORMAT, found["files"]
        whole = newer or found[_OWN] == _own(files)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        newer, files, whole = False, {}, False
    if not whole:
        return Damage(folder / name, "is cut off or altered")
    return Damage(folder / name, "was written by a newer version of this program") if newer else files


def manifest_damage(
    folder: Path, *, name: str = MANIFEST, wanted: Callable[[str], bool] = lambda name: True
) -> Damage | None:
    """The first of the ``wanted`` files that is not as the manifest of ``folder`` says; None if all are. Reads each."""
    found = listed(folder, name)
    if isinstance(found, Damage):
        return found
    files = {name: facts for name, facts in found.items() if wanted(name)}
    # Sizes first: most damage shows there, and looking at them costs nothing.
    for look in (_other_size, _other_content):
        for name, facts in files.items():
            if damage := look(folder / name, facts):
                return damage
    return None


def unreadable(folder: Path) -> Damage | None:
    """The first file of ``folder`` that cannot be opened, for checkpoints of earlier versions, which have no manifest.

    Not a proof of anything: a flipped bit in the weights goes unseen.
    """
    for name in _names(folder):
        if (reason := _why_unreadable(folder / name)) is not None:
            return Damage(folder / name, f"cannot be read ({reason})")
    return None


def _names(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(MANIFEST))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _facts(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": file_hash(path)}


def _own(files: object) -> str:
    return text_hash(json.dumps(files, sort_keys=True))


def _other_size(path: Path, facts: Mapping[str, object]) -> Damage | None:
    if not path.is_file():
        return Damage(path, "is missing")
    size = path.stat().st_size
    return None if size == facts["bytes"] else Damage(path, f"has {size:,} bytes of {facts['bytes']:,}")


def _other_content(path: Path, facts: Mapping[str, object]) -> Damage | None:
    try:
        same = _facts(path) == facts
    except OSError as error:
        return Damage(path, f"cannot be read ({error.strerror or error})")
    return None if same else Damage(path, "was altered since it was written")


def _why_unreadable(path: Path) -> str | None:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "np"):
                pass
        elif path.suffix in _ZIPPED:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            return None if damaged is None else f"its part {damaged} is damaged"
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        return str(error)
    return None
