"""Model, reference and optimizer of a policy on the ranks that an accelerator knows, and their passes and steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig, unset_hf_deepspeed_config

from ...training.config import ConfigError
from ...training.guards import check_ranks
from ..actor_critic import ActorCritic
from .gathering import DeepSpeedEngine, spread

_WHOLE = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


def check_placing(
    accelerator: Accelerator, arguments: TrainingArguments, policy: nn.Module, *, served: bool = False
) -> None:
    """Refuse ranks on which rollouts or gradients would be others than asked.

    Args:
        accelerator: Knows the ranks.
        arguments: Those of transformers.
        policy: The model.
        served: Whether a server writes the answers, which gets the weights from one rank.

    Raises:
        ConfigError, ValueError: One sentence with the remedy.
    """
    kind, fsdp = accelerator.distributed_type, getattr(accelerator.state, "fsdp_plugin", None)
    if kind not in (*_WHOLE, DistributedType.DEEPSPEED) and not accelerator.is_fsdp2:
        raise ConfigError(
            f"policies do not run under {kind.value}{' 1' if fsdp else ''}: use DDP, FSDP2 or DeepSpeed "
            "(llm/accelerate/ddp.yaml, fsdp2.yaml, zero2.yaml, zero3.yaml)"
        )
    if fsdp is not None and fsdp.cpu_ram_efficient_loading:
        raise ConfigError(
            "cpu_ram_efficient_loading leaves all models but that of the first rank empty, reward and reference "
            "among them: set it to false"
        )
    if fsdp is not None and fsdp.activation_checkpointing:
        raise ConfigError("activation_checkpointing of fsdp_config wraps no layer here: use --activation_checkpointing")
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if served and (accelerator.is_fsdp2 or (deepspeed is not None and deepspeed.zero_stage == 3)):
        raise ConfigError(
            "a server gets its weights from a rank that has all of them, which FSDP2 and ZeRO-3 leave to none: use DDP "
            "or ZeRO-2 (llm/accelerate/ddp.yaml, zero2.yaml), or leave vllm_server_base_url out"
        )
    check_ranks(arguments, accelerator, policy)


def loading_whole() -> None:
    """From now on models are loaded whole, where transformers would spread those of ZeRO-3 over ranks by itself.

    The policy is spread when it is placed. Judges are read by each rank alone, and its ``generate`` must not wait.
    """
    unset_hf_deepspeed_config()


def place(
    accelerator: Accelerator,
    core: ActorCritic,
    optimizer: torch.optim.Optimizer,
    arguments: TrainingArguments,
    *,
    steps: int,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The module with the wrapper of its ranks, and the optimizer of what they hold of it.

    Args:
        accelerator: Knows the ranks.
        core: Policy and value function.
        optimizer: Of the parameters that are trained.
        arguments: Those of transformers.
        steps: Rollouts of the run.
    """
    if (plugin := getattr(accelerator.state, "deepspeed_plugin", None)) is not None:
        whole = HfTrainerDeepSpeedConfig(plugin.hf_ds_config.config)  # fills in what is "auto" from the flags
        whole.trainer_config_process(arguments)
        whole.trainer_config_finalize(arguments, core.policy, steps)
        plugin.hf_ds_config, plugin.deepspeed_config = whole, whole.config
        loading_whole()
    fsdp = getattr(accelerator.state, "fsdp_plugin", None)
    if fsdp is not None and fsdp.mixed_precision_policy is not None:  # log-probabilities stay in float32
        fsdp.mixed_precision_policy = replace(fsdp.mixed_precision_policy, output_dtype=None)
    module, optimizer = accelerator.prepare(core, optimizer)
    if accelerator.is_fsdp2:  # its root is the first module that is called, and generation calls parts
        token = torch.ones(1, 2, dtype=torch.long, device=accelerator.device)
        with torch.no_grad():
            module({"input_ids": token, "attention_mask": token, "answer_mask": token})
        module.reshard()
    return module, optimizer


def place_reference(accelerator: Accelerator, reference: nn.Module | None) -> None:
    """Put a frozen model where it is looked at: spread as one unit where the policy is, else whole on every rank."""
    if reference is None:
        return
    fsdp, plugin = (getattr(accelerator.state, name, None) for name in ("fsdp_plugin", "deepspeed_plugin"))
    if fsdp is not None:
        precision = fsdp.mixed_precision_policy or MixedPrecisionPolicy()
        fully_shard(reference.to(accelerator.device), mp_policy=precision)
    elif plugin is not None and plugin.zero_stage == 3:
        import deepspeed  # type: ignore[import-not-found]

        deepspeed.zero.Init(module=reference, config_dict_or_path=accelerator.deepspeed_config)
    else:
        reference.to(accelerator.device)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer of torch within the wrappers of ranks."""
    while (inner := getattr(optimizer, "optimizer", None)) is not None:
        optimizer = inner
    return optimizer


class Passes:
    """The passes of an update, and its step, whoever holds gradients and optimizer.

    Args:
        accelerator: Knows the ranks.
        module: As it was placed.
        optimizer: As it was placed.
        max_norm: Gradients are clipped to it; 0 for never. DeepSpeed has it from its configuration.
    """

    def __init__(
        self, accelerator: Accelerator, module: nn.Module, optimizer: torch.optim.Optimizer, *, max_norm: float
    ) -> None:
        self.accelerator, self.module, self.optimizer, self.max_norm = accelerator, module, optimizer, max_norm
        self.engine = module if isinstance(module, DeepSpeedEngine) else None
        self.spread = spread(accelerator)

    @contextmanager
    def one(self, *, last: bool) -> Iterator[None]:
        """Around a forward and a backward pass; with the last one the gradients are those of all ranks.

        Where they are spread each pass sums them, for a whole gradient is what no rank has room for.
        """
        if self.engine is not None:
            self.engine.set_gradient_accumulation_boundary(is_boundary=last)
        with nullcontext() if last or self.spread else self.accelerator.no_sync(self.module):
            yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of this rank's share of a mean over ranks."""
        if self.engine is not None:
            self.engine.backward(loss)  # accelerate's own would take a step with it
        else:
            self.accelerator.backward(loss)

    def step(self) -> float:
        """Clip the gradients, move the parameters and forget the gradients; their norm before that, over all ranks.

        Where it is nan or infinite nothing moves, unless DeepSpeed takes the step, which does not ask.
        """
        if self.engine is not None:
            self.engine.step()
            return float(self.engine.get_global_grad_norm() or 0.0)
        bound = self.max_norm if self.max_norm > 0 else float("inf")
        found = self.accelerator.clip_grad_norm_(self.module.parameters(), bound)
        assert found is not None
        norm = float(found.full_tensor() if isinstance(found, DTensor) else found)
        if math.isfinite(norm) or self.accelerator.scaler is not None:  # which knows what to do
            self.optimizer.step()
            self.optimizer.zero_grad()
        return norm
