"""What one rank does for exactness.py: trains under a launcher and compares with full-batch autograd.

Every rank of a launcher runs it; the reference is in full_batch.py, and the first rank writes what was found:

    python -m torch.distributed.run --standalone --nproc_per_node=2 benchmarks/ranks.py CELLS.json FOUND.json
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from exact_cells import BATCH, CATEGORIES, CLIP, RATE, Cell, Launcher, Precision, Rows, Start, start
from exact_policies import CLIP as POLICY_CLIP
from exact_policies import MICRO, SEED, PolicyCell, begin
from exact_policies import RATE as POLICY_RATE
from full_batch import reference_gradient, reference_parameters, relative_error
from policy_ranks import measure_policy
from recorder import Recorder
from transformers import TrainingArguments

from dro_core import parse_ambiguity
from llm.kinds.reward import RewardTrainer
from llm.run import launch
from llm.text.batches import PairCollator
from llm.training.settings import TRAINING_DEFAULTS


@contextlib.contextmanager
def deepspeed_on_gloo(launcher: Launcher) -> Iterator[None]:
    """Accelerate finds no backend for DeepSpeed without a GPU; tell it gloo, which the engine itself would take."""
    before = PartialState._prepare_backend
    if launcher in (Launcher.ZERO2, Launcher.ZERO3):
        PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.NO)
    try:
        yield
    finally:
        PartialState._prepare_backend = before


def _launcher_settings(cell: Cell, layers: list[str] | None = None) -> dict[str, Any]:
    """Flags that ask for the launcher; ZeRO-3 shards even the small parameters, which it would keep whole."""
    if cell.launcher is Launcher.FSDP2:
        wrap = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": layers}
        return {"fsdp": True, "fsdp_config": {"version": 2, "activation_checkpointing": cell.checkpointing, **wrap}}
    if cell.launcher in (Launcher.ZERO2, Launcher.ZERO3):
        sizes = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
        stage = {"stage": 2 if cell.launcher is Launcher.ZERO2 else 3, "stage3_param_persistence_threshold": 0}
        config = {"gradient_clipping": "auto", "zero_optimization": stage, "zero_allow_untested_optimizer": True}
        cast = {"torch_autocast": {"enabled": cell.precision is Precision.AUTOCAST, "dtype": "bfloat16"}}
        own = {"use_cpu": False, "bf16": False, "activation_checkpointing": cell.checkpointing}
        return {"deepspeed": config | cast | dict.fromkeys(sizes, "auto"), **own}
    return {"activation_checkpointing": cell.checkpointing}


def arguments(cell: Cell, folder: str, ranks: int) -> TrainingArguments:
    """Training arguments of a cell, and the process group they ask for."""
    one_step = {"max_grad_norm": 0.0, "learning_rate": 0.0}  # the gradient is looked at, parameters stay
    settings = {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH // cell.micro_batches // ranks,
        "gradient_accumulation_steps": cell.micro_batches,
        "max_steps": 2 if cell.rows is Rows.RAGGED else cell.steps,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_drop_last": True,
        "bf16": cell.precision is not Precision.FP32,
        "use_cpu": cell.device == "cpu",
        **({"max_grad_norm": CLIP, "learning_rate": RATE} if cell.steps > 1 else one_step),
        **_launcher_settings(cell, ["ModernBertEncoderLayer"]),
    }
    return launched(cell.launcher, settings)


def policy_arguments(launcher: Launcher, folder: str, **changes: Any) -> TrainingArguments:
    """Training arguments of a policy's cell, for one step whose gradient is looked at; and their process group."""
    settings = {
        "output_dir": folder,
        "per_device_train_batch_size": MICRO,
        "per_device_eval_batch_size": 5,
        "max_steps": 1,
        "optim": "adamw_torch",
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "learning_rate": 0.0,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": SEED,
        **_launcher_settings(Cell(launcher)),
        **changes,
    }
    return launched(launcher, settings)


def launched(launcher: Launcher, settings: dict[str, Any]) -> TrainingArguments:
    """Training arguments for ranks on a CPU, under what they say."""
    with deepspeed_on_gloo(launcher):
        made = TrainingArguments(**{**TRAINING_DEFAULTS, **settings})
    if launcher is Launcher.FSDP2:  # accelerate shards only on GPUs; on a CPU it would silently run plain DDP
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    if launcher in (Launcher.ZERO2, Launcher.ZERO3):  # ranks that look for a GPU, where there is none, are refused
        launch.check_devices = lambda **_: None
    return made


def _collator(cell: Cell, begin: Start, rank: int):
    collate = PairCollator(begin.tokenizer)
    if cell.rows is Rows.UNEQUAL:  # the second rank's micro-batches are shorter
        return lambda items: collate(items[: len(items) - rank])
    return collate


def trained(cell: Cell, begin: Start, folder: str, ranks: int) -> Recorder:
    """Train a cell; every rank must call it.

    Raises:
        RuntimeError: Something else ran than the cell says.
    """
    args, recorder = arguments(cell, folder, ranks), Recorder()
    trainer = RewardTrainer(
        model=copy.deepcopy(begin.model),  # type: ignore[arg-type]
        args=args,
        train_dataset=begin.data,
        data_collator=_collator(cell, begin, args.process_index),
        ambiguity=parse_ambiguity(cell.ambiguity),
        columns={"category": CATEGORIES},
        passes=cell.passes,
        callbacks=[recorder],
        last_window="keep",  # a ragged one is what some cells are about
    )
    recorder.trainer = trainer
    trainer.train()
    if recorder.ran != (cell.launcher, cell.checkpointing) or trainer.accelerator.num_processes != ranks:
        raise RuntimeError(f"asked for {cell} on {ranks} ranks, ran {recorder.ran}")
    return recorder


def measure(cell: Cell, begin: Start, folder: str, ranks: int) -> dict[str, Any]:
    """Train a cell and compare."""
    recorder = trained(cell, begin, folder, ranks)
    sizes = [len(rows) for rows in recorder.rows]
    return {
        "cell": asdict(cell),
        "ranks": ranks,
        "examples": sizes,
        "gathered": recorder.gathered,
        **_errors(cell, begin, recorder),
    }


def _errors(cell: Cell, begin: Start, recorder: Recorder) -> dict[str, float]:
    """The error of the cell; where rounding decides who is weighted, also the error given the weights chosen."""
    if cell.steps > 1:
        origin = {name: part.detach() for name, part in begin.model.named_parameters() if part.requires_grad}
        return {"error": relative_error(recorder.parameters, reference_parameters(begin, recorder.rows, cell), origin)}
    rows, found = recorder.rows[-1], recorder.gradients[-1]
    errors = {"error": relative_error(found, reference_gradient(copy.deepcopy(begin.model), begin, rows, cell))}
    if cell.precision is Precision.WEIGHTS:
        assert recorder.trainer is not None
        weights = torch.tensor(recorder.trainer.ledger.multiplier_sum[rows] / len(rows), dtype=torch.float32)
        given = reference_gradient(copy.deepcopy(begin.model), begin, rows, cell, weights)
        errors["given_weights"] = relative_error(found, given)
    return errors


def compared(cell: Cell, begin: Start, folder: str) -> dict[str, float]:
    """The gradient of one step in one process, against autograd in the same precision and in plain float32.

    Returns:
        ``error`` and ``error_to_fp32``, relative.
    """
    recorder = trained(cell, begin, folder, ranks=1)
    rows, found = recorder.rows[-1], recorder.gradients[-1]
    alike = reference_gradient(copy.deepcopy(begin.model).to(cell.device), begin, rows, cell)
    matmul: Any = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    exact = replace(cell, precision=Precision.FP32)
    plain = reference_gradient(copy.deepcopy(begin.model).to(cell.device), begin, rows, exact)
    matmul.allow_tf32 = before
    return {"error": relative_error(found, alike), "error_to_fp32": relative_error(found, plain)}


def measured_policy(cell: PolicyCell, folder: str, ranks: int) -> dict[str, Any]:
    """Train the cell of a policy and compare; every rank must call it."""
    several = {"max_steps": cell.steps, "learning_rate": POLICY_RATE, "max_grad_norm": POLICY_CLIP}
    told = policy_arguments(cell.launcher, folder, **(several if cell.steps > 1 else {}))
    return measure_policy(cell, begin(cell.adapter), told, ranks)


def main(cells_file: str, found_file: str) -> None:
    """Measure the cells of one file, write what was found to another."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    records = json.loads(Path(cells_file).read_text())
    cells = [Cell.from_record(record) for record in records if "estimator" not in record]
    policies = [PolicyCell.from_record(record) for record in records if "estimator" in record]
    starts = {adapter: start(adapter) for adapter in {cell.adapter for cell in cells}}
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(cell, starts[cell.adapter], folder, ranks) for cell in cells]
        found += [measured_policy(cell, folder, ranks) for cell in policies]
    if int(os.environ.get("RANK", "0")) == 0:
        Path(found_file).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
