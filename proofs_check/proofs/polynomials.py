"""Proofs by one polynomial of one number, or by an identity of polynomials, for all losses, rates and sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proofs_check.claim import Formula
from proofs_check.claims.inner.hoeffding import PricedLosses
from proofs_check.claims.inner.inner_problem import WeightedLosses
from proofs_check.claims.verifiable.groups import KINDS, Group
from proofs_check.claims.verifiable.rates import Rates
from proofs_check.proof import Box, Proof, argued

if TYPE_CHECKING:
    from fractions import Fraction

_UNIT = (0, 1)


@argued
def ball_nesting() -> Proof[WeightedLosses]:
    """Two atoms are the worst, and for them it is 4 t (1 - t) <= 1 on [0, 1].

    Let q be in a ball and A = {q > p}, a = q(A), b = p(A): the total variation of q and p is a - b, and grouping the
    scenarios into A and the rest lowers both divergences (data processing). So it is enough that a - b <= rho where the
    divergence of (a, 1 - a) from (b, 1 - b) is at most 2 rho^2. Chi-square: (a - b)^2/(2 b (1 - b)) >= 2 (a - b)^2 is
    the inequality at t = b. KL: as a function of a it is 0 with its derivative at a = b, and has the second derivative
    1/(a (1 - a)) >= 4, so that it is at least 2 (a - b)^2 too. Sets that are nested have ordered values for all losses.
    """
    return Proof(
        family="all losses on any number of scenarios, all masses, all radii",
        # 1 - 2 c t (1 - t) for radii c rho^2; t (1 - t) has the coefficients 0, 1/2, 0
        formula=Formula("bernstein([1 - 2 * c * x for x in [0, 1 / 2, 0]], t) >= 0", {"c": "2"}),
        boxes=lambda: [Box({}, {"t": _UNIT, "radius": ("1/64", 1)})],
        # Two atoms: the chi-square ball moves rho sqrt(2 c b (1 - b)) to the larger loss, total variation moves rho.
        there={"b": "item(t, 0)", "r": "item(radius, 0)"},
        slack="[min(r, 1 - b) - min(r * sqrt(2 * c * b * (1 - b)), 1 - b), 'any']",
        extreme=lambda x: WeightedLosses(*_two(x["t"]), float(x["radius"])),
    )


@argued
def kl_penalty_gap() -> Proof[PricedLosses]:
    """Hoeffding's lemma: the variance of losses in [0, 1] is at most 1/4, by 4 m (1 - m) <= 1 on [0, 1].

    Let g(s) = log E exp(s l) - s E l for losses in [0, 1], to which shift and scale reduce all others. Then
    L_t - E l = t g(1/t), g(0) = g'(0) = 0, and g''(s) is the variance of l under weights proportional to p exp(s l),
    which is at most m (1 - m), m the mean under them, as l^2 <= l. So 0 <= g'' <= 1/4 and 0 <= g(s) <= s^2/8.
    """
    there = {
        "m": "item(eps, 0)",
        "tau": "item(temperature, 0)",
        "gap": "tau * log(1 - m + m * exp(1 / tau)) - m",
        "scale": "1 / tau if tau > 1 else 1",
    }
    return Proof(
        family="all losses on any number of scenarios, all masses, all temperatures",
        formula=Formula("bernstein([quarter - x for x in [0, 1 / 2, 0]], eps) >= 0", {"quarter": "1 / 4"}),
        boxes=lambda: [Box({}, {"eps": _UNIT, "temperature": ("1/4", 4)})],
        there=there,
        slack="[gap / scale, (quarter / (2 * tau) - gap) / scale]",
        extreme=lambda x: PricedLosses(*_two(x["eps"]), float(x["temperature"])),
    )


@argued
def grpo_std_is_no_worst_case() -> Proof[Rates]:
    """An identity: r (1 - r) - p (1 - p) = (r - p) (1 - p - r).

    Weights are a worst case of such a set if and only if they do not rise with the rate from any prompt to another
    (`antitone-is-worst-case`, `worst-case-is-antitone`). For p < r the weight 1/sqrt(p (1 - p)) is at least
    1/sqrt(r (1 - r)) where the left side is not negative, and the right side is so exactly if p + r <= 1. Both sides
    have degree 2 in either variable, so that they are equal if they are at three values of each.
    """
    return _line("rise(p, r) >= 0", "p + r <= 1")


@argued
def difficulty_filter_is_no_worst_case() -> Proof[Rates]:
    """An identity: r (1 - r) - p (1 - p) = (r - p) (1 - p - r).

    As for `grpo-std-is-no-worst-case`: for p < r the weight p (1 - p) is at least r (1 - r) where the left side is not
    positive, exactly if p + r >= 1.
    """
    return _line("rise(p, r) <= 0", "p + r >= 1")


@argued
def group_weights() -> Proof[Group]:
    """Identities of Bernstein coefficients, for every f: of G answers K are right, each with chance p.

    Given the rewards, grad log pi(y_j) has the mean (r_j - p)/(p (1 - p)) grad p, so that w p (1 - p) is the mean of
    1/G sum_j A_j (r_j - p). For A = f(m) (r - m), m = K/G, that is E f(m) m (1 - m), with the coefficients
    f(k/G) k (G - k)/G^2. What the claim says, p (1 - p) (G - 1)/G E f((1 + B)/G), has (G - 1)/G C(G - 2, k - 1)/C(G, k)
    f(k/G) (``mixed``): the same in front of every f(k/G). Constant f are then plain, and f = 1/m has p w = 1 -
    (1 - p)^(G - 1): with G - 1 draws the coefficients (G - 1)/k C(G - 2, k - 1)/C(G - 1, k) = 1 but 0 at k = 0.
    A = r h(K) has w p = E K/G h(K): for MaxRL without its baseline, h = G/K, 1 - (1 - p)^G, the chance that K > 0, and
    for pass@k, h = k C(G - K, k - 1)/C(G - 1, k - 1), the coefficients of k p (1 - p)^(k - 1) written with G draws.
    """
    where = {
        "mixed": "[(size - 1) / size * (comb(size - 2, k - 1) / comb(size, k)) for k in range(1, size)]",
        "scaled": "[k * (size - k) / size**2 for k in range(1, size)]",
        "inverse": "[(size - 1) / k * comb(size - 2, k - 1) / comb(size - 1, k) for k in range(1, size)]",
        "right": "[j / size * knob * comb(size - j, knob - 1) / comb(size - 1, knob - 1) for j in range(1, size + 1)]",
        "told": "[knob * comb(size - knob, j - 1) / comb(size, j) for j in range(1, size + 1)]",
    }
    sizes = range(2, 11)
    return Proof(
        family="A = f(m) (r - m) for every f, MaxRL without baseline, pass@k for k <= G; G <= 10, all rates in (0, 1)",
        formula=Formula("mixed == scaled and all(x == 1 for x in inverse) and right == told", where),
        boxes=lambda: [
            Box({"kind": kind, "size": size, "knob": knob}, {"rate": _UNIT})
            for kind in KINDS
            for size in sizes
            for knob in range(1, size + 1 if kind == "pass_at_k" else 2)
        ],
        slack="[0]",
        extreme=lambda x: Group(x["kind"], x["knob"], x["size"], int(16 * x["rate"]), 16),
    )


def _line(falls: str, pair: str) -> Proof[Rates]:
    """``falls`` says by the rise of p (1 - p) from p to r > p that the weight does not rise, ``pair`` is the claim."""
    where = {
        "rise": "lambda p, r: r * (1 - r) - p * (1 - p)",
        "factors": "lambda p, r: (r - p) * (1 - p - r)",
    }
    there = {
        "rates": "[item(a, 0), item(b, 0), item(c, 0)]",
        "worst": f"1 if all({falls} or p >= r for p in rates for r in rates) else 0",
        "said": f"1 if all({pair} or p >= r for p in rates for r in rates) else 0",
    }
    return Proof(
        family="batches of any size, all rates in (0, 1)",
        formula=Formula("all(rise(p, r) == factors(p, r) for p in [0, 1, 2] for r in [0, 1, 2])", where),
        boxes=lambda: [Box({}, dict.fromkeys("abc", _UNIT))],
        there=there,
        slack="[said - worst]",
        extreme=lambda x: Rates(tuple(int(x[name] * 16) for name in "abc"), 16),
    )


def _two(chance: Fraction) -> tuple[tuple[float, float], tuple[float, float]]:
    return (0.0, 1.0), (float(1 - chance), float(chance))
