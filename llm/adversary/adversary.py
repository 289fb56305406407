"""Whom a run trains against: one value that every trainer holds, whatever it trains and whatever it weighs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dro_core import AmbiguitySet

from .account import AdversaryAccount
from .effective_batch import Array, EffectiveBatch, Looked, batch_weights, moved_by
from .equal_losses import Accuracy
from .ledger import AdversaryLedger
from .masses import check_masses
from .radius.auto import auto_of
from .radius.bearing import RunningRadius, margins_of
from .rules import Reweighting, Stateful, exposed, layers, state_of, weakened
from .schedule import AdaptiveStrength, RadiusSchedule


class Adversary:
    """A rule, how strong it is at every step, and the account of its answers; ``Resumable``.

    Weights are asked for without a trace (``at``); ``weigh`` and ``weigh_rows`` ask once for a step that is taken:
    they book the answer and move a rule that keeps a state.

    Args:
        rule: A set or rule, bound to the training examples (``llm.adversary.inaction.bound``); None trains plainly.
        examples: Size of the training set.
        schedule: Strength over the steps; None means full strength throughout.
        masses: How much each training example counts, ``(examples,)``; None: alike.

    Attributes:
        adaptive: What moves the strength by held-out metrics; None: nothing does.
        account: What the adversary did, to every example and at every step.
        running: What the margins of the latest batches bear of the set.
    """

    def __init__(
        self,
        rule: Reweighting | None,
        examples: int,
        *,
        schedule: RadiusSchedule | None = None,
        masses: Tensor | None = None,
    ) -> None:
        check_masses(rule, masses)
        self.rule, self.schedule = rule, schedule or RadiusSchedule()
        self.adaptive: AdaptiveStrength | None = None
        self.account, self.running = AdversaryAccount(examples), RunningRadius(rule)
        self.ledger.masses = self.running.masses = None if masses is None else masses.double().cpu().numpy()

    @property
    def ledger(self) -> AdversaryLedger:
        """Sum of multipliers, visits and last loss of every training example."""
        return self.account.ledger

    def strength(self, step: int, steps: int) -> float:
        """Share of the rule's strength, in [0, 1], at the zero-based ``step`` of ``steps``.

        0 without a rule, and where it measures its radius and found none.
        """
        if self.rule is None or ((auto := auto_of(self.rule)) is not None and not auto.acts):
            return 0.0
        scheduled = self.schedule(step, max(steps, 1))
        return scheduled if self.adaptive is None else scheduled * self.adaptive.level

    def at(self, strength: float) -> Reweighting | None:
        """The rule at that strength; None where weights are equal."""
        return weakened(self.rule, strength)

    def weigh(self, batch: EffectiveBatch, *, step: int, strength: float, accuracy: Accuracy | None) -> Tensor:
        """Weights ``(n,)`` of the effective batch of one optimizer step, sum 1; the same on all ranks.

        Args:
            batch: The examples of all ranks.
            step: Optimizer steps done so far.
            strength: As from ``strength``.
            accuracy: Of the losses: what is closer is equal; None takes them as exact.
        """
        weights = batch.weights(self.rule, strength, accuracy=accuracy)
        used, shown = self.running.used(strength), self._shown(batch)
        seen = self.account.book(batch, weights, step=step, strength=strength, shown=shown, used=used)
        self._see(seen, accuracy)
        batch.advance(self.rule, strength, accuracy=accuracy)
        return weights

    def book_plain(
        self,
        batch: EffectiveBatch,
        *,
        step: int,
        micro_batches: int,
        accuracy: Accuracy | None,
        total: Tensor | None = None,
    ) -> None:
        """Book one micro-batch that is trained on plainly. Arguments: see ``AdversaryAccount.book_plain``."""
        used, shown = self.running.used(0.0), self._shown(batch)
        seen = self.account.book_plain(
            batch, step=step, micro_batches=micro_batches, total=total, shown=shown, used=used
        )
        self._see(seen, accuracy)

    @property
    def shifted(self) -> bool:
        """Whether the adversary sees other losses than those that are trained on (``regret:``).

        Estimates of the values of prompts (``running:``) are of the same thing: what was drawn is booked.
        """
        if self.rule is None or isinstance(self.rule, AmbiguitySet):
            return False
        from .regret import Regret

        return any(isinstance(part, Regret) for part in layers(self.rule))

    def _shown(self, batch: EffectiveBatch) -> Tensor | None:
        """What the adversary sees in place of the losses ``(n,)``; None where it sees them."""
        if self.rule is None or not self.shifted:
            return None
        return exposed(self.rule.take(batch.index.cpu().numpy()), batch.losses, batch.present > 0)[1]

    def _see(self, seen: Looked, accuracy: Accuracy | None) -> None:
        """Show the running radius the margins, where they are given or told by the losses."""
        if not self.running.told or (seen.margins is None and not (accuracy and accuracy.logistic)):
            return
        margins = margins_of(seen.losses) if seen.margins is None else seen.margins.astype(np.float64)
        self.running.see(seen.rows, np.where(np.abs(margins) > (accuracy.absolute if accuracy else 0.0), margins, 0.0))

    def summary(self) -> dict[str, float]:
        """What the log says of the steps since the last call; empty if there were none."""
        looks = self.account.summary()
        return looks | self.running.tells(looks)

    def weigh_rows(
        self,
        losses: Array,
        rows: NDArray[np.int64],
        *,
        strength: float,
        reference: Array | None = None,
        logistic: bool = True,
    ) -> Array:
        """Weights ``(n,)`` of one minibatch on one process, in numpy: the examples ``rows`` with these ``losses``.

        ``reference`` ``(n,)``, sum 1, is what plain training weighs; None: examples count alike. ``logistic`` says
        whether losses are -log sigmoid(margin).
        """
        weights = batch_weights(self.rule, losses, rows, strength=strength, reference=reference, logistic=logistic)
        multipliers = len(losses) * weights if reference is None else weights / reference
        answered = None if self.at(strength) is None else multipliers
        self.ledger.record(rows, multipliers, self._seen(losses, rows), answered=answered)
        moved_by(self.rule, losses, rows, strength=strength, reference=reference, logistic=logistic)
        return weights

    def _seen(self, losses: Array, rows: NDArray[np.int64]) -> Array:
        """What the adversary sees of the losses ``(n,)`` of these examples."""
        if self.rule is None or not self.shifted:
            return losses
        return exposed(self.rule.take(rows), torch.from_numpy(losses))[1].numpy()

    def save(self, folder: Path) -> None:
        """Write the ledger, and where there are any the state of the rule and the adaptive strength."""
        for part in self._parts():
            part.save(folder)

    def load(self, folder: Path) -> None:
        """Go on from what ``save`` wrote, of this version or an earlier one."""
        for part in self._parts():
            part.load(folder)

    def _parts(self) -> list[AdversaryLedger | Stateful | AdaptiveStrength | RunningRadius]:
        parts = (self.ledger, state_of(self.rule), self.adaptive, self.running)
        return [part for part in parts if part is not None]
