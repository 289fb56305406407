"""What a run would do, before it does it: batches, steps, passes, memory, and what the adversary will see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from ..audit.run_audit import Suites
from ..audit.table import lines, render
from ..data.mixing import said_of
from ..models.logprobs import inner_model, takes_part, vocabulary_of
from ..models.memory import Logits, average_bytes, checkpoint_bytes, held, sizes_of
from ..models.quantised import is_quantised
from ..models.sharding import distribution
from ..run.kinds import KINDS
from ..run.launch import said_of_processes
from ..run.terminal import shown, shown_title
from ..text.batches import SIDES, PairCollator, Side
from ..text.encoding import EncodedPairs
from .config import DPOConfig, TrainConfig
from .guards import check_reads
from .pair_trainer import PairTrainer, steps_of
from .run import Task, build_trainer, load_training_pairs

_GIB = 2.0**30
_SPANS: Mapping[Side, Literal["chosen_span", "rejected_span"]] = {"chosen": "chosen_span", "rejected": "rejected_span"}


def render_plan(task: Task[TrainConfig], arguments: TrainingArguments, suites: Suites) -> Group:
    """The plan of a run, and the audit of its pairs; all is loaded and checked as in the run, nothing is written."""
    check_reads(task.config)
    pairs = load_training_pairs(task.config)
    trainer, encoded, audit, concerns = build_trainer(task, arguments, pairs, suites=suites)
    model, judges = cast(nn.Module, trainer.model), bool(pairs.held_out or suites or _precomputes(task.config))
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
        "activations": _activations(trainer, encoded, task.sides),
        **_logits(trainer, encoded, task.sides, judges=judges),
    }
    for name, text in rows.items():
        table.add_row(shown(name), shown(text))
    table_of_memory = memory_table(model, arguments, others=_others(trainer, task.config))
    return Group(table, table_of_memory, render(audit), *map(shown, lines(audit, concerns)))


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
    batch: dict[str, Any] = {"reference": None} if _precomputes(config) else {}
    return str(trainer.decided(batch))


def _precomputes(config: object) -> bool:
    """Whether a reference speaks about all pairs before the first step, and is gone then."""
    return isinstance(config, DPOConfig) and config.reference_kind() == "precomputed"


def _others(trainer: PairTrainer, config: TrainConfig) -> int:
    """Bytes of the models beside the one that is trained: a reference of DPO, and the average of the iterates."""
    reference: nn.Module | None = getattr(trainer, "reference", None)
    average = average_bytes(cast(nn.Module, trainer.model)) if config.final == "average" else 0
    return average + (sizes_of(reference).weights if reference is not None else 0)


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


def memory_table(model: nn.Module, arguments: TrainingArguments, *, others: int = 0) -> Table:
    """What each process holds: of those there are; where this is one alone, of 8, and in all of 2 and of 32.

    Args:
        model: That is trained.
        arguments: Of the run.
        others: Bytes of further models, whole on every process.
    """
    sizes, mixed, world = sizes_of(model), arguments.bf16 or arguments.fp16, arguments.world_size
    ranks, elsewhere = (world, ()) if world > 1 else (8, (2, 32))
    table = Table(title=shown_title("GiB that each process holds, beside activations and logits"), box=SIMPLE_HEAD)
    table.add_column()
    beside = ("other models",) if others else ()
    for name in (f"of {ranks}: weights", "gradients", "AdamW", *beside, "together", *(f"of {n}" for n in elsewhere)):
        table.add_column(name, justify="right")
    found = held(sizes, ranks, mixed=mixed)
    for name, parts in found.items():
        if name in ("single", "ddp") or not is_quantised(model):
            whole = [*parts, others] if others else [*parts]
            further = [sum(held(sizes, n, mixed=mixed)[name]) + others for n in elsewhere]
            table.add_row(name, *(_gib(part) for part in (*whole, sum(whole), *further)))
    return table


def _gib(size: float) -> str:
    return f"{size / _GIB:.3g}"


def _activations(trainer: PairTrainer, encoded: EncodedPairs, sides: Sequence[Side]) -> str:
    """By the usual count of a transformer layer."""
    arguments, config = trainer.args, cast(Any, trainer.model).config
    width, layers = getattr(config, "hidden_size", 0), getattr(config, "num_hidden_layers", 0)
    tokens = len(sides) * arguments.per_device_train_batch_size * _columns(trainer, _lengths(encoded, sides).max())
    per_token = (2 if arguments.activation_checkpointing else 34) * width * layers
    size = tokens * per_token * (1 if is_half(cast(nn.Module, trainer.model), arguments) else 2)
    return f"very roughly {_gib(size)} GiB for the longest micro-batch"


def _columns(trainer: PairTrainer, longest: int) -> int:
    """Of a batch whose longest sequence has that many tokens."""
    collator = trainer.data_collator
    return collator.padded_length(int(longest)) if isinstance(collator, PairCollator) else int(longest)


def is_half(model: nn.Module, arguments: TrainingArguments) -> bool:
    """Whether the model computes in two bytes."""
    return bool(arguments.bf16 or arguments.fp16) or cast(PreTrainedModel, inner_model(model)).dtype.itemsize < 4


def _logits(trainer: PairTrainer, encoded: EncodedPairs, sides: Sequence[Side], *, judges: bool) -> dict[str, str]:
    """A row of the plan for a causal model: its logits in training and, where it ``judges``, without gradients."""
    model, arguments = cast(nn.Module, trainer.model), trainer.args
    half = is_half(model, arguments)
    if not (vocabulary := vocabulary_of(model)):
        return {}

    def of(pairs: int, sides: Sequence[Side]) -> Logits:
        return Logits(len(sides) * pairs, _places(trainer, encoded, sides, together=pairs), vocabulary)

    judged = of(min(arguments.per_device_eval_batch_size, len(encoded)), SIDES) if judges else None
    return logits_said(of(arguments.per_device_train_batch_size, sides), judged, half=half)


def logits_said(training: Logits, judged: Logits | None, *, half: bool) -> dict[str, str]:
    """The row of a plan: what logits take in training, and where sequences are read without gradients."""
    said = (
        f"up to {_gib(training.bytes(half=half, trains=True))} GiB in training: {training.sequences} sequences, "
        f"{training.places:,} places, {training.vocabulary:,} tokens"
    )
    if judged:
        size = _gib(judged.bytes(half=half, trains=False))
        said += f"; {size} GiB where {judged.sequences} are judged at once (per_device_eval_batch_size)"
    return {"logits": said}


def _places(trainer: PairTrainer, encoded: EncodedPairs, sides: Sequence[Side], *, together: int) -> int:
    """The most columns of a batch of so many pairs that a model is asked about: from its first answer on, or all."""
    longest = _lengths(encoded, sides).reshape(len(encoded), -1).max(axis=1)
    if not takes_part(type(inner_model(cast(nn.Module, trainer.model)))):
        return _columns(trainer, longest.max())
    first = np.array([min(encoded[row][_SPANS[side]][0] for side in sides) for row in range(len(encoded))])
    if together == 1:
        return max(_columns(trainer, most) - least + 1 for most, least in zip(longest, first, strict=True))
    return _columns(trainer, longest.max()) - int(first.min()) + 1
