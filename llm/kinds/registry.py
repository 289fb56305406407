"""The kinds of training by name, and running one of them to its end; what a run does not need it does not load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.table import Table
from transformers import TrainingArguments

from ..data.grouping.columns import weighed
from ..data.pairs import Pair
from ..data.suites import load_suites, suite_files
from ..run.files import JsonObject
from ..run.progress import closing_lines
from ..training.config import RunConfig, TrainConfig
from ..training.frame import Trained, check_settings, publish
from ..training.processes import locked_for_all, on_main_process
from ..training.run import Task, add_results, train_run
from .settings import config_of as config_of


class Parts(NamedTuple):
    """What a kind of training does of the command.

    Attributes:
        plan: What the run would do, as tables.
        train: The run.
        judge: How it does on the suites, as a table; the results are put beside its model, unless they are there.
    """

    plan: Callable[[], RenderableType]
    train: Callable[[], Trained]
    judge: Callable[[Trained], Table]


def task_of(config: TrainConfig) -> Task[TrainConfig]:
    """The task that these settings are for, of those that are trained on pairs."""
    return import_module(f"{__package__}.{config.kind}").TASK(config)


def run(config: RunConfig, arguments: TrainingArguments, console: Console) -> None:
    """Train, judge on the suites, publish: what the settings ask for; with ``dry_run`` print the plan instead.

    Raises:
        FolderInUse: Another process works in the run folder.
    """
    with nullcontext() if config.dry_run else locked_for_all(str(arguments.output_dir)):
        _run(config, arguments, console)


def _run(config: RunConfig, arguments: TrainingArguments, console: Console) -> None:
    files, output = suite_files(config.suites), Path(str(arguments.output_dir))
    plan, train, judge = _parts(config, arguments, files)
    if config.dry_run:
        if config.resume:
            on_main_process(lambda: check_settings(config, arguments))
        planned = plan()
        if arguments.process_index == 0:
            console.print(planned)
        return
    trained = train()
    if arguments.process_index != 0:
        return
    if files:
        console.print(judge(trained))
    if config.publish:
        publish(output / "model", config.publish)
    console.print(closing_lines(config.kind, config.model, output), markup=False, highlight=False, soft_wrap=True)


def _parts(config: Any, arguments: TrainingArguments, files: dict[str, Path]) -> Parts:
    if config.own_answers:
        from .policy import parts

        return parts(config, arguments, files)
    task = task_of(config)
    read = {"eval_pairs": config.eval_pairs, "columns": config.columns, "used": True, "by": weighed(config.ambiguity)}
    suites = load_suites(files, **read)[0] if files else {}
    return Parts(
        plan=lambda: _plan(task, arguments, suites),
        train=lambda: train_run(task, arguments, suites),
        judge=lambda trained: _judged(task, trained, arguments, suites),
    )


def _plan(
    task: Task[TrainConfig], arguments: TrainingArguments, suites: Mapping[str, Sequence[Pair]]
) -> RenderableType:
    from ..training.plan import render_plan

    return render_plan(task, arguments, suites)


def _judged(
    task: Task[TrainConfig], trained: Trained, arguments: TrainingArguments, suites: Mapping[str, Sequence[Pair]]
) -> Table:
    from ..judging.tables import render_table
    from ..run.judged import results_on

    found = results_on(Path(str(arguments.output_dir)), suites) if trained.kept else None
    return render_table(found or judge_trained(task, trained, arguments, suites)["suites"])


def judge_trained(
    task: Task[TrainConfig], trained: Trained, arguments: TrainingArguments, suites: Mapping[str, Sequence[Pair]]
) -> JsonObject:
    """Evaluate a finished run on suites of pairs, as ``evaluate_model`` does, and put the results beside its model."""
    from ..judging.accuracy import evaluate_model

    output = Path(str(arguments.output_dir))
    judged = evaluate_model(
        trained.model,
        trained.tokenizer,
        suites,
        max_length=task.config.max_length,
        batch_size=arguments.per_device_eval_batch_size,
        margin_of=task.margin_of(output),
        by=weighed(task.config.ambiguity),
        progress=not arguments.disable_tqdm,
    )
    add_results(output, judged, suites)
    return judged
