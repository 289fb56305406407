"""Published weightings of prompts, each a pure function from pass rates to weights.

All have one signature, ``(state, rates, *, parameters) -> (state, weights)``: rates ``(*batch, n)`` in [0, 1] of n
prompts, batch dimensions in front if wished (a study may run a hundred seeds at once), weights of that shape that sum
to 1 over the last axis. A state of None is the beginning; those without a memory hand it through. Nothing is changed in
place, and no gradient is meant to flow.

What multiplies here is the gradient of the prompt's expected reward, E[(r - p) grad log pi]; a published advantage that
is (r - p) times a function of p is that function. Where that gradient is zero whatever the weight, at p = 0 or p = 1,
a weight that the formula would make infinite is 0, so that it takes nothing from the others. Where every weight is 0 (a
batch that failed or was solved whole, for some), weights are equal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = Tensor | None


def maxrl(state: State, rates: Tensor) -> tuple[State, Tensor]:
    """1/p, and 0 at p = 0: the gradient of E log p. As published: the advantage (r - p)/p of 2602.02710."""
    return state, _tilted(-rates.log(), rates > 0)


def rs_grpo(state: State, rates: Tensor, *, beta: float) -> tuple[State, Tensor]:
    """1/(p + 1/(e^beta - 1)), beta > 0: the gradient of (1/beta) log E exp(beta r).

    As published: the advantage (exp(beta r)/E exp(beta r) - 1)/beta of 2509.24261, which is (r - p) times that up to a
    factor all prompts share. It is the worst case of a Burg ball over prompts; 1 at beta -> 0, ``maxrl`` at infinity.
    """
    shift = math.exp(-beta) / -math.expm1(-beta)
    return state, _tilted(-(rates + shift).log(), rates + shift > 0)


def pass_at_k(state: State, rates: Tensor, *, k: float) -> tuple[State, Tensor]:
    """(1 - p)^(k - 1), k >= 1: the gradient of pass@k, 1 - (1 - p)^k. Our reading: of the utility itself."""
    return state, _tilted(torch.xlogy(k - 1, 1 - rates))


def entropic(state: State, rates: Tensor, *, temperature: float) -> tuple[State, Tensor]:
    """exp(-p/t): the worst case under ``kl_penalty:t`` of the losses -p."""
    return state, _tilted(-rates / temperature)


def difficulty_filter(state: State, rates: Tensor) -> tuple[State, Tensor]:
    """The variance p (1 - p): what an answer tells: our reading of 2504.03380, whose bound on improvement it is."""
    return state, _tilted((rates * (1 - rates)).log())


def difficulty_band(state: State, rates: Tensor, *, low: float, high: float) -> tuple[State, Tensor]:
    """1 where low <= p <= high, else 0: our reading of the balanced filter of 2504.03380, without drawing others."""
    return state, _tilted(torch.zeros_like(rates), (rates >= low) & (rates <= high))


def grpo_std(state: State, rates: Tensor) -> tuple[State, Tensor]:
    """1/sqrt(p (1 - p)), and 0 at both ends: as published, GRPO's division by the group's deviation, 2402.03300."""
    spread = rates * (1 - rates)
    return state, _tilted(-spread.log() / 2, spread > 0)


def dgpo(state: State, rates: Tensor, *, temperature: float = 2.0) -> tuple[State, Tensor]:
    """exp(-p/t)/(p (1 - p)), and 0 at both ends.

    As published, 2601.20614: advantages divided by their mean absolute deviation, which is 2 p (1 - p), times a softmax
    of the error rates over the groups with signal.
    """
    spread = rates * (1 - rates)
    return state, _tilted(-spread.log() - rates / temperature, spread > 0)


def riskpo(
    state: State, rates: Tensor, *, low: float = 0.2, high: float = 0.8, mix: float = 1.5
) -> tuple[State, Tensor]:
    """mix/low for the share ``low`` of lowest rates, 1/(high - low) up to the share ``high``, 0 above; equals share.

    Our reading of the mixed value-at-risk of 2510.00911, which takes it of the summed rewards of bundles of prompts;
    here of the rates of prompts. The worst case of a mixture of two CVaR where mix/low >= 1/(high - low).
    """
    count = rates.shape[-1]
    ordered = rates.sort(dim=-1).values.contiguous()
    ends = [torch.searchsorted(ordered, rates.contiguous(), right=right).to(rates) / count for right in (False, True)]
    below, up_to = (mix * (end / low).clamp(max=1) + ((end - low) / (high - low)).clamp(0, 1) for end in ends)
    return state, _shares((up_to - below) / (ends[1] - ends[0]))


def curverl(state: State, rates: Tensor, *, window: int = 10, bins: int = 9) -> tuple[State, Tensor]:
    """f(p)/F(p), and 0 at both ends: density and distribution of the rates in (0, 1) of the last ``window`` batches.

    As published, 2605.24331 and its code: a histogram of one bin more than there are answers to a prompt; of the batch
    at hand while no earlier one had any such rate.

    Args:
        state: Counts of the last batches, ``(*batch, window, bins)``.
        rates: Pass rates, ``(*batch, n)``.
        window: How many batches count.
        bins: Answers to a prompt and one.
    """
    inside = ((rates > 0) & (rates < 1)).to(rates)
    place = (rates * bins).long().clamp(max=bins - 1)
    counts = rates.new_zeros(*rates.shape[:-1], bins).scatter_add(-1, place, inside)
    past = counts.new_zeros(*counts.shape[:-1], window, bins) if state is None else state
    seen = past.sum(-2)
    seen = seen.where(seen.sum(-1, keepdim=True) > 0, counts)
    slopes = seen / seen.cumsum(-1).clamp(min=1)
    moved = torch.cat([past, counts.unsqueeze(-2)], dim=-2)[..., past.shape[-2] + 1 - window :, :]
    return moved, _shares(slopes.gather(-1, place) * inside)


def gdro(
    state: State, rates: Tensor, *, rate: float = 0.65, decay: float = 0.12, bins: int = 10, cap: float = 15.0
) -> tuple[State, Tensor]:
    """min(exp(rate S_b), cap), S_b the running mean of 1 - p over the prompts of the bin b of pass rates.

    As published, equations 12 to 16 of 2601.19280, the scores begun at the first mean as in its code; our reading of
    its loss, which is 1 - p here, and of its bins, which are of the rates shown (``running:`` shows their history).

    Args:
        state: Scores, ``(*batch, bins)``, nan of a bin not yet seen.
        rates: Pass rates, ``(*batch, n)``.
        rate: Of the exponent, at least 0.
        decay: Share of the newest mean in a score.
        bins: How many, equally wide.
        cap: Of a weight relative to that of a solved prompt.
    """
    place = (rates * bins).long().clamp(max=bins - 1)
    empty = rates.new_zeros(*rates.shape[:-1], bins)
    count = empty.scatter_add(-1, place, torch.ones_like(rates))
    mean = empty.scatter_add(-1, place, 1 - rates) / count
    past = torch.full_like(empty, torch.nan) if state is None else state
    scores = torch.where(past.isnan(), mean, (1 - decay) * past + decay * mean)
    scores = scores.where(count > 0, past)
    return scores, _shares((rate * scores.gather(-1, place)).exp().clamp(max=cap))


def _tilted(logs: Tensor, there: Tensor | None = None) -> Tensor:
    """Weights proportional to the exponentials, 0 where not ``there``; equal where none is."""
    logs = logs if there is None else logs.masked_fill(~there, -torch.inf)
    found = logs.softmax(-1)
    return found.where(~found.isnan(), 1 / logs.shape[-1])


def _shares(weights: Tensor) -> Tensor:
    """Weights made to sum to 1; equal where all are 0."""
    total = weights.sum(-1, keepdim=True)
    return (weights / total).where(total > 0, 1 / weights.shape[-1])
