"""A finished run folder, sealed with names, sizes and checksums of what it consists of: whoever reads it sees damage.

The seal lists the record, the settings, the model and what is needed to judge it; of a judged run, its metrics too. The
card and the chat template are for people to edit, checkpoints have manifests of their own, and what else lies in the
folder is not ours. Folders from before there was a seal are read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .manifest import Damage, listed, manifest_damage, write_manifest

RECORD, SEAL = "run.json", "seal.json"
_FOR_PEOPLE = {"README.md", "chat_template.jinja"}  # to edit
_FILES, _FOLDERS = (RECORD, "settings.json", "reference.npz"), ("model", "reference")
_ROWS, _NUMBER = "rows", (int, float)
_KINDS: dict[str, dict[str, object]] = {  # of entries that are read, where there are any
    RECORD: {"config": dict, "data": dict, "adversary": dict, "history": _ROWS, "kind": str, "steps": int, "seed": int,
             "seconds": _NUMBER},
    "metrics.json": {"suites": dict},
    "trainer_state.json": {"log_history": _ROWS, "global_step": int},
    "stage.json": {"settings": dict, "inputs": dict, "judged": bool},
}  # fmt: skip


class RunError(ValueError):
    """A folder that holds no run, or one that is not what was written; the message names the file."""


def seal(folder: Path) -> None:
    """Write down what the finished run in ``folder`` consists of; every file is read once."""
    files = [name for name in _FILES if (folder / name).is_file()]
    files += [
        file.relative_to(folder).as_posix()
        for place in _FOLDERS
        for file in sorted((folder / place).rglob("*"))
        if file.is_file() and file.name not in _FOR_PEOPLE
    ]
    write_manifest(folder, name=SEAL, files=files)


def unseal(folder: Path) -> None:
    """Break the seal, before anything that it lists is written again."""
    (folder / SEAL).unlink(missing_ok=True)


@contextmanager
def sealing(folder: Path, *names: str) -> Iterator[None]:
    """Inside, files of a run are written; its seal lists them from then on, and never as they were.

    Raises:
        RunError: The seal itself was altered.
    """
    if not (folder / SEAL).exists():
        yield
        return
    known = listed(folder, SEAL)
    if isinstance(known, Damage):
        raise RunError(_refusal(known))
    others = {name: facts for name, facts in known.items() if name not in names}
    if len(others) < len(known):
        write_manifest(folder, name=SEAL, files=(), known=others)
    yield
    write_manifest(folder, name=SEAL, files=names, known=others)


def run_damage(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Damage | None:
    """The first of the ``wanted`` files that is not as the run left it; None too where the folder has no seal."""
    return manifest_damage(folder, name=SEAL, wanted=wanted) if (folder / SEAL).exists() else None


def is_whole(folder: Path) -> bool:
    """Whether a run has come to its end there, and every file that it left is as it was."""
    return (folder / SEAL).exists() and run_damage(folder) is None


def check_run(folder: Path, *names: str) -> None:
    """Refuse files of a finished run that are not as it left them.

    Args:
        folder: Of the run, sealed or not.
        *names: Files within it.

    Raises:
        RunError: One was lost, cut off or altered; the message names it.
    """
    if damage := run_damage(folder, lambda name: name in names):
        raise RunError(_refusal(damage))


def check_model(place: str | Path) -> None:
    """Refuse a model that a finished run exported and that is not any more what it was; any other place is fine.

    Raises:
        RunError: A file was lost, cut off or altered; the message names it.
    """
    folder = Path(place).resolve()
    if damage := run_damage(folder.parent, lambda name: name.startswith(f"{folder.name}/")):
        raise RunError(_refusal(damage))


def read_record(path: Path, *needed: str, remedy: str = "put a whole copy of it back") -> dict[str, Any]:
    """A JSON object that a run left, as it was written.

    Args:
        path: The file, in the folder of the run.
        *needed: Entries that it must have.
        remedy: What to do about a file that is none.

    Raises:
        RunError: It is missing, no such object, lacks an entry, has one of another kind, or was altered since.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(f"{path} cannot be read ({reason}): it is cut off, or no record of a run; {remedy}") from error
    check_run(path.parent, path.name)
    if not isinstance(content, dict):
        raise RunError(f"{path} is no record of a run, it holds a {type(content).__name__}: {remedy}")
    if lacking := [name for name in needed if name not in content]:
        raise RunError(f"{path} is no record of a run, it lacks {', '.join(lacking)}: {remedy}")
    kinds = _KINDS.get(path.name, {})
    if odd := [name for name in kinds.keys() & content.keys() if not _is(content[name], kinds[name])]:
        raise RunError(f"{path} is no record of a run, its {min(odd)} is something else: {remedy}")
    return content


def _is(value: Any, kind: Any) -> bool:
    if kind is _ROWS:
        return isinstance(value, list) and all(isinstance(row, dict) for row in value)
    return isinstance(value, kind)


def _refusal(damage: Damage) -> str:
    return (
        f"{damage}: put a whole copy of it back, let the run write it again with --resume, or delete its {SEAL} to "
        "use what is there"
    )
