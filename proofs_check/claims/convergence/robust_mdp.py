"""Claims about robust Markov decision processes, ``dro_core.robust_mdp`` (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, ChiSquare, TotalVariation, robust_bellman
from proofs_check.claim import Array, Assumptions, Claim, Instances, Relation, mutant, shrunk, stated
from proofs_check.exact.enclosures import GAP, enclosure
from synthetic.bandits.mdp import TabularMDP

if TYPE_CHECKING:
    from dro_core import AmbiguitySet

Row = tuple[int, ...]
_PARTS = 16  # discounts and sizes are multiples of 1/16


@dataclass(frozen=True)
class Model:
    """S states, two actions, rewards ``(s, a)`` in eighths, masses of next states ``(s, a, t)``, two value vectors.

    ``discount`` and ``parts``, the size of the set, are in 16ths.
    """

    rewards: Row
    masses: Row
    values: Row
    others: Row
    discount: int
    parts: int

    @property
    def states(self) -> int:
        """S."""
        return len(self.values)

    @property
    def gamma(self) -> float:
        """The discount."""
        return self.discount / _PARTS

    @property
    def size(self) -> float:
        """Of the set, or eps."""
        return self.parts / _PARTS

    @property
    def reward_table(self) -> Array:
        """Shape ``(s, 2)``."""
        return np.array(self.rewards).reshape(-1, 2) / 8

    @property
    def transitions(self) -> Array:
        """Shape ``(s, 2, s)``."""
        masses = np.array(self.masses, float).reshape(-1, 2, self.states)
        return masses / masses.sum(axis=2, keepdims=True)

    @property
    def rows(self) -> list[list[Fraction]]:
        """The transitions of each state and action, without rounding."""
        s = self.states
        cut = [self.masses[i : i + s] for i in range(0, len(self.masses), s)]
        return [[Fraction(mass, sum(row)) for mass in row] for row in cut]

    @property
    def sets(self) -> tuple[AmbiguitySet, ...]:
        """Three balls."""
        return TotalVariation(self.size), ChiSquare(self.size), KL(self.size)


@stated
def robust_bellman_contracts() -> Claim[Model]:
    """The robust Bellman operator is monotone and a contraction.

    Problem: (T v)(s, a) = r(s, a) + gamma min over q of <q, v>, q in a ball around the next states of (s, a), for each
        state and action by itself: ``dro_core.robust_bellman`` with total variation, chi-square or KL.
    Guarantee (tight: v and u differ by a constant): v <= w implies T v <= T w, and |T v - T u| <= gamma |v - u|.
    Source: [I05, NE05].
    Example: u = v + 1: T u = T v + gamma.
    """

    def backups(x: Model, values: Array) -> Array:
        table, p = x.reward_table, x.transitions
        return np.stack([np.asarray(robust_bellman(values, table, p, x.gamma, ball)) for ball in x.sets])

    def sides(x: Model) -> tuple[Array, Array]:
        v, u = np.array(x.values, float), np.array(x.others, float)
        at_v, at_u, at_both = (backups(x, values) for values in (v, u, np.maximum(v, u)))
        changed = np.abs(at_v - at_u).max(axis=(1, 2))
        slack = 16.0  # values are at most 8, so no side is 0
        return (
            np.hstack([slack + np.maximum(at_v, at_u).ravel(), changed]),
            np.hstack([slack + at_both.ravel(), np.full(3, np.abs(v - u).max())]),
        )

    claim = Claim[Model](
        label="robust-bellman",
        statement="v <= w => T v <= T w, and |T v - T u| <= gamma |v - u| (TV, chi-square, KL around each (s, a))",
        reference="I05, NE05",
        assumptions=MODELS,
        instances=models(),
        lhs=lambda x: sides(x)[0],
        rhs=lambda x: np.hstack([sides(x)[1][:-3], x.gamma * sides(x)[1][-3:]]),
        scale=lambda x: 8.0,
        tight=True,
        verifies=_contracts,
        effort=0.3,
    )
    faster = mutant(claim, "gamma^2", lhs=lambda x: sides(x)[0][-3:], rhs=lambda x: x.gamma**2 * sides(x)[1][-3:])
    smaller = mutant(
        claim,
        "gamma times 1 - the radius",
        lhs=lambda x: sides(x)[0][-3:],
        rhs=lambda x: x.gamma * (1 - x.size) * sides(x)[1][-3:],
    )
    return claim.with_mutants(shrunk(claim), faster, smaller)


@stated
def contamination_discount() -> Claim[Model]:
    """A contaminated model is a plain one that is discounted more.

    Problem: robust values V of the sets {(1 - eps) p + eps q, q any distribution over the states}, for each state
        and action: V(s) = max_a r + gamma [(1 - eps) <p, V> + eps min V].
    Guarantee (exact): V = V' + eps gamma/(1 - gamma) min V', V' the plain optimal values at discount (1-eps) gamma.
        So the robust policy is that of the smaller discount, and the adversary changes nothing else. Rectangularity
        is not needed: the worst q is the same everywhere, so one q for all states and actions does as much harm. But
        contaminating an episode as a whole, or not at all, is another problem: a false version below.
    Source: derived: eps gamma min V is the same at every state and action, and adds up at discount (1-eps) gamma.
    Example: one state, reward 1: V' = 1/(1 - (1-eps) gamma), V = V' (1 - (1-eps) gamma)/(1 - gamma) = 1/(1 - gamma).
    """

    def robust(x: Model) -> Array:
        values, table, p = np.zeros(x.states), x.reward_table, x.transitions
        while True:
            new = (table + x.gamma * ((1 - x.size) * p @ values + x.size * values.min())).max(axis=1)
            if np.abs(new - values).max() <= 1e-13 * (1 + np.abs(new).max()):
                return new
            values = new

    def formula(x: Model, kept: float = 1.0, share: float = 1.0) -> Array:
        discounted = (1 - kept * x.size) * x.gamma
        start = np.full(x.states, 1 / x.states)
        plain = TabularMDP(x.reward_table, x.transitions, discounted, start).optimal_values()
        return plain + share * x.size * x.gamma / (1 - x.gamma) * plain.min()

    def by_episodes(x: Model) -> Array:
        """The robust policy's values if an episode is contaminated at every step, with probability eps, or never."""
        start = np.full(x.states, 1 / x.states)
        smaller = TabularMDP(x.reward_table, x.transitions, (1 - x.size) * x.gamma, start)
        chosen = np.arange(x.states), smaller.optimal_policy().argmax(axis=1)
        rewards, p = x.reward_table[chosen], x.transitions[chosen]
        plain = np.linalg.solve(np.eye(x.states) - x.gamma * p, rewards)
        worst = rewards + x.gamma / (1 - x.gamma) * rewards.min()
        return (1 - x.size) * plain + x.size * worst

    claim = Claim[Model](
        label="contamination-discount",
        statement="V = V' + eps gamma/(1-gamma) min V' for eps-contamination, V' plain at discount (1-eps) gamma",
        reference="theory.md section 3",
        assumptions={**MODELS, "eps < 1": lambda x: x.parts < _PARTS},
        instances=models(),
        lhs=robust,
        rhs=formula,
        scale=lambda x: (1 + float(np.abs(x.reward_table).max())) / (1 - x.gamma),
        relation=Relation.EQUAL,
        verifies=_contamination_verified,
        effort=0.2,
    )
    bare = mutant(claim, "the minimum forgotten", rhs=lambda x: formula(x, share=0.0))
    whole = mutant(claim, "the discount kept", rhs=lambda x: formula(x, kept=0.0, share=0.0))
    episodes = mutant(claim, "whole episodes contaminated", lhs=by_episodes)
    return claim.with_mutants(shrunk(claim), bare, whole, episodes)


MODELS: Assumptions[Model] = {
    "two actions, some next state for each": lambda x: (
        len(x.rewards) == 2 * x.states
        and len(x.masses) == 2 * x.states**2
        and all(sum(x.masses[i : i + x.states]) > 0 for i in range(0, len(x.masses), x.states))
        and min(x.masses) >= 0
    ),
    "values and rewards in [-8, 8]": lambda x: (
        max(map(abs, (*x.values, *x.others))) <= 8 >= max(map(abs, x.rewards)) / 8
    ),
    "0 < size <= 1, 0 < gamma < 1": lambda x: 0 < x.parts <= _PARTS and 0 < x.discount < _PARTS,
}


def _contracts(x: Model) -> bool:
    """Every backup between bounds that are proved: for total variation they are the same number."""
    both = tuple(map(max, x.values, x.others))
    change = max(abs(a - b) for a, b in zip(x.values, x.others, strict=True))
    for row in x.rows:
        masses = [float(mass) for mass in row]
        for ball in x.sets:
            v, u, w = (
                enclosure([-float(one) for one in values], ball, masses) for values in (x.values, x.others, both)
            )
            slack = GAP * 16
            # The values are minus these: larger ones, w, have a smaller worst loss.
            rising = w.dual <= min(v.primal, u.primal) + slack
            if not rising or max(v.dual - u.primal, u.dual - v.primal) > change + slack:
                return False
    return True


def plain_values(x: Model) -> list[Fraction]:
    """Return V', the optimal values at discount (1 - eps) gamma, as rational numbers: found by floats, solved exactly.

    Example:
        >>> plain_values(Model((8, 0), (1, 1), (0,), (0,), 8, 8))
        [Fraction(4, 3)]
    """
    discount = (1 - Fraction(x.parts, _PARTS)) * Fraction(x.discount, _PARTS)
    start = np.full(x.states, 1 / x.states)
    policy = TabularMDP(x.reward_table, x.transitions, float(discount), start).optimal_policy()
    chosen = [2 * s + int(np.argmax(policy[s])) for s in range(x.states)]
    left = [[int(s == t) - discount * x.rows[c][t] for t in range(x.states)] for s, c in enumerate(chosen)]
    return _linear_solution(left, [Fraction(x.rewards[c], 8) for c in chosen])


def _linear_solution(rows: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Gauss and Jordan: the diagonal dominates, so no pivot is 0."""
    table = [[*row, b] for row, b in zip(rows, right, strict=True)]
    for i in range(len(table)):
        table[i] = [entry / table[i][i] for entry in table[i]]
        for j in range(len(table)):
            if j != i:
                table[j] = [a - table[j][i] * b for a, b in zip(table[j], table[i], strict=True)]
    return [row[-1] for row in table]


def _contamination_verified(x: Model) -> bool:
    gamma, eps, plain = Fraction(x.discount, _PARTS), Fraction(x.parts, _PARTS), plain_values(x)
    values = [v + eps * gamma / (1 - gamma) * min(plain) for v in plain]

    def backed_up(v: list[Fraction], discount: Fraction, lost: Fraction) -> list[Fraction]:
        action = [
            Fraction(r, 8) + discount * sum((q * t for q, t in zip(row, v, strict=True)), Fraction(0)) + lost
            for r, row in zip(x.rewards, x.rows, strict=True)
        ]
        return [max(action[2 * s], action[2 * s + 1]) for s in range(x.states)]

    smaller = (1 - eps) * gamma
    return (
        backed_up(plain, smaller, Fraction(0)) == plain
        and backed_up(values, smaller, eps * gamma * min(values)) == values
    )


def models() -> Instances[Model]:
    """Return models of one to three states."""
    corners = (
        Model((8, 0), (1, 1), (3,), (4,), 8, 4),
        Model((8, 16, 0, 0), (1, 0, 1, 1, 0, 1, 0, 1), (2, 0), (1, -1), 8, 4),
        Model(
            (0, 8, 8, 0, -8, 4), (1, 2, 1, 0, 1, 3, 2, 2, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0), (8, 0, -3), (7, -1, -4), 14, 2
        ),
    )

    def of_size(s: int) -> st.SearchStrategy[Model]:
        rewards = st.tuples(*[st.integers(-16, 16)] * (2 * s))
        masses = st.tuples(*[st.integers(1, 4)] * (2 * s * s))
        values = st.tuples(*[st.integers(-8, 8)] * s)
        return st.builds(Model, rewards, masses, values, values, st.integers(1, 15), st.integers(1, 15))

    return Instances(Model, corners, st.integers(1, 3).flatmap(of_size))
