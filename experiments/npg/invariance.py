"""Does the natural gradient depend on the weights of the prompts? (npg.md, invariance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dro_core import TotalVariation, worst_case
from synthetic.bandits.mdp import KLRegulariser, garnet, prompts
from synthetic.bandits.policies import LogLinearPolicy, TabularPolicy, natural_gradient, policy_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from synthetic.bandits.mdp import TabularMDP
    from synthetic.bandits.policies import PolicyClass

    Array = NDArray[np.float64]

PROBLEMS, PROMPTS, ANSWERS, TINY = 200, 8, 4, 1e-6
SIZES = 10.0 ** np.arange(-8, 1.1, 0.5)  # of what the features miss, over what they explain


@dataclass(frozen=True)
class Kind:
    """Random problems of one kind.

    Attributes:
        features: d; None for tabular policies.
        noise: Deviation of the part of the reward that is not linear, the linear part having sqrt(d).
        strength: Of the KL charge to a random reference policy.
        inside: Whether the reference is the policy of theta = 0.
        discount: Of a random MDP; 0 for a bandit.
    """

    features: int | None = 3
    noise: float = 0.0
    strength: float = 0.0
    inside: bool = True
    discount: float = 0.0


INVARIANT = {
    "tabular, bandit": Kind(None),
    "tabular, MDP with discount 0.9": Kind(None, discount=0.9),
    "log-linear, realizable": Kind(),
    "log-linear, realizable, KL": Kind(strength=0.1),
    "log-linear, realizable, 24 features": Kind(24),
}
BROKEN = {
    "log-linear, misspecified": Kind(noise=2.0),
    "log-linear, misspecified, KL": Kind(noise=2.0, strength=0.1),
    "log-linear, realizable, KL to a policy outside the class": Kind(strength=0.1, inside=False),
}


class Problem(NamedTuple):
    """A problem and a point of the class."""

    mdp: TabularMDP
    policy: PolicyClass
    theta: Array
    regulariser: KLRegulariser | None

    def direction(self, weights: Array) -> Array:
        """F_q^+ g_q."""
        return natural_gradient(self.policy, self.theta, self.mdp, start=weights, regulariser=self.regulariser)

    def worst(self, radius: float) -> Array:
        """The weights that total variation of this radius chooses here."""
        values = policy_values(self.policy, self.theta, self.mdp, regulariser=self.regulariser)
        return np.asarray(worst_case(-values, TotalVariation(radius)).weights)


def drawn(kind: Kind, rng: np.random.Generator) -> Problem:
    """Draw one."""
    if kind.features is None:
        # Through the general least squares: the closed form of the tabular class would not look at the weights.
        policy = TabularPolicy(PROMPTS, ANSWERS).as_log_linear()
        mdp = garnet(PROMPTS, ANSWERS, 3, kind.discount, rng)
        return Problem(mdp, policy, rng.standard_normal(policy.size), None)
    features = rng.standard_normal((PROMPTS, ANSWERS, kind.features))
    rewards = features @ rng.standard_normal(kind.features)
    rewards += kind.noise * rng.standard_normal(rewards.shape)
    reference = rng.dirichlet(np.ones(ANSWERS), size=PROMPTS)
    regulariser = KLRegulariser(reference, kind.strength) if kind.strength else None
    policy = LogLinearPolicy(features, reference if kind.inside else None)
    return Problem(prompts(rewards), policy, rng.standard_normal(kind.features) / 2, regulariser)


def weightings(problem: Problem, rng: np.random.Generator) -> Mapping[str, Array]:
    """Strictly positive weights, then some with zeros."""
    tiny = np.where(np.arange(PROMPTS) % 2, TINY, 1.0)
    without = np.arange(PROMPTS) > 0
    return {
        "random": rng.dirichlet(np.ones(PROMPTS)),
        "1e-6 on half of the prompts": tiny / tiny.sum(),
        "TV(0.1), all positive": problem.worst(0.1),
        "0 on one prompt": without / without.sum(),
        "TV(0.4), 0 on three": problem.worst(0.4),
    }


def distances(kind: Kind, *, count: int = PROBLEMS) -> dict[str, Array]:
    """Relative difference to the direction of uniform weights, for every weighting, shape ``(count,)``."""
    rng, found = np.random.default_rng(3), {}
    for _ in range(count):
        problem = drawn(kind, rng)
        even = problem.direction(np.full(PROMPTS, 1 / PROMPTS))
        for name, weights in weightings(problem, rng).items():
            apart = np.linalg.norm(problem.direction(weights) - even) / np.linalg.norm(even)
            found.setdefault(name, []).append(apart)
    return {name: np.array(values) for name, values in found.items()}


def sweep() -> dict[str, Array]:
    """Distances under the weights of TV(0.1) over SIZES for two ways to miss the class, shape ``(sizes, count)``."""
    root = 3**0.5
    ways = {
        "reward: part that is not linear / linear part": lambda size: Kind(noise=size * root),
        "KL to a policy outside the class: strength": lambda size: Kind(strength=size, inside=False),
    }
    return {
        name: np.array([distances(kind(size), count=60)["TV(0.1), all positive"] for size in SIZES])
        for name, kind in ways.items()
    }
