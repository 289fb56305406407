"""The average iterate: what the convergence theorems speak about."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..models.quantised import is_quantised
from ..models.sharding import is_sharded
from .config import ConfigError
from .robust_trainer import RobustTrainer


def _mean(averaged: Tensor, current: Tensor, number: Tensor | int) -> Tensor:
    return averaged + (current.to(averaged.dtype) - averaged) / (number + 1)


class IterateAverage(TrainerCallback):
    """Uniform average of the parameters after each optimizer step of the last part of training.

    Args:
        model: The model that is trained; its average is kept beside it (twice the memory).
        after: Share of the steps to leave out at the start, in [0, 1).
    """

    def __init__(self, model: nn.Module, *, after: float = 0.5) -> None:
        if not 0.0 <= after < 1.0:
            raise ValueError(f"average_after is the share of steps left out and must lie in [0, 1), got {after}")
        self.average = AveragedModel(model, avg_fn=_mean)
        for parameter in self.average.parameters():  # a running mean in bfloat16 soon stops moving
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
        self.after = after

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """Take the new iterate into the average."""
        if state.global_step > self.after * state.max_steps:
            self.average.update_parameters(kwargs["model"])

    def save(self, folder: Path) -> None:
        """Write the average to ``folder/average.safetensors``."""
        # Tied parameters share memory, which safetensors refuses: clones cost one copy of the model.
        tensors = {name: tensor.clone().contiguous() for name, tensor in self.average.state_dict().items()}
        save_file(tensors, folder / "average.safetensors")

    def load(self, folder: Path) -> None:
        """Continue the average that stands in ``folder``."""
        self.average.load_state_dict(load_file(folder / "average.safetensors"))

    def copy_to(self, model: nn.Module) -> None:
        """Replace the parameters of ``model`` by their average."""
        model.load_state_dict(self.average.module.state_dict())


def kept_average(trainer: RobustTrainer, *, after: float) -> IterateAverage:
    """The average of what a trainer will pass through, kept in its checkpoints; ``after`` as for ``IterateAverage``.

    Raises:
        ConfigError: The model is spread over ranks, or in few bits.
    """
    if is_sharded(trainer):
        raise ConfigError(
            "final=average keeps a second whole model, which FSDP2 and ZeRO-3 spread over ranks: use last"
        )
    model = trainer.model
    if is_quantised(model):
        raise ConfigError("final=average keeps means of all weights, and those in few bits have none: use last")
    average = IterateAverage(model, after=after)
    trainer.add_callback(average)
    trainer.resumable.append(average)
    return average
