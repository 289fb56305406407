"""What one rank does for exactness.py: trains under a launcher and compares with full-batch autograd.

Nothing of the comparison goes through a trainer: the reference is one process, one forward of the whole
effective batch, one ``robust_loss``, one backward (and ``torch.optim`` for more than one step).

    python -m torch.distributed.run --standalone --nproc_per_node=2 benchmarks/ranks.py CELLS.json FOUND.json
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainingArguments, set_seed

from dro_core import parse_ambiguity, robust_loss
from llm.data.corpus.corpus import generate
from llm.kinds.reward import RewardTrainer
from llm.models.loading import tiny_reward_model
from llm.text.encoding import PairCollator, encode_pairs
from llm.training.config import TRAINING_DEFAULTS
from llm.training.losses import Sigmoid
from llm.training.passes import Passes

PAIRS = generate(24, seed=7)
CATEGORIES = [pair.category for pair in PAIRS]
MICRO_BATCHES = 4
BATCH = 16  # pairs per optimizer step, over all ranks
CLIP, RATE = 1.0, 1e-3  # for more than one step: clipping by the global norm is part of what is compared


class Launcher(StrEnum):
    """How the ranks share the work."""

    SINGLE = "single process"
    DDP = "DDP"
    FSDP2 = "FSDP2"
    ZERO2 = "ZeRO-2"
    ZERO3 = "ZeRO-3"


class Precision(StrEnum):
    """What the forward pass computes in."""

    FP32 = "fp32"
    AUTOCAST = "bf16 autocast"  # weights and gradients stay float32
    WEIGHTS = "bf16 weights"  # what bf16=True means to FSDP2: weights, activations and gradients, all of them


class Adapter(StrEnum):
    """Which parameters are trained."""

    FULL = "full"
    LORA = "LoRA"


class Rows(StrEnum):
    """How the effective batch is cut."""

    EVEN = "even"
    UNEQUAL = "unequal rows per rank"
    RAGGED = "ragged last window"


@dataclass(frozen=True)
class Cell:
    """One comparison: the gradient of a step, or the parameters after several."""

    launcher: Launcher
    precision: Precision = Precision.FP32
    adapter: Adapter = Adapter.FULL
    checkpointing: bool = False
    rows: Rows = Rows.EVEN
    steps: int = 1
    ambiguity: str = "tv:0.4"
    device: str = "cpu"
    micro_batches: int = MICRO_BATCHES
    passes: Passes = "auto"

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Cell:
        """The cell that ``asdict`` turned into ``record``."""
        kinds = {"launcher": Launcher, "precision": Precision, "adapter": Adapter, "rows": Rows}
        return cls(**{name: kinds.get(name, lambda x: x)(value) for name, value in record.items()})


@dataclass(frozen=True)
class Start:
    """Where every cell begins: the model, its tokenizer, the encoded pairs."""

    model: nn.Module
    tokenizer: Any
    data: Any


def start(adapter: Adapter) -> Start:
    """The tiny model with a head so large that losses differ; adapters are random, so both factors have gradients."""
    set_seed(0)
    model: Any
    model, tokenizer = tiny_reward_model((pair.chosen + pair.rejected for pair in PAIRS), max_length=96)
    with torch.no_grad():
        model.classifier.weight *= 20
    if adapter is Adapter.LORA:
        from peft import LoraConfig, get_peft_model

        lora: Any = {"target_modules": "all-linear", "modules_to_save": ["classifier"], "init_lora_weights": False}
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, task_type="SEQ_CLS", **lora))
    return Start(model, tokenizer, encode_pairs(PAIRS, tokenizer, max_length=96))


# the reference


def losses_of(model: nn.Module, begin: Start, rows: np.ndarray, precision: Precision) -> Tensor:
    """Losses of the pairs ``rows`` in one forward pass, shape ``(n,)``, where the model is."""
    device = next(model.parameters()).device
    batch = PairCollator(begin.tokenizer)([begin.data[int(i)] for i in rows])
    batch = {name: part.to(device) for name, part in batch.items()}
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is Precision.AUTOCAST):
        output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    chosen, rejected = output.logits[:, 0].float().chunk(2)
    return Sigmoid()(chosen - rejected)


def reference_gradient(
    model: nn.Module, begin: Start, rows: np.ndarray, cell: Cell, weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Gradient of the robust loss of the whole effective batch, or of given ``weights``, by name of the parameter."""
    if cell.precision is Precision.WEIGHTS:
        model = model.bfloat16()
    losses = losses_of(model, begin, rows, cell.precision)
    if weights is not None:
        (weights * losses).sum().backward()
    elif (ambiguity := parse_ambiguity(cell.ambiguity)) is None:
        losses.mean().backward()
    else:
        robust_loss(losses, ambiguity.bind({"category": CATEGORIES}).take(rows)).backward()
    return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}


def reference_parameters(begin: Start, steps: Sequence[np.ndarray], cell: Cell) -> dict[str, Tensor]:
    """Parameters after AdamW with clipping on the effective batches ``steps``."""
    model = copy.deepcopy(begin.model)
    trained = {name: part for name, part in model.named_parameters() if part.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.0)
    for rows in steps:
        optimizer.zero_grad()
        reference_gradient(model, begin, rows, cell)
        torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
        optimizer.step()
    return {name: part.detach() for name, part in trained.items()}


def relative_error(
    found: dict[str, Tensor], expected: dict[str, Tensor], origin: dict[str, Tensor] | None = None
) -> float:
    """Euclidean norm of the difference over that of ``expected`` (minus ``origin``), over all parameters together."""
    if found.keys() != expected.keys():
        raise RuntimeError(f"other parameters are trained: {sorted(found.keys() ^ expected.keys())[:4]}")
    off = sum(float((found[name].double() - expected[name].double()).square().sum()) for name in expected)
    of = sum(
        float((expected[name].double() - (0 if origin is None else origin[name].double())).square().sum())
        for name in expected
    )
    return (off / of) ** 0.5


# the ranks


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


def _launcher_settings(cell: Cell) -> dict[str, Any]:
    """Flags that ask for the launcher; ZeRO-3 shards even the small parameters, which it would keep whole."""
    if cell.launcher is Launcher.FSDP2:
        wrap = {
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": ["ModernBertEncoderLayer"],
        }
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
        **_launcher_settings(cell),
    }
    with deepspeed_on_gloo(cell.launcher):
        made = TrainingArguments(**{**TRAINING_DEFAULTS, **settings})
    if cell.launcher is Launcher.FSDP2:  # accelerate shards only on GPUs; on a CPU it would silently run plain DDP
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return made


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _plain_name(name: str) -> str:
    return name.replace("_checkpoint_wrapped_module.", "")


class Recorder(TrainerCallback):
    """Keeps every step's examples and gradient, and the parameters after the last step, unsharded."""

    def __init__(self) -> None:
        self.trainer: RewardTrainer | None = None
        self.ran: tuple[Launcher, bool] | None = None  # the launcher, and whether activations were recomputed
        self.gathered = 0  # bytes of the effective batch that reached this rank
        self.gradients: list[dict[str, Tensor]] = []
        self.rows: list[np.ndarray] = []
        self.parameters: dict[str, Tensor] = {}
        self._visits = np.zeros(0)

    def on_train_begin(self, args, state, control, **kwargs):
        """See what really runs; count the gathers; DeepSpeed's backward also steps, so look just before that."""
        assert self.trainer is not None
        self.ran = ran(self.trainer), checkpoints(self.trainer)
        self._count(self.trainer.accelerator)
        self._visits = self.trainer.ledger.visits.copy()
        engine: Any = self.trainer.model_wrapped
        if self.trainer.is_deepspeed_enabled:
            step = engine.step

            def watched(*args: Any, **kwargs: Any) -> Any:
                self.note()
                return step(*args, **kwargs)

            engine.step = watched

    def _count(self, accelerator: Any) -> None:
        gather = accelerator.gather

        def counting(tensor: Tensor) -> Tensor:
            found = gather(tensor)
            self.gathered += found.numel() * found.element_size()
            return found

        accelerator.gather = counting

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """The gradient is complete, clipped if it is to be."""
        assert self.trainer is not None
        if not self.trainer.is_deepspeed_enabled:
            self.note()

    def on_train_end(self, args, state, control, **kwargs):
        """Gather the parameters while the engine still holds them."""
        self.parameters = {name: self._parameter(part) for name, part in self._trained()}

    def note(self) -> None:
        """Keep the gradient and the examples of the step that is about to be made."""
        assert self.trainer is not None
        found = {name: self._gradient(part) for name, part in self._trained()}
        self.gradients.append({name: part for name, part in found.items() if part is not None})
        visits = self.trainer.ledger.visits
        self.rows.append(np.flatnonzero(visits - self._visits))
        self._visits = visits.copy()

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        model: Any = self.trainer.model  # type: ignore[union-attr]
        return [(_plain_name(name), part) for name, part in model.named_parameters() if part.requires_grad]

    def _gradient(self, part: nn.Parameter) -> Tensor | None:
        if self.trainer.is_deepspeed_enabled:  # type: ignore[union-attr]
            from deepspeed.utils import safe_get_full_grad  # type: ignore[import-not-found]

            return safe_get_full_grad(part).float().clone()
        return None if part.grad is None else _whole(part.grad).clone()

    def _parameter(self, part: nn.Parameter) -> Tensor:
        if self.trainer.is_deepspeed_enabled:  # type: ignore[union-attr]
            from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

            return safe_get_full_fp32_param(part).clone()
        return _whole(part.detach()).clone()


def checkpoints(trainer: RewardTrainer) -> bool:
    """Whether activations are recomputed: by transformers, or by the wrappers that FSDP2 puts around layers."""
    model: Any = trainer.model
    wrapped = any("_checkpoint_wrapped_module" in name for name, _ in model.named_modules())
    return wrapped or any(getattr(part, "gradient_checkpointing", False) is True for part in model.modules())


def ran(trainer: RewardTrainer) -> Launcher:
    """The launcher that really ran, read off the wrapped model and its parameters."""
    model: Any = trainer.model_wrapped
    parts = list(model.parameters())
    if trainer.is_deepspeed_enabled:
        sharded = all(hasattr(part, "ds_id") and part.numel() == 0 for part in parts)
        return {(2, False): Launcher.ZERO2, (3, True): Launcher.ZERO3}[model.zero_optimization_stage(), sharded]
    if all(isinstance(part, DTensor) for part in parts):
        return Launcher.FSDP2
    return Launcher.DDP if isinstance(model, nn.parallel.DistributedDataParallel) else Launcher.SINGLE


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


def main(cells_file: str, found_file: str) -> None:
    """Measure the cells of one file, write what was found to another."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    cells = [Cell.from_record(record) for record in json.loads(Path(cells_file).read_text())]
    starts = {adapter: start(adapter) for adapter in {cell.adapter for cell in cells}}
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(cell, starts[cell.adapter], folder, ranks) for cell in cells]
    if int(os.environ.get("RANK", "0")) == 0:
        Path(found_file).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
