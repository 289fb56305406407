"""The content of what a run reads: files, models with the bases of their adapters, snapshots of the hub."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from ..run.sealed import file_hash
from ..run.states import SETTINGS
from .adapters import adapter_chain
from .fetching import ModelError, locate

_log = logging.getLogger(__name__)

# Weights, configuration, tokenizer, chat templates, a model's own code; not the card.
_OF_A_MODEL = (".safetensors", ".json", ".jinja", ".model", ".py")
_WORDS = {"vocab.txt", "merges.txt"}
_LARGE = 2**28  # bytes that are hashed without a word: less than a second
FROM_SCRATCH, UNKNOWN = "tiny", "unknown"
OF_THE_MODEL = "content of model"  # in the notes of a run


def digest(path: Path) -> str:
    """Hash of a file, or of what makes the model in a folder: weights, tokenizer and configuration, not its card."""
    hashed = hashlib.sha256()
    for file in _files(path):
        hashed.update(f"{file.name} {file_hash(file)}".encode())
    return hashed.hexdigest()


def contents(names: Mapping[str, str | None]) -> dict[str, str]:
    """The content of everything these names lead to; each place is read once.

    Args:
        names: Role (``reward_model``) -> an alias, a folder of a model, an adapter or a run, a hub name, a file, or
            ``FILE.py:FUNCTION``. None, nothing, and models made from scratch have no content.

    Returns:
        Role -> content; an adapter's base stands as ``base of ROLE``. The content of a file or folder is its hash, that
        of a hub name the commit that is in the cache, or ``unknown``.
    """
    places = {
        f"{'base of ' * depth}{role}": place
        for role, name in names.items()
        if name and name != FROM_SCRATCH
        for depth, place in enumerate(_places(name))
    }
    folders = {Path(place).resolve() for place in places.values() if Path(place).exists()}
    size = sum(file.stat().st_size for folder in folders for file in _files(folder))
    if size > _LARGE:
        _log.info("reading %.1f GB once for the hashes of %s", size / 1e9, ", ".join(places))
    known = {folder: digest(folder) for folder in folders}
    return {role: known.get(Path(place).resolve()) or _commit(place) for role, place in places.items()}


def content_of(name: str) -> str:
    """The content of one name, with the bases of an adapter; of what is not known, the name."""
    return " on ".join(name if found == UNKNOWN else found for found in contents({"model": name}).values())


def check_below(adapter: str, below: str) -> None:
    """Refuse to put an adapter of one of our runs on another model than it was trained on.

    Adapters made elsewhere do not say what that was, and a model that lies in no folder has no files to compare.

    Raises:
        ModelError: The model below it was overwritten, or altered.
    """
    notes, place = Path(adapter).resolve().parent / SETTINGS, Path(locate(below))
    try:
        wanted = json.loads(notes.read_text(encoding="utf-8")).get(OF_THE_MODEL)
    except (OSError, ValueError, AttributeError):
        return
    if wanted is not None and place.is_dir() and digest(place) != wanted:
        raise ModelError(
            f"the adapter in {adapter} was trained on another model than {below} is now: put back what was there, or "
            f"delete {notes} to use the adapter all the same"
        )


def _places(name: str) -> list[str]:
    """Where a name leads: the last adapter first, then what it stands on."""
    file = name if Path(name).is_file() else name.rpartition(":")[0]
    return [file] if file and Path(file).is_file() else [locate(place) for place in reversed(adapter_chain(name))]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix in _OF_A_MODEL or file.name in _WORDS)


def _commit(name: str) -> str:
    """The commit that a hub name stands for in the cache, which is where a model that was just loaded came from."""
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        found = None
    return f"commit {Path(found).parent.name}" if isinstance(found, str) else UNKNOWN
