"""A linear reward head on frozen features, trained against the same adversaries as whole models: a second a run.

The reward is <w, phi(x, y)> + b. A pair sees only differences of rewards, so b cancels and is not trained; the margin
of a pair is <w, phi(x, y+) - phi(x, y-)>. Every optimizer step asks the very rule or set that ``RobustTrainer`` asks,
for the weights of its whole minibatch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from ..adversary.adversary import Adversary
from ..adversary.effective_batch import Array
from ..adversary.inaction import bound, check_losses, check_reached
from ..adversary.ledger import AdversaryLedger
from ..adversary.masses import masses_of
from ..adversary.radius.auto import auto_of
from ..adversary.radius.slices import HeldOut, check_covers
from ..adversary.regret import with_least
from ..adversary.rules import Reweighting
from ..adversary.schedule import AdaptiveStrength, RadiusSchedule
from ..data.grouping.named import NamedGroups
from ..run.files import JsonObject
from ..statistics.group_curves import GroupCurves, GroupWatch
from ..statistics.ties import credit
from .head_settings import HeadTraining, RateSchedule


class HeadSlice(NamedTuple):
    """Pairs that are never trained on, whose margins tell what the data bear of a set.

    Attributes:
        differences: As those of the training pairs, ``(k, width)``.
        columns: As theirs.
        prompts: What is resampled together has the same, ``(k,)``.
        masses: How much each counts, ``(k,)``.
        preferences: Probabilities that the labels are right, ``(k,)``.
    """

    differences: Array
    columns: JsonObject
    prompts: NDArray[np.str_]
    masses: Array
    preferences: Array


@dataclass(frozen=True)
class HeadData:
    """What one run trains on.

    Attributes:
        differences: Features of chosen minus rejected answers, scaled and with wrong labels in, ``(n, width)``.
        columns: What a rule may refer to by name, one entry per pair each.
        validation: The same of held-out pairs, ``(m, width)``; m may be 0.
        validation_categories: Their categories, ``(m,)``.
        masses: How much each pair counts, ``(n,)``, above 0; None: alike.
        preferences: Probabilities that the labels are right, ``(n,)``; None: certain.
        aside: The pairs that a set measures its radius on, where one does.
    """

    differences: Array
    columns: JsonObject
    validation: Array
    validation_categories: NDArray[np.str_]
    masses: Array | None = None
    preferences: Array | None = None
    aside: HeadSlice | None = None

    def __post_init__(self) -> None:
        p = self.preferences
        if p is not None and not (p.shape == (len(self.differences),) and ((p >= 0) & (p <= 1)).all()):
            raise ValueError(
                f"soft labels are {len(self.differences)} probabilities, one for every training pair: give each a "
                "number from 0 to 1"
            )

    def losses(self, margins: Array, rows: NDArray[np.int64] | slice = slice(None)) -> tuple[Array, Array]:
        """Losses ``(n,)`` of the training pairs ``rows`` by their margins ``(n,)``, and their derivatives in these."""
        right = np.logaddexp(0.0, -margins)
        if self.preferences is None:
            return right, np.expm1(-right)  # minus sigmoid(-margin)
        p, wrong = self.preferences[rows], np.logaddexp(0.0, margins)
        return p * right + (1 - p) * wrong, p * np.expm1(-right) - (1 - p) * np.expm1(-wrong)

    @property
    def least(self) -> Array:
        """The least losses that the labels allow, ``(n,)``: their entropies, in nats."""
        p = np.ones(len(self.differences)) if self.preferences is None else self.preferences
        return entr(p) + entr(1 - p)


class HeadRun(NamedTuple):
    """A trained head: weights ``(width,)`` by name of the iterate, and what the adversary did.

    ``effective_sample_size`` is the mean of 1 / sum q^2 over the last quarter of the steps. ``measured`` holds what the
    slice bore of the set, ``(measures, 3)``: the step before which, the lower end that counts, and the value itself.
    """

    iterates: dict[str, Array]
    ledger: AdversaryLedger
    steps: int
    effective_sample_size: float
    seconds: float
    measured: Array
    curves: GroupCurves


def train_head(
    data: HeadData,
    rule: Reweighting | None,
    training: HeadTraining,
    *,
    batch_size: int,
    learning_rate: float,
    epochs: float,
    seed: int,
    adaptive: bool = False,
) -> HeadRun:
    """Train one head on minibatches; incomplete ones are left out.

    Args:
        data: The pairs.
        rule: Set or rule, not yet bound; None for plain training.
        training: What all runs share.
        batch_size: Pairs per step: what the adversary sees.
        learning_rate: At the start.
        epochs: Passes over the data; a fraction is allowed.
        seed: Of the initial weights and the order.
        adaptive: Let the loss of the worst validation category move the strength, as ``--adapt_radius`` does.

    Raises:
        ValueError: Fewer pairs than the batch size, a rule that does not fit the data, or an adversary that cannot act.
        ArithmeticError: The weights ceased to be finite.
    """
    start = time.perf_counter()
    n, width = data.differences.shape
    if batch_size > n:
        raise ValueError(f"batch_size {batch_size} is more than the {n} training pairs of this run: lower it")
    total = max(round(epochs * (n // batch_size)), 1)
    adversary, held_out = _adversary(data, rule, training, batch_size=batch_size, total=total, seed=seed)
    adversary.adaptive = AdaptiveStrength() if adaptive else None
    given = adversary.running.masses
    weights = training.init_scale * np.random.default_rng([seed, 4]).standard_normal(width)
    optimizer = _Adam(width) if training.optimizer == "adam" else _SGD()
    watch, sizes, measured = _Watch(data, training, total), np.empty(total), _Measured(adversary, data.aside, held_out)
    for step, batch in enumerate(_batches(n, batch_size, total, seed)):
        measured.look(step, total, weights)
        differences = data.differences[batch]
        losses, slopes = data.losses(differences @ weights, batch)
        here = None if given is None else given[batch] / given[batch].sum()
        strength = adversary.strength(step, total)
        q = adversary.weigh_rows(losses, batch, strength=strength, reference=here, logistic=data.preferences is None)
        rate = learning_rate * _rate(training.schedule, step / total)
        weights *= 1 - rate * training.weight_decay
        optimizer.step(weights, (q * slopes) @ differences, rate)
        sizes[step] = 1 / (q @ q)
        watch.look(step, weights, adversary.adaptive)
    if not np.isfinite(weights).all():
        raise ArithmeticError(f"the weights of the head ceased to be finite: lower the learning rate {learning_rate:g}")
    size, seconds = float(sizes[-max(total // 4, 1) :].mean()), time.perf_counter() - start
    found = measured.found, watch.groups.found
    return HeadRun(watch.iterates(weights), adversary.ledger, total, size, seconds, *found)


def _adversary(
    data: HeadData, asked: Reweighting | None, training: HeadTraining, *, batch_size: int, total: int, seed: int
) -> tuple[Adversary, HeldOut | None]:
    """Whom a head trains against, and what is known of the pairs that its radius is measured on."""
    aside, held_out = data.aside, None
    measures = aside is not None
    rule = bound(asked, data.columns, batch=batch_size, remedy="raise batch_size", seed=seed, measures=measures)
    if aside is not None:
        groups = NamedGroups(data.columns)
        columns = NamedGroups(aside.columns, like=groups)
        check_covers(asked, groups, columns)
        told: object = {"weights": aside.masses.tolist(), "preferences": aside.preferences.tolist()}
        held_out = HeldOut(columns, aside.prompts, every=training.auto_every, **told)
    schedule = RadiusSchedule(plain_share=training.plain_share, ramp_share=training.ramp_share)
    check_reached(rule, schedule, total)
    check_losses(rule, logistic=data.preferences is None, labels=True)
    masses = None if data.masses is None else masses_of(data.masses.tolist())
    return Adversary(with_least(rule, data.least), len(data.differences), schedule=schedule, masses=masses), held_out


class _Measured:
    """Measures the radius of a set that asks for it, where that is due."""

    def __init__(self, adversary: Adversary, aside: HeadSlice | None, held_out: HeldOut | None) -> None:
        self._adversary, self._aside, self._held_out = adversary, aside, held_out
        self._auto, self._looks = auto_of(adversary.rule), list[tuple[float, float, float]]()

    def look(self, step: int, total: int, weights: Array) -> None:
        """Measure before the zero-based ``step``, if it is due."""
        if self._auto is None or self._aside is None or self._held_out is None:
            return
        differences, before = self._aside.differences, self._auto.found.step
        scheduled = self._adversary.schedule(step, total) > 0
        self._held_out.measure(self._auto, lambda: differences @ weights, step=step, scheduled=scheduled)
        if (found := self._auto.found).step != before:
            self._looks.append((found.step, found.bears, found.estimate))

    @property
    def found(self) -> Array:
        """As of ``HeadRun.measured``."""
        return np.array(self._looks).reshape(-1, 3)


class _SGD:
    def step(self, weights: Array, gradient: Array, rate: float) -> None:
        weights -= rate * gradient


class _Adam:
    """Adam of 1412.6980 with its usual constants; decay of the weights is up to the caller, as in AdamW."""

    def __init__(self, width: int) -> None:
        self._mean, self._square, self._steps = np.zeros(width), np.zeros(width), 0

    def step(self, weights: Array, gradient: Array, rate: float) -> None:
        self._steps += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient**2 - self._square)
        mean, square = self._mean / (1 - 0.9**self._steps), self._square / (1 - 0.999**self._steps)
        weights -= rate * mean / (np.sqrt(square) + 1e-8)


class _Watch:
    """Keeps the average and the best iterate of a run as it passes, and what becomes of categories."""

    def __init__(self, data: HeadData, training: HeadTraining, total: int) -> None:
        self._data, self._total = data, total
        self._first = int(training.average_after * total)
        self._sum, self._count = np.zeros(data.differences.shape[1]), 0
        looks = {round((look + 1) * total / training.checks) - 1 for look in range(training.checks)}
        self._looks = looks if len(data.validation) else set()
        self._best, self._accuracy = None, -1.0
        self.groups = GroupWatch(data.validation_categories)

    def look(self, step: int, weights: Array, strength: AdaptiveStrength | None) -> None:
        """Take in the iterate after ``step``."""
        if step >= self._first:
            self._sum += weights
            self._count += 1
        if step not in self._looks:
            return
        margins = self._data.validation @ weights
        correct = credit(margins)
        self.groups.look(step + 1, correct)
        accuracy = float(np.mean(correct))
        if accuracy > self._accuracy:
            self._best, self._accuracy = weights.copy(), accuracy
        if strength is not None:
            strength.observe(_worst_loss(margins, self._data.validation_categories))

    def iterates(self, last: Array) -> dict[str, Array]:
        """The iterates by name; ``best`` is the first one of the highest validation accuracy, if there is any."""
        found = {"last": last, "average": self._sum / self._count}
        return found if self._best is None else {**found, "best": self._best}


def _worst_loss(margins: Array, categories: NDArray[np.str_]) -> float:
    losses = np.logaddexp(0.0, -margins)
    return max(float(losses[categories == name].mean()) for name in np.unique(categories))


def _batches(n: int, size: int, total: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng([seed, 3])
    step = 0
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            if step == total:
                return
            yield order[start : start + size]
            step += 1


def _rate(schedule: RateSchedule, progress: float) -> float:
    """Share of the learning rate after this share of the steps."""
    if schedule == "constant":
        return 1.0
    return 1 - progress if schedule == "linear" else (1 + float(np.cos(np.pi * progress))) / 2
