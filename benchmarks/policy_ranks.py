"""What one rank does for the policies of exactness.py: steps on given answers, held against full_rollout.py."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate.utils import extract_model_from_parallel
from exact_cells import Launcher
from exact_policies import AMBIGUITY, CHARGE, LAMBDA, LONGEST, PROMPTS, SAMPLES, VALUE_WEIGHT, Beginning, PolicyCell
from full_batch import relative_error
from full_rollout import policy_gradient, policy_parameters, trained_copy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from llm.data.prompts import Prompt
from llm.policy.actor_critic import ActorCritic, Reference
from llm.policy.config import PolicyConfig
from llm.policy.generation.engine import Answer, Sampling
from llm.policy.rollouts import Answers
from llm.policy.trainer import PolicyTrainer


class _Given(Answers):
    """Stands for the sampler: writes the answers of the prompts that it is asked for."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__(beginning.tokenizer, Sampling(LONGEST), batch_size=1)
        self.beginning = beginning

    def __call__(
        self,
        model: object,
        prompts: object,
        lots: object,
        *,
        samples: int = SAMPLES,
        positions: Sequence[int] | None = None,
    ) -> list[Answer]:
        return [answer for position in positions or () for answer in self.beginning.answers(position)]

    def text(self, answer: Answer) -> str:
        """The ids of the answer."""
        return " ".join(map(str, answer.ids))


def _scores_of(beginning: Beginning) -> Any:
    """Stands for the reward: the scores of the prompts in their order, whatever was answered."""
    return lambda prompts, _: np.concatenate([beginning.scores(int(prompt.id)) for prompt in prompts[::SAMPLES]])


def trainer_of(cell: PolicyCell, beginning: Beginning, arguments: TrainingArguments, ranks: int) -> PolicyTrainer:
    """The trainer of a cell, whose answers and scores are given; ``beginning`` is not changed."""
    ppo = cell.estimator == "ppo"
    kl: dict[str, Any] = {"kl_in": "loss", "kl_estimator": "k3"} if cell.estimator == "grpo" else {}
    config = PolicyConfig(
        model="given", reward_model="builtin", train_file="none", max_length=48, max_new_tokens=LONGEST,
        prompts_per_step=PROMPTS // ranks, samples=SAMPLES, ambiguity=AMBIGUITY, plain_share=0.0,
        estimator=cell.estimator, kl_coefficient=CHARGE, lambda_=LAMBDA, value_coefficient=VALUE_WEIGHT,
        max_sampler_gap=1e9, **kl,
    )  # fmt: skip
    prompts = [Prompt(str(i), ({"role": "user", "content": str(i)},)) for i in range(PROMPTS)]
    trainer = PolicyTrainer(
        module=ActorCritic(copy.deepcopy(beginning.policy), critic="separate" if ppo else None),
        reference=Reference(copy.deepcopy(beginning.reference)),
        tokenizer=beginning.tokenizer,
        prompts=prompts,
        encoded=beginning.encoded,
        scorer=_scores_of(beginning),
        config=config,
        arguments=arguments,
    )
    trainer.pen = _Given(beginning)
    return trainer


def measure_policy(cell: PolicyCell, beginning: Beginning, arguments: TrainingArguments, ranks: int) -> dict[str, Any]:
    """Train a cell and compare; every rank must call it.

    Raises:
        RuntimeError: Something else ran than the cell says.
    """
    trainer = trainer_of(cell, beginning, arguments, ranks)
    found: list[dict[str, Tensor]] = []
    step, visited = trainer.update.passes.step, []

    def watched() -> float:
        found.append(_gradient(trainer))
        return step()

    trainer.update.passes.step = watched  # type: ignore[method-assign]
    look = trainer.update.look
    trainer.update.look = lambda *told: visited.append(1) or look(*told)  # type: ignore[method-assign]
    for _ in range(cell.steps):
        trainer.take_step()
        trainer.step += 1
    if (seen := ran(trainer)) is not cell.launcher or trainer.world != ranks:
        raise RuntimeError(f"asked for {cell} on {ranks} ranks, ran {seen} on {trainer.world}")
    if cell.steps == 1:
        error = relative_error(found[0], policy_gradient(cell, trained_copy(cell, beginning), beginning))
    else:
        error = relative_error(_parameters(trainer), *policy_parameters(cell, beginning))
    return {"policy": asdict(cell), "ranks": ranks, "error": error, "passes": len(visited)}


def ran(trainer: PolicyTrainer) -> Launcher:
    """The launcher that really ran, read off the placed module and its parameters."""
    module: Any = trainer.update.module
    parts = list(module.parameters())
    if hasattr(module, "zero_optimization_stage"):
        empty = all(hasattr(part, "ds_id") and part.numel() == 0 for part in parts)
        return {(2, False): Launcher.ZERO2, (3, True): Launcher.ZERO3}[module.zero_optimization_stage(), empty]
    if all(isinstance(part, DTensor) for part in parts):
        return Launcher.FSDP2
    return Launcher.DDP if isinstance(module, nn.parallel.DistributedDataParallel) else Launcher.SINGLE


def _trained(trainer: PolicyTrainer) -> dict[str, nn.Parameter]:
    core: nn.Module = extract_model_from_parallel(trainer.update.module)
    return {name: part for name, part in core.named_parameters() if part.requires_grad}


def _gradient(trainer: PolicyTrainer) -> dict[str, Tensor]:
    if trainer.update.passes.engine is None:
        grads = {name: part.grad for name, part in _trained(trainer).items()}
        return {name: _whole(grad).clone() for name, grad in grads.items() if grad is not None}
    from deepspeed.utils import safe_get_full_grad  # type: ignore[import-not-found]

    return {name: safe_get_full_grad(part).float().clone() for name, part in _trained(trainer).items()}


def _parameters(trainer: PolicyTrainer) -> dict[str, Tensor]:
    if trainer.update.passes.engine is None:
        return {name: _whole(part.detach()).clone() for name, part in _trained(trainer).items()}
    from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

    return {name: safe_get_full_fp32_param(part).clone() for name, part in _trained(trainer).items()}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
