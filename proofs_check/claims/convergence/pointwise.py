"""Claims that without limits on the policy class, robustness to the prompts changes nothing (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation
from proofs_check.claim import Array, Claim, Instances, dyadic, mutant, stated, swapped
from proofs_check.claims.convergence.npg_invariance import Table, softmax_rows
from synthetic.bandits.mdp import KLOptimum, KLRegulariser, TabularMDP, garnet, prompts
from synthetic.bandits.natural_gradient import worst_value


@dataclass(frozen=True)
class RegularisedPolicy:
    """A bandit with rewards ``(x, a)``, a reference and another policy in logits ``(x, a)``, prompts of some masses."""

    rewards: Table
    reference: Table
    policy: Table
    masses: tuple[float, ...]
    beta: float
    radius: float

    @property
    def bandit(self) -> TabularMDP:
        """The prompts with their distribution."""
        return prompts(self.rewards, np.array(self.masses) / sum(self.masses))

    @property
    def regulariser(self) -> KLRegulariser:
        """KL to the reference policy."""
        return KLRegulariser(softmax_rows(self.reference), self.beta)

    @property
    def optimum(self) -> KLOptimum:
        """Closed form, without a radius."""
        return self.regulariser.optimum(self.bandit)

    def values(self, policy: Array) -> Array:
        """E_pi r - beta KL(pi || reference) at every prompt."""
        return self.regulariser.charge(self.bandit, np.log(policy)).values(policy)

    def worst(self, policy: Array) -> Array:
        """Worst-case value of a policy for every kind of set."""
        return _worst(self.values(policy), self.radius, self.bandit.start)


@dataclass(frozen=True)
class PolicyInMDP:
    """A policy given by logits ``(s, a)`` in a random MDP of that size."""

    logits: Table
    discount: float
    radius: float
    number: int

    @property
    def mdp(self) -> TabularMDP:
        """A garnet."""
        states, actions = np.shape(self.logits)
        return garnet(states, actions, min(2, states), self.discount, np.random.default_rng(self.number))

    def worst(self, policy: Array) -> Array:
        """Worst-case value over the start states for every kind of set."""
        return _worst(self.mdp.values(policy), self.radius, self.mdp.start)


@stated
def pointwise_optimum() -> Claim[RegularisedPolicy]:
    """One policy is best for every radius and every kind of set, if all policies are allowed.

    Problem: maximise min_q <q, V> over all policies of a bandit, V = E_pi r - beta KL(pi || pi_ref).
    Guarantee (tight): pi* = pi_ref exp(r / beta) / Z is a maximiser whatever the set, with V* = beta log Z. Proof:
        V = V* - beta KL(pi || pi*) prompt by prompt (checked too, as an identity), and the worst case is monotone.
    Source: theory.md section 3, `pointwise-optimum`; the closed form [R23].
    Example: r = (log 3, 0), pi_ref uniform, beta = 1: pi* = (3/4, 1/4), V* = log 2 at every radius.
    """

    def both_signs(head: Array, identity: Array) -> Array:
        return np.hstack([head, identity, -identity])

    def of_the_policy(x: RegularisedPolicy) -> Array:
        policy = softmax_rows(x.policy)
        return both_signs(x.worst(policy), x.values(policy) + x.beta * _divergence(policy, x.optimum.policy))

    def of_the_optimum(x: RegularisedPolicy) -> Array:
        return both_signs(x.worst(x.optimum.policy), x.optimum.values)

    def rival(x: RegularisedPolicy, policy: Array) -> Array:
        """The sides of the claim with another policy in the part of the optimum."""
        return both_signs(x.worst(policy), x.optimum.values)

    def blind(x: RegularisedPolicy) -> Array:
        """Best in the mean among the policies that ignore the prompt."""
        logits = x.bandit.start @ (np.log(x.regulariser.reference) + np.array(x.rewards) / x.beta)
        return softmax_rows((tuple(logits.tolist()),) * len(x.rewards))

    def hotter(x: RegularisedPolicy) -> Array:
        return KLRegulariser(x.regulariser.reference, 2 * x.beta).optimum(x.bandit).policy

    def from_uniform(x: RegularisedPolicy) -> Array:
        return KLRegulariser(np.full_like(x.bandit.rewards, 1 / x.bandit.shape[1]), x.beta).optimum(x.bandit).policy

    claim = Claim[RegularisedPolicy](
        label="pointwise-optimum",
        statement="pi_ref exp(r / beta) / Z has the largest worst-case value for every set, V = V* - beta KL(pi, pi*)",
        reference="theory.md section 3; R23",
        assumptions={
            "every mass at least 1/64": lambda x: min(x.masses) >= 1 / 64 and max(x.masses) <= 1,
            "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
            "1/16 <= beta <= 4": lambda x: 1 / 16 <= x.beta <= 4,
            "rewards and logits in [-4, 4]": lambda x: np.abs((x.rewards, x.reference, x.policy)).max() <= 4,
        },
        instances=_regularised(),
        lhs=of_the_policy,
        rhs=of_the_optimum,
        scale=lambda x: 1 + float(np.abs(x.rewards).max()) + 8 * x.beta,
        tight=True,
        effort=0.3,
    )
    return claim.with_mutants(
        mutant(claim, "temperature 2 beta", rhs=lambda x: rival(x, hotter(x))),
        mutant(claim, "reference forgotten", rhs=lambda x: rival(x, from_uniform(x))),
        mutant(claim, "policies that ignore the prompt", rhs=lambda x: rival(x, blind(x))),
        swapped(claim),
    )


@stated
def pointwise_optimum_mdp() -> Claim[PolicyInMDP]:
    """The same over the start states of a Markov decision process, without KL.

    Problem: maximise min_q <q, V> over all policies, q over the start states.
    Guarantee (tight): the policy that policy iteration finds is a maximiser for every set around the start. Proof: it
        is best from every state at once, and the worst case is monotone.
    Source: theory.md section 3, `pointwise-optimum`.
    Example: one state: every set is the point {1}.
    """

    def myopic(x: PolicyInMDP) -> Array:
        return np.eye(x.mdp.shape[1])[x.mdp.rewards.argmax(axis=1)]

    claim = Claim[PolicyInMDP](
        label="pointwise-optimum-mdp",
        statement="the optimal policy has the largest worst-case value over start states, for every set and radius",
        reference="theory.md section 3",
        assumptions={
            "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
            "0 <= gamma <= 0.9": lambda x: 0 <= x.discount <= 0.9,
            "logits in [-64, 64]": lambda x: np.abs(x.logits).max() <= 64,
        },
        instances=_in_mdps(),
        lhs=lambda x: x.worst(softmax_rows(x.logits)),
        rhs=lambda x: x.worst(x.mdp.optimal_policy()),
        scale=lambda x: 1 / (1 - x.discount),
        tight=True,
        effort=0.3,
    )
    return claim.with_mutants(mutant(claim, "myopic policy", rhs=lambda x: x.worst(myopic(x))), swapped(claim))


def _worst(values: Array, radius: float, start: Array) -> Array:
    sets: tuple[AmbiguitySet, ...] = TotalVariation(radius), KL(radius), ChiSquare(radius), CVaR(1 - 0.9375 * radius)
    return np.array([worst_value(values, ambiguity, start) for ambiguity in sets])


def _divergence(policy: Array, other: Array) -> Array:
    return np.sum(policy * (np.log(policy) - np.log(other)), axis=1)


def _regularised() -> Instances[RegularisedPolicy]:
    flat, tilted, opposed = ((0.0, 0.0),) * 2, ((1.0, 0.0), (0.0, 0.5)), ((1.0, 0.0), (0.0, 1.0))
    corners = tuple(
        RegularisedPolicy(rewards, reference, policy, (0.25, 0.75), 1.0, 0.25)
        for rewards in (opposed, tilted)
        for reference, policy in ((flat, rewards), (tilted, flat), (tilted, opposed))
    )

    def drawn(states: int, actions: int) -> st.SearchStrategy[RegularisedPolicy]:
        table = st.tuples(*[st.tuples(*[dyadic(-4, 4)] * actions)] * states)
        masses = st.tuples(*[dyadic(1 / 64, 1)] * states)
        return st.builds(RegularisedPolicy, table, table, table, masses, dyadic(1 / 16, 4), dyadic(0, 1))

    return Instances(RegularisedPolicy, corners, st.one_of(drawn(1, 2), drawn(2, 2), drawn(3, 3)))


def _in_mdps() -> Instances[PolicyInMDP]:
    number = 11  # one where looking a single step ahead is not enough
    best = garnet(3, 2, 2, 0.875, np.random.default_rng(number)).optimal_policy()
    decided = tuple((48 * row[0], 48 * row[1]) for row in best.tolist())  # up to exp(-48) the optimal policy
    corners = tuple(PolicyInMDP(logits, 0.875, 0.25, number) for logits in (decided, ((0.0, 0.0),) * 3))

    def drawn(states: int, actions: int) -> st.SearchStrategy[PolicyInMDP]:
        logits = st.tuples(*[st.tuples(*[dyadic(-8, 8)] * actions)] * states)
        return st.builds(PolicyInMDP, logits, dyadic(0, 0.875), dyadic(0, 1), st.integers(0, 999))

    return Instances(PolicyInMDP, corners, st.one_of(drawn(2, 2), drawn(4, 3)))
