"""What policy, reference and value function say about finished answers, without gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.logprobs import evaluation_mode
from .actor_critic import ActorCritic, Reference
from .rollouts import Answer, aligned, batch_of


class Observed(NamedTuple):
    """One entry per token of each answer, from its first, ``(n, length)``, 0 after its end.

    Attributes:
        logps: Under the policy, in nats.
        reference: Under the reference.
        values: Before each token; zeros without a value function.
        entropy: Mean over all tokens, in nats.
        lengths: Tokens of each answer, ``(n,)``.
    """

    logps: Tensor
    reference: Tensor
    values: Tensor
    entropy: float
    lengths: Tensor


@torch.no_grad()
def observed(core: ActorCritic, reference: Reference, answers: Sequence[Answer], *, pad: int, size: int) -> Observed:
    """Look at the answers, ``size`` sequences at a time, those of similar length together."""
    device, rows = next(core.parameters()).device, len(answers)
    lengths = torch.tensor([len(answer.ids) for answer in answers], device=device)
    width, entropy = int(lengths.max()), 0.0
    kept: dict[str, Tensor] = {}
    order = sorted(range(rows), key=lambda i: -len(answers[i].prompt) - len(answers[i].ids))
    for places in (order[start : start + size] for start in range(0, rows, size)):
        batch = batch_of([answers[i] for i in places], pad, device)
        with evaluation_mode(core):
            outputs = core(batch)
            known = reference.logps(core.policy, batch, temperature=core.temperature)
        values = torch.zeros_like(outputs.logps) if outputs.values is None else outputs.values
        for name, entries in (("logps", outputs.logps), ("reference", known), ("values", values)):
            kept.setdefault(name, entries.new_zeros(rows, width))
            kept[name][places] = aligned(entries, outputs.mask, width)
        entropy += float((outputs.entropies * outputs.mask).sum())
    return Observed(**kept, entropy=entropy / float(lengths.sum()), lengths=lengths)


class SamplerMismatch(ArithmeticError):
    """Answers are drawn from another distribution than the one that is trained."""


def sampler_gap(answers: Sequence[Answer], logps: Tensor) -> float:
    """Mean difference per token, in nats, between what answers were drawn with and what training sees of them.

    Equal up to rounding where sampler and trainer are one distribution; every importance ratio and KL estimate rests
    on that. Neither can show it: they compare the trainer with itself, and start at 1 and 0.

    Args:
        answers: Those whose sampler told log-probabilities count.
        logps: What the trainer says of all of them, ``(n, length)``.

    Returns:
        The gap; nan if no answer has log-probabilities.
    """
    seen = logps.double().cpu()
    gaps = [
        (seen[row, : len(answer.ids)] - torch.tensor(answer.logps, dtype=torch.float64)).abs()
        for row, answer in enumerate(answers)
        if answer.logps is not None
    ]
    return float(torch.cat(gaps).mean()) if gaps else math.nan


def check_sampler(gap: float, bound: float, *, server: str | None = None) -> None:
    """Refuse a gap that is more than rounding; nan, where no sampler told, is none.

    Args:
        gap: In nats per token.
        bound: Which it must not exceed.
        server: What drew the answers, where it was not the policy.

    Raises:
        SamplerMismatch: The gap is above the bound.
    """
    if gap > bound and server:
        raise SamplerMismatch(
            f"the server {server} draws answers from another distribution than the one that is trained: "
            f"log-probabilities of their tokens differ by {gap:.2g} nats on average, more than max_sampler_gap "
            f"({bound:g}), and the policy was not updated: if it holds other weights, start it again and continue with "
            "--resume; where temperature is not 1, start it with --logprobs-mode processed_logprobs; if this is its "
            "rounding, with --dtype float32, or raise max_sampler_gap"
        )
    if gap > bound:
        raise SamplerMismatch(
            f"answers are drawn from another distribution than the one that is trained: log-probabilities of their "
            f"tokens differ by {gap:.2g} nats on average, more than max_sampler_gap ({bound:g}), and the policy was "
            "not updated: raise max_sampler_gap if this is the rounding of a low precision"
        )
