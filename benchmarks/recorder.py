"""What a trainer really did: its launcher, and every step's examples and gradient, unsharded."""

from __future__ import annotations

from typing import Any

import numpy as np
from exact_cells import Launcher
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from llm.kinds.reward import RewardTrainer


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
