"""Claims about preference models: what DPO's margin is, and how fast a Bradley-Terry reward is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy.special import expit, logit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scipy.stats import binom  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import KLPenalty, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, Relation, dyadic, mutant, shrunk, stated

_MOST_OUTCOMES = 400
_MOST_LABELS = 2**18  # where every prompt is a problem of its own


@dataclass(frozen=True)
class Answers:
    """Rewards of the answers to one prompt, masses proportional to the reference policy, and the temperature."""

    rewards: tuple[float, ...]
    masses: tuple[float, ...]
    beta: float

    @property
    def reference(self) -> Array:
        """The reference policy."""
        return np.array(self.masses) / sum(self.masses)

    @property
    def spread(self) -> float:
        """Largest reward minus smallest."""
        return max(self.rewards) - min(self.rewards)


@stated
def dpo_identity() -> Claim[Answers]:
    """DPO's implicit reward is the true one, at the optimum.

    Problem: pi* = argmax E_pi r - beta KL(pi, pi_ref) over all distributions on the answers of a prompt.
    Algorithm: pi* comes from `dro_core.worst_case` with `KLPenalty(beta)`, which solves this very problem.
    Guarantee (exact): beta [log pi*/pi_ref(y) - log pi*/pi_ref(y')] = r(y) - r(y') for all answers, and the optimal
        value is beta log E_ref exp(r/beta).
    Source: [R23].
    Example: r = (0, 1), pi_ref = (1/2, 1/2), beta = 1: pi* = (1, e)/(1 + e), whose log ratio is 1.
    """

    def implicit(x: Answers, reference: Array | None = None) -> Array:
        solution = worst_case(np.array(x.rewards), KLPenalty(x.beta), reference=x.reference)
        logs = np.log(solution.weights) - np.log(x.reference if reference is None else reference)
        return np.append(x.beta * (logs - logs[0]), solution.value)

    def true(x: Answers, sign: float = 1.0) -> Array:
        rewards = np.array(x.rewards)
        shift = float(rewards.max()) / x.beta
        value = x.beta * float(np.log(x.reference @ np.exp(rewards / x.beta - shift)) + shift)
        return np.append(sign * (rewards - rewards[0]), value)

    claim = Claim[Answers](
        label="dpo-identity",
        statement="beta [log pi*/pi_ref(y) - log pi*/pi_ref(y')] = r(y) - r(y') at the KL-regularised optimum",
        reference="R23",
        assumptions={
            "as many masses as rewards, all positive": lambda x: (
                len(x.masses) == len(x.rewards) and min(x.masses) >= 1 / 64
            ),
            "1/16 <= beta <= 8": lambda x: 1 / 16 <= x.beta <= 8,
            "the optimum is in range of floats": lambda x: x.spread <= 32 * x.beta,
        },
        instances=Instances(
            Answers,
            (Answers((0.0, 1.0), (1.0, 1.0), 1.0), Answers((0.0, 2.0, -1.0), (4.0, 1.0, 1.0), 0.25)),
            _answers(),
        ),
        lhs=implicit,
        rhs=true,
        scale=lambda x: x.spread + x.beta,  # logs of policies are rounded, and beta multiplies them
        relation=Relation.EQUAL,
    )
    without = mutant(claim, "no reference policy", lhs=lambda x: implicit(x, np.ones(len(x.rewards))))
    other = mutant(claim, "beta twice", lhs=lambda x: np.append(x.beta * implicit(x)[:-1], implicit(x)[-1]))
    turned = mutant(claim, "margins turned round", rhs=lambda x: true(x, -1.0))
    return claim.with_mutants(without, other, turned)


@dataclass(frozen=True)
class Design:
    """Prompts with `repeats` labels each.

    Attributes:
        differences: of the k prompts, row after row, k d numbers; along axes, the d lengths.
        weights: the true parameter, d numbers.
        repeats: labels per prompt.
        bound: the learner searches the ball ||w|| <= bound; along axes, the box |w_j| <= bound.
        shape: "rows" for any prompts, "axes" for d prompts at right angles.
    """

    differences: tuple[float, ...]
    weights: tuple[float, ...]
    repeats: int
    bound: float
    shape: str = "rows"

    @property
    def rows(self) -> Array:
        """The differences, `(k, d)`."""
        if self.shape == "axes":
            return np.diag(self.differences)
        return np.array(self.differences).reshape(-1, len(self.weights))

    @property
    def work(self) -> float:
        """How many outcomes there are, for each of which the likelihood is maximised."""
        if self.apart:
            return float(self.repeats + 1) * len(self.rows)
        return float(self.repeats + 1) ** len(self.rows)

    @property
    def apart(self) -> bool:
        """Whether every prompt tells of a number of its own, on which no other one has a say."""
        return self.shape == "axes" or self.rows.shape == (1, 1)

    @property
    def size(self) -> float:
        """Of the true parameter, as the learner's bound measures it."""
        return float(np.linalg.norm(self.weights, np.inf if self.shape == "axes" else 2))

    @property
    def covariance(self) -> Array:
        """Sigma, the mean of x x' over the pairs."""
        return self.rows.T @ self.rows / len(self.rows)

    @property
    def curvature(self) -> float:
        """The constant gamma = sigmoid'(largest margin in the ball)."""
        margin = self.bound * float(np.linalg.norm(self.rows, axis=1).max())
        return float(expit(margin) * expit(-margin))

    @property
    def pairs(self) -> int:
        """How many labels there are: n."""
        return self.repeats * len(self.rows)


@stated
def bt_mle_rate() -> Claim[Design]:
    """How fast maximum likelihood learns a Bradley-Terry reward, with a constant.

    Problem: n labels of a fixed design, P(+1 | x) = sigmoid(<w*, x>), w* in a ball, or in a box.
    Algorithm: w_hat minimises the mean loss over that ball or box. All outcomes are enumerated: exact. Prompts at right
        angles and a box make d problems of one number each, so that d and n may be large.
    Guarantee (upper, tight): E ||w_hat - w*||^2_Sigma <= d/(4 gamma^2 n) at every n; so the mean error is at most
        sqrt(d/n)/(2 gamma). Proof: every loss has curvature >= gamma x x' in that set, so with D = w_hat - w* and g the
        gradient at w*, gamma ||D||^2_Sigma <= <grad(w_hat) - g, D> <= <-g, D> <= ||g||_{Sigma^-1} ||D||_Sigma, and
        E ||g||^2_{Sigma^-1} = sum p (1 - p) x' Sigma^-1 x / n^2 <= d/(4n).
    Source: the shape, with high probability and without a constant, is [ZJJ23, Lemma 3.1]; in the mean derived here.
    Example: d = 1, x = 1, w* = 0, n large, bound 1/20: error 4/n, and gamma is nearly 1/4.
    """
    wide = Design((1.0,), (0.0,), 65536, 0.05)
    plane = (1.0, 0.0, 0.5, 1.0, -0.5, 0.75)
    claim = Claim[Design](
        label="bt-mle-rate",
        statement="E ||w_hat - w*||^2_Sigma <= d/(4 gamma^2 n) at every n, gamma = sigmoid'(largest margin)",
        reference="ZJJ23 (shape); constant derived",
        assumptions={
            "whole rows, or as many lengths as weights": lambda x: (
                x.repeats >= 1
                and (len(x.differences) == len(x.weights) if x.shape == "axes" else x.rows.shape[1] == len(x.weights))
            ),
            "w* in the ball or box": lambda x: x.bound > 0 and x.size <= x.bound,
            "the rows span, with condition at most 16": lambda x: _condition(x) <= 16,
            "margins at most 3": lambda x: x.bound * float(np.linalg.norm(x.rows, axis=1).max()) <= 3,
            "few outcomes": lambda x: x.work <= (_MOST_LABELS if x.apart else _MOST_OUTCOMES),
        },
        instances=Instances(
            Design,
            (
                wide,
                Design((1.0, 0.0, 0.0, 1.0), (0.0, 0.0), 18, 1.0),
                Design(plane, (1.0, -0.5), 6, 1.5),
                Design((1.0, 0.75, 0.5), (0.0, 0.0625, -0.125), 4096, 0.125, "axes"),
                Design((1.0,) * 64, (0.5, -0.5) * 32, 3, 1.0, "axes"),
            ),
            _designs(),
        ),
        lhs=expected_error,
        rhs=_error_bound,
        scale=_error_bound,
        tight=True,
        effort=0.2,
        curve=Curve("repeats", tuple(Design((1.0,), (0.5,), 2**j, 1.0) for j in range(13))),
    )
    one = Design((1.0,), (1.5,), 4096, 2.0)
    steep = mutant(
        claim,
        "curvature of the origin",
        rhs=lambda x: 4 * len(x.weights) / x.pairs,
        instances=Instances(Design, (one,)),
    )
    scalar = mutant(claim, "d forgotten", rhs=lambda x: _error_bound(x) / len(x.weights))
    return claim.with_mutants(shrunk(claim), steep, scalar)


def expected_error(x: Design) -> float:
    """E ||w_hat - w*||^2_Sigma, by enumeration of how often every first answer wins."""
    if x.apart:
        return _apart(x)
    rows, truth = x.rows, np.array(x.weights)
    wins = np.stack(np.meshgrid(*[np.arange(x.repeats + 1)] * len(rows), indexing="ij"), axis=-1)
    wins = wins.reshape(-1, len(rows))
    chances = np.asarray(binom.pmf(wins, x.repeats, expit(rows @ truth)))  # pyright: ignore[reportUnknownMemberType]
    error = constrained_fits(rows, wins / x.pairs, 1 / len(rows), x.bound) - truth
    return float(chances.prod(axis=1) @ np.einsum("si,ij,sj->s", error, x.covariance, error))


def _apart(x: Design) -> float:
    """The same where every prompt is a problem of its own: the log odds of its labels, cut off at the bound."""
    wins = np.arange(x.repeats + 1)
    odds = logit(wins / x.repeats)
    total = 0.0
    for length, weight in zip(np.diag(x.rows), x.weights, strict=True):
        largest, truth = abs(length) * x.bound, length * weight
        chances = np.asarray(binom.pmf(wins, x.repeats, expit(truth)))  # pyright: ignore[reportUnknownMemberType]
        total += float(chances @ (np.clip(odds, -largest, largest) - truth) ** 2)
    return total / len(x.weights)


def constrained_fits(rows: Array, wins: Array, mass: float, bound: float) -> Array:
    """Minimise the mean loss over the ball, for many outcomes at once: accelerated projected gradient steps.

    Args:
        rows: differences of k prompts, each of the given `mass`, `(k, d)`.
        wins: mass of the labels +1, `(samples, k)`.
        mass: of one prompt, 1/k.
        bound: radius of the ball.
    """
    spectrum = np.linalg.eigvalsh(mass * rows.T @ rows)
    margin = bound * np.linalg.norm(rows, axis=1).max()
    steepest, flattest = spectrum[-1] / 4, spectrum[0] * expit(margin) * expit(-margin)
    ratio = np.sqrt(flattest / steepest)
    momentum = (1 - ratio) / (1 + ratio)
    w = ahead = np.zeros((len(wins), rows.shape[1]))
    for _ in range(int(np.ceil(36 / ratio)) + 1):  # exp(-36) is below the rounding
        step = ahead + (wins - mass * expit(ahead @ rows.T)) @ rows / steepest
        new = step * np.minimum(1, bound / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-300))
        w, ahead = new, new + momentum * (new - w)
    return w


def _error_bound(x: Design) -> float:
    return len(x.weights) / (4 * x.curvature**2 * x.pairs)


def _condition(x: Design) -> float:
    values = np.linalg.eigvalsh(x.covariance)
    return float(values[-1] / values[0]) if values[0] > 1e-9 else np.inf


def _answers() -> st.SearchStrategy[Answers]:
    def of_length(n: int) -> st.SearchStrategy[Answers]:
        rewards = st.tuples(*[dyadic(-4, 4)] * n)
        masses = st.tuples(*[dyadic(1 / 64, 4)] * n)
        return st.builds(Answers, rewards, masses, dyadic(1 / 16, 8))

    return st.integers(2, 5).flatmap(of_length)


def _designs() -> st.SearchStrategy[Design]:
    def of_shape(k: int, d: int, most: int) -> st.SearchStrategy[Design]:
        numbers = st.tuples(*[dyadic(-1, 1, steps=16)] * (k * d))
        weights = st.tuples(*[dyadic(-0.75, 0.75, steps=16)] * d)
        return st.builds(Design, numbers, weights, st.integers(1, most), dyadic(1.0, 2.0, steps=16))

    def of_axes(d: int) -> st.SearchStrategy[Design]:
        """A bound of any size, and as many labels as make it 1/4 to 16 standard errors, which are 2/sqrt(repeats)."""
        lengths = st.tuples(*[dyadic(1 / 2, 1, steps=16)] * d)
        places = st.tuples(*[dyadic(-1, 1, steps=16)] * d)

        def built(x: tuple[tuple[Any, ...], tuple[Any, ...], int, int]) -> Design:
            bound, errors = 2.0 ** -x[2], 2.0 ** (x[3] / 2)
            repeats = min(max(round((2 * errors / bound) ** 2), 1), _MOST_LABELS // (2 * d))
            return Design(x[0], tuple(bound * place for place in x[1]), repeats, bound, "axes")

        return st.tuples(lengths, places, st.integers(-1, 6), st.integers(-4, 8)).map(built)

    small = (of_shape(1, 1, 64), of_shape(2, 1, 16), of_shape(3, 1, 6), of_shape(2, 2, 16), of_shape(3, 2, 6))
    return st.one_of(*small, *(of_axes(d) for d in (1, 1, 2, 3, 16)))
