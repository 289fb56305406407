"""Claims about the minibatch bias of the chi-square ball and penalty; notation of ``minibatch``, theory section 3."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from dro_core import ChiSquare, ChiSquarePenalty
from proofs_check.claim import Array, Claim, Curve, Instances, mutant, shrunk, stated, swapped
from proofs_check.claims.minibatch.sampled import MASSES, SampledLosses, draws, exact_bias, rare
from synthetic import plugin_bias

if TYPE_CHECKING:
    from collections.abc import Sequence


@stated
def chi2_bias() -> Claim[SampledLosses]:
    """The chi-square ball has a distribution-free bias bound.

    Problem: bias = L - Lbar_n for ChiSquare(rho).
    Guarantee (upper): bias <= 3 B sqrt(1 + 2 rho) sqrt((4 + log n)/(4n)), and the smaller
        B sqrt(2 rho (2 + log 4n)/(8n)), which vanishes with the radius.
    Source: [L20, Prop 1]; the second derived in ``dro_core.bias_bound``.
    Example: l = Bernoulli(1/2), rho = 1/2, n = 1: L = 1, Lbar = 1/2; bounds 4.2 and .65.
    """

    def bounds(x: SampledLosses, first: float = 3.0, second: float = 1.0) -> Array:
        levy = first * np.sqrt((1 + 2 * x.level) * (4 + np.log(x.n)) / (4 * x.n))
        sharp = second * np.sqrt(2 * x.level * (2 + np.log(4 * x.n)) / (8 * x.n))
        return x.spread * np.array([levy, sharp])

    claim = Claim[SampledLosses](
        label="chi2-bias",
        statement="L - Lbar_n <= 3 B sqrt(1+2 rho) sqrt((4+log n)/(4n)); also <= B sqrt(2 rho (2+log 4n)/(8n))",
        reference="L20, sharpened",
        assumptions={**MASSES, "1/64 <= radius <= 16": lambda x: 1 / 64 <= x.level <= 16},
        instances=_chi2_runs(),
        lhs=lambda x: (plugin_bias(x.losses, x.reference, x.n, ChiSquare(x.level)),) * 2,
        rhs=bounds,
        scale=lambda x: x.spread,
        curve=Curve("n", tuple(rare(8, 1.0, 2**k) for k in range(1, 11))),
        effort=0.5,
    )
    constant = mutant(claim, "constant 0.3", rhs=lambda x: bounds(x, first=0.3))
    second = mutant(claim, "half the second bound", rhs=lambda x: bounds(x, second=0.5))
    rate = mutant(claim, "rate 1/n", rhs=lambda x: bounds(x) / np.sqrt(x.n))
    return claim.with_mutants(constant, second, rate, swapped(claim))


@stated
def chi2_penalty_bias() -> Claim[SampledLosses]:
    """The chi-square penalty has a bias of order 1/n.

    Problem: bias = L - Lbar_n for ChiSquarePenalty(lam).
    Guarantee (upper; exact for lam >= B): bias <= sqrt(2) B^2/(lam n) for lam <= B, = Var l/(2 lam n) for lam >= B.
        Sharper: 1 - lam/B for sqrt(2) where lam <= B/2, and B/(4 lam) beyond.
    Source: [L20, Prop 1]; equality because the set then adds Var/(2 lam), and a sample variance is short by 1/n;
        the sharper constant from ``dro_core.bias_bound`` [derived].
    Example: l = Bernoulli(1/2), lam = 1, n = 1: L = 1/2 + 1/8, Lbar = 1/2.
    """

    def bias(x: SampledLosses) -> float:
        return plugin_bias(x.losses, x.reference, x.n, ChiSquarePenalty(x.level))

    def small(x: SampledLosses) -> float:
        """Var/(2 lam n) where every weight is positive for sure, else 0: the bias is no less."""
        variance = float(x.reference @ (np.array(x.losses) - x.reference @ np.array(x.losses)) ** 2)
        return variance / (2 * x.level * x.n) if x.level >= x.spread else 0.0

    def bound(x: SampledLosses, constant: float = float(np.sqrt(2))) -> float:
        return small(x) if x.level >= x.spread else constant * x.spread**2 / (x.level * x.n)

    def sharp(x: SampledLosses) -> float:
        ratio = x.level / x.spread
        return bound(x, constant=1 - ratio if ratio <= 1 / 2 else 1 / (4 * ratio))

    claim = Claim[SampledLosses](
        label="chi2-penalty-bias",
        statement="L - Lbar_n <= sqrt(2) B^2/(lam n) for lam <= B, = Var/(2 lam n) for lam >= B (chi-square penalty)",
        reference="L20",
        assumptions={**MASSES, "1/64 <= strength <= 16": lambda x: 1 / 64 <= x.level <= 16},
        instances=_penalty_runs(),
        lhs=lambda x: (bias(x), bias(x), small(x)),
        rhs=lambda x: (bound(x), sharp(x), bias(x)),
        scale=lambda x: x.spread,
        tight=True,
        verifies=_penalty_verified,
        curve=Curve("n", tuple(rare(8, 0.25, 2**k) for k in range(1, 11))),
        effort=0.4,
    )
    constant = mutant(claim, "constant 0.1", rhs=lambda x: (bound(x, constant=0.1), np.inf, np.inf))
    everywhere = mutant(claim, "exact always", lhs=bias, rhs=lambda x: x.spread**2 / (8 * x.level * x.n))
    square = mutant(claim, "rate 1/n^2", rhs=lambda x: (bound(x) / x.n, np.inf, np.inf))
    return claim.with_mutants(shrunk(claim), constant, everywhere, square)


def _penalty_verified(x: SampledLosses) -> bool:
    strength, b = Fraction(x.level), x.exact_spread
    bias = exact_bias(x, lambda losses, p: exact_chi2_penalty(losses, p, strength))
    if strength < b:
        ratio = strength / b
        sharp = 1 - ratio if 2 * ratio <= 1 else 1 / (4 * ratio)
        return bias * strength * x.n <= sharp * b**2 and sharp**2 <= 2
    mean = sum(p * loss for p, loss in zip(x.exact_reference, x.exact_losses, strict=True))
    variance = sum(p * (loss - mean) ** 2 for p, loss in zip(x.exact_reference, x.exact_losses, strict=True))
    return bias == variance / (2 * strength * x.n)


def exact_chi2_penalty(losses: Sequence[Fraction], reference: Sequence[Fraction], strength: Fraction) -> Fraction:
    """Return inf_eta E (l - eta)_+^2/(2 strength) + strength/2 + eta, at the eta with E (l - eta)_+ = strength.

    Example:
        >>> half = Fraction(1, 2)
        >>> exact_chi2_penalty([Fraction(0), Fraction(1)], [half, half], Fraction(1))
        Fraction(5, 8)
    """
    atoms = sorted(((loss, p) for loss, p in zip(losses, reference, strict=True) if p), reverse=True)
    mass, total, eta = Fraction(0), Fraction(0), Fraction(0)
    for k, (loss, p) in enumerate(atoms):
        mass, total = mass + p, total + p * loss
        eta = (total - strength) / mass
        if k + 1 == len(atoms) or eta >= atoms[k + 1][0]:
            break
    square = sum(p * max(loss - eta, Fraction(0)) ** 2 for loss, p in atoms)
    return square / (2 * strength) + strength / 2 + eta


def _chi2_runs() -> Instances[SampledLosses]:
    """Rare losses too: the chi-square ball then puts much weight on few draws."""
    corners = tuple(rare(k, r, n) for k in (2, 16, 256) for r in (1 / 16, 1.0, 16.0) for n in (1, 16, 256))
    return Instances(SampledLosses, (rare(4, 1.0, 1), rare(8, 4.0, 4), *corners), draws(64))


def _penalty_runs() -> Instances[SampledLosses]:
    corners = tuple(rare(k, r, n) for k in (2, 16) for r in (1 / 16, 0.25, 1.0, 4.0) for n in (1, 2, 32))
    return Instances(SampledLosses, corners, draws(32))
