"""Running a pipeline: each stage as ``train`` would, once; what is done already is left alone.

A stage's folder notes its settings and a hash of everything it reads: the training file, and the models that other
stages made. A finished stage with the same of both is skipped, an unfinished one continues from its last checkpoint,
and one made from anything else is refused rather than mixed with the rest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..data.mixtures import parts_of
from ..data.suites import suite_files
from ..kinds.registry import run
from ..models.contents import contents, digest
from ..policy.run import check_rewards, prompts_of, training_prompts
from ..rewards.names import has_checks, reads_of
from ..run.files import JsonObject
from ..run.finished import RunError, read_record, run_damage
from ..run.sealed import read_sealed, write_sealed
from ..run.states import NOTE, Holds, holds
from ..run.terminal import shown, shown_title
from ..training.config import ConfigError
from ..training.processes import locked_for_all, on_main_process
from .ablation import ablation, best_of_rows, render_ablation, write_ablation
from .best_of import Drawn, best_of_curves, draw_best_of
from .plan import Pipeline, Stage

_MODELS, _REWARDS = ("model", "reference_model"), ("reward_model", "gold")
_JUDGING = {"suites", "eval_pairs", "eval_prompts", "eval_samples"}  # what a finished model may be judged by anew
_OF_A_START = {"force", "skip_damaged"}  # how to go on from what is there, which makes nothing
_log = logging.getLogger(__name__)


class State(Enum):
    """How far a stage is."""

    OPEN = "to be run"
    BEGUN = "to be continued"
    DONE = "done"


def run_pipeline(pipeline: Pipeline, console: Console) -> None:
    """Run what is left to do, stage by stage.

    Raises:
        ConfigError: A stage's folder was made from other settings, data or models.
        FolderInUse: Another process works in the folder of the pipeline.
        Exception: Whatever its training raises; the same command continues there.
    """
    with locked_for_all(pipeline.output_dir):
        _run_stages(pipeline, console)


def _run_stages(pipeline: Pipeline, console: Console) -> None:
    stages = pipeline.stages()
    on_main_process(lambda: _check_gold(pipeline))
    for number, stage in enumerate(stages, start=1):
        config, arguments = stage.parsed()
        state = on_main_process(lambda stage=stage: begin(stage))
        if arguments.process_index == 0:
            console.rule(shown(f"{number}/{len(stages)}  {stage.name}: {state.value}"))
        if state is not State.DONE:
            run(config, arguments, console)
            on_main_process(lambda stage=stage: note(stage, judged=True))
    drawn = draw_best_of(pipeline)
    on_main_process(lambda: conclude(pipeline, drawn, console))


def _check_gold(pipeline: Pipeline) -> None:
    """Refuse prompts that a checker or function as gold could not check, before models are trained for them."""
    judged = pipeline.judged_by()
    if not has_checks(judged.gold):
        return
    config = next(stage for stage in pipeline.stages() if stage.arm is not None).parsed()[0]
    training_prompts(config)
    for name, path in suite_files(judged.prompts).items():
        check_rewards(config, prompts_of(config, path).prompts, name)


def conclude(pipeline: Pipeline, drawn: Mapping[str, Drawn], console: Console) -> None:
    """Compare the arms, and best-of-n, where there is a gold reward; say what the curves of both show."""
    if pipeline.judged_by().gold is None:
        console.print("No gold reward (evaluation: gold), so the arms are not compared: each has its own reward model.")
        return
    rows, sampled = ablation(pipeline), best_of_rows(pipeline, drawn)
    said = write_ablation(pipeline, rows, sampled=sampled, curves=best_of_curves(drawn))
    if rows:
        console.print(render_ablation(rows, sampled))
    for line in said:
        console.print(line, markup=False)


def render_stages(pipeline: Pipeline) -> Table:
    """What there is to do; looks, and changes nothing."""
    answers = pipeline.judged_by().best_of
    then = f"then best-of-{answers} of the policy that all arms start from" if answers else None
    table = Table(title=shown_title(f"Pipeline in {pipeline.output_dir}"), caption=then, box=SIMPLE_HEAD)
    for heading in ("stage", "against", "state"):
        table.add_column(heading, overflow="fold")
    for stage in pipeline.stages():
        table.add_row(shown(stage.name), shown(stage.parsed()[0].ambiguity), state_of(stage).value)
    return table


def begin(stage: Stage) -> State:
    """How far a stage is; notes what it is about to be made from.

    Raises:
        ConfigError: See ``state_of``.
    """
    state = state_of(stage)
    if state is not State.DONE:
        stage.folder.mkdir(parents=True, exist_ok=True)
        note(stage, judged=False)
    return state


def state_of(stage: Stage) -> State:
    """How far a stage is.

    Raises:
        ConfigError: Its folder was made from other settings, data or models, which are named.
        RunError: What it was made from cannot be read.
    """
    if not (stage.folder / NOTE).exists():
        return State.OPEN
    if holds(stage.folder) is not Holds.RUN:
        return State.BEGUN  # nothing was made, so nothing can be mixed
    found = _noted(stage.folder / NOTE)
    wanted, ignored = _made_from(stage), _JUDGING | _OF_A_START
    for what, made_from in wanted.items():
        # Who names what is a setting; older notes have no bases of adapters and no commits of the hub.
        names = made_from.keys() | found[what].keys() if what == "settings" else made_from.keys() & found[what].keys()
        changed = sorted(name for name in names if made_from.get(name) != found[what].get(name) and name not in ignored)
        if changed:
            raise ConfigError(
                f"stage {stage.name}: {stage.folder} was made from another {', '.join(changed)}"
                f"{' (its content changed)' if what == 'inputs' else ''}: delete that folder to make it again, or "
                "choose another output_dir"
            )
    same_judges = all(found["settings"].get(name) == wanted["settings"].get(name) for name in _JUDGING)
    same_judges = same_judges and found.get("suites", _suites(stage)) == _suites(stage)
    if not (found["judged"] and same_judges):
        return State.BEGUN
    if damage := run_damage(stage.folder):
        _log.warning("stage %s is exported and judged again: %s", stage.name, damage)
        return State.BEGUN
    return State.DONE


def _noted(path: Path) -> JsonObject:
    """What ``note`` wrote; earlier versions wrote no checksum.

    Raises:
        RunError: The file is cut off, altered or something else; the message names it.
    """
    remedy = "delete it, and the stage goes on from what its folder holds"
    found = read_record(path, "settings", "inputs", "judged", remedy=remedy)
    if read_sealed(path, earlier=found.keys()) is None:
        raise RunError(f"{path} was altered since it was written: {remedy}")
    return found


def note(stage: Stage, *, judged: bool) -> None:
    """Write what the stage is made from, and whether it is finished and judged."""
    write_sealed(stage.folder / NOTE, {**_made_from(stage), "suites": _suites(stage), "judged": judged})


def _made_from(stage: Stage) -> dict[str, Mapping[str, object]]:
    named = {name: str(stage.settings[name]) for name in _MODELS if stage.settings.get(name)}
    inputs = {name: digest(file) for name, file in _data_files(stage).items() if file.exists()}
    rewards = [reads_of(name, stage.settings.get(name)) for name in _REWARDS]
    inputs |= contents({**named, **rewards[0], **rewards[1]})
    return {"settings": json.loads(json.dumps(dict(stage.settings))), "inputs": inputs}


def _data_files(stage: Stage) -> dict[str, Path]:
    """What the stage reads, by the setting that names it; of several training files, each by its own name."""
    training = [part.file for part in parts_of(stage.settings.get("train_file"))]
    named = {"train_file" if len(training) == 1 else f"train_file {file}": file for file in training}
    held_out = [part.file for part in parts_of(stage.settings.get("eval_file"))]
    named |= {"eval_file" if len(held_out) == 1 else f"eval_file {file}": file for file in held_out}
    return {name: Path(file) for name, file in named.items()}


def _suites(stage: Stage) -> dict[str, str]:
    """Hashes of the files that the stage's model is judged on."""
    files = [Path(name) for name in stage.settings.get("suites", ())]
    return {str(file): digest(file) for file in files if file.is_file()}
