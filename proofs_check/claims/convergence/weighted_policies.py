"""Claims about policies whose prompts or samples have worst-case weights (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from math import comb
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from proofs_check.claim import Array, Claim, Curve, Instances, Relation, Verdict, mutant, shrunk, stated

if TYPE_CHECKING:
    pass

Row = tuple[int, ...]


@dataclass(frozen=True)
class Clipped:
    """Ratios pi/pi_old in 16ths, advantages in eighths, weights and the width of the clip in 16ths."""

    ratios: Row
    advantages: Row
    weights: Row
    clip: int


@dataclass(frozen=True)
class Charged:
    """Rewards, charges for the KL divergence and weights of samples; whether advantages are whitened."""

    rewards: Row
    charges: Row
    weights: Row
    whiten: int


@dataclass(frozen=True)
class Sampled:
    """Pass rates of prompts in 16ths, K answers to each, a total-variation radius in 16ths."""

    rates: Row
    answers: int
    parts: int


@stated
def ppo_a_is_b() -> Claim[Clipped]:
    """In the clipped surrogate it is the same to weigh advantages and to weigh losses.

    Problem: l = -min(r A, clamp(r, 1 - c, 1 + c) A) per sample, worst-case weights w >= 0.
    Guarantee (exact): l at the advantage w A is w l at A, and so are the derivatives in r. Version A, weighted
        advantages, is version B, weighted losses, sample by sample.
    Source: theory.md section 3: the surrogate is positively homogeneous in A. Broken by `ppo-a-is-b-whitened`.
    Example: r = 3/2, c = 1/4, A = 1, w = 2: -min(3, 5/2) = 2 (-5/4).
    """

    def losses(x: Clipped, *, inside: bool) -> Array:
        r, advantages, w = (np.array(row) / k for row, k in ((x.ratios, 16), (x.advantages, 8), (x.weights, 1)))
        outer = np.ones_like(r) if inside else w
        scaled = w * advantages if inside else advantages
        clamped = np.clip(r, 1 - x.clip / 16, 1 + x.clip / 16)
        slope = np.where(r * scaled <= clamped * scaled, scaled, 0.0)
        return np.hstack([-outer * np.minimum(r * scaled, clamped * scaled), -outer * slope])

    def unclipped(x: Clipped) -> Array:
        return -np.array(x.weights) * np.array(x.ratios) / 16 * np.array(x.advantages) / 8

    claim = Claim[Clipped](
        label="ppo-a-is-b",
        statement="clipped surrogate at w A = w times that at A, derivatives too, for weights w >= 0",
        reference="2503.00539; derived",
        assumptions={
            "ratios positive, weights nonnegative, one of each per advantage": lambda x: (
                len(x.ratios) == len(x.advantages) == len(x.weights) and min(x.ratios) > 0 <= min(x.weights)
            ),
            "0 < clip < 1": lambda x: 0 < x.clip < 16,
        },
        instances=_clipped(),
        lhs=lambda x: _padded(losses(x, inside=True)),
        rhs=lambda x: _padded(losses(x, inside=False)),
        scale=lambda x: 1.0 + max(x.weights) * max(map(abs, x.advantages)),
        relation=Relation.EQUAL,
        tight=True,
        verifies=_surrogates_agree,
    )
    loose = mutant(claim, "without the clip", rhs=unclipped, lhs=lambda x: losses(x, inside=True)[: len(x.ratios)])
    plain = mutant(
        claim,
        "weights forgotten",
        lhs=lambda x: _padded(losses(replace(x, weights=(1,) * len(x.weights)), inside=True)),
    )
    return claim.with_mutants(shrunk(claim), loose, plain)


@stated
def ppo_a_is_b_whitened() -> Claim[Charged]:
    """Whitened advantages, and a KL charge inside the reward, tell the two versions apart.

    Problem: version A weighs rewards: w r - k, whitened over the batch or not; version B weighs what is made of plain
        rewards: w (r - k), or w times the whitened ones.
    Guarantee (false): both give the same advantages. Whitening divides the weights out again, and in A the charge k is
        not weighed.
    Source: the reading of 2503.00539 that `ppo-a-is-b` suggests; refuted here.
    Example: see by hand.
    """

    def sides(x: Charged, *, first: bool) -> Array:
        r, k, w = (np.array(row, float) for row in (x.rewards, x.charges, x.weights))
        made = w * r - k if first else r - k
        if x.whiten:
            made = (made - made.mean()) / made.std()
        return made if first else w * made

    claim = Claim[Charged](
        label="ppo-a-is-b-whitened",
        statement="weighted rewards, charged and whitened, = weights times charged and whitened rewards",
        reference="2503.00539, as read",
        assumptions={
            "weights nonnegative": lambda x: min(x.weights) >= 0,
            "some rewards differ, weighted or not": lambda x: (
                len(set(x.rewards)) > 1 and len({w * r for w, r in zip(x.weights, x.rewards, strict=True)}) > 1
            ),
        },
        instances=Instances(Charged, (Charged((1, -1), (0, 0), (2, 0), 1), Charged((2, 1), (1, 0), (2, 1), 0))),
        lhs=lambda x: sides(x, first=True),
        rhs=lambda x: sides(x, first=False),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        expected=Verdict.REFUTED,
        violates=_versions_differ,
        by_hand=(
            "Rewards 1 and -1, weights 2 and 0. A: weighted rewards 2 and 0, whitened (mean 1, deviation 1) 1 and -1.\n"
            "B: whitened 1 and -1, times the weights 2 and 0. A pushes the second sample down, B leaves it alone.\n"
            "A charge: reward 2, charge 1, weight 2 is 2 * 2 - 1 = 3 in A and 2 (2 - 1) = 2 in B."
        ),
    )
    return claim.with_mutants(mutant(claim, "twice the one is the other", lhs=lambda x: 2 * sides(x, first=True)))


@stated
def plugin_policy_weights() -> Claim[Sampled]:
    """Worst-case weights made of the same answers **bias** the policy gradient.

    Problem: prompts of pass rates p_x, policies with one logit each; K answers per prompt, V_x = share of right ones,
        gradient estimate 1/K sum_j r_j (r_j - p_x), which has the mean p_x (1 - p_x); q = worst case of the V.
    Guarantee (false): E sum_x q_x (estimate) = sum_x q_x(p) p_x (1 - p_x). Weights and estimates come from the same
        answers: a prompt that was lucky has a large estimate and loses weight.
    Source: the reading of 2503.00539, Algorithm 2, with sampled values; refuted here.
    Example: see by hand.
    """
    claim = Claim[Sampled](
        label="plugin-policy-weights",
        statement="E sum_x q_x(V) g_x(V) = sum_x q_x(p) g_x(p) for K sampled answers per prompt (TV over prompts)",
        reference="2503.00539, as read",
        assumptions={
            "rates between 0 and 1": lambda x: min(x.rates) > 0 and max(x.rates) < 16,
            "0 < radius <= 1": lambda x: 0 < x.parts <= 16 and x.answers >= 1,
        },
        instances=Instances(Sampled, (Sampled((8, 8), 1, 4), Sampled((4, 12), 2, 4), Sampled((8, 8), 8, 4))),
        lhs=lambda x: float(_sampled_gradient(x)),
        rhs=lambda x: float(_gradient(x)),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        expected=Verdict.REFUTED,
        violates=lambda x: _sampled_gradient(x) != _gradient(x),
        curve=Curve("answers", tuple(Sampled((8, 8), k, 4) for k in range(1, 17))),
        by_hand=(
            "Two prompts, p = 1/2 each, K = 1, TV(1/4): q = (1/2, 1/2) at the true rates, sum q p (1 - p) = 1/4.\n"
            "The estimate is 1/2 at a right answer, 0 at a wrong one. Both right: 1/2. Both wrong: 0.\n"
            "One right: it keeps 1/4 of the weight, 1/8. The mean is (1/2 + 1/8 + 1/8 + 0)/4 = 3/16 < 1/4."
        ),
    )
    less = mutant(claim, "at least 9/10 of it", lhs=lambda x: 0.9 * float(_gradient(x)), rhs=claim.lhs)
    return claim.with_mutants(replace(less, relation=Relation.AT_MOST))


def _padded(entries: Array) -> Array:
    """Sides have one length, whatever the number of samples."""
    return np.pad(entries.reshape(2, -1), ((0, 0), (0, 6 - entries.size // 2)), mode="edge").ravel()


def _surrogates_agree(x: Clipped) -> bool:
    low, high = 1 - Fraction(x.clip, 16), 1 + Fraction(x.clip, 16)

    def loss(r: Fraction, a: Fraction) -> tuple[Fraction, Fraction]:
        clamped = min(max(r, low), high)
        return -min(r * a, clamped * a), -a if r * a <= clamped * a else Fraction(0)

    for r16, a8, w in zip(x.ratios, x.advantages, x.weights, strict=True):
        r, a = Fraction(r16, 16), Fraction(a8, 8)
        if loss(r, w * a) != tuple(w * part for part in loss(r, a)):
            return False
    return True


def _clipped() -> Instances[Clipped]:
    corners = (Clipped((24,), (8,), (2,), 4), Clipped((8, 24, 16), (-8, -8, 8), (0, 3, 1), 3))
    sample = st.tuples(st.integers(1, 40), st.integers(-16, 16), st.integers(0, 8))

    def built(d: tuple[list[tuple[int, int, int]], int]) -> Clipped:
        ratios, advantages, weights = (tuple(column) for column in zip(*d[0], strict=True))
        return Clipped(ratios, advantages, weights, d[1])

    return Instances(
        Clipped, corners, st.tuples(st.lists(sample, min_size=1, max_size=6), st.integers(1, 15)).map(built)
    )


def _versions_differ(x: Charged) -> bool:
    """Compare squares with their signs: a standard deviation is a root."""
    n = len(x.rewards)
    rows = list(zip(x.weights, x.rewards, x.charges, strict=True))
    first, second = [w * r - k for w, r, k in rows], [r - k for _, r, k in rows]
    if not x.whiten:
        return first != [w * made for (w, _, _), made in zip(rows, second, strict=True)]

    def signed_squares(made: list[int]) -> list[Fraction]:
        mean = Fraction(sum(made), n)
        square = sum(((one - mean) ** 2 for one in made), Fraction(0)) / n
        return [(one - mean) * abs(one - mean) / square for one in made]

    weighted = [w * w * one for w, one in zip(x.weights, signed_squares(second), strict=True)]
    return signed_squares(first) != weighted


def _worst_shares(values: list[Fraction], radius: Fraction) -> list[Fraction]:
    """Move radius of mass from the best prompts to the worst ones, which share it; equally good ones share the loss."""
    n = len(values)
    q, left = [Fraction(1, n)] * n, radius
    for level in sorted(set(values), reverse=True)[:-1]:
        ties = [i for i, v in enumerate(values) if v == level]
        moved = min(left, Fraction(len(ties), n))
        left -= moved
        for i in ties:
            q[i] -= moved / len(ties)
    worst = [i for i, v in enumerate(values) if v == min(values)]
    return [q[i] + ((radius - left) / len(worst) if i in worst else 0) for i in range(n)]


def _gradient(x: Sampled) -> Fraction:
    rates = [Fraction(rate, 16) for rate in x.rates]
    q = _worst_shares(rates, Fraction(x.parts, 16))
    return sum((w * p * (1 - p) for w, p in zip(q, rates, strict=True)), Fraction(0))


def _sampled_gradient(x: Sampled) -> Fraction:
    """By how many answers to each prompt are right."""
    rates, total = [Fraction(rate, 16) for rate in x.rates], Fraction(0)
    for right in product(range(x.answers + 1), repeat=len(rates)):
        shares = [Fraction(k, x.answers) for k in right]
        chance = Fraction(1)
        for k, p in zip(right, rates, strict=True):
            chance *= comb(x.answers, k) * p**k * (1 - p) ** (x.answers - k)
        q = _worst_shares(shares, Fraction(x.parts, 16))
        total += chance * sum((w * v * (1 - p) for w, v, p in zip(q, shares, rates, strict=True)), Fraction(0))
    return total
