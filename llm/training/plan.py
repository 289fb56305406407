"""What a run would do, before it does it: batches, steps, passes, memory, and what the adversary will see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from transformers import TrainingArguments

from ..audit.run_audit import Suites
from ..audit.table import lines, render
from ..data.mixing import said_of
from ..run.kinds import KINDS
from ..run.terminal import shown, shown_title
from ..text.batches import Side
from ..text.encoding import EncodedPairs
from .config import DPOConfig
from .guards import check_reads
from .pair_trainer import PairTrainer, steps_of
from .run import Task, build_trainer, load_training_pairs

_GIB = 2.0**30


def render_plan(task: Task[Any], arguments: TrainingArguments, suites: Suites) -> Group:
    """The plan of a run, and the audit of its pairs; all is loaded and checked as in the run, nothing is written."""
    check_reads(task.config)
    pairs = load_training_pairs(task.config)
    trainer, encoded, audit, concerns = build_trainer(task, arguments, pairs, suites=suites)
    title = shown_title(f"Plan: {KINDS[task.config.kind].trained} against {task.config.ambiguity}")
    table = Table(title=title, box=SIMPLE_HEAD, show_header=False)
    rows = {
        **said_of(pairs.files["train"]),
        **_batches(trainer, arguments, len(encoded), len(pairs.train)),
        "passes": _passes(trainer, task.config),
        "held-out pairs": f"{len(pairs.held_out):,}",
        **said_of(pairs.files.get("eval", {}), "held-out"),
        **_tokens(encoded, task.sides),
        **_memory(trainer.model, encoded, arguments, task.sides),
    }
    for name, text in rows.items():
        table.add_row(shown(name), shown(text))
    return Group(table, render(audit), *map(shown, lines(audit, concerns)))


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


def _memory(model: Any, encoded: EncodedPairs, arguments: TrainingArguments, sides: Sequence[Side]) -> dict[str, str]:
    """Weights, gradients and two Adam moments exactly; activations by the usual count of a transformer layer."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = next(model.parameters()).element_size()
    state = total * size + trained * (size + 2 * size)
    config: Any = model.config
    width, layers = getattr(config, "hidden_size", 0), getattr(config, "num_hidden_layers", 0)
    tokens = len(sides) * arguments.per_device_train_batch_size * int(_lengths(encoded, sides).max())
    per_token = (2 if arguments.activation_checkpointing else 34) * width * layers
    activations = tokens * per_token * (2 if arguments.bf16 or arguments.fp16 else 4) / 2
    return {
        "parameters": f"{total / 1e6:,.1f} million, {trained / 1e6:,.1f} million trained",
        "memory": f"{state / _GIB:.2f} GiB of weights, gradients and Adam's moments, and very roughly "
        f"{activations / _GIB:.2f} GiB of activations for the longest micro-batch",
    }
