"""A linear reward head on frozen features, trained against the same adversaries as whole models: a second a run.

The reward is <w, phi(x, y)> + b. A pair sees only differences of rewards, so b cancels and is not trained; the margin
of a pair is <w, phi(x, y+) - phi(x, y-)>. Every optimizer step asks the very rule or set that ``RobustTrainer`` asks,
for the weights of its whole minibatch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..adversary.adversary import Adversary
from ..adversary.effective_batch import Array
from ..adversary.inaction import bound, check_losses, check_reached
from ..adversary.ledger import AdversaryLedger
from ..adversary.masses import masses_of
from ..adversary.rules import Reweighting
from ..adversary.schedule import AdaptiveStrength, RadiusSchedule
from ..run.files import JsonObject
from ..statistics.counting import credit
from ..training.config import ConfigError

Optimizer = Literal["adam", "sgd"]
RateSchedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class HeadTraining:
    """How heads are trained; a sweep has one of it.

    Attributes:
        optimizer: adam (with its usual constants) or sgd (without momentum).
        schedule: How the learning rate falls to zero over the run, or constant.
        weight_decay: Decoupled, per step and unit of learning rate.
        plain_share: Share of the steps trained plainly first.
        ramp_share: Share of the steps over which the adversary then grows.
        average_after: Share of the steps that the average iterate leaves out.
        checks: How often the validation pairs are looked at, evenly over the run.
        init_scale: Standard deviation of the initial weights.
    """

    optimizer: Optimizer = "adam"
    schedule: RateSchedule = "cosine"
    weight_decay: float = 0.0
    plain_share: float = 0.0
    ramp_share: float = 0.0
    average_after: float = 0.5
    checks: int = 20
    init_scale: float = 0.01

    def __post_init__(self) -> None:
        for name, known in (("optimizer", get_args(Optimizer)), ("schedule", get_args(RateSchedule))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} of heads must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not 0 <= self.average_after < 1:
            raise ConfigError(f"average_after must lie in [0, 1), got {self.average_after}")
        for name, least in (("weight_decay", 0), ("init_scale", 0), ("checks", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of heads must be at least {least}, got {getattr(self, name)}")
        RadiusSchedule(plain_share=self.plain_share, ramp_share=self.ramp_share)


@dataclass(frozen=True)
class HeadData:
    """What one run trains on.

    Attributes:
        differences: Features of chosen minus rejected answers, scaled and with wrong labels in, ``(n, width)``.
        columns: What a rule may refer to by name, one entry per pair each.
        validation: The same of held-out pairs, ``(m, width)``; m may be 0.
        validation_categories: Their categories, ``(m,)``.
        masses: How much each pair counts, ``(n,)``, above 0; None: alike.
    """

    differences: Array
    columns: JsonObject
    validation: Array
    validation_categories: NDArray[np.str_]
    masses: Array | None = None


class HeadRun(NamedTuple):
    """A trained head: weights ``(width,)`` by name of the iterate, and what the adversary did.

    ``effective_sample_size`` is the mean of 1 / sum q^2 over the last quarter of the steps.
    """

    iterates: dict[str, Array]
    ledger: AdversaryLedger
    steps: int
    effective_sample_size: float
    seconds: float


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
    rule = bound(rule, data.columns, batch=batch_size, remedy="raise batch_size", seed=seed)
    total = max(round(epochs * (n // batch_size)), 1)
    schedule = RadiusSchedule(plain_share=training.plain_share, ramp_share=training.ramp_share)
    check_reached(rule, schedule, total)
    check_losses(rule, logistic=True)
    masses = None if data.masses is None else masses_of(data.masses.tolist())
    given = None if masses is None else masses.double().numpy()
    adversary = Adversary(rule, n, schedule=schedule, masses=masses)
    adversary.adaptive = AdaptiveStrength() if adaptive else None
    weights = training.init_scale * np.random.default_rng([seed, 4]).standard_normal(width)
    optimizer = _Adam(width) if training.optimizer == "adam" else _SGD()
    watch, sizes = _Watch(data, training, total), np.empty(total)
    for step, batch in enumerate(_batches(n, batch_size, total, seed)):
        differences = data.differences[batch]
        losses = np.logaddexp(0.0, -(differences @ weights))
        here = None if given is None else given[batch] / given[batch].sum()
        q = adversary.weigh_rows(losses, batch, strength=adversary.strength(step, total), reference=here)
        rate = learning_rate * _rate(training.schedule, step / total)
        weights *= 1 - rate * training.weight_decay
        # sigmoid(-margin) = 1 - exp(-loss) is minus the derivative of the loss in the margin.
        optimizer.step(weights, (q * np.expm1(-losses)) @ differences, rate)
        sizes[step] = 1 / (q @ q)
        watch.look(step, weights, adversary.adaptive)
    if not np.isfinite(weights).all():
        raise ArithmeticError(f"the weights of the head ceased to be finite: lower the learning rate {learning_rate:g}")
    size = float(sizes[-max(total // 4, 1) :].mean())
    return HeadRun(watch.iterates(weights), adversary.ledger, total, size, time.perf_counter() - start)


class _Optimizer(Protocol):
    def step(self, weights: Array, gradient: Array, rate: float) -> None:
        """Change the weights in place."""
        ...


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
    """Keeps the average and the best iterate of a run as it passes."""

    def __init__(self, data: HeadData, training: HeadTraining, total: int) -> None:
        self._data, self._total = data, total
        self._first = int(training.average_after * total)
        self._sum, self._count = np.zeros(data.differences.shape[1]), 0
        looks = {round((look + 1) * total / training.checks) - 1 for look in range(training.checks)}
        self._looks = looks if len(data.validation) else set()
        self._best, self._accuracy = None, -1.0

    def look(self, step: int, weights: Array, strength: AdaptiveStrength | None) -> None:
        """Take in the iterate after ``step``."""
        if step >= self._first:
            self._sum += weights
            self._count += 1
        if step not in self._looks:
            return
        margins = self._data.validation @ weights
        accuracy = float(np.mean(credit(margins)))
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
