"""The command ``train policy``: its run, what is judged after it, and its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from torch import nn
from transformers import TrainingArguments

from ..data.mixing import said_of
from ..data.prompts import subset
from ..models.logprobs import vocabulary_of
from ..models.memory import Logits, sizes_of
from ..models.sharding import distribution
from ..policy.config import PolicyConfig
from ..policy.generation.choice import greet
from ..policy.judging import render_policy_table
from ..policy.run import build_policy_trainer, check_rewards, judge_run, prompts_of, train_policy
from ..run.judged import results_on
from ..run.kinds import KINDS
from ..run.launch import said_of_processes
from ..run.terminal import shown, shown_title
from ..training.guards import check_reads
from ..training.plan import is_half, logits_said, memory_table, sizes_said
from ..training.processes import on_main_process
from .registry import Parts


def parts(config: PolicyConfig, arguments: TrainingArguments, files: Mapping[str, Path]) -> Parts:
    """The parts of the command: a policy is judged on suites of prompts."""
    suites = {name: subset(prompts_of(config, path).prompts, config.eval_prompts) for name, path in files.items()}
    for name, prompts in suites.items():
        check_rewards(config, prompts, name)
    output = Path(str(arguments.output_dir))
    return Parts(
        plan=lambda: render_policy_plan(config, arguments),
        train=lambda: train_policy(config, arguments),
        judge=lambda trained: render_policy_table(
            (results_on(output, suites) if trained.kept else None)
            or judge_run(trained, config, arguments, suites, output)
        ),
    )


def render_policy_plan(config: PolicyConfig, arguments: TrainingArguments) -> Group:
    """What a run would do; everything is loaded and checked, nothing is written."""
    check_reads(config)
    written_by = on_main_process(lambda: greet(config))
    trainer, data = build_policy_trainer(config, arguments)
    prompts, answers = config.prompts_per_step * trainer.world, config.samples
    lengths = [len(ids) for ids in trainer.encoded]
    rows = {
        **said_of(data["train"]),
        "prompts": f"{data['trained_on']:,}, {data['too_long']:,} too long, "
        f"dropped: {data['train']['dropped'] or 'none'}",
        "prompt tokens": f"median {int(np.median(lengths))}, longest {max(lengths)}",
        "a step": f"{prompts * answers} answers = {prompts} prompts x {answers}, "
        f"{config.epochs * config.minibatches} update(s)",
        "answers are written by": written_by,
        "steps": f"{trainer.steps:,} ({trainer.steps_per_epoch:,} see every prompt once)",
        "the adversary sees": f"{prompts} prompts a step, by mean {config.adversary_sees}; version {config.version}",
        "estimator": config.estimator + (f", {config.value_model} value function" if config.estimator == "ppo" else ""),
        "reference": "the policy without its adapter" if trainer.reference.model is None else "a second model",
        "processes": said_of_processes(distribution()),
        **sizes_said(trainer.core, arguments, whole_checkpoints=True),
        **_logits(trainer.core.policy, config, arguments, lengths),
        "beside these": "activations, and the reward models, whole on every process",
    }
    table = Table(
        title=shown_title(f"Plan: {KINDS[config.kind].trained} against {config.ambiguity}"),
        box=SIMPLE_HEAD,
        show_header=False,
    )
    for name, text in rows.items():
        table.add_row(shown(name), shown(text))
    second = trainer.reference.model
    return Group(table, memory_table(trainer.core, arguments, others=sizes_of(second).weights if second else 0))


def _logits(
    policy: nn.Module, config: PolicyConfig, arguments: TrainingArguments, lengths: Sequence[int]
) -> dict[str, str]:
    """A row of the plan: logits of an update, and of a look at answers, behind prompts of these lengths."""
    places = config.max_new_tokens + max(lengths) - min(lengths) + 1
    update, look = (
        Logits(size, places, vocabulary_of(policy))
        for size in (arguments.per_device_train_batch_size, arguments.per_device_eval_batch_size)
    )
    return logits_said(update, look, half=is_half(policy, arguments))
