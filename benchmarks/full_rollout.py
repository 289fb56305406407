"""The reference of policies in exactness.py: one process, one forward of all answers, one backward, and no trainer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from exact_policies import (
    AMBIGUITY,
    CHARGE,
    CLIP,
    LAMBDA,
    LONGEST,
    PROMPTS,
    RATE,
    SAMPLES,
    VALUE_WEIGHT,
    Beginning,
    PolicyCell,
)
from torch import Tensor, nn

from dro_core import parse_ambiguity, worst_case
from llm.policy.generation.engine import Answer


def trained_copy(cell: PolicyCell, beginning: Beginning) -> nn.ModuleDict:
    """Policy, and for ppo trunk and head of the values, under the names that the trainer has for them."""
    policy: Any = copy.deepcopy(beginning.policy)
    parts = nn.ModuleDict({"policy": policy})
    if cell.estimator == "ppo":
        model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
        trunk, head = copy.deepcopy(model.model), nn.Linear(model.config.hidden_size, 1)
        for part in head.parameters():
            nn.init.zeros_(part)
        parts["critic"] = nn.ModuleDict({"trunk": trunk.requires_grad_(requires_grad=True), "head": head})
    return parts


def _sequences(answers: Sequence[Answer]) -> tuple[Tensor, Tensor]:
    """Ids padded on the right, ``(n, length)``, and which of them, but the first, belong to answers."""
    length = max(len(answer.prompt) + len(answer.ids) for answer in answers)
    rows = [answer.prompt + answer.ids for answer in answers]
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    places = torch.arange(1, length)
    starts = torch.tensor([[len(answer.prompt)] for answer in answers])
    ends = torch.tensor([[len(row)] for row in rows])
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


def policy_parameters(cell: PolicyCell, beginning: Beginning) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
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
