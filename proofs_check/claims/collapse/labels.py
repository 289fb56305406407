"""The collapse radius of a true reward: an adversary over labels against one over prompts, and regrets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import log
from operator import mul
from typing import Any

import numpy as np
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import strategies as st

from dro_core import TotalVariation, worst_case
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, dyadic, mutant, shrunk, stated
from proofs_check.claims.collapse.pairs import ADMITTED, Pairs, Row, Rows, balance_reach, exact_reach, lattice
from proofs_check.exact.balance import EXACT

special: Any = _special  # scipy ships no type hints

_PARTS = 16  # radii are multiples of 1/16


@dataclass(frozen=True)
class Prompts(Pairs):
    """Prompts with features x, odds 2^k that the first answer is preferred, and the true reward in units of log 2."""

    exponents: Row
    truth: Row

    @property
    def preferences(self) -> list[Fraction]:
        """P(first preferred), for margins k log 2."""
        odds = [Fraction(2) ** k for k in self.exponents]
        return [odd / (1 + odd) for odd in odds]

    @property
    def pairs(self) -> tuple[list[Row], list[Fraction]]:
        """The (prompt, label) pairs: features with the sign of the label, and masses."""
        turned = [tuple(-entry for entry in row) for row in self.rows]
        right = [mass * p for mass, p in zip(self.masses, self.preferences, strict=True)]
        wrong = [mass * (1 - p) for mass, p in zip(self.masses, self.preferences, strict=True)]
        return [*self.rows, *turned], [*right, *wrong]

    @property
    def mean_rows(self) -> list[tuple[Fraction, ...]]:
        """The features with labels integrated out, (2 p - 1) x."""
        return [tuple((2 * p - 1) * e for e in row) for row, p in zip(self.rows, self.preferences, strict=True)]


@dataclass(frozen=True)
class Judged(Prompts):
    """The same with a reward to compare the true one with, and the radius over prompts in 16ths."""

    reward: tuple[float, ...]
    parts: int

    @property
    def optimum(self) -> Array:
        """w*."""
        return log(2) * np.array(self.truth, float)

    def margins(self, reward: Array) -> Array:
        """<w, x> at every prompt."""
        return self.features @ reward

    def worst(self, losses: Array) -> float:
        """Over prompts."""
        return float(worst_case(losses, TotalVariation(self.parts / _PARTS), reference=self.reference).value)


@stated
def collapse_labels() -> Claim[Prompts]:
    """An adversary over (prompt, label) pairs can always explain a true reward by noise, one over prompts never.

    Problem: labels of a Bradley-Terry model with margins m* = <w*, x> that are nowhere 0, p = sigma(m*). The radius
        over pairs (x with weight p, -x with weight 1 - p), and over prompts with labels integrated out, (2 p - 1) x; as
        numbers in [0, 1], 1 if infinite.
    Guarantee (tight: one prompt): over pairs it is finite, at most E |p - 1/2| (total variation), alpha at least
        2 E min(p, 1 - p) (CVaR), at most E (2 p - 1)^2/(8 p (1 - p)) (chi-square): as in `collapse-signs`, both labels
        made equally likely. Over prompts it is infinite: at w* the mean margin is (2 p - 1) m* > 0.
    Source: theory.md section 3. Weights on pairs defend against flipped labels, not against other prompts.
    Example: x = 1, p = 2/3: total variation 1/6 over pairs. With x = 1, 1 and p = 2/3, 1/3 no reward is right, and over
        prompts the radius is 0.
    """
    well_specified = {"well specified: k = <truth, x>": _is_well_specified}
    claim = Claim[Prompts](
        label="collapse-labels",
        statement="true margins, nowhere 0: r(pairs) <= E|p - 1/2| and its like, finite; r(prompts) is infinite",
        reference="theory.md section 3",
        assumptions={**_SMALL, **well_specified},
        instances=_modelled(),
        lhs=lambda x: (float(_pair_reach(x)), 1.0),
        rhs=lambda x: (float(_even_labels(x)), float(_prompt_reach(x))),
        scale=lambda x: 1.0,
        tight=True,
        verifies=lambda x: _pair_reach(x) <= _even_labels(x) < 1 == _prompt_reach(x),
        effort=0.4,
    )
    flat = mutant(claim, "finite over prompts", rhs=lambda x: (float(_even_labels(x)), 0.99))
    pairs = mutant(claim, "infinite over pairs", rhs=lambda x: (float(_even_labels(x)), float(_pair_reach(x))))
    wrong = replace(
        mutant(claim, "no reward is right", instances=Instances(Prompts, (_MISSPECIFIED,))), assumptions=_SMALL
    )
    return claim.with_mutants(shrunk(claim), flat, pairs, wrong)


@stated
def collapse_regret() -> Claim[Judged]:
    """An adversary on the regret of soft labels cannot make a true reward collapse.

    Problem: soft labels p = sigma(<w*, x>), losses l = p log(1 + e^-m) + (1 - p) log(1 + e^m) with m = <w, x>, and the
        regret l - H(p), H the binary entropy; R(w) = its worst mean over a total-variation ball of prompts.
    Guarantee (exact): l - H(p) = KL(p, sigma(m)) >= 0. So R(w*) = 0 is the minimum whatever the radius, and (tight:
        radius 0) R(0) - R(w*) >= E (log 2 - H(p)) > 0.
    Source: theory.md section 3. Without H the hardest prompts are those with the noisiest labels, whatever the reward.
    Example: p = 4/5 and m = 0: log 2 - H(4/5) = .193 = KL(4/5, 1/2); at m = log 4 it is 0.
    """

    def gap(x: Judged, *, entropy: float = 1.0) -> float:
        zero, best = (_soft_losses(x, w) - entropy * _entropies(x) for w in (np.zeros(len(x.truth)), x.optimum))
        return x.worst(zero) - x.worst(best)

    def divergence(x: Judged, *, turned: bool = False) -> float:
        p, margins = _shares(x), x.margins(np.array(x.reward))
        right, wrong = (p, special.expit(margins)), (1 - p, special.expit(-margins))  # 1 - q loses the digits of -m
        (one, two), (three, four) = (side[::-1] if turned else side for side in (right, wrong))
        return x.worst(special.xlogy(one, one / two) + special.xlogy(three, three / four))

    def regret(x: Judged) -> float:
        return x.worst(_soft_losses(x, np.array(x.reward)) - _entropies(x))

    def least(x: Judged) -> float:
        return float(x.reference @ (log(2) - _entropies(x)))

    claim = Claim[Judged](
        label="collapse-regret",
        statement="l - H(p) = KL(p, sigma(m)) is least at the true reward, and lower than at 0, for every radius",
        reference="theory.md section 3",
        assumptions={
            **_SMALL,
            "well specified: k = <truth, x>": _is_well_specified,
            "rewards in [-4, 4]": lambda x: np.max(np.abs(x.reward)) <= 4,
            "0 <= radius <= 1": lambda x: 0 <= x.parts <= _PARTS,
        },
        instances=_judged(),
        lhs=lambda x: (regret(x), divergence(x), least(x)),
        rhs=lambda x: (divergence(x), regret(x), gap(x)),
        scale=lambda x: 1.0,
        tight=True,
        curve=Curve("parts", tuple(replace(_NOISY, parts=k) for k in range(17))),
        effort=0.4,
    )
    losses = mutant(claim, "losses in place of regrets", rhs=lambda x: (np.inf, np.inf, gap(x, entropy=0.0)))
    turned = mutant(claim, "KL(sigma(m), p)", rhs=lambda x: (divergence(x, turned=True), np.inf, np.inf))
    return claim.with_mutants(shrunk(claim), losses, turned)


_SMALL: Assumptions[Any] = {
    **ADMITTED,
    "odds of 2 to 64 either way": lambda x: all(1 <= abs(k) <= 6 for k in x.exponents),
}


def _is_well_specified(x: Prompts) -> bool:
    return x.exponents == tuple(sum(map(mul, x.truth, row)) for row in x.rows)


def _pair_reach(x: Prompts) -> Fraction:
    return balance_reach(*x.pairs, x.kind)


def _prompt_reach(x: Prompts) -> Fraction:
    return balance_reach(x.mean_rows, x.masses, x.kind)


def _even_labels(x: Prompts) -> Fraction:
    """Return the size of the set that makes both labels of every prompt equally likely."""
    sizes = [_even_size(p, x.kind) for p in x.preferences]
    return exact_reach(x.kind, sum(map(mul, x.masses, sizes), Fraction(0)) / sum(x.masses))


def _even_size(p: Fraction, kind: str) -> Fraction:
    if kind == "tv":
        return abs(p - Fraction(1, 2))
    return 2 * min(p, 1 - p) if kind == "cvar" else (2 * p - 1) ** 2 / (8 * p * (1 - p))


def _shares(x: Judged) -> Array:
    return np.array([float(p) for p in x.preferences])


def _entropies(x: Judged) -> Array:
    p = _shares(x)
    return -special.xlogy(p, p) - special.xlogy(1 - p, 1 - p)


def _soft_losses(x: Judged, reward: Array) -> Array:
    p, margins = _shares(x), x.margins(reward)
    return p * np.logaddexp(0, -margins) + (1 - p) * np.logaddexp(0, margins)


_MISSPECIFIED = Prompts(((1,), (1,)), (1, 1), "tv", (1, -1), (1,))
_NOISY = Judged(((2,), (1,), (-1,)), (2, 1, 1), "tv", (2, 1, -1), (1,), (0.0,), 4)


def _modelled() -> Instances[Prompts]:
    corners = tuple(
        _model(rows, masses, kind, truth)
        for rows, masses, truth in ((((1,),), (1,), (2,)), (((1, 0), (1, 1), (-1, 2)), (1, 2, 1), (1, 1)))
        for kind in EXACT
    )
    return Instances(Prompts, corners, _models())


def _judged() -> Instances[Judged]:
    corners = tuple(
        replace(_NOISY, parts=parts, reward=(reward,)) for parts in (0, 4, 16) for reward in (0.0, 1.0, -2.0)
    )

    def build(x: Prompts) -> st.SearchStrategy[Judged]:
        rewards, radii = st.tuples(*[dyadic(-2, 2)] * len(x.truth)), st.integers(0, _PARTS)
        return st.builds(Judged, *map(st.just, (x.rows, x.masses, "tv", x.exponents, x.truth)), rewards, radii)

    return Instances(Judged, corners, _models().flatmap(build))


def _models() -> st.SearchStrategy[Prompts]:
    """Draw a true reward and up to four prompts; those that it leaves undecided, or decides too well, are left out."""

    def build(drawn: tuple[Rows, Row, tuple[int, ...], str]) -> Prompts:
        rows, truth, masses, kind = drawn
        decided = [row for row in rows if 1 <= abs(sum(map(mul, truth, row))) <= 6]
        kept = tuple(decided) or ((1, *(0 for _ in truth[1:])),)
        return _model(kept, masses[: len(kept)], kind, truth)

    def parts(d: int) -> st.SearchStrategy[tuple[Rows, Row, tuple[int, ...], str]]:
        truths = st.tuples(st.integers(1, 2), *[st.integers(-2, 2)] * (d - 1))
        return st.tuples(lattice(4, d, 2), truths, st.tuples(*[st.integers(1, 8)] * 4), st.sampled_from(EXACT))

    return st.integers(1, 2).flatmap(parts).map(build)


def _model(rows: Rows, masses: Row, kind: str, truth: Row) -> Prompts:
    exponents = tuple(sum(map(mul, truth, row)) for row in rows)
    return Prompts(rows, masses, kind, exponents, truth)
