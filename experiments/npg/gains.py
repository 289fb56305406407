"""Robust against plain natural policy gradient on random misspecified bandits (npg.md, gains and iterates)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import brentq
from statsmodels.stats.proportion import proportion_confint

from dro_core import ChiSquare, CVaR, TotalVariation, worst_case
from synthetic import mean_estimate
from synthetic.bandits.bandit_batch import ascend, random_bandits
from synthetic.bandits.natural_gradient import worst_value

from .optimum import Bandit, guided, local_optima

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dro_core import AmbiguitySet
    from synthetic.bandits.bandit_batch import BanditBatch, BatchRun

    Array = NDArray[np.float64]

PROBLEMS, RADIUS, ERROR = 300, 0.2, 0.05
SEARCHED, STARTS = 100, 12  # problems whose best policy is looked for, and starts of the search
MATERIAL = 1e-3  # units of reward, which spans 1: smaller differences count as none
STRENGTHS = (0.0, 0.03, 0.1)
RADII = (0.05, 0.1, 0.2, 0.4, 0.6)
OUTPUTS = {
    "last": "last iterate",
    "best": "best iterate",
    "parameters": "average of the parameters",
    "mixture": "average of the policies' values",
}


@dataclass(frozen=True)
class Setting:
    """A kind of random bandit, and how long the methods run on it."""

    prompts: int = 8
    features: int = 3
    noise: float = 2.0
    strength: float = 0.1
    step: float = 1.0
    steps: int = 256

    @property
    def bandits(self) -> BanditBatch:
        """The same PROBLEMS bandits at every strength, set and step."""
        rng = np.random.default_rng([self.prompts, self.features])
        return random_bandits(
            PROBLEMS, prompts=self.prompts, answers=4, features=self.features, noise=self.noise,
            strength=self.strength, rng=rng,
        )  # fmt: skip

    def run(self, ambiguity: AmbiguitySet | None) -> BatchRun:
        """Take the steps, from the uniform policy."""
        return ascend(self.bandits, np.full(self.steps, self.step), ambiguity=ambiguity)


class Outcomes(NamedTuple):
    """What a method puts out on every bandit: worst-case values of four outputs, and the last iterate's mean value."""

    last: Array
    best: Array
    parameters: Array
    mixture: Array
    mean: Array


def matched(radius: float, prompts: int = 8) -> dict[str, AmbiguitySet]:
    """Total variation of a radius, and the other sets with its n sum q^2 on so many prompts of unlike values."""
    order = np.arange(float(prompts))

    def moment(ambiguity: AmbiguitySet) -> float:
        return prompts * float((np.asarray(worst_case(order, ambiguity).weights) ** 2).sum())

    ball = TotalVariation(radius)
    alpha = brentq(lambda a: moment(CVaR(a)) - moment(ball), 1 / prompts, 1.0)
    return {"TV": ball, "CVaR": CVaR(round(alpha, 3)), "chi-square": ChiSquare(round((moment(ball) - 1) / 2, 3))}


SETS = matched(RADIUS)


@cache
def plain_run(setting: Setting) -> BatchRun:
    """The plain run, which serves every judge."""
    return setting.run(None)


@cache
def compared(setting: Setting, ambiguity: AmbiguitySet) -> tuple[Outcomes, Outcomes]:
    """Plain and robust, both judged by the worst case over the set."""
    runs = plain_run(setting), setting.run(ambiguity)
    plain, robust = (_outcomes(setting.bandits, run, ambiguity) for run in runs)
    return plain, robust


def _outcomes(bandits: BanditBatch, run: BatchRun, judge: AmbiguitySet) -> Outcomes:
    start = np.full(run.prompt_values.shape[-1], 1 / run.prompt_values.shape[-1])
    worst = worst_value(run.prompt_values, judge, start)
    averaged = bandits.values(run.iterates[:-1].mean(axis=0))
    return Outcomes(
        worst[-1],
        worst.max(axis=0),
        worst_value(averaged, judge, start),
        worst_value(run.prompt_values[:-1].mean(axis=0), judge, start),
        run.prompt_values[-1].mean(axis=-1),
    )


class Headroom(NamedTuple):
    """On the first SEARCHED bandits: the best worst-case value found in the class, and how often a start found it."""

    best: Array
    found: float


@cache
def headroom(setting: Setting, ambiguity: AmbiguitySet) -> Headroom:
    """Search for the best policy of the class from random starts and the two last iterates."""
    rng, bandits = np.random.default_rng(7), setting.bandits
    ends = [run.iterates[-1] for run in (plain_run(setting), setting.run(ambiguity))]
    values = []
    for i in range(SEARCHED):
        bandit = Bandit.of(bandits, i)
        starts = guided(bandit, ambiguity, 2.0 * rng.standard_normal((STARTS - 2, setting.features)))
        found = local_optima(bandit, ambiguity, [*starts, *(end[i] for end in ends)])
        values.append([optimum.value for optimum in found])
    best = np.max(values, axis=1)
    return Headroom(best, float(np.mean(np.array(values) > best[:, None] - MATERIAL)))


def difference(draws: ArrayLike, *, digits: int = 4) -> str:
    """A mean with its interval over problems."""
    estimate = mean_estimate(draws, ERROR)
    return f"{estimate.value:+.{digits}f} ± {estimate.high - estimate.value:.{digits}f}"


def share(hits: ArrayLike) -> str:
    """A share of problems with its Clopper-Pearson interval."""
    hits = np.asarray(hits)
    low, high = proportion_confint(int(hits.sum()), hits.size, alpha=ERROR, method="beta")
    return f"{100 * hits.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def kl_name(strength: float) -> str:
    """How the tables call a strength of the KL charge."""
    return f"{strength:g}" if strength else "none"
