"""The kinds of training by name, and running one of them to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainingArguments

from ..data.pairs import Pair
from ..data.suites import load_suites, suite_files
from ..judging.accuracy import evaluate_model, render_table
from ..run.kinds import KINDS
from ..run.progress import closing_lines
from ..training.config import ConfigError, TrainConfig
from ..training.plan import render_plan
from ..training.processes import locked_for_all
from ..training.run import Task, Trained, add_results, publish, train_run


def config_of(name: str) -> Any:
    """The class of settings of a kind of training; no other kind is loaded.

    Raises:
        ConfigError: There is no such kind.
    """
    if name not in KINDS:
        raise ConfigError(f"there is no kind of training {name!r}: choose from {', '.join(KINDS)}")
    return import_module(f"{__package__}.{name}").CONFIG


def task_of(config: TrainConfig) -> Task[Any]:
    """The task that these settings are for, of those that are trained on pairs."""
    return import_module(f"{__package__}.{config.kind}").TASK(config)


def run(config: Any, arguments: TrainingArguments, console: Console) -> None:
    """Train, judge on the suites, publish: what the settings ask for; with ``dry_run`` print the plan instead.

    Raises:
        FolderInUse: Another process works in the run folder.
    """
    with nullcontext() if config.dry_run else locked_for_all(str(arguments.output_dir)):
        _run(config, arguments, console)


def _run(config: Any, arguments: TrainingArguments, console: Console) -> None:
    files = suite_files(config.suites)
    if config.own_answers:
        from .policy import run_policy

        run_policy(config, arguments, console, files)
        return
    task = task_of(config)
    suites = load_suites(files, eval_pairs=config.eval_pairs)[0] if files else {}
    if config.dry_run:
        console.print(render_plan(task, arguments))
        return
    trained = train_run(task, arguments)
    if suites and arguments.process_index == 0:
        judged = judge_trained(task, trained, arguments, suites)
        console.print(render_table(judged["suites"]))
    output = Path(str(arguments.output_dir))
    if config.publish and arguments.process_index == 0:
        publish(output / "model", config.publish)
    if arguments.process_index == 0:
        console.print(closing_lines(config.kind, config.model, output), markup=False, highlight=False, soft_wrap=True)


def judge_trained(
    task: Task[Any], trained: Trained, arguments: TrainingArguments, suites: Mapping[str, Sequence[Pair]]
) -> dict[str, Any]:
    """Evaluate a finished run on suites of pairs, as ``evaluate_model`` does, and put the results beside its model."""
    output = Path(str(arguments.output_dir))
    judged = evaluate_model(
        trained.model,
        trained.tokenizer,
        suites,
        max_length=task.config.max_length,
        batch_size=arguments.per_device_eval_batch_size,
        margin_of=task.margin_of(output),
        progress=not arguments.disable_tqdm,
    )
    add_results(output, judged, suites)
    return judged
