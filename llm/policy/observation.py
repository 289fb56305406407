"""What policy, reference and value function say about finished answers, without gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from ..models.logprobs import evaluation_mode
from .actor_critic import Reference
from .ranks.gathering import gathered
from .rollouts import Answer, Batch, aligned, batch_of


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
def observed(module: nn.Module, reference: Reference, answers: Sequence[Answer], *, pad: int, size: int) -> Observed:
    """Look at the answers, ``size`` sequences at a time, those of similar length together.

    Models whose parameters are spread over ranks are whole meanwhile, one after the other.

    Args:
        module: Policy and value function, wrapped for ranks or not.
        reference: What KL is measured to.
        answers: At least one.
        pad: Id of the padding token.
        size: Sequences of a batch.
    """
    core = extract_model_from_parallel(module)
    device, rows = next(core.parameters()).device, len(answers)
    lengths = torch.tensor([len(answer.ids) for answer in answers], device=device)
    width = int(lengths.max())
    order = sorted(range(rows), key=lambda i: -len(answers[i].prompt) - len(answers[i].ids))
    batches = [
        (places, batch_of([answers[i] for i in places], pad, device))
        for places in (order[start : start + size] for start in range(0, rows, size))
    ]
    kept: dict[str, Tensor] = {}

    def keep(places: list[int], batch: Batch, **told: Tensor) -> None:
        for name, entries in told.items():
            mask = batch["answer_mask"][:, -entries.shape[1] :].bool()
            kept.setdefault(name, entries.new_zeros(rows, width))[places] = aligned(entries, mask, width)

    def compare(places: list[int], batch: Batch) -> None:
        keep(places, batch, reference=reference.logps(core.policy, batch, temperature=core.temperature))

    entropy = 0.0
    with gathered(module), evaluation_mode(core):
        for places, batch in batches:
            outputs = core(batch)
            values = torch.zeros_like(outputs.logps) if outputs.values is None else outputs.values
            keep(places, batch, logps=outputs.logps, values=values)
            entropy += float((outputs.entropies * outputs.mask).sum())
            if reference.model is None:  # the policy without its adapter
                compare(places, batch)
    if reference.model is not None:
        with gathered(reference.model):
            for places, batch in batches:
                compare(places, batch)
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
