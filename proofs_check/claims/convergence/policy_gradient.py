"""The claim that natural policy gradient converges on tabular policies (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from proofs_check.claim import Array, Claim, Curve, Instances, dyadic, mutant, stated
from synthetic.bandits.mdp import TabularMDP, chain, corridor, garnet, prompts
from synthetic.bandits.natural_gradient import natural_policy_gradient
from synthetic.bandits.policies import TabularPolicy


@dataclass(frozen=True)
class TabularRun:
    """T steps of length ``step`` on a named MDP with rewards in [0, 1]; ``number`` seeds the random ones.

    ``family`` is garnet, bandit, chain or corridor; ``states`` is its number of states, of rooms in a corridor.
    """

    family: str
    states: int
    actions: int
    discount: float
    step: float
    steps: int
    number: int = 0

    @property
    def work(self) -> float:
        """How many probabilities there are along a run."""
        return float(self.states * self.actions * self.steps)

    @property
    def mdp(self) -> TabularMDP:
        """The problem; a bandit has one good answer per prompt, worth 1, and discount 0."""
        if self.family == "bandit":
            return prompts(np.eye(self.actions)[np.arange(self.states) % self.actions])
        if self.family == "chain":
            return chain(self.states, self.discount)
        if self.family == "corridor":
            return corridor(self.states, self.actions, self.discount, comfort=1 / 8)
        branching = min(2, self.states)
        return garnet(self.states, self.actions, branching, self.discount, np.random.default_rng(self.number))


@stated
def npg_tabular() -> Claim[TabularRun]:
    """Natural policy gradient on a tabular softmax policy converges at a rate free of states and start.

    Problem: maximise V(start), rewards in [0, 1], any start distribution, discount gamma < 1.
    Algorithm: theta_0 = 0 (uniform policy), theta <- theta + eta F^+ grad V(start), any eta > 0, exact gradients.
    Guarantee (upper): V* - V_T <= log|A| / (eta T) + 1 / ((1 - gamma)^2 T). Checked with T + 1 in place of T, at
        every T: the published proof bounds the mean gap of the iterates 0 ... T by that, and the gap never rises.
    Source: [AKLM21, Theorem 5.3 and its proof].
    Example: one prompt, two answers worth 1 and 0, eta = 1: V* - V_1 = 1/(1 + e) = .27 <= (log 2 + 1)/2 = .85.
    """

    def gaps(x: TabularRun, initial: Array | None = None) -> Array:
        mdp = x.mdp
        run = natural_policy_gradient(mdp, TabularPolicy(*mdp.shape), steps=x.steps, step_size=x.step, initial=initial)
        return mdp.start @ mdp.optimal_values() - run.values

    def bound(x: TabularRun, logarithm: float = 1.0, horizons: int = 2, power: int = 1) -> Array:
        constant = logarithm * np.log(x.mdp.shape[1]) / x.step + (1 - x.discount) ** -horizons
        return constant / np.arange(1, x.steps + 2) ** power

    def from_a_bad_start(x: TabularRun) -> Array:
        return gaps(x, -8 * x.mdp.optimal_policy().ravel())

    claim = Claim[TabularRun](
        label="npg-tabular",
        statement="V* - V_T <= (log|A| / eta + 1 / (1 - gamma)^2) / (T + 1) for tabular NPG, at every T",
        reference="AKLM21, Theorem 5.3",
        assumptions={
            "0 <= gamma <= 0.95": lambda x: 0 <= x.discount <= 0.95,
            "1/64 <= eta <= 1024": lambda x: 1 / 64 <= x.step <= 1024,
        },
        instances=_runs(),
        lhs=gaps,
        rhs=bound,
        scale=lambda x: 1 / (1 - x.discount),
        curve=Curve("steps", tuple(TabularRun("corridor", 3, 64, 0.875, 16.0, t) for t in range(1, 13))),
        effort=0.2,
    )
    return claim.with_mutants(
        mutant(claim, "no log|A|", rhs=lambda x: bound(x, logarithm=0.0)),
        mutant(
            claim, "horizon term dropped", rhs=lambda x: bound(x) - (1 - x.discount) ** -2 / np.arange(1, x.steps + 2)
        ),
        mutant(claim, "horizon counted once", rhs=lambda x: bound(x, horizons=1)),
        mutant(claim, "at most eight actions count", rhs=lambda x: bound(x, logarithm=_share_of_eight(x))),
        mutant(claim, "rate 1/T^2", rhs=lambda x: bound(x, power=2)),
        mutant(claim, "any initial policy", lhs=from_a_bad_start),
    )


def _share_of_eight(x: TabularRun) -> float:
    return min(1.0, float(np.log(8) / np.log(x.mdp.shape[1])))


def _runs() -> Instances[TabularRun]:
    corners = (
        TabularRun("corridor", 3, 64, 0.875, 1024.0, 8),
        TabularRun("bandit", 2, 8, 0.0, 1 / 16, 16),
        TabularRun("bandit", 2, 2, 0.0, 1.0, 16),
        TabularRun("chain", 4, 2, 0.75, 0.25, 16),
        TabularRun("bandit", 1, 1024, 0.0, 1 / 4, 32),
        TabularRun("garnet", 4, 128, 0.875, 1.0, 12),
    )
    families = st.sampled_from(("garnet", "bandit", "chain", "corridor"))
    steps = st.integers(-4, 10).map(lambda k: 2.0**k)

    def build(family: str, states: int, actions: int, step: float, discount: float, number: int) -> TabularRun:
        # A bandit has no next state, a chain two actions.
        discount, actions = (0.0 if family == "bandit" else discount), (2 if family == "chain" else actions)
        return TabularRun(family, states, actions, discount, step, 12, number)

    sizes = st.integers(1, 5), st.sampled_from((2, 3, 5, 8, 8, 16, 64))
    draws = st.builds(build, families, *sizes, steps, dyadic(0, 0.9375), st.integers(0, 999))
    return Instances(TabularRun, corners, draws)
