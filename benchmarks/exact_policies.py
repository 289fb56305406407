"""Policies on ranks: what exactness.py compares, what a rank does for it, and the reference without a trainer.

A rollout is given: every prompt has answers of its own, of different lengths, whoever asks. Its scores put the weight
of the adversary on the prompts of the first rank: the second has fewer answers left to look at in an update.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from exact_cells import Adapter, Launcher
from full_batch import relative_error
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments, set_seed

from dro_core import parse_ambiguity, worst_case
from llm.data.prompts import Prompt
from llm.models.loading import tiny_policy
from llm.policy.actor_critic import ActorCritic, Reference
from llm.policy.asking.order import in_turn
from llm.policy.config import PolicyConfig
from llm.policy.rollouts import Answer
from llm.policy.trainer import PolicyTrainer

PROMPTS, SAMPLES, LONGEST, MICRO = 8, 3, 6, 4
SEED = 42
SECOND = set(in_turn(0, PROMPTS, PROMPTS, seed=SEED)[PROMPTS // 2 :].tolist())  # prompts of the second rank, at first
AMBIGUITY, CHARGE, LAMBDA, VALUE_WEIGHT = "tv:0.4", 0.1, 0.9, 0.5
RATE, CLIP = 1e-3, 1.0  # for more than one step


@dataclass(frozen=True)
class PolicyCell:
    """One comparison: the gradient of the first update, or the parameters after several rollouts."""

    launcher: Launcher
    adapter: Adapter = Adapter.FULL
    estimator: str = "rloo"  # rloo and ppo charge KL to the reward, grpo adds its estimate k3 to the loss
    steps: int = 1

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> PolicyCell:
        """The cell that ``asdict`` turned into ``record``."""
        kinds = {"launcher": Launcher, "adapter": Adapter}
        return cls(**{name: kinds.get(name, lambda x: x)(value) for name, value in record.items()})


@dataclass(frozen=True)
class Beginning:
    """Where a cell begins: policy, the reference that it has left, a tokenizer, and prompts by their ids."""

    policy: nn.Module
    reference: nn.Module | None
    tokenizer: Any
    encoded: list[list[int]]

    def answers(self, prompt: int) -> list[Answer]:
        """Its answers, of one to ``LONGEST`` tokens."""
        rng = np.random.default_rng([7, prompt])
        lengths = rng.integers(1, LONGEST + 1, size=SAMPLES)
        return [Answer(self.encoded[prompt], rng.integers(3, 60, size=n).tolist(), ended=True) for n in lengths]

    def scores(self, prompt: int) -> np.ndarray:
        """What they are worth, ``(SAMPLES,)``: more on the second rank, which the adversary leaves with one prompt."""
        return np.random.default_rng([8, prompt]).normal(size=SAMPLES) + 4.0 * (prompt in SECOND)


def begin(adapter: Adapter) -> Beginning:
    """The tiny policy with weights so large that log-probabilities differ; adapters are random, as for rewards."""
    set_seed(0)
    policy: Any
    policy, tokenizer = tiny_policy(["some words to make tokens of, and a few others"], max_length=48)
    with torch.no_grad():
        for part in policy.parameters():
            part += 0.05 * torch.randn_like(part)
    reference = None
    if adapter is Adapter.LORA:
        from peft import LoraConfig, get_peft_model

        settings: Any = {"target_modules": "all-linear", "init_lora_weights": False}
        policy = get_peft_model(policy, LoraConfig(r=4, lora_alpha=4, task_type="CAUSAL_LM", **settings))
    else:
        reference = copy.deepcopy(policy)
        with torch.no_grad():
            for part in reference.parameters():
                part += 0.01 * torch.randn_like(part)
    rng = np.random.default_rng(3)
    encoded = [rng.integers(3, 60, size=rng.integers(2, 6)).tolist() for _ in range(PROMPTS)]
    return Beginning(policy, reference, tokenizer, encoded)


class _Given:
    """Stands for the sampler: writes the answers of the prompts that it is asked for."""

    def __init__(self, beginning: Beginning) -> None:
        self.beginning, self.tokenizer = beginning, beginning.tokenizer

    def __call__(self, model: object, prompts: object, lots: object, *, samples: int, positions: Sequence[int]):
        return [answer for position in positions for answer in self.beginning.answers(position)]

    def text(self, answer: Answer) -> str:
        """The ids of the answer."""
        return " ".join(map(str, answer.ids))


def trainer_of(cell: PolicyCell, beginning: Beginning, arguments: TrainingArguments, ranks: int) -> PolicyTrainer:
    """The trainer of a cell, whose answers and scores are given; ``beginning`` is not changed."""
    ppo = cell.estimator == "ppo"
    config = PolicyConfig(
        model="given", reward_model="builtin", train_file="none", max_length=48, max_new_tokens=LONGEST,
        prompts_per_step=PROMPTS // ranks, samples=SAMPLES, ambiguity=AMBIGUITY, plain_share=0.0,
        estimator=cell.estimator, kl_coefficient=CHARGE, lambda_=LAMBDA, value_coefficient=VALUE_WEIGHT,
        max_sampler_gap=1e9, **({"kl_in": "loss", "kl_estimator": "k3"} if cell.estimator == "grpo" else {}),
    )  # fmt: skip
    prompts = [Prompt(str(i), ({"role": "user", "content": str(i)},)) for i in range(PROMPTS)]
    trainer = PolicyTrainer(
        module=ActorCritic(copy.deepcopy(beginning.policy), critic="separate" if ppo else None),
        reference=Reference(copy.deepcopy(beginning.reference)),
        tokenizer=beginning.tokenizer,
        prompts=prompts,
        encoded=beginning.encoded,
        scorer=lambda asked, _: np.concatenate([beginning.scores(int(p.id)) for p in asked[::SAMPLES]]),
        config=config,
        arguments=arguments,
    )
    trainer.pen = _Given(beginning)  # type: ignore[assignment]
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
        error = relative_error(_parameters(trainer), *_reference_parameters(cell, beginning))
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


# the reference: one process, one forward of all answers, one backward


def trained_copy(cell: PolicyCell, beginning: Beginning) -> nn.ModuleDict:
    """Policy, and for ppo trunk and head of the values, under the names that the trainer has for them."""
    policy: Any = copy.deepcopy(beginning.policy)
    parts = nn.ModuleDict({"policy": policy})
    if cell.estimator == "ppo":
        model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        trunk, head = copy.deepcopy(model.model), nn.Linear(model.config.hidden_size, 1)
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
        parts["critic"] = nn.ModuleDict({"trunk": trunk.requires_grad_(requires_grad=True), "head": head})
    return parts


def _sequences(answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
    """Ids padded on the right, ``(n, length)``, and which of them, but the first, belong to answers."""
    length = max(len(answer.prompt) + len(answer.ids) for answer in answers)
    rows = [answer.prompt + answer.ids for answer in answers]
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    places = torch.arange(1, length)
    starts, ends = (torch.tensor([[size] for size in sizes]) for sizes in ([len(a.prompt) for a in answers], map(len, rows)))
    return ids, (places >= starts) & (places < ends)


def _token_logps(model: Any, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids).logits[:, :-1]  # what is padded on the right is seen by nobody before it
    return logits.log_softmax(dim=-1).gather(-1, ids[:, 1:, None])[..., 0]


def _token_advantages(rewards: Tensor, mask: Tensor) -> Tensor:
    """sum_{s >= t} lambda^(s - t) r_s over the tokens of each answer, for values of 0."""
    found, later = torch.zeros_like(rewards), torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        later = torch.where(mask[:, t], rewards[:, t] + LAMBDA * later, later)
        found[:, t] = later
    return found


def policy_gradient(cell: PolicyCell, parts: nn.ModuleDict, beginning: Beginning) -> dict[str, Tensor]:
    """Gradient of the worst-case loss of the given rollout as the policy of ``parts`` stands, by parameter."""
    answers = [answer for prompt in range(PROMPTS) for answer in beginning.answers(prompt)]
    scores = torch.tensor(np.concatenate([beginning.scores(p) for p in range(PROMPTS)]), dtype=torch.float32)
    ids, mask = _sequences(answers)
    policy: Any = parts["policy"]
    logps = _token_logps(policy, ids)
    with torch.no_grad():
        if beginning.reference is None:
            with policy.disable_adapter():
                reference = _token_logps(policy, ids)
        else:
            reference = _token_logps(beginning.reference, ids)
    kl = (logps.detach() - reference) * mask
    returns = (scores - CHARGE * kl.sum(dim=1)).reshape(PROMPTS, SAMPLES)
    ambiguity = parse_ambiguity(AMBIGUITY)
    assert ambiguity is not None
    multipliers = (PROMPTS * worst_case(-returns.mean(dim=1), ambiguity).weights).repeat_interleave(SAMPLES)
    loss = multipliers * _surrogate(cell, logps, reference, mask, scores, returns, kl)
    if "critic" in parts:
        critic: Any = parts["critic"]
        values = critic["head"](critic["trunk"](input_ids=ids).last_hidden_state[:, :-1])[..., 0]
        targets = _token_advantages(_token_rewards(scores, kl, mask), mask)
        loss = loss + VALUE_WEIGHT * ((values - targets).square() * mask).sum(dim=1) / 2 / LONGEST
    loss.mean().backward()
    return {name: part.grad for name, part in parts.named_parameters() if part.grad is not None}


def _token_rewards(scores: Tensor, kl: Tensor, mask: Tensor) -> Tensor:
    """The KL charge on every token, and the score on the last."""
    last = mask & (mask.cumsum(dim=1) == mask.sum(dim=1, keepdim=True))
    return scores[:, None] * last - CHARGE * kl


def _surrogate(
    cell: PolicyCell, logps: Tensor, reference: Tensor, mask: Tensor, scores: Tensor, returns: Tensor, kl: Tensor
) -> Tensor:
    """Loss of every answer ``(n,)`` before it is weighted; its ratios are 1, so the clipping does nothing."""
    if cell.estimator == "ppo":
        advantages = _token_advantages(_token_rewards(scores, kl, mask), mask)
    elif cell.estimator == "grpo":
        groups = scores.reshape(PROMPTS, SAMPLES)
        shifted = groups - groups.mean(dim=1, keepdim=True)
        advantages = (shifted / groups.std(dim=1, keepdim=True)).flatten()[:, None]
    else:
        others = (returns.sum(dim=1, keepdim=True) - returns) / (SAMPLES - 1)
        advantages = (returns - others).flatten()[:, None]
    loss = -((advantages * mask) * (logps - logps.detach()).exp()).sum(dim=1)
    if cell.estimator == "grpo":
        ratio = (reference - logps).masked_fill(~mask, 0.0)
        loss = loss + CHARGE * (ratio.exp() - ratio - 1).sum(dim=1)
    return loss / LONGEST


def _reference_parameters(cell: PolicyCell, beginning: Beginning) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters after as many steps of AdamW with clipping, and where they began."""
    parts = trained_copy(cell, beginning)
    trained = {name: part for name, part in parts.named_parameters() if part.requires_grad}
    origin = {name: part.detach().clone() for name, part in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, weight_decay=0.0)
    for _ in range(cell.steps):
        optimizer.zero_grad()
        policy_gradient(cell, parts, beginning)
        torch.nn.utils.clip_grad_norm_(trained.values(), CLIP)
        optimizer.step()
    return {name: part.detach() for name, part in trained.items()}, origin
