"""Batches of Bradley-Terry pairs: is the risk of batches of eight trained without bias, by value and by gradient?

Margins are those of the true reward, whose difference between the two answers is normal with a deviation of DEVIATION
nats; the gradient is that by the scale of the reward. Every value and gradient is known by quadrature.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.integrate import cumulative_simpson, simpson
from scipy.special import expit
from scipy.stats import norm

from dro_core import TotalVariation, minibatch
from llm.adversary.effective_batch import batch_weights
from llm.adversary.spec import parse_reweighting
from llm.statistics.intervals import mean_interval

from .densities import density, rank_weights, shares

DEVIATION, RADIUS, SMALL = 1.5, 0.2, 8
SPEC = f"tv:{RADIUS:g},minibatch={SMALL}"
BATCHES = {16: 10_000, 64: 5_000, 512: 4_000}  # by size, how many are drawn
LEVEL = 0.99


class Row(NamedTuple):
    """Mean over batches less the risk of batches of eight: simulated with its interval, and exact.

    ``paired`` is the value less that of SPEC on the same batches.
    """

    batch: int
    weights: str
    value: tuple[float, float, float]
    value_exact: float
    slope: tuple[float, float, float]
    slope_exact: float
    paired: tuple[float, float, float]
    deviation: float


def rules(batch: int) -> dict[str, np.ndarray]:
    """By name the weights by rank, shape ``(batch,)``."""
    small = rank_weights(TotalVariation(RADIUS), SMALL)
    return {
        f"`{SPEC}`": rank_weights(minibatch(TotalVariation(RADIUS), SMALL), batch),
        "shares of the density": shares(small, batch),
        f"`tv:{RADIUS:g}`": rank_weights(TotalVariation(RADIUS), batch),
    }


def exact(weights: np.ndarray) -> tuple[float, float]:
    """Mean value and mean gradient of batches with these weights by rank, by quadrature over the margin."""
    m = np.linspace(-10 * DEVIATION, 10 * DEVIATION, 8001)
    law = 2 * norm.pdf(m, scale=DEVIATION) * expit(m)
    above = 1 - np.clip(cumulative_simpson(law, x=m, initial=0.0), 0, 1)  # the loss falls with the margin
    weighed = law * density(weights, above)
    return float(simpson(weighed * np.logaddexp(0, -m), x=m)), float(simpson(-weighed * m * expit(-m), x=m))


def rows(*, seed: int = 0) -> list[Row]:
    """All sizes of batches and all weights; the weights of SPEC are those of the trainer."""
    value, slope = exact(rank_weights(TotalVariation(RADIUS), SMALL))
    found = []
    for batch, count in BATCHES.items():
        margins, first = drawn(batch, count, seed=seed), np.zeros(0)
        for name, weights in rules(batch).items():
            values, slopes = measured(margins, None if SPEC in name else weights)
            first = first if first.size else values  # that of SPEC comes first
            right = exact(weights)
            ends = [mean_interval(told, level=LEVEL) for told in (values - value, slopes - slope, values - first)]
            deviation = float(values.std(ddof=1))
            found.append(Row(batch, name, ends[0], right[0] - value, ends[1], right[1] - slope, ends[2], deviation))
    return found


def drawn(batch: int, count: int, *, seed: int) -> np.ndarray:
    """Margins of ``count`` batches, shape ``(count, batch)``; the label is right with probability sigmoid."""
    rng = np.random.default_rng([seed, batch])
    h = DEVIATION * rng.standard_normal((count, batch))
    return np.where(rng.random(h.shape) < expit(h), h, -h)


def measured(margins: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of every batch; weights by rank, or None for what the trainer gives SPEC."""
    losses = np.logaddexp(0, -margins)
    if weights is None:
        rule, rows_ = parse_reweighting(SPEC), np.arange(margins.shape[1])
        given = np.stack([batch_weights(rule, row, rows_, strength=1.0) for row in losses])
    else:
        given = np.empty_like(losses)
        np.put_along_axis(given, np.argsort(losses, axis=1), np.broadcast_to(weights, losses.shape), axis=1)
    return (given * losses).sum(axis=1), -(given * margins * expit(-margins)).sum(axis=1)
