"""Training from Python, and finished runs as values."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from dro_core import AmbiguitySet
from dro_core.texts import Spec

from ..data.mixtures import Part
from ..data.objects import NAME, pairs_of, rows_of
from ..data.pairs import PairSet, write_pairs
from ..doctor.record import RunError
from ..rewards.names import name_of
from ..run.files import json_ready, write_text
from ..run.kinds import KINDS, kind_of
from ..run.launch import launched
from ..run.run_differences import VERDICTS, record_of
from .frames import Shown, frame

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..training.config import RunConfig

Source: TypeAlias = object  # a path, pairs, a data frame, a data set, mappings


class Run(Shown):
    """A finished training run: ``table`` is its log, one row per logged step.

    Args:
        folder: The run folder; the ``model`` folder in it will do.
        trust_remote_code: Let the models that the record names run code of their own; the record cannot ask for it.
        temporary: A folder that goes with this value.

    Attributes:
        folder: The run folder.
        record: What ``run.json`` holds.

    Raises:
        RunError: There is no finished run in the folder.
    """

    def __init__(self, folder: str | Path, *, trust_remote_code: bool = False, temporary: Path | None = None) -> None:
        folder = Path(folder)
        record = record_of(folder)
        kind = kind_of(record.get("kind")) if record else None
        if record is None or kind is None:
            raise RunError(f"{folder} holds no finished run: name the output_dir of a training that came to its end")
        self.folder = folder.parent if folder.name == "model" and not (folder / "run.json").exists() else folder
        self.record, self.kind, self.trusted = record, kind.name, trust_remote_code
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    @property
    def ambiguity(self) -> str:
        """The set or rule that it was trained against, as text."""
        return self.record["config"]["ambiguity"]

    @cached_property
    def config(self) -> RunConfig:
        """Its settings, as the class of its kind; what was trained on in few bits is judged at full size."""
        from ..kinds.registry import config_of

        read = {"trust_remote_code": self.trusted, "load_in_4bit": False, "load_in_8bit": False}
        return config_of(self.kind).of_record(self.record["config"] | read)

    @cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The exported model and its tokenizer in float32, read when first asked for."""
        from .loading import loaded

        return loaded(str(self.folder), policy=self.kind != "reward", trust_remote_code=self.trusted, dtype="float32")

    @property
    def model(self) -> PreTrainedModel:
        """The exported model."""
        return self.loaded[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.loaded[1]

    @property
    def table(self) -> pd.DataFrame:
        """The log of the training."""
        return frame(self.record["history"])

    def caption(self) -> str:
        """What was trained, and the verdicts on its adversary."""
        record = self.record
        said = (
            f"{KINDS[self.kind].result} against {self.ambiguity}: {record['steps']} steps in {record['seconds']:.0f} s"
        )
        return ". ".join([said, *(record[verdict] for verdict in VERDICTS if record.get(verdict))])


def train(
    kind: str,
    data: Source,
    *,
    model: str | Path | Run | tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    ambiguity: str | AmbiguitySet = "erm",
    suites: object = None,
    columns: str | Mapping[str, str] | None = None,
    recipe: str | None = None,
    output: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train a model as ``robust-rlhf train KIND`` does, with the same settings, refusals and run folder.

    Args:
        kind: ``sft``, ``reward``, ``dpo`` or ``policy``.
        data: Pairs (for a policy, prompts): a path, or pairs, a data frame, a data set, mappings; or several of these
            in a list, each with how often its pairs are seen in an epoch: ``[("a.jsonl", 2), (frame, 1)]``, or as
            mappings of ``file``, ``weight``, ``source``, ``columns``.
        model: Alias, folder or hub name, a run, or a model with its tokenizer, which is kept as long as the value that
            comes back; None: as the recipe or the kind says.
        ambiguity: The set, or set or rule as text; ``erm`` trains plainly.
        suites: What to judge the model by at the end: a path, several, or name -> path or pairs.
        columns: Which column of the data, and of the suites that have it, holds what: ``{"prompt": "question", ...}``.
        recipe: A YAML file or a shipped recipe; None: the shipped one of this kind and model, where there is one.
        output: The run folder, which several processes must name; None: a temporary one, which goes with the value.
        **settings: Whatever else the recipe could say, fields of ``TrainingArguments`` included; ``reward_model`` and
            ``gold`` also as functions that stand in a file of their own.

    Raises:
        ConfigError: A setting that does not exist, or makes no sense.
        FileExistsError: ``output`` holds a run, and neither ``resume=True`` nor ``overwrite=True`` is given.
        llm.training.run.train_run: What else can go wrong.
    """
    from rich.console import Console

    from ..kinds.registry import config_of, run
    from ..training.config import ConfigError
    from ..training.settings import parse_settings

    if settings.get("dry_run"):
        raise ConfigError("dry_run prints a plan and trains nothing: use robust-rlhf train --dry_run true")
    if isinstance(model, tuple) and not settings.get("merge_adapter", True):
        raise ConfigError("an adapter alone needs its base in a folder: save the model, and name that folder")
    alone = launched(os.environ)
    if output is None and alone is not None and alone.processes > 1:
        raise ConfigError(f"{alone.processes} processes need one folder to train into: give output")
    place = Path(tempfile.mkdtemp(prefix="robust-rlhf-"))  # for what is no file yet
    folder = Path(output) if output else place / "run"
    try:
        said: dict[str, Any] = {**_recipe(kind, model, recipe), **settings}
        if columns is not None:
            said["columns"] = columns if isinstance(columns, str) else dict(columns)
        named = any(key in ("by", "within") for key, _ in Spec.of(str(ambiguity)).options)  # columns of the rows
        raw = kind == "policy" or named or bool(said.get("columns"))
        said |= {
            "train_file": _training_files(data, place, raw=raw),
            "output_dir": str(folder),
        }
        said |= {"ambiguity": str(ambiguity)} | _rewards(said)
        if judged_by := _suites(suites, place / "suites", raw=raw):
            said["suites"] = judged_by
        if model is not None:
            said["model"] = _start(model, place / "start")
        if said.get("eval_file") is not None:
            given = said["eval_file"]
            if isinstance(given, list) and all(isinstance(file, str | Path) for file in given):
                said["eval_file"] = [_file(file, place / "eval.jsonl", raw=raw) for file in given]
            else:
                said["eval_file"] = _file(given, place / "eval.jsonl", raw=raw)
        run(*parse_settings(config_of(kind), said, where="train"), Console(quiet=True))
    except FileExistsError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise FileExistsError(re.sub(r"--(resume|overwrite)\b", r"\1=True", str(error))) from error
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Run(folder, trust_remote_code=bool(settings.get("trust_remote_code")), temporary=place)


def _rewards(said: Mapping[str, object]) -> dict[str, object]:
    """What scores answers, functions by the names of their files."""
    found: dict[str, object] = {}
    for name in said.keys() & {"reward_model", "gold"}:
        given = said[name] if isinstance(said[name], list) else [said[name]]
        named = [name_of(one) if callable(one) else one for one in cast("list[object]", given)]
        found[name] = named if isinstance(said[name], list) else named[0]
    return found


def _recipe(kind: str, model: object, recipe: str | None) -> dict[str, object]:
    from ..training.settings import read_recipe, recipe_folder

    if recipe is None and isinstance(model, str) and (recipe_folder() / f"{kind}-{model}.yaml").exists():
        recipe = f"{kind}-{model}"
    return dict(read_recipe(recipe)) if recipe else {}


def _training_files(data: Source, place: Path, *, raw: bool) -> str | list[dict[str, object]]:
    """What the setting ``train_file`` says of the data: a path, or a mapping for each part of a mixture."""
    if (parts := _parts(data)) is None:
        return _file(data, place / f"{NAME}.jsonl", raw=raw)
    files = [
        _file(part["file"], place / f"{NAME}-{number}.jsonl", raw=raw or bool(part.get("columns")))
        for number, part in enumerate(parts, start=1)
    ]
    return [part | {"file": file} for part, file in zip(parts, files, strict=True)]


def _parts(data: Source) -> list[dict[str, object]] | None:
    """The parts of a mixture as mappings with a file; None where the data are one source."""
    if not isinstance(data, list | tuple) or not data:
        return None
    parts = [_part(entry) for entry in data]
    if None in parts:
        return None
    return [part for part in parts if part is not None]


def _part(entry: object) -> dict[str, object] | None:
    if isinstance(entry, str | Path):
        part = Part.of(entry)
        return {field.name: getattr(part, field.name) for field in fields(part)}
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], int | float):
        return {"file": entry[0], "weight": entry[1]}
    if isinstance(entry, Mapping) and "file" in entry and entry.keys() <= {field.name for field in fields(Part)}:
        return dict(entry)
    return None


def _file(source: Source, path: Path, *, raw: bool) -> str:
    """The path of the source; of objects, that of a file which holds them: records as they are where ``raw``."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, PairSet) and Path(source.path).exists() and source.columns is None:
        return source.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if raw and not isinstance(source, PairSet):
        source = rows_of(source)
        if isinstance(source[0], Mapping):  # prompts without answers, or columns that the run is told of
            write_text(path, "".join(json.dumps(json_ready(row), ensure_ascii=False) + "\n" for row in source))
            return str(path)
    write_pairs(pairs_of(source).pairs, path)
    return str(path)


def _suites(suites: object, folder: Path, *, raw: bool) -> list[str]:
    if suites is None:
        return []
    if isinstance(suites, Mapping):
        if odd := [name for name in suites if Path(str(name)).name != name]:
            raise ValueError(f"a suite is called by the stem of a file, which {odd[0]!r} cannot be")
        return [_file(source, folder / f"{name}.jsonl", raw=raw) for name, source in suites.items()]
    if isinstance(suites, Sequence) and not isinstance(suites, str) and all(isinstance(s, str | Path) for s in suites):
        return [str(suite) for suite in suites]
    return [_file(suites, folder / "suite.jsonl", raw=raw)]


def _start(model: str | Path | Run | tuple[PreTrainedModel, PreTrainedTokenizerBase], folder: Path) -> str:
    if isinstance(model, tuple):
        for part in model:
            part.save_pretrained(folder)
        return str(folder)
    return str(model.folder if isinstance(model, Run) else model)
