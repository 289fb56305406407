"""False claims about policies and preferences, by somebody who had not read the code of the search."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st
from planted_numbers import Planted

from proofs_check import Claim, Instances
from proofs_check.claim import Array, dyadic


@dataclass(frozen=True)
class Bandit:
    """Rewards of the actions of one prompt, a step size and a number of steps."""

    rewards: tuple[float, ...]
    step: float
    steps: int

    @property
    def gap(self) -> float:
        """How far the natural policy gradient from the uniform policy is below the best action."""
        rewards, logits = np.array(self.rewards), np.zeros(len(self.rewards))
        for _ in range(self.steps):
            logits = logits + self.step * (rewards - softmax(logits) @ rewards)
        return float(rewards.max() - softmax(logits) @ rewards)


def softmax(logits: Array) -> Array:
    """Return the policy of the logits."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def natural_gradient() -> Planted:
    """The largest gap times eta T is w with w e^w = (A-1)/e, below log(A)/2 up to A = 16 and above it beyond:
    false with many equally bad actions. Up to eight actions are drawn."""
    rewards = st.lists(dyadic(0, 1), min_size=2, max_size=8).map(tuple)
    claim = Claim[Bandit](
        label="blind-npg-actions",
        statement="natural policy gradient on one prompt with A actions: V* - V_T <= log A/(2 eta T)",
        reference="planted",
        assumptions={
            "2 to 256 actions": lambda x: 2 <= len(x.rewards) <= 256,
            "rewards in [0, 1]": lambda x: 0 <= min(x.rewards) <= max(x.rewards) <= 1,
            "0 < eta <= 8, T <= 64": lambda x: 0 < x.step <= 8 and 1 <= x.steps <= 64,
        },
        instances=Instances(
            Bandit,
            (Bandit((0.0, 1.0), 1.0, 1), Bandit((0.0,) * 7 + (1.0,), 0.75, 4)),
            st.builds(Bandit, rewards, dyadic(1 / 8, 4, steps=8), st.integers(1, 16)),
        ),
        lhs=lambda x: x.gap,
        rhs=lambda x: float(np.log(len(x.rewards))) / (2 * x.step * x.steps),
        scale=lambda x: 1 / (x.step * x.steps),
    )
    return Planted(claim, "many actions", Bandit((0.0,) * 63 + (1.0,), 0.8125, 4))


@dataclass(frozen=True)
class Walk:
    """Two states with two actions: rewards and next states in the order (s, a), guessed values, a discount."""

    rewards: tuple[float, ...]
    nexts: tuple[int, ...]
    guess: tuple[float, float]
    discount: float

    def value(self, actions: tuple[int, ...]) -> Array:
        """Return the value of each state under an action for each."""
        taken = [2 * state + action for state, action in enumerate(actions)]
        chain = np.eye(2)[[self.nexts[place] for place in taken]]
        rewards = np.array([self.rewards[place] for place in taken])
        return np.asarray(np.linalg.solve(np.eye(2) - self.discount * chain, rewards), dtype=np.float64)

    @property
    def best(self) -> Array:
        """The optimal value of each state."""
        return np.max([self.value(actions) for actions in product((0, 1), repeat=2)], axis=0)

    @property
    def error(self) -> float:
        """How far the guess is from the optimal value."""
        return float(np.max(np.abs(self.best - self.guess)))

    @property
    def loss(self) -> float:
        """The most that a policy loses which is greedy for the guess."""
        ahead = np.array([r + self.discount * self.guess[s] for r, s in zip(self.rewards, self.nexts, strict=True)])
        greedy = [np.flatnonzero(row == row.max()).tolist() for row in ahead.reshape(2, 2)]
        return max(float(np.max(self.best - self.value(actions))) for actions in product(*greedy))


def greedy_policy() -> Planted:
    """The constant is 2 g e/(1 - g), reached where the guess is too high for the state that a wrong action stays in
    and too low for the one that the right action leads to. False there, and near it."""
    four = st.tuples(*(dyadic(-1, 1, steps=4),) * 4)
    draws = st.builds(
        Walk,
        four,
        st.tuples(*(st.integers(0, 1),) * 4),
        st.tuples(*(dyadic(-4, 4, steps=4),) * 2),
        st.integers(1, 7).map(lambda k: k / 8),
    )
    claim = Claim[Walk](
        label="blind-greedy",
        statement="a policy that is greedy for values off by e loses at most g (1 + g) e/(1 - g), discount g",
        reference="planted",
        assumptions={
            "two states, two actions": lambda x: len(x.rewards) == 4 == len(x.nexts) and set(x.nexts) <= {0, 1},
            "rewards in [-1, 1]": lambda x: max(map(abs, x.rewards)) <= 1,
            "guesses in [-16, 16]": lambda x: len(x.guess) == 2 and max(map(abs, x.guess)) <= 16,
            "0 < discount <= 7/8": lambda x: 0 < x.discount <= 0.875,
        },
        instances=Instances(Walk, (Walk((0.0, 1.0, 0.0, 0.0), (0, 1, 1, 1), (0.0, 0.0), 0.5),), draws),
        lhs=lambda x: x.loss,
        rhs=lambda x: x.discount * (1 + x.discount) * x.error / (1 - x.discount),
        scale=lambda x: 1.0,
    )
    return Planted(claim, "constant too small", Walk((0.0, 1.0, 0.0, 0.0), (0, 1, 1, 1), (1.5, -0.5), 0.5))


@dataclass(frozen=True)
class Policy:
    """Logits and rewards of the answers to one prompt."""

    logits: tuple[float, ...]
    rewards: tuple[float, ...]

    @property
    def gradient(self) -> Array:
        """The gradient of the mean reward in the logits."""
        policy, rewards = softmax(np.array(self.logits)), np.array(self.rewards)
        return policy * (rewards - policy @ rewards)


def gradient_norm() -> Planted:
    """The least constant is 1/(2 sqrt 2) = .3536, one per cent more. It is reached by two answers of probability 1/2
    and no third one: false near that corner."""
    rows = st.lists(st.tuples(dyadic(-3, 3, steps=4), dyadic(0, 1)), min_size=3, max_size=6)
    claim = Claim[Policy](
        label="blind-gradient-norm",
        statement="the gradient of a softmax policy with three answers or more is at most .35 (max r - min r) long",
        reference="planted",
        assumptions={
            "3 to 64 answers": lambda x: 3 <= len(x.logits) <= 64,
            "logits in [-3, 3]": lambda x: max(map(abs, x.logits)) <= 3,
            "rewards in [0, 1], spread at least 1/64": lambda x: (
                min(x.rewards) >= 0 and max(x.rewards) <= 1 and max(x.rewards) - min(x.rewards) >= 1 / 64
            ),
        },
        instances=Instances(
            Policy,
            (Policy((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)), Policy((0.0, 0.0, -3.0), (0.0, 1.0, 0.5))),
            rows.map(lambda d: Policy(*zip(*d, strict=True))),
        ),
        lhs=lambda x: float(np.linalg.norm(x.gradient)),
        rhs=lambda x: 0.35 * (max(x.rewards) - min(x.rewards)),
        scale=lambda x: max(x.rewards) - min(x.rewards),
    )
    return Planted(claim, "one per cent too small", Policy((3.0, 3.0, -3.0), (0.0, 1.0, 0.5)))


@dataclass(frozen=True)
class Raters:
    """Two Bradley-Terry raters: share/64 have the first margins (a over b, b over c), the rest the second ones."""

    share: int
    first: tuple[float, float]
    second: tuple[float, float]

    def preferred(self, *steps: int) -> float:
        """Return the share of answers that prefer the first item of the steps to the last."""
        margins = [sum(rater[step] for step in steps) for rater in (self.first, self.second)]
        one, two = 1 / (1 + np.exp(-np.array(margins)))
        return float(self.share * one + (64 - self.share) * two) / 64


def mixed_raters() -> Planted:
    """True for two raters of equal weight, since the margins of the two then have a sum of one sign. False for unequal
    weights, where the raters disagree strongly, though by less the nearer the share is to 1/2."""
    margins = st.tuples(dyadic(-4, 4, steps=8), dyadic(-4, 4, steps=8))
    claim = Claim[Raters](
        label="blind-transitivity",
        statement="a mixture of two Bradley-Terry raters that prefers a to b and b to c prefers a to c",
        reference="planted",
        assumptions={
            "28 <= share <= 36": lambda x: 28 <= x.share <= 36,
            "margins in [-8, 8]": lambda x: max(map(abs, x.first + x.second)) <= 8,
            "a over b and b over c": lambda x: min(x.preferred(0), x.preferred(1)) >= 0.5,
        },
        instances=Instances(
            Raters,
            (Raters(32, (2.0, -1.0), (-1.0, 2.0)), Raters(36, (1.0, 1.0), (-1.0, 1.0))),
            st.builds(Raters, st.integers(28, 36), margins, margins),
        ),
        lhs=lambda x: 0.5,
        rhs=lambda x: x.preferred(0, 1),
        scale=lambda x: 1.0,
    )
    return Planted(claim, "missing condition", Raters(36, (2.0, -1.25), (-4.0, 2.0)))


POLICIES = (natural_gradient(), greedy_policy(), gradient_norm(), mixed_raters())
