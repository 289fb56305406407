"""Which checkpoint a run goes on from: one that is as it was written, or none."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch.serialization import get_unsafe_globals_in_checkpoint

from ..run.finished import RECORD, SEAL, RunError, read_record
from ..run.folder import (
    MARKER,
    CheckpointError,
    Started,
    by_step,
    is_complete,
    is_earlier,
    latest_checkpoint,
    start_output,
    write_json,
)
from ..run.manifest import MANIFEST, Damage, manifest_damage, unreadable
from ..run.resumption import SESSIONS
from .config import RunConfig

_REMEDY = (
    "put a whole copy of it back, or go on from the newest checkpoint that is whole with --resume --skip_damaged true"
)
_PARTS = {  # by the name that Trainer gives them; then those of FSDP, and of the policy runs of earlier versions
    "optimizer.pt": ("optimizer*",),
    "scheduler.pt": ("scheduler.pt", "custom_checkpoint_0.pkl"),
    "rng_state.pth": ("rng_state*", "random_states_*"),
}
_OF_DEEPSPEED = {  # what 0.19.8 leaves in its states beside tensors, seen on ZeRO-2 and ZeRO-3
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
}
_log = logging.getLogger(__name__)


class Resumable(Protocol):
    """State that belongs in a checkpoint beside the model and the optimizer."""

    def save(self, folder: Path) -> None:
        """Write the state into an existing folder."""
        ...

    def load(self, folder: Path) -> None:
        """Take the state over from a folder that ``save`` wrote."""
        ...


def checkpoint_to_resume(output_dir: str | Path, *, skip_damaged: bool = False, best: bool = False) -> Path | None:
    """The newest complete checkpoint, after reading it whole; half-written ones are removed.

    Args:
        output_dir: The run folder.
        skip_damaged: Take the newest that is whole; those after it are set aside under other names.
        best: Whether the best checkpoint up to then must be whole as well, because it may be exported.

    Raises:
        CheckpointError: A file is missing, cut off or altered; the message names it.
    """
    latest_checkpoint(output_dir)
    chosen, skipped = None, dict[Path, Damage]()
    for checkpoint in filter(is_complete, by_step(output_dir).values()):
        damage = damage_of(checkpoint) or (_damage_of_best(checkpoint) if best else None)
        if damage is None:
            chosen = checkpoint
            break
        if not skip_damaged:
            raise CheckpointError(f"{damage}: {_REMEDY}")
        skipped[checkpoint] = damage
    if skipped and chosen is None:
        raise CheckpointError(
            f"no whole checkpoint is left in {output_dir} ({'; '.join(map(str, skipped.values()))}): put a whole copy "
            "back, or start again with --overwrite"
        )
    for checkpoint, damage in skipped.items():
        _set_aside(checkpoint, damage)
    if chosen is not None and not (chosen / MANIFEST).exists():
        _log.warning("%s was written by an earlier version, without a manifest: it cannot be verified", chosen)
    return chosen


def start_run(output: Path, notes: dict[str, Any], config: RunConfig, *, best: bool = False) -> Started:
    """Make the folder of a run ready and choose where it goes on; ``best`` as for ``checkpoint_to_resume``.

    A finished run with the same settings is left as it is.

    Raises:
        ValueError: The folder was started with other settings.
        CheckpointError: What is there is damaged; the notes of the folder are as they were.
    """

    def choose() -> Path | None:
        return checkpoint_to_resume(output, skip_damaged=config.skip_damaged, best=best) if config.resume else None

    force = config.force and config.resume
    return start_output(output, notes, overwrite=config.overwrite, force=force, choose=choose)


def note_session(notes: Path, other: str) -> None:
    """Add to what was otherwise in a session; once is enough."""
    found = json.loads(notes.read_text(encoding="utf-8"))
    found[SESSIONS] = sorted({*found.get(SESSIONS, []), other})
    write_json(notes, found)


def verify(checkpoint: Path) -> None:
    """Read a checkpoint and compare it with its manifest.

    Raises:
        CheckpointError: A file is missing, cut off or altered; the message names it.
    """
    if damage := damage_of(checkpoint):
        raise CheckpointError(f"{damage}: {_REMEDY}")


def damage_of(checkpoint: Path) -> Damage | None:
    """What is wrong with a checkpoint; those of earlier versions are only opened. None if nothing is."""
    if not checkpoint.is_dir():
        return Damage(checkpoint, "is missing")
    if (checkpoint / MANIFEST).exists():
        return manifest_damage(checkpoint) or _foreign_code(checkpoint)
    if not is_earlier(checkpoint):
        return Damage(checkpoint / MANIFEST, "is missing")
    return _lacking(checkpoint) or unreadable(checkpoint) or _foreign_code(checkpoint)


def check_parts(checkpoint: Path) -> None:
    """Refuse a checkpoint without a state that ``Trainer`` would replace by a fresh one, whatever its manifest names.

    Raises:
        CheckpointError: One is missing; the message names it.
    """
    if damage := _lacking(checkpoint):
        raise CheckpointError(f"{damage}: {_REMEDY}")


@contextmanager
def loading(checkpoint: Path, what: str) -> Iterator[None]:
    """Inside, what cannot be loaded ends in one sentence: no list of checksums says that files fit this run.

    Raises:
        CheckpointError: In place of whatever else was raised.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # torch, safetensors, pickle, zipfile and numpy each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{what} in {checkpoint} cannot be loaded ({reason}): put a whole copy back, or delete that folder and "
            "resume from the checkpoint before"
        ) from error


def best_of(checkpoint: Path) -> Path | None:
    """The best checkpoint up to this one, in the folder where both are now: a run folder may have been moved."""
    best = json.loads((checkpoint / MARKER).read_text(encoding="utf-8")).get("best_model_checkpoint")
    return checkpoint.with_name(Path(best).name) if best else None


def _damage_of_best(checkpoint: Path) -> Damage | None:
    best = best_of(checkpoint)
    return None if best in (None, checkpoint) else damage_of(best)


def _lacking(checkpoint: Path) -> Damage | None:
    """A state that would be replaced by a fresh one without a word; DeepSpeed keeps its own in another folder."""
    if list(checkpoint.glob("global_step*")):
        return None
    for name, patterns in _PARTS.items():
        if not any(list(checkpoint.glob(pattern)) for pattern in patterns):
            return Damage(checkpoint / name, "is missing")
    return None


def _foreign_code(checkpoint: Path) -> Damage | None:
    """The first state of DeepSpeed, which unpickles them all, that names other code than DeepSpeed writes there."""
    for file in sorted(checkpoint.glob("global_step*/*.pt")):
        try:
            foreign = set(get_unsafe_globals_in_checkpoint(file)) - _OF_DEEPSPEED
        except Exception as error:  # no archive of torch at all
            return Damage(file, f"cannot be read ({str(error).splitlines()[0]})")
        if foreign:
            return Damage(file, f"would run code that DeepSpeed did not put there ({', '.join(sorted(foreign))})")
    return None


def _set_aside(checkpoint: Path, damage: Damage) -> None:
    aside = checkpoint.with_name(f"skipped-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    _log.warning("skipped %s, now %s, because %s", checkpoint, aside.name, damage)


def taken_in(output: Path) -> int | None:
    """The steps of the run that has come to its end there; None where none has, or its record says nothing."""
    try:
        return read_record(output / RECORD, "steps")["steps"] if (output / SEAL).exists() else None
    except RunError:  # --resume writes it again
        return None


def said_again(checkpoint: Path | None, taken: int, *, force: bool) -> str:
    """What is done again of a run that has come to its end after ``taken`` steps."""
    if checkpoint is not None and checkpoint.name == f"checkpoint-{taken}":
        return "what other settings add (--force) is done" if force else "no step is left"
    return f"steps after {checkpoint.name if checkpoint else 'its beginning'} are taken again (save_steps)"
