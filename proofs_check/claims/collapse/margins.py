"""The collapse radius of one direction: closed forms, and what accuracy says about it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import log
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import margin_collapse
from proofs_check.claim import (
    Array,
    Claim,
    Curve,
    Instances,
    Relation,
    Verdict,
    dyadic,
    mutant,
    shrunk,
    stated,
)
from proofs_check.claims.collapse.pairs import Row, exact_size
from proofs_check.exact.balance import EXACT, exact_balance
from proofs_check.exact.enclosures import GAP, log_bounds
from proofs_check.exact.entropies import enclosed_balance

if TYPE_CHECKING:
    pass

_KINDS = (*EXACT, "kl", "burg")
_PARTS = 16  # sizes are multiples of 1/16


@dataclass(frozen=True)
class Signs:
    """Margins +1 on `right` pairs and -1 on `wrong` ones."""

    right: int
    wrong: int

    @property
    def accuracy(self) -> Fraction:
        """The share of margins that are positive."""
        return Fraction(self.right, self.right + self.wrong)


@dataclass(frozen=True)
class Margins:
    """Margins with masses proportional to p."""

    values: tuple[float, ...]
    masses: Row

    @property
    def radius(self) -> float:
        """Of total variation, as dro_core finds it."""
        return float(margin_collapse(self.values, "tv", reference=np.array(self.masses) / sum(self.masses)))

    @property
    def accuracy(self) -> Fraction:
        """The mass of the margins that are positive."""
        right = (mass for value, mass in zip(self.values, self.masses, strict=True) if value > 0)
        return Fraction(sum(right), sum(self.masses))


@stated
def collapse_signs() -> Claim[Signs]:
    """What a classifier of accuracy a bears if all its margins have one size.

    Problem: margins +1 with probability a >= 1/2, else -1; the least set with a q of mean margin 0: q = (1/2, 1/2).
    Guarantee (exact): a - 1/2 (total variation), alpha = 2 (1 - a) (CVaR), (2a - 1)^2/(8 a (1 - a)) (chi-square),
        -1/2 log(4 a (1 - a)) (KL), log 2 - H(a) (Burg), H the binary entropy.
    Source: theory.md section 3: the divergence of (1/2, 1/2) from (a, 1 - a).
    Example: a = 3/4: 1/4, 1/2, 1/6, log(4/3)/2 = .144, 3/4 log 3 - log 2 = .131.
    """
    claim = Claim[Signs](
        label="collapse-signs",
        statement="margins +-1 of accuracy a: a - 1/2, 2(1-a), (2a-1)^2/(8a(1-a)), -log(4a(1-a))/2, log 2 - H(a)",
        reference="theory.md section 3",
        assumptions={"accuracy at least 1/2, some wrong": lambda x: 64 >= x.right >= x.wrong >= 1},
        instances=_signs(),
        lhs=_sign_radii,
        rhs=_closed_forms,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_signs_hold,
        effort=0.4,
        curve=Curve("right", tuple(Signs(right, 4) for right in range(4, 37))),
    )

    def one_wrong(name: str, place: int, factor: float) -> Claim[Signs]:
        factors = np.where(np.arange(len(_KINDS)) == place, factor, 1.0)
        return mutant(claim, name, rhs=lambda x: factors * _closed_forms(x))

    return claim.with_mutants(
        one_wrong("TV in the norm, without its 1/2", 0, 2.0),
        one_wrong("the CVaR tail is the wrong ones alone", 1, 0.5),
        one_wrong("chi-square without its 1/2", 2, 2.0),
        one_wrong("KL without its 1/2", 3, 2.0),
        mutant(claim, "KL and Burg taken for each other", rhs=lambda x: _closed_forms(x)[[0, 1, 2, 4, 3]]),
    )


@stated
def collapse_accuracy() -> Claim[Margins]:
    """Margins of any size bear at most their accuracy.

    Problem: margins m with masses p, some not positive; r = the total-variation radius with a q of mean margin <= 0.
    Guarantee (tight: wrong margins of 0): 0 <= r <= P(m > 0): what is right can be taken away, and no more is needed.
    Source: theory.md section 3.
    Example: margins 1, 1, 1, 0: nothing less than all of the mass on 1 will do, 3/4.
    """
    claim = Claim[Margins](
        label="collapse-accuracy",
        statement="0 <= r <= P(m > 0) for total variation and margins of any size, some not positive",
        reference="theory.md section 3",
        assumptions={
            "masses of 1 to 64": lambda x: 1 <= min(x.masses) <= max(x.masses) <= 64,
            "margins in [-8, 8], some not positive": lambda x: min(x.values) <= 0 and max(map(abs, x.values)) <= 8,
        },
        instances=_margins(),
        lhs=lambda x: (-x.radius, x.radius),
        rhs=lambda x: (0.0, float(x.accuracy)),
        scale=lambda x: 1.0,
        tight=True,
        verifies=_within_accuracy,
    )
    signs = mutant(claim, "accuracy - 1/2, as for signs", rhs=lambda x: (0.0, max(float(x.accuracy) - 0.5, 0.0)))
    half = mutant(claim, "half of the accuracy", rhs=lambda x: (0.0, float(x.accuracy) / 2))
    return claim.with_mutants(shrunk(claim), signs, half)


@stated
def collapse_accuracy_floor() -> Claim[Margins]:
    """Accuracy does not say what an adversary has to spend.

    Problem: one feature; r = the total-variation radius with a q of mean feature 0, the larger one of its directions'.
    Guarantee (false): r >= accuracy - 1/2, as if all margins had one size. A few wrong pairs with large margins are
        cheap to blow up, so an accurate reward may bear next to nothing.
    Source: the closed form of `collapse-signs`, read for margins of any size.
    Example: 1, 1, 1, -9 has accuracy 3/4 and r = 3/20.
    """
    claim = Claim[Margins](
        label="collapse-accuracy-floor",
        statement="r >= accuracy - 1/2 for total variation and margins of any size",
        reference="theory.md section 3, misread",
        assumptions={"masses of 1 to 64": lambda x: 1 <= min(x.masses) <= max(x.masses) <= 64},
        instances=Instances(Margins, (Margins((1.0, -9.0), (3, 1)), Margins((1.0, -1.0), (3, 1)))),
        lhs=lambda x: float(x.accuracy) - 0.5,
        rhs=lambda x: max(x.radius, Margins(tuple(-value for value in x.values), x.masses).radius),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=falls_short,
        by_hand=(
            "Three pairs with x = 1 and one with x = -9: w > 0 ranks three of four right, accuracy - 1/2 = 1/4.\n"
            "q = (3/10, 3/10, 3/10, 1/10) has E_q x = 9/10 - 9/10 = 0.\n"
            "It takes 3 (3/10 - 1/4) = 3/20 from the pair with -9, so r <= 3/20 < 1/4."
        ),
    )
    near = mutant(claim, "to a twentieth", lhs=lambda x: float(x.accuracy) - 0.55)
    return claim.with_mutants(near)


def falls_short(x: Margins) -> bool:
    """Whether some q has mean feature 0 within accuracy - 1/2, in rational numbers."""
    size = exact_balance([(Fraction(value),) for value in x.values], x.masses, "tv").size
    return size is not None and size < x.accuracy - Fraction(1, 2)


def _sign_radii(x: Signs) -> Array:
    shares = [float(x.accuracy), float(1 - x.accuracy)]
    return np.array([margin_collapse([1.0, -1.0], kind, reference=shares) for kind in _KINDS])


def _closed_forms(x: Signs) -> Array:
    a = float(x.accuracy)
    product, entropy = 4 * a * (1 - a), -a * log(a) - (1 - a) * log(1 - a)
    return np.array([a - 1 / 2, 2 * (1 - a), (2 * a - 1) ** 2 / (2 * product), -log(product) / 2, log(2) - entropy])


def _signs_hold(x: Signs) -> bool:
    """Compare the proved radii with the formulas: in rationals, and where there are logarithms in enclosures."""
    a, signs, masses = x.accuracy, ((1,), (-1,)), (x.right, x.wrong)
    rational = [a - Fraction(1, 2), 2 * (1 - a), (2 * a - 1) ** 2 / (8 * a * (1 - a))]
    if [exact_balance(signs, masses, kind).size for kind in EXACT] != rational:
        return False
    right, wrong = log_bounds(2 * a), log_bounds(2 * (1 - a))
    forms = {
        "kl": [-(one + two) / 2 for one, two in zip(right, wrong, strict=True)][::-1],
        "burg": [a * one + (1 - a) * two for one, two in zip(right, wrong, strict=True)],
    }
    proved = {kind: enclosed_balance(signs, masses, kind) for kind in forms}
    return all(
        found.low is not None and found.high is not None and abs(found.low - low) + abs(found.high - high) <= GAP
        for found, (low, high) in ((proved[kind], forms[kind]) for kind in forms)
    )


def _within_accuracy(x: Margins) -> bool:
    size = exact_size(x.values, x.masses, "tv")
    return size is not None and 0 <= size <= x.accuracy


def _signs() -> Instances[Signs]:
    corners = tuple(Signs(right, wrong) for right, wrong in ((3, 1), (1, 1), (4, 1), (64, 1), (64, 63)))
    draws = st.tuples(st.integers(1, 64), st.integers(1, 64)).map(lambda pair: Signs(max(pair), min(pair)))
    return Instances(Signs, corners, draws)


def _margins() -> Instances[Margins]:
    corners = tuple(Margins(values, (1, 1, 1, 1)) for values in ((1.0, 1.0, 1.0, 0.0), (1.0, 2.0, 1.0, -1.0)))
    drawn = st.lists(st.tuples(dyadic(-2, 4), st.integers(1, 8)), min_size=1, max_size=5)
    wrong = st.tuples(dyadic(-2, 0), st.integers(1, 8))
    draws = st.tuples(drawn, wrong).map(lambda d: _of_pairs([*d[0], d[1]]))
    return Instances(Margins, corners, draws)


def _of_pairs(pairs: list[tuple[float, int]]) -> Margins:
    values, masses = zip(*pairs, strict=True)
    return Margins(values, masses)
