"""Which prompts a step asks: all of them in turn, or those that the adversary would weigh most."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...adversary.adversary import Adversary
from ...adversary.ledger import AdversaryLedger
from ...adversary.rules import Reweighting, reweighted
from ..config import PolicyConfig
from .signal import tells

Rows = NDArray[np.int64]
Array = NDArray[np.float64]


class PromptOrder:
    """Which prompts a step of all ranks asks, and what they count before they are weighed.

    Args:
        config: Of the run.
        adversary: Knows what every prompt was worth when it was last asked.
        masses: How much each training prompt counts in plain training, relative to the others, ``(prompts,)``; None:
            alike.
        seed: Of the run.
        world: Number of ranks.
    """

    def __init__(
        self, config: PolicyConfig, adversary: Adversary, *, masses: Tensor | None, seed: int, world: int
    ) -> None:
        self.adversary, self.seed, self.world = adversary, seed, world
        self.size, self.floor = config.prompts_per_step * world, config.draw_floor
        self.draws = config.adversary_acts != "weights"
        self.corrected = config.adversary_acts == "draws_corrected"
        self.leaves_out = config.silent_groups != "keep"
        self.rounds = config.draw_rounds if config.silent_groups == "draw_again" else 0
        prompts, self.alike = len(adversary.ledger.visits), masses is None
        shares = np.ones(prompts) if masses is None else masses.double().numpy()
        self.masses = shares / shares.sum()

    def rows(self, step: int, rule: Reweighting | None) -> Rows:
        """Places of the prompts of a step in the training set, in rank order, ``(prompts,)``."""
        if not self.draws:
            return in_turn(step, len(self.masses), self.size, seed=self.seed)
        return drawn(self.inclusion(rule), np.random.default_rng([self.seed, step, 2]))

    def others(self, step: int, taken: Rows, rank: int) -> Iterator[int]:
        """Prompts to ask in place of others, none of those that are taken, no two ranks the same."""
        order = np.random.default_rng([self.seed, step, 1]).permutation(len(self.masses))
        return iter(order[~np.isin(order, taken)][rank :: self.world].tolist())

    def inclusion(self, rule: Reweighting | None) -> Array:
        """Probabilities with which prompts are drawn, ``(training prompts,)``."""
        return inclusion(wanted(self.adversary.ledger, self.masses, rule), self.size, floor=self.floor)

    def reference(self, scores: Tensor, rows: Rows, rule: Reweighting | None) -> Tensor | None:
        """What the prompts of a step count, ``(prompts,)``; None: alike.

        The sum is 1, but 0 where groups without a signal are left out and none has one; and corrected draws count
        p / pi (Horvitz and Thompson), with sum 1 in expectation: the mean over draws is that of plain training.

        Args:
            scores: Of their answers, ``(prompts, samples)``.
            rows: Their places.
            rule: The adversary at its strength.
        """
        if not self.corrected and not self.leaves_out and (self.alike or self.draws):
            return None
        masses = np.ones(len(rows)) if self.draws else self.masses[rows]
        if self.corrected:
            masses = self.masses[rows] / self.inclusion(rule)[rows]
        if self.leaves_out:
            masses = masses * tells(scores.double().cpu().numpy())
        if (self.leaves_out or not self.corrected) and masses.any():
            masses = masses / masses.sum()
        return torch.from_numpy(masses).to(scores)

    def answered(self, ratios: Array, rule: Reweighting | None) -> Array | None:
        """What the adversary answered in a step, against plain training; None where it was not asked.

        The ``ratios`` of its weights, or those of its draws.
        """
        if rule is None or not self.draws:
            return None if rule is None else ratios
        return self.inclusion(rule) / (self.size * self.masses)


def in_turn(step: int, prompts: int, size: int, *, seed: int) -> Rows:
    """The prompts of a step, ``(size,)``, where every epoch asks all of them in an order of its own.

    Those that are left over at its end, fewer than a step takes, are left out of it.
    """
    epoch, place = divmod(step, prompts // size)
    return np.random.default_rng([seed, epoch]).permutation(prompts)[place * size : (place + 1) * size]


def wanted(ledger: AdversaryLedger, masses: Array, rule: Reweighting | None) -> Array:
    """What a rule weighs all training prompts by what they were worth when last asked, ``(prompts,)``, sum 1.

    A prompt that was never asked counts as the mean of those that were.

    Args:
        ledger: Knows their last losses.
        masses: What they count in plain training, sum 1.
        rule: Bound to them; None for plain training.
    """
    last = ledger.last_loss
    if rule is None or np.isnan(last).all():
        return masses
    losses = torch.from_numpy(np.where(np.isnan(last), np.nanmean(last), last))
    return reweighted(rule.take(np.arange(len(last))), losses, reference=torch.from_numpy(masses)).numpy()


def inclusion(weights: Array, size: int, *, floor: float) -> Array:
    """Probabilities with which prompts are drawn, ``(prompts,)``, sum ``size``: weights in proportion, at most 1.

    Args:
        weights: Sum 1.
        size: How many are drawn, at most as many as there are.
        floor: Share of the draws that go to all prompts alike, in [0, 1]; above 0 every prompt is drawn now and then.
    """
    mixed = (1 - floor) * weights + floor / len(weights)
    certain = np.zeros(len(mixed), dtype=bool)
    while True:
        left = np.where(certain, 0.0, mixed)
        shared = (size - certain.sum()) * (left / left.sum() if left.any() else left)
        if not (over := ~certain & (shared > 1)).any():
            break
        certain |= over
    found = np.where(certain, 1.0, shared)
    short = size - found.sum()  # where fewer prompts than are drawn have any weight
    open_ = found == 0
    return found + (open_ * short / open_.sum() if short > 1e-9 and open_.any() else 0.0)


def drawn(probabilities: Array, rng: np.random.Generator) -> Rows:
    """As many different prompts as the probabilities add up to, each with exactly its own: systematic sampling.

    >>> drawn(np.array([0.5, 1.0, 0.5]), np.random.default_rng(0)).size
    2
    """
    size, order = round(float(probabilities.sum())), rng.permutation(len(probabilities))
    ends = np.cumsum(probabilities[order])
    marks = (rng.random() + np.arange(size)) * (ends[-1] / size)
    return rng.permutation(order[np.searchsorted(ends, marks, side="right")])
