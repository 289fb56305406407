"""What a run would do, before it does it: batches, steps, passes, memory, and what the adversary will see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from torch import nn
from transformers import TrainingArguments

from ..audit.run_audit import Suites
from ..audit.table import lines, render
from ..data.mixing import said_of
from ..models.memory import checkpoint_bytes, held, sizes_of
from ..models.quantised import is_quantised
from ..models.sharding import distribution
from ..run.kinds import KINDS
from ..run.launch import said_of_processes
from ..run.terminal import shown, shown_title
from ..text.batches import Side
from ..text.encoding import EncodedPairs
from .config import DPOConfig, TrainConfig
from .guards import check_reads
from .pair_trainer import PairTrainer, steps_of
from .run import Task, build_trainer, load_training_pairs

_GIB = 2.0**30


def render_plan(task: Task[TrainConfig], arguments: TrainingArguments, suites: Suites) -> Group:
    """The plan of a run, and the audit of its pairs; all is loaded and checked as in the run, nothing is written."""
    check_reads(task.config)
    pairs = load_training_pairs(task.config)
    trainer, encoded, audit, concerns = build_trainer(task, arguments, pairs, suites=suites)
    model = cast(nn.Module, trainer.model)
    title = shown_title(f"Plan: {KINDS[task.config.kind].trained} against {task.config.ambiguity}")
    table = Table(title=title, box=SIMPLE_HEAD, show_header=False)
    rows = {
        **said_of(pairs.files["train"]),
        **_batches(trainer, arguments, len(encoded), len(pairs.train)),
        "passes": _passes(trainer, task.config),
        "held-out pairs": f"{len(pairs.held_out):,}",
        **said_of(pairs.files.get("eval", {}), "held-out"),
        **_tokens(encoded, task.sides),
        "processes": said_of_processes(distribution()),
        **sizes_said(model, arguments, whole_checkpoints=not task.config.lora_rank),
        "activations": _activations(model, encoded, arguments, task.sides),
    }
    for name, text in rows.items():
        table.add_row(shown(name), shown(text))
    return Group(table, memory_table(model, arguments), render(audit), *map(shown, lines(audit, concerns)))


def _batches(trainer: PairTrainer, arguments: TrainingArguments, pairs: int, in_file: int) -> dict[str, str]:
    """Batches and steps over the ``pairs`` that are trained on, of those ``in_file``."""
    micro, window = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    (steps, per_epoch), effective, seen = steps_of(trainer), trainer.effective_batch, trainer.epoch_examples
    world = arguments.world_size
    rest = (
        f"; the last {pairs - seen:,} of an epoch fill no batch and are left out (unless --last_window keep)"
        if seen < pairs
        else ""
    )
    left_out = f" of {in_file:,}: the others cannot be trained on" if pairs < in_file else ""
    batch = {
        "the adversary sees": f"{min(effective, pairs)} pairs a step; its worst case is over these alone{rest}",
    }
    return {
        "training pairs": f"{pairs:,}{left_out}",
        **({"the radius is measured on": f"{len(trainer.slice.data):,} other pairs"} if trainer.slice else {}),
        "effective batch": f"{effective} = {micro} per device x {window} accumulated x {world} process(es)",
        "optimizer steps": f"{steps:,} ({per_epoch:,} per epoch)",
        **({} if trainer.ambiguity is None else batch),
    }


def _passes(trainer: PairTrainer, config: object) -> str:
    if trainer.ambiguity is None:
        return "one: plain training"
    precomputed = isinstance(config, DPOConfig) and config.reference_kind() == "precomputed"
    batch: dict[str, Any] = {"reference": None} if precomputed else {}
    return str(trainer.decided(batch))


def _lengths(encoded: EncodedPairs, sides: Sequence[Side]) -> NDArray[np.intp]:
    return np.array([len(encoded[row][side]) for row in range(len(encoded)) for side in sides])


def _tokens(encoded: EncodedPairs, sides: Sequence[Side]) -> dict[str, str]:
    lengths = _lengths(encoded, sides)
    cut = encoded.truncation
    return {
        f"tokens a sequence ({' and '.join(sides)})": f"median {int(np.median(lengths))}, longest {lengths.max()}",
        "cut": f"{cut.prompts_cut:,} prompts and {cut.answers_cut:,} answers of {cut.pairs:,} pairs",
    }


def sizes_said(model: nn.Module, arguments: TrainingArguments, *, whole_checkpoints: bool) -> dict[str, str]:
    """Rows of a plan: how many parameters there are, the size of a checkpoint, and how many of these stay."""
    sizes, kept, mixed = sizes_of(model), arguments.save_total_limit, arguments.bf16 or arguments.fp16
    one, other = (checkpoint_bytes(sizes, frozen_too=whole_checkpoints, spread=spread) for spread in (False, mixed))
    under = f" (under fsdp2 {_gib(other)})" if other > one else ""
    return {
        "parameters": f"{sizes.number / 1e6:,.1f} million, {sizes.trained / 1e6:,.1f} million trained",
        "a checkpoint": f"{_gib(one)} GiB{under}, of which {f'at most {kept}' if kept else 'all'} are kept",
    }


def memory_table(model: nn.Module, arguments: TrainingArguments) -> Table:
    """What each process holds: of those there are; where this is one alone, of 8, and in all of 2 and of 32."""
    sizes, mixed, world = sizes_of(model), arguments.bf16 or arguments.fp16, arguments.world_size
    ranks, others = (world, ()) if world > 1 else (8, (2, 32))
    table = Table(title=shown_title("GiB that each process holds, beside activations"), box=SIMPLE_HEAD)
    table.add_column()
    for name in (f"of {ranks}: weights", "gradients", "AdamW", "together", *(f"of {other}" for other in others)):
        table.add_column(name, justify="right")
    found = held(sizes, ranks, mixed=mixed)
    for name, parts in found.items():
        if name in ("single", "ddp") or not is_quantised(model):
            elsewhere = [sum(held(sizes, other, mixed=mixed)[name]) for other in others]
            table.add_row(name, *(_gib(part) for part in (*parts, sum(parts), *elsewhere)))
    return table


def _gib(size: float) -> str:
    return f"{size / _GIB:.3g}"


def _activations(model: nn.Module, encoded: EncodedPairs, arguments: TrainingArguments, sides: Sequence[Side]) -> str:
    """By the usual count of a transformer layer."""
    config: Any = model.config
    width, layers = getattr(config, "hidden_size", 0), getattr(config, "num_hidden_layers", 0)
    tokens = len(sides) * arguments.per_device_train_batch_size * int(_lengths(encoded, sides).max())
    per_token = (2 if arguments.activation_checkpointing else 34) * width * layers
    size = tokens * per_token * (2 if arguments.bf16 or arguments.fp16 else 4) / 2
    return f"very roughly {_gib(size)} GiB for the longest micro-batch"
