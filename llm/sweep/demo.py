"""The main job: the same model trained plainly and robustly, over sets and seeds, judged side by side on one page.

A preset sweep over whole models of one kind. Its runs are run folders, as ``robust-rlhf train`` makes them, each with
the checkpoints it goes on from; the results folder is made from them when all are finished.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from rich.console import Console
from transformers import TrainingArguments

from dro_core.files import whole
from dro_core.locks import locked

from ..adversary.spec import parse_reweighting
from ..data.corpus.corpus import write_corpus
from ..data.pairs import Pair, find_files
from ..data.suites import load_suites
from ..kinds.registry import config_of, judge_trained, task_of
from ..models.contents import contents
from ..models.loading import load_policy, load_reward_model
from ..report.collect import baseline_of
from ..report.content import build_content
from ..report.page import write_report
from ..report.screen import render_summary
from ..run.environment import environment
from ..run.escaping import visible
from ..run.files import JsonObject
from ..run.finished import RECORD, RunError, read_record, run_damage, sealing
from ..run.folder import SETTINGS, check_output, start_output, write_folder
from ..run.kinds import KINDS
from ..run.resumption import ENVIRONMENT, OPTIONAL
from ..run.sealed import checksum, file_hash
from ..run.stored_arrays import read_arrays
from ..run.terminal import shown
from ..training.config import ConfigError, TrainConfig
from ..training.run import load_training_pairs, train_run
from ..training.settings import check_known, parse_settings, read_recipe
from .recorded import Finished, record_runs

_log = logging.getLogger(__name__)
_PRETRAINED = {"sft": "sft-smollm2", "reward": "reward-minilm", "dpo": "dpo-smollm2"}
_CORPUS, _MARGINS = "content of the built-in corpus", "margins.npz"
_EARLIER = "report.json"  # the numbers of the page that versions before had, beside it
_DECIDED = {"ambiguity", "columns", "eval_file", "max_pairs", "model", "output_dir"}
_DECIDED |= {"overwrite", "resume", "seed", "suites", "train_file"}


@dataclass(frozen=True)
class DemoConfig:
    """Everything that decides the result of a demo; a resumed demo must have the same.

    ``max_pairs`` and ``eval_pairs`` draw fixed random subsets of the training file and of each suite.
    """

    data: str | None = None
    columns: str | None = None
    kind: str = "reward"
    model: str = "tiny"
    seeds: int = 1
    ambiguity: tuple[str, ...] = ("erm", "tv:0.2", "tv:0.2,max_ratio=4")
    max_pairs: int | None = None
    eval_pairs: int | None = None
    settings: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in _PRETRAINED:
            raise ConfigError(f"kind must be one of {', '.join(_PRETRAINED)}, got {self.kind!r}")
        if self.columns and self.data is None:
            raise ConfigError("columns are those of the files in data: name their folder, or leave columns out")
        for spec in self.ambiguity:
            parse_reweighting(spec)
        if self.seeds < 1:
            raise ConfigError(f"seeds must be at least 1, got {self.seeds}")
        if len({str(parse_reweighting(spec)) for spec in self.ambiguity}) < len(self.ambiguity):
            raise ConfigError(f"an ambiguity set is named twice in {' '.join(self.ambiguity)}: name each once")
        if self.eval_pairs is not None and self.eval_pairs < 1:
            raise ConfigError(f"eval_pairs must be at least 1, got {self.eval_pairs}")
        check_known(config_of(self.kind), self.settings, where="--set")
        if taken := sorted(self.settings.keys() & _DECIDED):
            raise ConfigError(f"--set cannot change {taken[0]}: the demo's own flags and folders decide it")

    @property
    def trained_with(self) -> dict[str, object]:
        """The recipe of the kind (for tiny, else for pretrained weights), then what the command line changed."""
        recipe = read_recipe(f"{self.kind}-tiny" if self.model == "tiny" else _PRETRAINED[self.kind])
        recipe.pop("model", None)
        return recipe | self.settings

    def run(self, spec: str, seed: int, *, train_file: str, folder: Path) -> tuple[TrainConfig, TrainingArguments]:
        """The settings of one training: the recipe's, then what makes this run this run."""
        own = {
            "model": self.model,
            "train_file": train_file,
            "columns": self.columns,
            "max_pairs": self.max_pairs,
            "ambiguity": spec,
            "seed": seed,
            "output_dir": str(folder),
            "resume": True,
            "skip_damaged": True,  # nobody is there to be asked
        }
        return parse_settings(config_of(self.kind), self.trained_with | own, where="--set")


class _Data(NamedTuple):
    """The training file, the suites, and what a report says of their files."""

    train_file: Path
    suites: dict[str, list[Pair]]
    records: dict[str, dict]

    @classmethod
    def read(cls, folder: Path, eval_pairs: int | None, columns: str | None = None) -> _Data:
        train_file, files = find_files(folder)
        return cls(train_file, *load_suites(files, eval_pairs=eval_pairs, columns=columns, used=True))

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the training file and of every suite: a resumed demo must have the same."""
        suites = {name: record["sha256"] for name, record in self.records.items()}
        return {"train": file_hash(self.train_file)} | suites


def run_demo(
    demo: DemoConfig, output: Path, *, resume: bool, overwrite: bool, console: Console, command: Sequence[str]
) -> JsonObject:
    """Train every ambiguity set with every seed, judge on every suite, write ``results/`` and report.html.

    Finished runs are kept on resume, an interrupted one continues from its last checkpoint.

    Returns:
        The report, as ``llm.report.content.build_content`` makes it.

    Raises:
        FolderInUse: Another process works in the output folder.
    """
    with locked(output):
        data = _started(demo, output, resume=resume, overwrite=overwrite)
        plan = [(spec, seed) for seed in range(demo.seeds) for spec in demo.ambiguity]
        folders = []
        for number, (spec, seed) in enumerate(plan, start=1):
            console.rule(shown(f"{number}/{len(plan)}  {spec}, seed {seed}"))
            folders.append(output / "runs" / _slug(spec) / f"seed-{seed}")
            if not _is_finished(folders[-1]):
                _train_and_judge(demo, spec, seed, data, folders[-1])
        return _report(demo, output, folders, data, console, command)


def _started(demo: DemoConfig, output: Path, *, resume: bool, overwrite: bool) -> _Data:
    """The output folder with its notes, and the data: all that can be wrong is looked at before an old demo goes."""
    output = check_output(output, resume=resume, overwrite=overwrite)
    demo.run(demo.ambiguity[0], 0, train_file="train", folder=output)  # settings before data
    data = _Data.read(Path(demo.data), demo.eval_pairs, demo.columns) if demo.data else None
    if demo.model != "tiny":
        (load_reward_model if demo.kind == "reward" else load_policy)(demo.model)
    read = {f"content of {role}": content for role, content in contents({"model": demo.model}).items()}
    corpus = {} if data else _corpus_hashes()
    read |= {_CORPUS: corpus} if corpus else {}
    files = data.hashes() if data else {}
    # Demos of earlier versions did not note their corpus, and had no mapping.
    optional = [_CORPUS] if demo.columns else [_CORPUS, "columns"]
    notes = asdict(demo) | {"files": files} | read | {OPTIONAL: optional, ENVIRONMENT: environment()}
    start_output(output, notes, overwrite=overwrite)
    return data or _Data.read(_builtin_corpus(output, corpus), demo.eval_pairs)


def _train_and_judge(demo: DemoConfig, spec: str, seed: int, data: _Data, folder: Path) -> None:
    """One run: train or continue, evaluate, leave run.json, model/ and, last of all, margins.npz."""
    config, arguments = demo.run(spec, seed, train_file=str(data.train_file), folder=folder)
    task = task_of(config)
    judged = judge_trained(task, train_run(task, arguments, data.suites), arguments, data.suites)
    with sealing(folder, _MARGINS), whole(folder / _MARGINS) as stream:
        np.savez(stream, allow_pickle=False, **judged["margins"])


def _is_finished(folder: Path) -> bool:
    """Whether a run was judged; where what it left cannot be read any more, it is exported and judged again."""
    if not (folder / _MARGINS).exists():
        return False
    try:
        damage = run_damage(folder)
        _read_run(folder)
    except ValueError as error:
        damage = error
    if damage is not None:
        _log.warning("%s is exported and judged again: what it left is damaged (%s)", folder, damage)
    return damage is None


def _read_run(folder: Path) -> Finished:
    needed = ("config", "seed", "history", "adversary", "seconds", "steps", "data", "kind")
    record = read_record(folder / RECORD, *needed)
    if "ambiguity" not in record["config"]:
        raise RunError(
            f"{folder / RECORD} is no record of a run, its config has no ambiguity: start again with --overwrite"
        )
    return Finished(folder, record | {"settings": read_record(folder / SETTINGS)}, read_arrays(folder / _MARGINS))


def _report(
    demo: DemoConfig, output: Path, folders: Sequence[Path], data: _Data, console: Console, command: Sequence[str]
) -> JsonObject:
    """Write the results folder and the page; show the summary."""
    place = demo.data or "the built-in corpus"
    about = {
        "title": f"Robust and standard {KINDS[demo.kind].results}: {demo.model} on {place}",
        "command": shlex.join(command),
        "settings": asdict(demo) | {"settings": demo.trained_with},
        "data": {"suites": data.records},
    }
    config, _ = demo.run(demo.ambiguity[0], 0, train_file=str(data.train_file), folder=folders[0])
    runs = [_read_run(folder) for folder in folders]
    left_out = set(runs[0].record["data"].get("left_out", ()))
    train = [pair for place, pair in enumerate(load_training_pairs(config)[0]) if place not in left_out]
    results = output / "results"
    write_folder(results, lambda partial: record_runs(partial, runs, data.suites, train=train, about=about))
    report = build_content(results, baseline=baseline_of(demo.ambiguity))
    page, _ = write_report(report, output / "report.html")
    if (earlier := output / _EARLIER).exists():
        _log.warning("%s was of an earlier version: the numbers of the page are in report_files now", earlier)
        earlier.unlink()
    console.print(render_summary(report))
    console.print(f"Report: {visible(str(page))}", markup=False, emoji=False)
    return report


def _corpus_hashes() -> dict[str, str]:
    """SHA-256 of the files of the built-in corpus, as this version makes them."""
    with TemporaryDirectory() as folder:
        return {file.name: file_hash(file) for file in sorted(write_corpus(folder).iterdir())}


def _builtin_corpus(output: Path, made: Mapping[str, str]) -> Path:
    """The corpus in the output folder, where it is made once, and again where it is not that one any more."""
    folder = output / "data"
    if any(checksum(folder / name) != known for name, known in made.items()):
        if folder.exists():
            _log.warning("%s is made again: it is damaged, or of an earlier version", folder)
        write_folder(folder, lambda partial: write_corpus(partial))
    return folder


def _slug(spec: str) -> str:
    return spec.replace(":", "-").replace(",", "_").replace("=", "-")
