"""What two runs differ in beside the ambiguity set, as far as their records tell: a comparison is of like with like."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import JsonObject
from .finished import RECORD, RunError, check_run, read_record
from .folder import FORCED, SETTINGS
from .kinds import kind_of
from .resumption import OPTIONAL

VERDICTS = ("inaction", "beyond")  # what run.json says of an adversary: a sentence each, or None

_log = logging.getLogger(__name__)


def record_of(model: str | Path) -> JsonObject | None:
    """The ``run.json`` of a run folder or of the model in one, with its ``settings``; None for any other model.

    A file beside a model that is no record of a run is named in a warning; nothing is known of its run then.

    Raises:
        RunError: The record or the settings of a finished run are not what was written; the message names the file.
    """
    folder = Path(model)
    for place in (folder, folder.parent) if folder.name == "model" else (folder,):
        if not (place / RECORD).exists():
            continue
        check_run(place, RECORD, SETTINGS)
        try:
            record = read_record(place / RECORD, "config")
            return record | {"settings": read_record(place / SETTINGS) if (place / SETTINGS).exists() else {}}
        except RunError as error:
            _log.warning("%s; what its run was is not known", error)
            return None
    return None


def differences(one: JsonObject, other: JsonObject) -> list[str]:
    """What else than the ambiguity set the records of two runs differ in: ``steps 32 against 8``, ...

    A setting that one of them lacks, because it is of another kind or an older version, is not compared.

    >>> differences({"config": {"max_length": 64}, "steps": 32}, {"config": {"max_length": 64}, "steps": 8})
    ['steps 32 against 8']
    """
    found = []
    for name, value in _COMPARED.items():
        here, there = value(one), value(other)
        if here is not None and there is not None and here != there:
            found.append(f"{name} {_text(here)} against {_text(there)}{_cure(name, one, other)}")
    return found + _other_settings(one, other)


def _cure(name: str, one: JsonObject, other: JsonObject) -> str:
    """What makes the steps equal, where plain training takes the pairs that robust training leaves out of an epoch."""
    sets = [record["config"].get("ambiguity", "erm") for record in (one, other)]
    plain = sets.count("erm") == 1
    robust = one if sets[0] != "erm" else other
    if name != "steps" or not plain or robust["config"].get("last_window") != "drop":
        return ""
    return " (--last_window keep takes as many against a set)"


def _other_settings(one: JsonObject, other: JsonObject) -> list[str]:
    """Whatever else decides a result, optimizer, schedule and precision among it, by the names of the settings."""
    here, there = (record.get("settings", {}) for record in (one, other))
    said = _SAID | (_OF_AN_ADVERSARY if "erm" in (here.get("ambiguity"), there.get("ambiguity")) else set())
    names = [name for name in here if name in there and name not in said and here[name] != there[name]]
    return [f"{name} {_text(here[name])} against {_text(there[name])}" for name in names]


def remarks(names: Sequence[str], records: Sequence[JsonObject | None]) -> list[str]:
    """What to say under a comparison of models: the verdicts on their adversaries, and what else two runs differ in."""
    said = [
        f"{name}: {record[verdict]}"
        for name, record in zip(names, records, strict=True)
        for verdict in VERDICTS
        if record and record.get(verdict)
    ]
    known = [record for record in records if record]
    if len(known) == 2 and (found := differences(*known)):
        said.append(f"The two runs also differ in: {', '.join(found)}")
    elif len(known) == 2:
        said.append("The records of the two runs differ in the ambiguity set at most")
    return said


def _setting(name: str) -> Callable[[JsonObject], object]:
    return lambda record: record["config"].get(name)


def _entry(*path: str) -> Callable[[JsonObject], object]:
    def value(record: JsonObject) -> Any:
        found: object = record
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    return value


def _data(record: JsonObject) -> str | None:
    """The training file by name and the beginning of its hash: equal names may hold other pairs."""
    train = record.get("data", {}).get("train", {})
    return f"{train.get('file')} ({train['sha256'][:8]})" if "sha256" in train else None


def _start(record: JsonObject) -> str | None:
    name = record["config"].get("model")
    return "/".join(Path(name).parts[-3:]) if name else None


def _kind(record: JsonObject) -> str | None:
    kind = kind_of(record.get("kind"))
    return kind.trained if kind else record.get("kind")


def _text(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_COMPARED: dict[str, Callable[[JsonObject], object]] = {
    "kind": _kind,
    "steps": _entry("steps"),
    "effective batch": _entry("effective_batch"),
    "learning rate": _entry("learning_rate"),
    "training data": _data,
    "examples trained on": _entry("data", "trained_on"),
    "max_length": _setting("max_length"),
    "start": _start,
    "seed": _entry("seed"),
    "exported iterate": _setting("final"),
    "adapter rank": _setting("lora_rank"),
    "loss": _setting("loss"),
    "beta": _setting("beta"),
    "reward model": _setting("reward_model"),
    "answers per prompt": _setting("samples"),
    "estimator": _setting("estimator"),
    "KL coefficient": _setting("kl_coefficient"),
}

# Settings that the table above names by what they come to, and those that mean nothing without an adversary.
_SAID = {
    *("ambiguity", "learning_rate", "max_length", "model", "seed", "final", "lora_rank", "loss", "beta", "samples"),
    *("reward_model", "estimator", "kl_coefficient", "max_steps", "num_train_epochs", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "world_size", "prompts_per_step", "sha256 of the train file", FORCED, OPTIONAL),
}
_OF_AN_ADVERSARY = {
    *("plain_share", "ramp_share", "adapt_radius", "passes", "last_window"),
    *("version", "adversary_sees", "adversary_estimate"),
}
