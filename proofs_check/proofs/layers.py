"""Proofs for all losses, by their layers: what a set adds for a loss of 1 with probability eps, else 0.

For CVaR and total variation, with a cap or without, the same weights are the worst ones for all losses that rank the
scenarios alike. Sorted losses are l = min l + the sum of their steps h_j times 1[l above step j], steps that rank the
scenarios alike, so that the worst-case value, its plug-in value on any sample, the mean of that over samples, and the
bias L - Lbar_n are the sums of h_j times those of a loss of 1 with probability eps_j = P(l above step j), else 0
(claim `bias-layers`). The steps add up to B = max l - min l. So a bound B c on the bias of all losses holds if, and
only if, c bounds the bias beta(eps) of a layer for every eps in [0, 1].

A layer's value is v(eps) = q(l = 1): min(1, eps/alpha) for CVaR, min(1, eps + rho) for total variation and eps > 0, and
min(1, eps + rho, c eps) with a cap: a least of lines. Its plug-in mean is E v(K/n), K binomial with n draws of chance
eps: a polynomial in eps with the Bernstein coefficients v(k/n). To bound beta(eps) = v(eps) - E v(K/n) from above it is
enough to bound line(eps) - E v(K/n) for one line, a polynomial with the coefficients line(k/n) - v(k/n).
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import TYPE_CHECKING, Any

from proofs_check.claim import Formula
from proofs_check.claims.inner.inner_problem import WeightedLosses
from proofs_check.claims.minibatch.bias_bounds import CappedLosses
from proofs_check.claims.minibatch.sampled import SampledLosses
from proofs_check.proof import Box, Proof, argued

if TYPE_CHECKING:
    from proofs_check.proof import Point

_UNIT = (0, 1)
_EIGHTHS = tuple(Fraction(k, 8) for k in range(1, 8))
_LARGEST = 24  # minibatches
# At most bound - beta(eps), for all eps of a range.
_SLACK = """max(bernstein([bound - line(k / n) + value(k / n) for k in range(n + 1)], eps) for line in lines)"""
_MISSING = """lambda alpha: sum(comb(n, k) * alpha**k * (1 - alpha)**(n - k) * max(1 - k / (alpha * n), 0)
    for k in range(n + 1))"""
_CVAR = {"value": "lambda t: min(1, t / level)", "lines": "[lambda t: t / level, lambda t: 1]"}
_TV = {"value": "lambda t: min(1, t + level) if t > 0 else 0", "lines": "[lambda t: t + level, lambda t: 1]"}


@argued
def tv_gap() -> Proof[WeightedLosses]:
    """Layers, without samples: 0 <= v(eps) - eps <= rho for every eps and rho in [0, 1].

    E l is the sum of h_j eps_j too, so that L_rho - E l is that of h_j (v(eps_j) - eps_j), v(eps) = min(1, eps + rho).
    From below both lines count: 1 - eps and rho are not negative. From above one line is enough: (eps + rho) - eps is
    rho whatever eps, and the bound rho less that has the coefficients 0 at rho = 0 and at rho = 1.
    """
    return Proof(
        family="all losses on any number of scenarios, all radii in [0, 1]",
        formula=Formula(
            "all(s >= 0 for s in slacks)",
            {
                "bound": "lambda r: r",
                "below": "min(bernstein([1, 0], eps), bernstein([0, 1], level))",
                "above": """max(bernstein([bound(r) - r for r in [0, 1]], level),
                    bernstein([bound(0), bound(1)], level) - 1 + bernstein([0, 1], eps))""",
                "slacks": "[below, above]",
            },
        ),
        boxes=lambda: [Box({}, {"eps": _UNIT, "level": _UNIT})],
        slack="slacks",
        extreme=lambda x: WeightedLosses((0.0, 1.0), (float(1 - x["eps"]), float(x["eps"])), float(x["level"])),
    )


@argued
def plugin_underestimates() -> Proof[SampledLosses]:
    """Layers: E v(K/n) <= E v(K'/(n + 1)) <= v(eps), K and K' binomial with n and n + 1 draws of chance eps.

    E v(K/n) written with n + 1 draws has the coefficients k/(n+1) v((k-1)/n) + (1 - k/(n+1)) v(k/n) (one draw of n + 1
    is left out), and the first inequality compares them with v(k/(n+1)). For the second v is the least of the lines, so
    every line has to be above E v(K/n), which has the coefficients v(k/n).
    """
    grows = "v(k / (n + 1)) - k / (n + 1) * v(max(k - 1, 0) / n) - (1 - k / (n + 1)) * v(min(k, n) / n)"
    where = {
        "tails": _CVAR["value"],
        "ball": _TV["value"],
        "cvar_lines": _CVAR["lines"],
        "ball_lines": _TV["lines"],
        "grows": f"lambda v: bernstein([{grows} for k in range(n + 2)], eps)",
        "below": """lambda v, lines: min(bernstein([line(k / (n + 1)) - v(k / (n + 1)) for k in range(n + 2)], eps)
            for line in lines)""",
        "rises": "[grows(ball), grows(tails)]",
        "stays": "[below(ball, ball_lines), below(tails, cvar_lines)]",
    }
    return Proof(
        family=f"all losses on any number of scenarios, n <= {_LARGEST}, radius and alpha in {{1/8, 1/4, ..., 1}}",
        formula=Formula("all(rise >= 0 and rest >= 0 for rise, rest in zip(rises, stays))", where),
        boxes=lambda: [
            Box({"n": n, "level": level}, {"eps": _UNIT}) for n in range(1, _LARGEST + 1) for level in (*_EIGHTHS, 1)
        ],
        slack="[min(rise, rise + rest) for rise, rest in zip(rises, stays)]",
        extreme=_bernoulli,
    )


@argued
def cvar_bias() -> Proof[SampledLosses]:
    """Layers: beta(eps) <= c for every eps, where c is a fraction below 3/sqrt(alpha n).

    The fraction is given, and that it is small enough is checked by c^2 alpha n <= 9. The claim is far from tight
    (`cvar-bias-sharp` has a sixth of it), so that few cuts do.
    """
    return Proof(
        family="all losses on any number of scenarios, alpha in {3/8, 1/2, ..., 1}, n <= 32 with alpha n > 9",
        formula=Formula("bound**2 * level * n <= 9 and slack >= 0", {**_CVAR, "slack": _SLACK}),
        boxes=lambda: [
            _layer({"n": n, "level": level, "bound": _root(9 / (level * n))}, level)
            for n in range(10, 33)
            for level in (*_EIGHTHS, Fraction(1))
            if level * n > 9
        ],
        slack="[3 / sqrt(level * n) - bound + slack]",
        extreme=_bernoulli,
    )


@argued
def cvar_bias_sharp() -> Proof[SampledLosses]:
    """Layers: beta(eps) <= b for every eps, b = E (1 - K/(alpha n))_+ with K binomial(n, alpha).

    b is beta(alpha), so that the polynomial of either line is 0 at eps = alpha: nothing smaller bounds all losses. The
    second bound of the claim is squared: 4 alpha n b^2 <= 1 - alpha, a comparison of two fractions.
    """
    return Proof(
        family=f"all losses on any number of scenarios, n <= {_LARGEST}, alpha in {{1/8, 1/4, ..., 7/8}}",
        formula=Formula(
            "slack >= 0 and 4 * level * n * bound**2 <= 1 - level",
            {**_CVAR, "missing": _MISSING, "bound": "missing(level)", "slack": _SLACK},
        ),
        boxes=lambda: [_layer({"n": n, "level": level}, level) for n in range(1, _LARGEST + 1) for level in _EIGHTHS],
        slack="[slack, sqrt((1 - level) / (level * n)) / 2 - bound]",
        extreme=_bernoulli,
    )


@argued
def tv_capped_bias() -> Proof[CappedLosses]:
    """Layers: beta(eps) <= (1 - rho) b(1 - rho) + rho b(a), b(alpha) = E (1 - K/(alpha n))_+, K binomial(n, alpha).

    The first bound of the claim, 3 (sqrt(u) + sqrt(v)) with u = (1 - rho)/n and v = rho^2/(a n), is larger, as
    (bound/3)^2 <= u + v.
    """
    where = {
        "a": "level / (max_ratio - 1)",
        "value": "lambda t: min(1, t + level, max_ratio * t)",
        "lines": "[lambda t: max_ratio * t, lambda t: t + level, lambda t: 1]",
        "missing": _MISSING,
        "bound": "(1 - level) * missing(1 - level) + level * missing(a)",
        "slack": _SLACK,
        "u": "(1 - level) / n",
        "v": "level**2 / (a * n)",
    }
    return Proof(
        family="all losses on any number of scenarios, n <= 16, rho in {1/8, 1/4, 1/2, 3/4}, c in {2, 3, 5}",
        formula=Formula("slack >= 0 and (bound / 3)**2 <= u + v", where),
        boxes=lambda: [
            _layer({"n": n, "level": rho, "max_ratio": cap}, rho / (cap - 1), 1 - rho)
            for n in range(1, 17)
            for rho in (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))
            for cap in (2, 3, 5)
            if rho / (cap - 1) <= 1 - rho
        ],
        slack="[3 * (sqrt(u) + sqrt(v)) - bound + slack, slack]",
        extreme=lambda x: CappedLosses(*_two(x), float(x["level"]), x["n"], float(x["max_ratio"])),
    )


@argued
def tv_floor_bias() -> Proof[SampledLosses]:
    """Layers: beta(eps) <= (1 - rho) b(1 - rho) + rho (1 - eps)^n for every eps, b as in `cvar-bias-sharp`.

    No layer is rarer than the largest loss, of probability e: eps_j >= e, and (1 - eps_j)^n <= (1 - e)^n. Of n draws
    (1 - eps)^n has the coefficient 1 at k = 0 and 0 elsewhere.
    """
    where = {
        **_TV,
        "missing": _MISSING,
        "tails": "(1 - level) * missing(1 - level)",
        "most": "1",
        "bound": "lambda k: most * (tails + (level if k == 0 else 0))",
        "slack": _SLACK.replace("bound", "bound(k)"),
    }
    return Proof(
        family=f"all losses on any number of scenarios, n <= {_LARGEST}, radius in {{1/8, 1/4, ..., 7/8}}",
        formula=Formula("slack >= 0", where),
        boxes=lambda: [
            _layer({"n": n, "level": level}, 1 - level) for n in range(1, _LARGEST + 1) for level in _EIGHTHS
        ],
        slack="[slack]",
        extreme=_bernoulli,
    )


def _layer(given: dict[str, Any], *kinks: Fraction) -> Box:
    return Box(given, {"eps": _UNIT}, {"eps": kinks})


def _root(square: Fraction) -> Fraction:
    """A fraction just below the root."""
    return Fraction(isqrt(int(square * 4**20)), 2**20)


def _two(x: Point) -> tuple[tuple[float, float], tuple[float, float]]:
    return (0.0, 1.0), (float(1 - x["eps"]), float(x["eps"]))


def _bernoulli(x: Point) -> SampledLosses:
    return SampledLosses(*_two(x), float(x["level"]), x["n"])
