"""What a run notes of itself when it starts, and whether one that is resumed is still that run.

Notes are names with values. Beside them stands which of the names may be missing on the other side: those at their
defaults, which an older or a newer version need not know, and those that other settings alone make worth a note.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from .files import JsonObject

_log = logging.getLogger(__name__)

ANEW = "use --overwrite, or choose another output folder"
OPTIONAL = "may be missing elsewhere"
ENVIRONMENT = "environment"
SESSIONS = "other versions"  # of which sessions were, and what these did otherwise
FORCED = "changed on the way"  # what --force let through
LISTED = "checkpoints have a manifest after step"  # tells checkpoints of earlier versions apart
OF_FILES = "sha256 of the {} file"  # which all versions noted
_OF_A_PROCESS = ("gradient_accumulation_steps", "per_device_train_batch_size")
_NO_SETTINGS = {OPTIONAL, ENVIRONMENT, SESSIONS, FORCED, LISTED}
_ABSENT = object()


class Differences(NamedTuple):
    """How two sets of notes compare.

    Attributes:
        changed: Names whose values differ, or which one side has and the other has not.
        unknown: Names that an older version did not note.
    """

    changed: list[str]
    unknown: list[str]


def differences(found: JsonObject, wanted: JsonObject) -> Differences:
    """Compare the notes of a folder with those of the run that wants to go on there, both ways."""
    names = [name for name in [*wanted, *(found.keys() - wanted.keys())] if name not in _NO_SETTINGS]
    if OPTIONAL not in found:  # it noted a part of what is noted now
        of_files = OF_FILES.partition("{}")[0]
        both = [name for name in names if name in wanted and (name in found or name.startswith(of_files))]
        unknown = [name for name in names if name not in found and name not in both]
        return Differences([name for name in both if not _same(found.get(name), wanted[name])], unknown)
    changed = [
        name
        for name in names
        if not _same(found.get(name, _ABSENT), wanted.get(name, _ABSENT))
        and not (name not in found and name in wanted[OPTIONAL])
        and not (name not in wanted and name in found[OPTIONAL])
    ]
    return Differences(sorted(changed, key=names.index), [])


def _same(one: object, other: object) -> bool:
    """Equal, or both unset: libraries turn None into False or into nothing as their versions please."""
    return one == other or (_is_unset(one) and _is_unset(other))


def _is_unset(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


def continued(folder: Path, found: JsonObject, wanted: JsonObject, apart: Differences) -> dict[str, Any]:
    """The notes of ``folder`` from now on, where a run goes on there.

    Args:
        folder: For the messages.
        found: Its notes.
        wanted: Those of the run that is resumed, as they come from a file.
        apart: Where the two differ, by ``compared``: it is added to what was changed on the way.
    """
    changed, unknown = apart
    other = [f"started by an older version, which did not note {_listed(unknown)}"] if unknown else []
    if unknown:
        _log.warning("%s was %s: whether they are the same is not known", folder, other[0])
    then, now = found.get(ENVIRONMENT, {}), wanted.get(ENVIRONMENT, {})
    moved = sorted(f"started with {name} {then[name]}, resumed with {now[name]}" for name in then.keys() & now.keys()
                   if then[name] != now[name])  # fmt: skip
    if moved:
        _log.warning("%s was %s: results may differ in their last digits or more", folder, "; ".join(moved))
    return {
        **wanted,
        **({ENVIRONMENT: then or now} if then or now else {}),
        SESSIONS: sorted({*found.get(SESSIONS, []), *other, *moved}),
        FORCED: found.get(FORCED, []) + [_change(name, found, wanted) for name in changed],
    }


def _of_processes(found: JsonObject, wanted: JsonObject) -> str:
    """On another number of processes: the effective batch there was, the one there is, and what would keep it."""
    then, now = (notes.get("world_size", 0) for notes in (found, wanted))
    names = ("prompts_per_step",) if "prompts_per_step" in wanted else _OF_A_PROCESS
    before, here = ([notes.get(name, 0) for name in names] for notes in (found, wanted))
    if then == now or not all(isinstance(size, int) and size > 0 for size in (then, now, *before, *here)):
        return ""
    batch, ours = then * prod(before), now * prod(here)
    said = (
        f"; {then} process(es) shared {batch} {'prompts' if len(names) == 1 else 'examples'} a step, {now} would share"
    )
    if batch == ours:
        return f"{said} as many"
    rest = {name: ours // size for name, size in zip(names, here, strict=True)}
    keeping = [f"--{name} {batch // others}" for name, others in rest.items() if batch % others == 0]
    return f"{said} {ours}: {' or '.join(keeping) or 'no number on each of them'} keeps the {batch}"


def compared(folder: Path, found: JsonObject, wanted: JsonObject, *, force: bool | None) -> Differences:
    """How the notes that were found compare with those wanted; what ``force`` lets through is logged.

    Args:
        folder: For the messages.
        found: Its notes.
        wanted: Those of the run that is resumed, as they come from a file.
        force: Go on whatever has changed. None where nobody can ask for that.

    Raises:
        ValueError: Something has changed, and ``force`` is not on; it names what.
    """
    changed, unknown = differences(found, wanted)
    processes = _of_processes(found, wanted) if changed else ""
    if changed and not force:
        raise ValueError(
            f"{folder} was started with another {', '.join(changed)}: resume with the same, {ANEW}"
            f"{'' if force is None else ' (--force resumes all the same)'}{processes}"
        )
    if changed:
        changes = "; ".join(_change(name, found, wanted) for name in changed)
        _log.warning("%s goes on although it changed: %s%s", folder, changes, processes)
    return Differences(changed, unknown)


def _listed(names: list[str]) -> str:
    shown = [name for name in names if " " in name]  # contents; the others are flags
    flags = len(names) - len(shown)
    return " and ".join([*([", ".join(shown)] if shown else []), *([f"{flags} flags"] if flags else [])])


def _change(name: str, found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    then, now = (_short(notes.get(name)) for notes in (found, wanted))
    return f"{name}: {then} -> {now}"


def _short(value: Any) -> object:
    """Of a hash, enough to tell it from another."""
    is_hash = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return f"{value[:16]}…" if is_hash else value


def other_versions(notes: Path) -> list[str]:
    """What was otherwise in an earlier session of the run whose notes these are: libraries, the device, our version."""
    try:
        found = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return found.get(SESSIONS, []) if isinstance(found, dict) else []
