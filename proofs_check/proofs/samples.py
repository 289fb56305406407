"""Proofs about minibatches by polynomials of the radius, and by identities; layers as in ``layers``."""

from __future__ import annotations

from fractions import Fraction

from proofs_check.claim import Formula
from proofs_check.claims.minibatch.minibatch_gradients import DistinctLosses
from proofs_check.claims.minibatch.quantiles import QuantileLosses
from proofs_check.claims.minibatch.sampled import SampledLosses
from proofs_check.proof import Box, Point, Proof, argued

_UNIT = (0, 1)
_LARGEST = 24  # minibatches
_SIXTEENTHS = tuple(Fraction(k, 16) for k in range(1, 16))


@argued
def icdf_bias() -> Proof[QuantileLosses]:
    """Layers: the bias is the integral of beta(eps) times the slope of the quantile function at 1 - eps.

    beta(eps) = v(eps) - E v(K/n) is not negative (`plugin-underestimates`), so that the bias is at most G times the
    integral of beta over [0, 1], as for uniform losses. E v(K/n) has the integral 1/(n + 1) sum_k v(k/n) and v has
    1 - (1 - rho)^2/2 for total variation and 1 - alpha/2 for CVaR, which leaves 1/(n + 1) less these as polynomials of
    the radius rho between two multiples j/n, (j + 1)/n, and times alpha of alpha there: of degree 2, a + b x + c x^2,
    with the coefficients a, a + b/2, a + b + c.
    """
    where = {
        "bound": "1 / (n + 1)",
        "low": "item(level, 0)",
        "j": "floor(n * low) if low < 1 else n - 1",
        "m": "n - j - 1",  # so many samples of min(1, k/n + rho) are below 1, and n - j of min(alpha, k/n) are alpha
        "quadratic": "lambda a, b, c: bernstein([a, a + b / 2, a + b + c], level)",
        "ball": "quadratic(bound - 1 / 2 + (m * (m + 1) / (2 * n) + j + 1) / (n + 1), m / (n + 1) - 1, 1 / 2)",
        "tail": "quadratic(j * (j + 1) / (2 * n) / (n + 1), bound + (n - j) / (n + 1) - 1, 1 / 2)",
    }
    return Proof(
        family=f"all losses with a G-Lipschitz quantile function, n <= {_LARGEST}, all radii and alphas in (0, 1]",
        formula=Formula("n * item(level, 1) <= j + 1 and ball >= 0 and tail >= 0", where),
        boxes=lambda: [
            Box({"n": n}, {"level": _UNIT}, {"level": tuple(Fraction(j, n) for j in range(1, n))})
            for n in range(1, _LARGEST + 1)
        ],
        # Uniform losses where n is odd; constant ones up to the median elsewhere, and their bias is smaller.
        slack="[bounded(s, s if n > 2 * floor(n / 2) else bound) for s in [ball, tail / low]]",
        extreme=lambda x: QuantileLosses((1.0,) if x["n"] % 2 else (0.0, 1.0), float(x["level"]), x["n"]),
    )


@argued
def tv_gradient_variance_floor() -> Proof[DistinctLosses]:
    """Three points for each j: between j/n and (j + 1)/n both sides are polynomials of degree 2 in the radius.

    For rho in that range q is 0 at the j smallest losses, (j + 1)/n - rho at the next, 1/n at the others and 1/n + rho
    at the largest: linear in rho, and optimal, as its mean is the worst case, at three points and so at all. Equality
    of sum q^2 with the formula, f = j + 1 - n rho, is decided at three points too. What it exceeds rho^2 by has values
    y0, y1, y2 at the ends and in the middle, and the coefficients y0, 2 y1 - (y0 + y2)/2, y2.
    """
    where = {
        "low": "item(level, 0)",
        "high": "item(level, 1)",
        "j": "floor(n * low)",
        "ranks": "[i for i in range(n)]",
        "q": """lambda r: [r + 1 / n if i == n - 1 else 0 if i < j else (j + 1) / n - r if i == j else 1 / n
            for i in ranks]""",
        "rest": "lambda r: j + 1 - n * r",
        "square": "lambda r: r**2 + (1 + r) / n - rest(r) * (1 - rest(r)) / n**2",
        "worst": "lambda r: tv(ranks, [1 / n for i in ranks], r)",
        "excess": "lambda r: square(r) - r**2",
        "points": "[low, (low + high) / 2, high]",
        "least": "min(excess(low), 2 * excess((low + high) / 2) - (excess(low) + excess(high)) / 2, excess(high))",
    }
    return Proof(
        family=f"n distinct losses of any size, n <= {_LARGEST}, all radii in [0, 1 - 1/n]",
        formula=Formula(
            """n * high <= j + 1 and least >= 0 and all(sum(q(r)) == 1 and min(q(r)) >= 0
            and dot(q(r), ranks) == worst(r) and dot(q(r), q(r)) == square(r) for r in points)""",
            where,
        ),
        boxes=lambda: [
            Box({"n": n}, {"level": (0, Fraction(n - 1, n))}, {"level": tuple(Fraction(j, n) for j in range(1, n))})
            for n in range(2, _LARGEST + 1)
        ],
        slack="[0, 0, excess(low)]",
        extreme=lambda x: DistinctLosses(x["n"], float(x["level"])),
    )


@argued
def tv_bias_split() -> Proof[SampledLosses]:
    """Layers: total variation is the same mixture of CVaR and the maximum on the population and on every sample.

    For a loss of 1 with probability t > 0 the claim's right side is (1 - rho) v(t) + rho, v that of CVaR(1 - rho), and
    for t = 0 both are 0. On samples t = k/n is checked by worst cases with their dual; on the population both sides are
    linear in t on (0, 1 - rho] and on [1 - rho, 1], so that two points of each decide it.
    """
    where = {
        "split": "lambda t: (1 - level) * cvar([0, 1], [1 - t, t], 1 - level) + level",
        "same": "lambda t: tv([0, 1], [1 - t, t], level) == split(t)",
    }
    return Proof(
        family=f"all losses on any number of scenarios, n <= {_LARGEST}, radius in {{1/16, 1/8, ..., 15/16}}",
        formula=Formula(
            """all(same(k / n) for k in range(1, n + 1))
            and all(same(t) for t in [(1 - level) / 2, 1 - level, 1 - level / 2, 1])""",
            where,
        ),
        boxes=lambda: [
            Box({"n": n, "level": level}, {"eps": _UNIT}) for n in range(1, _LARGEST + 1) for level in _SIXTEENTHS
        ],
        slack="[0]",
        extreme=_bernoulli,
    )


@argued
def chi2_penalty_bias() -> Proof[SampledLosses]:
    """An identity of Bernstein coefficients: a sample variance is short by 1/n in the mean.

    Where lam >= B all weights p (l - a)/lam, a = E l - lam <= min l, are not negative on the population and on every
    sample, so that the value is E l + Var/(2 lam) and the bias (Var - E V_n)/(2 lam), V_n the variance of the sample.
    E V_n is a E l^2 + b (E l)^2 with a and b that depend on n alone, for the draws are independent and alike. A loss of
    1 with probability eps has E l^2 = eps and (E l)^2 = eps^2, so that a and b, and with them all losses, are decided
    by E K/n (1 - K/n) = (1 - 1/n) eps (1 - eps) for all eps. With n + 1 draws eps (1 - eps) has the coefficients
    k (n + 1 - k)/(n (n + 1)), and the left side mixes those of n draws as in `plugin-underestimates`.
    """
    where = {
        "var": "lambda t: t * (1 - t)",
        "sampled": """[k / (n + 1) * var(max(k - 1, 0) / n) + (1 - k / (n + 1)) * var(min(k, n) / n)
            for k in range(n + 2)]""",
        "told": "[(1 - 1 / n) * k * (n + 1 - k) / (n * (n + 1)) for k in range(n + 2)]",
    }
    return Proof(
        family="lam >= B alone: all losses on any number of scenarios, n <= 64",
        formula=Formula("sampled == told", where),
        boxes=lambda: [Box({"n": n}, {"eps": _UNIT, "level": (1, 16)}) for n in range(1, 65)],
        slack="[0, 0, 0]",
        extreme=_bernoulli,
    )


def _bernoulli(x: Point) -> SampledLosses:
    chance = float(x["eps"])
    return SampledLosses((0.0, 1.0), (1 - chance, chance), float(x["level"]), int(x["n"]))
