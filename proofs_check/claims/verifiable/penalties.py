"""Weights that are not normalised: a concave utility of the pass rate is the worst case of a penalty."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import asin, log, sqrt
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from proofs_check.claim import Claim, Instances, mutant, stated
from proofs_check.exact.enclosures import log_bounds

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOOR = 1 / 64  # where a mutant would divide by 0


@dataclass(frozen=True)
class Tangent:
    """A utility of the pass rate, and two rates in parts of a whole: where the weight is made, and where it is used."""

    kind: str
    knob: int
    made: int
    used: int
    whole: int

    @property
    def rates(self) -> tuple[Fraction, Fraction]:
        """Where the weight is made, and where it is used."""
        return Fraction(self.made, self.whole), Fraction(self.used, self.whole)


@stated
def utility_is_a_penalty() -> Claim[Tangent]:
    """Weights that are not normalised are the adversary's best answer to a penalty.

    Problem: U concave and nondecreasing on [0, 1], U_*(w) = min over p of w p - U(p). Here 1 - (1 - p)^k,
        log(1 + (e^beta - 1) p) and log p.
    Guarantee (tight: w = U'(p)): U(p) <= w p - U_*(w) for every w, so U(p) = min over w >= 0 of w p - U_*(w), reached
        at w = U'(p): to maximise the sum of U(p) over prompts is to maximise the worst weighted sum of rates, at the
        price U_*. Its gradient has the weights U'(p) as they are; divided by their mean they are of another objective.
    Source: Fenchel's conjugate; theory.md section 3.
    Example: log p: w = 1/p and U_*(w) = 1 + log w. At p = 1/2 the weight 1 of p = 1 gives 1/2 - 1 = -.5 >= log 1/2.
    """

    def tangent(x: Tangent, slope: Callable[[Tangent], float] = lambda x: float(_slope(x, x.rates[0]))) -> float:
        made, used = x.rates
        return _utility(x, made) + slope(x) * float(used - made)

    claim = Claim[Tangent](
        label="utility-is-a-penalty",
        statement="U(p) = min over w of w p - U_*(w), at w = U'(p), for pass@k, risk seeking and log p",
        reference="theory.md section 3",
        assumptions={"rates in (0, 1]": lambda x: 0 < x.made <= x.whole <= 64 and 0 < x.used <= x.whole},
        instances=_tangents(),
        lhs=lambda x: _utility(x, x.rates[1]),
        rhs=tangent,
        scale=lambda x: 1.0,
        tight=True,
        verifies=_tangent_is_above,
    )

    def normalised(x: Tangent) -> float:
        one, two = (_slope(x, p) for p in x.rates)
        return float(2 * one / (one + two)) if one + two else 0.0

    def chord(convex: Callable[[float], float], slope: Callable[[float], float], name: str) -> Claim[Tangent]:
        def above(x: Tangent) -> float:
            made, used = map(float, x.rates)
            return convex(made) + (slope(made) * (used - made) if used != made else 0.0)

        return mutant(claim, name, lhs=lambda x: convex(float(x.rates[1])), rhs=above)

    return claim.with_mutants(
        mutant(claim, "divided by their mean", rhs=lambda x: tangent(x, normalised)),
        chord(lambda p: 2 * asin(sqrt(p)), lambda p: 1 / sqrt(max(p * (1 - p), _FLOOR**2)), "GRPO's 1/sqrt(p (1-p))"),
        chord(lambda p: p**2 / 2 - p**3 / 3, lambda p: p * (1 - p), "p (1 - p), the medium first"),
    )


def _utility(x: Tangent, p: Fraction) -> float:
    if x.kind == "pass_at_k":
        return float(1 - (1 - p) ** x.knob)
    return log(p) if x.kind == "maxrl" else log(1 + x.knob * p)


def _slope(x: Tangent, p: Fraction) -> Fraction:
    if x.kind == "pass_at_k":
        return x.knob * (1 - p) ** (x.knob - 1)
    return 1 / p if x.kind == "maxrl" else x.knob / (1 + x.knob * p)


def _tangent_is_above(x: Tangent) -> bool:
    """U(used) - U(made) <= U'(made) (used - made), in rationals and an outward-rounded logarithm."""
    made, used = x.rates
    if x.kind == "pass_at_k":
        gained = (1 - made) ** x.knob - (1 - used) ** x.knob
    else:
        gained = log_bounds(used / made if x.kind == "maxrl" else (1 + x.knob * used) / (1 + x.knob * made))[1]
    return gained <= _slope(x, made) * (used - made)


def _tangents() -> Instances[Tangent]:
    kinds = (("pass_at_k", 4), ("rs", 7), ("maxrl", 1))
    corners = tuple(Tangent(*kind, made, used, 4) for kind in kinds for made, used in ((4, 2), (1, 4), (3, 3)))
    parts = st.integers(1, 16)
    draws = st.tuples(st.sampled_from([kind for kind, _ in kinds]), st.integers(2, 16), parts, parts)
    return Instances(Tangent, corners, draws.map(lambda d: Tangent(*d, 16)))
