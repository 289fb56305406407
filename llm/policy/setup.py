"""Where a policy is trained: precision, ranks and trackers, and the setups that are refused."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, FullyShardedDataParallelPlugin, gather_object
from transformers import Trainer, TrainingArguments

from ..adversary.equal_losses import Accuracy, log_ratio_rounding, precision_of, rounding_of
from ..adversary.inaction import bound, check_losses, check_reached, concerns
from ..adversary.rules import Reweighting
from ..adversary.spec import parse_reweighting
from ..adversary.weightings.estimates import with_answers
from ..run.launch import check_launch
from ..training.config import ConfigError
from .actor_critic import ActorCritic
from .config import PolicyConfig
from .observation import Observed, check_sampler, sampler_gap
from .ranks.gathering import spread
from .rollouts import Answer

if TYPE_CHECKING:
    from torch import nn

_log = logging.getLogger(__name__)
_PREFIXED = {"tensorboard", "wandb", "trackio", "comet_ml", "swanlab"}  # transformers writes train/ there
UNHEEDED = {
    "eval_strategy": "name suites, which are judged at the end, and gold, which is logged on the way",
    "load_best_model_at_end": "the last policy is exported",
    "torch_compile": "generation and training run as the model is",
    "neftune_noise_alpha": "answers are trained on as they were drawn, without noise",
}


def accelerator_for(arguments: TrainingArguments) -> Accelerator:
    """Precision and trackers as the flags say; the trackers are not started."""
    trackers: Any = [name for name in arguments.report_to or [] if name != "none"]
    fsdp = getattr(arguments, "fsdp_plugin_args", None)
    accelerator = Accelerator(
        mixed_precision="bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "no",
        cpu=arguments.use_cpu,
        log_with=trackers or None,
        fsdp_plugin=None if fsdp is None else FullyShardedDataParallelPlugin(**fsdp),
        deepspeed_plugin=arguments.deepspeed_plugin,
        project_dir=str(arguments.output_dir),
        # Ranks may need different numbers of forward passes, and a broadcast in one of them would wait for the others.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    # Shared by a process, and off since a run that was interrupted within an accumulation: no update would be taken.
    accelerator.gradient_state._set_sync_gradients(True)  # noqa: FBT003
    return accelerator


def optimizer_for(config: PolicyConfig, arguments: TrainingArguments, core: ActorCritic) -> torch.optim.Optimizer:
    """Of the parameters that are trained: the one that ``optim`` names, or plain steps along the natural gradient."""
    trained = [parameter for parameter in core.parameters() if parameter.requires_grad]
    if config.optimizer == "npg":
        return torch.optim.SGD(trained, lr=arguments.learning_rate)
    kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, cast(Any, core.policy))
    return kind(trained, weight_decay=arguments.weight_decay, **settings)


def prompt_rule(
    config: PolicyConfig, columns: Mapping[str, Sequence[str]], *, world: int, seed: int, tell: bool = False
) -> Reweighting | None:
    """The set or rule that weighs the prompts of all ranks; refused where it could not act.

    Args:
        config: Of the run.
        columns: What the prompts can be grouped by.
        world: Number of ranks.
        seed: Of the run.
        tell: Whether to say what the groups leave undone.
    """
    rule, remedy = parse_reweighting(config.ambiguity), "raise prompts_per_step, for it is prompts that are weighed"
    charged = bool(config.missing_end_penalty or (config.adversary_sees == "return" and config.kl_coefficient))
    check_losses(rule, logistic=False, values=True, charged=charged)
    batch = config.prompts_per_step * world
    answers = config.samples // 2 if config.adversary_estimate == "split" else config.samples
    found = with_answers(bound(rule, columns, batch=batch, remedy=remedy, seed=seed), answers)
    for said in concerns(rule, found, batch=batch) if tell else ():
        _log.warning("%s", said)
    return found


def value_accuracy(config: PolicyConfig, arguments: TrainingArguments, policy: nn.Module) -> Accuracy:
    """How well the value of a prompt is known: scores are computed in float32, the KL charge is a log-ratio."""
    ratio = log_ratio_rounding(precision_of(arguments, policy), tokens=config.max_new_tokens)
    charge = config.kl_coefficient * ratio if config.adversary_sees == "return" else 0.0
    return Accuracy(max(rounding_of(torch.float32), charge))


def start_trackers(accelerator: Accelerator, arguments: TrainingArguments) -> None:
    """Let the trackers write; the run folder must stand."""
    if accelerator.log_with:
        accelerator.init_trackers("robust-rlhf", config={"learning_rate": arguments.learning_rate})


def tell_trackers(accelerator: Accelerator, row: Mapping[str, float]) -> None:
    """Give the trackers a row under the names that ``Trainer`` gives them for runs on pairs."""
    for tracker in accelerator.trackers:
        before = "train/" if tracker.name in _PREFIXED else ""
        tracker.log({before + name: number for name, number in row.items() if name != "step"}, step=int(row["step"]))


def check_rollouts(
    config: PolicyConfig, arguments: TrainingArguments, accelerator: Accelerator, *, prompts: int, steps: int
) -> None:
    """Refuse what would train on something else than asked.

    Args:
        config: Ours.
        arguments: Those of transformers.
        accelerator: Knows the ranks.
        prompts: Size of the training set.
        steps: Rollouts to take.

    Raises:
        ConfigError: One sentence with the remedy.
    """
    check_launch(arguments)
    world, wanted = accelerator.num_processes, config.prompts_per_step * accelerator.num_processes
    if prompts < wanted:
        raise ConfigError(
            f"a step needs {wanted} prompts ({config.prompts_per_step} on each of {world} processes), and there are "
            f"{prompts}: lower prompts_per_step"
        )
    if arguments.gradient_accumulation_steps != 1:
        raise ConfigError(
            "gradient_accumulation_steps does nothing here: answers of a minibatch are accumulated as "
            "per_device_train_batch_size says; set prompts_per_step, samples and minibatches"
        )
    for name, instead in UNHEEDED.items():
        if getattr(arguments, name) not in (False, None, "no"):
            raise ConfigError(f"{name} does nothing in a policy run: {instead}")
    if arguments.n_gpu > 1:
        raise ConfigError(
            f"{arguments.n_gpu} GPUs are visible but no launcher is used; start with `accelerate launch`, or show one"
        )
    if config.optimizer == "npg" and (world > 1 or spread(accelerator)):
        raise ConfigError("optimizer=npg solves its linear system on one process: start without a launcher")
    check_reached(parse_reweighting(config.ambiguity), config.schedule(), steps)


def checked_sampler(
    accelerator: Any, config: PolicyConfig, answers: Sequence[Answer], seen: Observed
) -> dict[str, float]:
    """``sampler_gap``: how far the sampler is from the trainer, in nats per token, on the worst rank.

    Refused on all ranks or on none; nothing where no sampler told its log-probabilities.

    Raises:
        SamplerMismatch: The gap is above ``max_sampler_gap``.
    """
    half = accelerator.mixed_precision != "no" or config.dtype != "float32"
    bound = config.max_sampler_gap
    gaps = torch.tensor([sampler_gap(answers, seen.logps)], device=accelerator.device)
    gap = float(accelerator.gather(gaps).max())
    check_sampler(gap, bound if bound is not None else 0.1 if half else 1e-3, server=config.vllm_server_base_url)
    return {} if math.isnan(gap) else {"sampler_gap": gap}


class KLExplosion(ArithmeticError):
    """The policy has left its reference so far behind that its reward says nothing any more."""


def check_kl(kl: float, config: PolicyConfig, step: int) -> None:
    """Stop before an update from answers that are too far from the reference.

    Raises:
        KLExplosion: Their mean KL, in nats, is above ``max_kl``.
    """
    if not abs(kl) <= config.max_kl:
        raise KLExplosion(
            f"answers are {kl:.1f} nats from the reference at step {step + 1}, more than max_kl ({config.max_kl:g}), "
            "and the policy was not updated: raise kl_coefficient, lower the learning rate, or continue from the last "
            "checkpoint with a larger max_kl"
        )


def mean_over_ranks(said: Mapping[str, float], world: int) -> dict[str, float]:
    """What the ranks say, each name as the mean over those that say it."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for row in [said] if world == 1 else gather_object([said]):
        for name, number in row.items():
            found[name].append(number)
    return {name: float(np.mean(numbers)) for name, numbers in found.items()}


def mean_of(numbers: Iterable[float | None]) -> float:
    """Nan where one of them is none, as it is in a file."""
    return float(np.mean([np.nan if number is None else number for number in numbers]))
