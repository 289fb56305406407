"""How fast robust natural policy gradient converges with each kind of set (npg.md, rates)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import statsmodels.api as sm
from statsmodels.stats.weightstats import DescrStatsW

from dro_core import ChiSquare
from synthetic.bandits.bandit_batch import BanditBatch, ascend
from synthetic.bandits.natural_gradient import worst_value

from .gains import ERROR, RADIUS, Setting, matched
from .optimum import Bandit, guided, local_optima

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet
    from synthetic.bandits.bandit_batch import BatchRun

    Array = NDArray[np.float64]

PROBLEMS, STEPS, BATCH = 60, 1024, 8
SETTINGS = {"all prompts": Setting(), "minibatches": Setting(prompts=32)}
RANDOM_STARTS = {"all prompts": 10, "minibatches": 3}  # with 32 prompts every start finds the same maximum
COMPARED: dict[str, AmbiguitySet] = {
    "TV": matched(RADIUS)["TV"],
    "chi-square, same n sum q^2": matched(RADIUS)["chi-square"],
    "chi-square, 2 rho^2": ChiSquare(round(2 * RADIUS**2, 4)),
}
TIMES = np.array([16, 32, 64, 128, 256, 512, 1024])
SCHEDULES = {
    "1": np.ones(STEPS),
    "1/4": np.full(STEPS, 0.25),
    "1/sqrt(t)": np.arange(1, STEPS + 1) ** -0.5,
    "10/(9 + t)": 10.0 / (9 + np.arange(1, STEPS + 1)),
}
STEP_SIZES = tuple(2.0**-k for k in range(6))
SOLVED, ROUNDING = 1e-6, 1e-12  # units of reward


@cache
def problems(kind: str) -> BanditBatch:
    """The first PROBLEMS bandits of the setting."""
    whole = SETTINGS[kind].bandits
    return BanditBatch(whole.features[:PROBLEMS], whole.rewards[:PROBLEMS], whole.strength)


@cache
def best_known(kind: str, ambiguity: AmbiguitySet) -> Array:
    """Largest worst-case value found in the class from many starts and the ends of two runs, shape ``(b,)``."""
    rng, found, bandits = np.random.default_rng(11), [], problems(kind)
    ends = [ascend(bandits, SCHEDULES["1/4"], ambiguity=which).iterates[-1] for which in (None, ambiguity)]
    for i in range(PROBLEMS):
        bandit = Bandit.of(bandits, i)
        starts = guided(bandit, ambiguity, 2.0 * rng.standard_normal((RANDOM_STARTS[kind], 3)))
        starts += [end[i] for end in ends]
        found.append(max(o.value for o in local_optima(bandit, ambiguity, starts)))
    return np.array(found)


class Course(NamedTuple):
    """Runs on PROBLEMS bandits with one set and one schedule; the set is also the judge.

    Attributes:
        times: Numbers of steps, shape ``(k,)``.
        lacking: Best known value of the class less the worst-case value, shape ``(k, b)``.
        short: Local maximum that the run ends at less its worst-case value, shape ``(k, b)``, at least ROUNDING.
        averaged: ``lacking`` of the average of the parameters.
        moved: Mean total variation between the weights of successive steps, over the last 100 steps, ``(b,)``.
    """

    times: Array
    lacking: Array
    short: Array
    averaged: Array
    moved: Array


@cache
def course(ambiguity: AmbiguitySet, schedule: str) -> Course:
    """Deterministic runs: all prompts at every step."""
    bandits = problems("all prompts")
    run = ascend(bandits, SCHEDULES[schedule], ambiguity=ambiguity)
    ends = local_values(bandits, ambiguity, run.iterates[-1])
    best = np.maximum(best_known("all prompts", ambiguity), ends)
    worst = worst_at(run, ambiguity)
    averaged = best - _averaged(bandits, run, ambiguity)
    moved = np.abs(np.diff(run.weights[-101:], axis=0)).sum(axis=-1).mean(axis=0) / 2
    return Course(TIMES, best - worst, np.maximum(ends - worst, ROUNDING), averaged, moved)


def worst_at(run: BatchRun, judge: AmbiguitySet) -> Array:
    """Worst-case values at TIMES."""
    prompts = run.prompt_values.shape[-1]
    return worst_value(run.prompt_values[TIMES], judge, np.full(prompts, 1 / prompts))


def _averaged(bandits: BanditBatch, run: BatchRun, judge: AmbiguitySet) -> Array:
    means = np.cumsum(run.iterates[:-1], axis=0)[TIMES - 1] / TIMES[:, None, None]
    prompts = run.prompt_values.shape[-1]
    return worst_value(bandits.values(means), judge, np.full(prompts, 1 / prompts))


def local_values(bandits: BanditBatch, ambiguity: AmbiguitySet, points: Array) -> Array:
    """Worst-case value at the local maximum next to a point of every bandit."""
    return np.array([local_optima(Bandit.of(bandits, i), ambiguity, [p])[0].value for i, p in enumerate(points)])


@cache
def floors(ambiguity: AmbiguitySet) -> Array:
    """What steps of a constant size lose for good: started at a local maximum, shape ``(sizes, b)``.

    The shortfall is the mean over steps 257 to 512.
    """
    bandits = problems("all prompts")
    near = ascend(bandits, SCHEDULES["1/4"], ambiguity=ambiguity).iterates[-1]
    optima = [local_optima(Bandit.of(bandits, i), ambiguity, [p])[0] for i, p in enumerate(near)]
    initial, top = np.array([o.theta for o in optima]), np.array([o.value for o in optima])
    even = np.full(bandits.rewards.shape[1], 1 / bandits.rewards.shape[1])
    lost = []
    for size in STEP_SIZES:
        run = ascend(bandits, np.full(512, size), ambiguity=ambiguity, initial=initial)
        lost.append(top - worst_value(run.prompt_values[257:], ambiguity, even).mean(axis=0))
    return np.maximum(lost, ROUNDING)


class Sampled(NamedTuple):
    """Minibatch runs: what is lacking by the run's own set and by total variation, shape ``(k, b)``."""

    own: Array
    by_tv: Array


@cache
def sampled(ambiguity: AmbiguitySet | None, schedule: str) -> Sampled:
    """Weights from BATCH prompts drawn at every step; the same draws for every set."""
    bandits, ball = problems("minibatches"), COMPARED["TV"]
    rng = np.random.default_rng(5)
    run = ascend(bandits, SCHEDULES[schedule], ambiguity=ambiguity, batch=BATCH, rng=rng)
    own = ambiguity or ball
    lacking = [best_known("minibatches", judge) - worst_at(run, judge) for judge in (own, ball)]
    return Sampled(*lacking)


class Line(NamedTuple):
    """A slope with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if abs(self.value) >= 0.1 else 3
        return f"{self.value:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def slopes(times: Array, short: Array) -> Array:
    """Exponent of every bandit's own power law, by least squares, shape ``(b,)``."""
    return np.polyfit(np.log(times), np.log(short), 1)[0]


def mean_line(draws: ArrayLike) -> Line:
    """Mean over bandits, Student's t."""
    return Line(float(np.mean(draws)), *map(float, DescrStatsW(draws).tconfint_mean(ERROR)))


def fitted_line(x: ArrayLike, y: ArrayLike) -> Line:
    """Slope of y over x by least squares with the interval of statsmodels."""
    fit = sm.OLS(y, sm.add_constant(np.asarray(x))).fit()
    return Line(float(fit.params[1]), *map(float, fit.conf_int(ERROR)[1]))
