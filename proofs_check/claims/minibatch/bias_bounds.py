"""Claims about the minibatch bias of total variation with a cap; notation of ``minibatch``, theory.md section 3."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import comb

import numpy as np
from hypothesis import strategies as st

from dro_core import CVaR, TotalVariation, bias_bound
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, Relation, mutant, shrunk, stated, swapped
from proofs_check.claims.minibatch.sampled import MASSES, RADIUS, SampledLosses, cvar_value, draws, exact_bias, tv_value
from synthetic import plugin_bias
from synthetic.biases.without_enumeration import atoms


@dataclass(frozen=True)
class CappedLosses(SampledLosses):
    """The same with the largest allowed ratio q/p."""

    max_ratio: float

    @property
    def ball(self) -> TotalVariation:
        """Total variation of radius level with the cap."""
        return TotalVariation(self.level, max_ratio=self.max_ratio)

    @property
    def top(self) -> float:
        """The mass a = rho/(c - 1) that the drained mass goes to."""
        return self.level / (self.max_ratio - 1)


@stated
def tv_capped_bias() -> Claim[CappedLosses]:
    """A cap on the weights gives total variation a bias of order 1/sqrt(n): the repair.

    Problem: bias = L - Lbar_n for TotalVariation(rho, max_ratio=c), c (1 - rho) >= 1, a = rho/(c - 1).
    Guarantee (upper): bias <= 3 B [sqrt((1 - rho)/n) + rho/sqrt(a n)], and the smaller
        (1 - rho) b(1 - rho) + rho b(a), where b(alpha) is the largest bias of CVaR(alpha) (`cvar-bias-sharp`).
    Source: theory.md section 3; the second in ``dro_core.bias_bound`` [derived].
    Example: l = Bernoulli(1/16), rho = 1/4, c = 5, n = 64: bias .047, bounds .70 and .069.
    """

    def bounds(x: CappedLosses, constant: float = 3.0) -> Array:
        parts = ((1 - x.level, 1 - x.level), (x.level, x.top))
        rough = constant * x.spread * sum(mass / np.sqrt(alpha * x.n) for mass, alpha in parts)
        return np.array([rough, sum(mass * bias_bound(CVaR(alpha), x.n, x.spread) for mass, alpha in parts)])

    claim = Claim[CappedLosses](
        label="tv-capped-bias",
        statement="L - Lbar_n <= 3 B [sqrt((1-rho)/n) + rho/sqrt(a n)], a = rho/(c-1), for TV with q <= c p",
        reference="theory.md section 3",
        assumptions={**MASSES, **RADIUS, **CAP},
        instances=capped_runs(largest=32),
        lhs=lambda x: (plugin_bias(x.losses, x.reference, x.n, x.ball),) * 2,
        rhs=bounds,
        scale=lambda x: x.spread,
        verifies=_capped_verified,
        curve=Curve("n", tuple(CappedLosses((0.0, 1.0), (15.0, 1.0), 0.25, 2**k, 5.0) for k in range(2, 11))),
        effort=0.3,
    )
    constant = mutant(claim, "constant 0.35", rhs=lambda x: bounds(x, constant=0.35))
    no_top = mutant(claim, "top part forgotten", rhs=lambda x: 0.5 * x.spread * np.sqrt((1 - x.level) / x.n))
    no_cap = mutant(
        claim, "cap dropped", lhs=lambda x: plugin_bias(x.losses, x.reference, x.n, TotalVariation(x.level))
    )
    return claim.with_mutants(constant, no_top, no_cap, swapped(claim))


@stated
def bias_layers() -> Claim[CappedLosses]:
    """The bias adds up over the steps of the losses, so that Bernoulli losses are the worst.

    Problem: bias = L - Lbar_n for total variation, with a cap and without, and CVaR.
    Guarantee (exact): bias = sum_j (l_(j+1) - l_(j)) beta_n(P(l > l_(j))) over the sorted atoms, beta_n(p) the bias
        of a loss of 1 with probability p, else 0. Hence bias <= B max_p beta_n(p), attained by such a loss.
    Source: derived in ``synthetic.biases.without_enumeration``: the value is comonotone additive, and l = l_(1) + sum
    of its steps.
    Example: l = (0, 1, 3) has steps 1 and 2.
    """

    def enumerated(x: CappedLosses) -> list[float]:
        return [plugin_bias(x.losses, x.reference, x.n, ball) for ball in tail_sets(x)]

    def layered(x: CappedLosses) -> list[float]:
        return [atoms(x.losses, x.reference).bias(x.n, ball) for ball in tail_sets(x)]

    claim = Claim[CappedLosses](
        label="bias-layers",
        statement="the bias of TV, capped TV and CVaR is the sum of the Bernoulli biases of the steps of the losses",
        reference="theory.md section 3",
        assumptions={**MASSES, **RADIUS, **CAP},
        instances=capped_runs(largest=16),
        lhs=enumerated,
        rhs=layered,
        scale=lambda x: x.spread,
        relation=Relation.EQUAL,
        tight=True,
        verifies=_layers_verified,
        effort=0.25,
    )
    one_step = mutant(
        claim,
        "one step at the mean",
        rhs=lambda x: [
            x.spread * plugin_bias([0.0, 1.0], [1 - _height(x), _height(x)], x.n, ball) for ball in tail_sets(x)
        ],
    )
    return claim.with_mutants(shrunk(claim), one_step)


def _capped_verified(x: CappedLosses) -> bool:
    radius, ratio, b = Fraction(x.level), Fraction(x.max_ratio), x.exact_spread
    top = radius / (ratio - 1)
    bias = exact_bias(x, tv_value(radius, ratio))
    sharp = (1 - radius) * _most_cvar_bias(x.n, 1 - radius) + radius * _most_cvar_bias(x.n, top)
    # bias <= 3 B (sqrt(u) + sqrt(v)) without roots: (bias/3B)^2 - u - v <= 2 sqrt(u v).
    u, v = (1 - radius) / x.n, radius**2 / (top * x.n)
    excess = (bias / (3 * b)) ** 2 - u - v
    return bias <= b * sharp and (excess <= 0 or excess**2 <= 4 * u * v)


def _most_cvar_bias(n: int, alpha: Fraction) -> Fraction:
    """E (1 - K/(alpha n))_+ for K binomial(n, alpha)."""
    terms = (comb(n, k) * alpha**k * (1 - alpha) ** (n - k) * (1 - k / (alpha * n)) for k in range(int(alpha * n) + 1))
    return sum(terms, Fraction(0))


def _layers_verified(x: CappedLosses) -> bool:
    values = tv_value(x.level), tv_value(x.level, x.max_ratio), cvar_value(x.level)
    return all(sum(h * exact_bias(step, value) for h, step in _steps(x)) == exact_bias(x, value) for value in values)


def _steps(x: SampledLosses) -> list[tuple[Fraction, SampledLosses]]:
    """Return the heights of the steps, and losses of 1 above each step, else 0."""
    order = sorted(zip(x.losses, x.masses, strict=True))
    losses, masses = zip(*order, strict=True)
    return [
        (
            Fraction(losses[k]) - Fraction(losses[k - 1]),
            SampledLosses((0.0, 1.0), (sum(masses[:k]), sum(masses[k:])), x.level, x.n),
        )
        for k in range(1, len(order))
    ]


def tail_sets(x: CappedLosses) -> tuple[TotalVariation, TotalVariation, CVaR]:
    """Total variation without a cap and with it, and CVaR."""
    return TotalVariation(x.level), x.ball, CVaR(x.level)


def _height(x: SampledLosses) -> float:
    """Where the mean lies between the smallest and the largest loss."""
    return float(x.reference @ np.array(x.losses) - min(x.losses)) / x.spread


CAP: Assumptions[CappedLosses] = {
    "1 < max_ratio <= 64": lambda x: 1 < x.max_ratio <= 64,
    "a <= 1 - radius": lambda x: x.top <= 1 - x.level,
}


def capped_runs(largest: int) -> Instances[CappedLosses]:
    """Bernoulli corners of up to ``largest`` draws, three atoms, and draws."""
    corners = [
        CappedLosses((0.0, 1.0), (float(k - 1), 1.0), r, n, c)
        for k, r, c in ((16, 0.25, 5.0), (64, 0.875, 57.0), (4, 0.5, 3.0), (1024, 0.5, 3.0))
        for n in (1, largest)
    ]
    corners.append(CappedLosses((0.0, 1.0, 3.0), (1.0, 2.0, 1.0), 0.25, 5, 3.0))
    ratios = st.integers(5, 4 * 16).map(lambda k: k / 4)
    pairs = st.tuples(draws(largest), ratios)
    strategy = pairs.map(lambda d: CappedLosses(d[0].losses, d[0].masses, d[0].level, d[0].n, d[1]))
    return Instances(CappedLosses, tuple(corners), strategy)
