"""Claims about flipped labels: what rDPO and label smoothing make of them, and what is left (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import exp, log

import numpy as np
from hypothesis import strategies as st

from dro_core import TotalVariation, worst_case
from proofs_check.claim import Assumptions, Claim, Instances, Relation, Verdict, mutant, shrunk, stated
from proofs_check.exact.certificates import exact_tv

Row = tuple[int, ...]


@dataclass(frozen=True)
class Flipped:
    """The losses l(h) and l(-h) of a pair in eighths, the share of flipped labels in 64ths, a radius in 16ths."""

    right: int
    wrong: int
    flips: int
    parts: int = 4

    @property
    def eps(self) -> Fraction:
        """The share of flipped labels."""
        return Fraction(self.flips, 64)


@dataclass(frozen=True)
class Preferred:
    """Out of 256 labels at one prompt how many prefer the first answer; share of flips and radius, in 256ths too."""

    prefer: int
    flips: int
    parts: int = 0

    @property
    def noisy(self) -> Fraction:
        """The chance that a label, flipped or not, prefers the first answer."""
        p, eps = Fraction(self.prefer, 256), Fraction(self.flips, 256)
        return (1 - eps) * p + eps * (1 - p)


@stated
def rdpo_unbiased() -> Claim[Flipped]:
    """The rDPO loss of flipped labels has the clean loss as its mean.

    Problem: a label is flipped with probability eps < 1/2; any loss l of the margin h.
    Guarantee (exact): with l'(h) = [(1 - eps) l(h) - eps l(-h)]/(1 - 2 eps), (1 - eps) l'(h) + eps l'(-h) = l(h).
    Source: 2403.00409. Not so for its worst case: `rdpo-robust-unbiased`.
    Example: eps = 1/4, l(h) = 1, l(-h) = 2: l'(h) = 1/2, l'(-h) = 5/2, 3/4 * 1/2 + 1/4 * 5/2 = 1.
    """

    def mean(x: Flipped) -> float:
        eps = x.flips / 64
        return (1 - eps) * float(_unbiased(x, x.right, x.wrong)) + eps * float(_unbiased(x, x.wrong, x.right))

    claim = Claim[Flipped](
        label="rdpo-unbiased",
        statement="(1-eps) l'(h) + eps l'(-h) = l(h) for l'(h) = [(1-eps) l(h) - eps l(-h)]/(1-2 eps)",
        reference="2403.00409",
        assumptions=_FLIPPED,
        instances=_flipped(),
        lhs=mean,
        rhs=lambda x: x.right / 8,
        scale=lambda x: max(abs(x.right), abs(x.wrong)) / 8,
        relation=Relation.EQUAL,
        verifies=lambda x: _noisy_mean(x) == Fraction(x.right, 8),
    )
    undivided = mutant(claim, "not divided by 1 - 2 eps", lhs=lambda x: mean(x) * (1 - x.flips / 32))
    smooth = mutant(claim, "label smoothing", lhs=lambda x: float((1 - x.eps) * x.right + x.eps * x.wrong) / 8)
    return claim.with_mutants(shrunk(claim), undivided, smooth)


@stated
def rdpo_robust_unbiased() -> Claim[Flipped]:
    """A worst case over pairs **undoes** what rDPO corrects.

    Problem: as `rdpo-unbiased`; the total-variation worst case over pairs with flipped labels, one prompt.
    Guarantee (false): the worst case of rDPO's losses is at most that of the clean ones. The adversary prefers the
        flipped labels, whose corrected losses are large.
    Source: the reading of 2403.00409 that a user of a robust trainer would take away; refuted here.
    Example: see by hand.
    """
    claim = Claim[Flipped](
        label="rdpo-robust-unbiased",
        statement="the TV worst case of rDPO's losses over flipped labels <= that of the clean losses",
        reference="2403.00409, misread",
        assumptions={**_FLIPPED, "0 < radius <= 1": lambda x: 0 < x.parts <= 16},
        instances=Instances(Flipped, (Flipped(8, 16, 16),)),
        lhs=_corrected_worst,
        rhs=lambda x: x.right / 8,
        scale=lambda x: abs(x.right - x.wrong) / 8,
        expected=Verdict.REFUTED,
        violates=_worst_violates,
        by_hand=(
            "One prompt, l(h) = 1, l(-h) = 2, labels flipped with chance 1/4. Clean, there is one loss: L = 1.\n"
            "rDPO: (3/4 * 1 - 1/4 * 2)/(1/2) = 1/2 on a kept label, (3/4 * 2 - 1/4 * 1)/(1/2) = 5/2 on a flipped one.\n"
            "Mean 3/8 + 5/8 = 1. TV(1/4) moves 1/4 of mass to the flipped: 1/2 * 1/2 + 1/2 * 5/2 = 3/2 > 1."
        ),
    )
    return claim.with_mutants(mutant(claim, "up to 1/4 more", rhs=lambda x: x.right / 8 + 1 / 4))


@stated
def cdpo_margin() -> Claim[Preferred]:
    """Label smoothing shrinks the margin to the log odds of a smoothed preference.

    Problem: labels prefer the first answer with probability p; the loss (1 - eps) l(h) + eps l(-h), l = -log sigmoid.
    Guarantee (exact): the best margin is logit p', p' = (1 - eps) p + eps (1 - p); the same as that of flipped labels
        under the plain loss. Finite for every eps > 0, and of the sign of the true one.
    Source: cDPO, 2403.00409 calls it so; derived: the mean loss is p' l(h) + (1 - p') l(-h).
    Example: p = 1, eps = 1/4: logit 3/4 = log 3.
    """

    def best(x: Preferred) -> float:
        """The probability that the best margin gives to the first answer."""
        p, eps = x.prefer / 256, x.flips / 256

        def slope(h: float) -> float:
            up = 1 / (1 + exp(-h))
            first, second = (1 - eps) * (up - 1) + eps * up, (1 - eps) * up + eps * (up - 1)
            return p * first + (1 - p) * second

        low, high = -40.0, 40.0
        for _ in range(60):
            h = (low + high) / 2
            low, high = (low, h) if slope(h) > 0 else (h, high)
        return 1 / (1 + exp(-low))

    claim = Claim[Preferred](
        label="cdpo-margin",
        statement="argmin_h E (1-eps) l(h) + eps l(-h) = logit p', p' = (1-eps) p + eps (1-p)",
        reference="2403.00409; derived",
        assumptions={"0 < flips < 1/2": lambda x: 0 < x.flips < 128, "0 <= p <= 1": lambda x: 0 <= x.prefer <= 256},
        instances=_preferences(least=0, radii=False),
        lhs=best,
        rhs=lambda x: float(x.noisy),
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_margin_verified,
    )
    clean = mutant(claim, "the true preference", rhs=lambda x: x.prefer / 256)
    scaled = mutant(claim, "a margin scaled by 1 - 2 eps", rhs=_scaled_margin)
    return claim.with_mutants(shrunk(claim), clean, scaled)


@stated
def noise_eats_radius() -> Claim[Preferred]:
    """Every flipped label is radius that the true preference no longer has.

    Problem: one prompt, labels prefer the first answer with probability p >= 1/2 and are flipped with eps < 1/2; the
        margin h minimises the total-variation worst case of -log sigmoid over the labels.
    Guarantee (exact): h = logit max(1/2, eps + (1 - 2 eps) p - rho). So nothing is learnt from the radius
        (1 - 2 eps)(p - 1/2) on, the collapse radius of signs (`collapse-signs`).
    Source: theory.md section 3: for h > 0 the lost labels have the larger loss, and rho moves to them.
    Example: p = 1, eps = 1/8, rho = 1/8: logit 3/4 = log 3; from rho = 3/8 on h = 0.
    """

    def fitted(x: Preferred) -> float:
        """The probability of the best margin, where the subgradient of the worst case changes its sign."""
        reference, ball = np.array([float(x.noisy), 1 - float(x.noisy)]), TotalVariation(x.parts / 256)
        low, high = -40.0, 40.0
        for _ in range(60):
            h = (low + high) / 2
            weights = worst_case(np.logaddexp(0.0, [-h, h]), ball, reference=reference).weights
            rising = weights[1] - 1 / (1 + exp(h)) > 0  # the slope is q_2 - sigmoid(-h)
            low, high = (low, h) if rising else (h, high)
        return 1 / (1 + exp(-(low + high) / 2))

    def formula(x: Preferred, flips: int | None = None) -> float:
        kept = Preferred(x.prefer, x.flips if flips is None else flips).noisy
        return float(max(Fraction(1, 2), kept - Fraction(x.parts, 256)))

    claim = Claim[Preferred](
        label="noise-eats-radius",
        statement="the robust margin at one prompt is logit max(1/2, eps + (1-2 eps) p - rho) under TV(rho)",
        reference="theory.md section 3",
        assumptions={
            "0 <= flips < 1/2": lambda x: 0 <= x.flips < 128,
            "1/2 <= p <= 1": lambda x: 128 <= x.prefer <= 256,
            "0 <= radius <= 1, some label may be lost": lambda x: 0 <= x.parts <= 256 and x.noisy < 1,
        },
        instances=_preferences(least=128, radii=True),
        lhs=fitted,
        rhs=formula,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        verifies=_noise_verified,
    )
    clean = mutant(claim, "flips cost nothing", rhs=lambda x: formula(x, flips=0))
    twice = mutant(claim, "the radius counted twice", rhs=lambda x: formula(Preferred(x.prefer, x.flips, 2 * x.parts)))
    signs = mutant(claim, "no floor at 1/2", rhs=lambda x: float(x.noisy) - x.parts / 256)
    return claim.with_mutants(shrunk(claim), clean, twice, signs)


_FLIPPED: Assumptions[Flipped] = {
    "0 <= flips < 1/2": lambda x: 0 <= x.flips < 32,
    "losses at most 8": lambda x: max(abs(x.right), abs(x.wrong)) <= 64,
}


def _unbiased(x: Flipped, loss: int, other: int) -> Fraction:
    return ((1 - x.eps) * loss - x.eps * other) / (8 * (1 - 2 * x.eps))


def _noisy_mean(x: Flipped) -> Fraction:
    return (1 - x.eps) * _unbiased(x, x.right, x.wrong) + x.eps * _unbiased(x, x.wrong, x.right)


def _corrected_worst(x: Flipped) -> float:
    losses = [float(_unbiased(x, x.right, x.wrong)), float(_unbiased(x, x.wrong, x.right))]
    masses = np.array([1 - float(x.eps), float(x.eps)])
    return float(worst_case(np.array(losses), TotalVariation(x.parts / 16), reference=masses).value)


def _worst_violates(x: Flipped) -> bool:
    losses = [_unbiased(x, x.right, x.wrong), _unbiased(x, x.wrong, x.right)]
    return exact_tv(losses, [1 - x.eps, x.eps], Fraction(x.parts, 16)) > Fraction(x.right, 8)


def _flipped() -> Instances[Flipped]:
    corners = (Flipped(8, 16, 16), Flipped(1, 64, 31), Flipped(5, 3, 0))
    return Instances(
        Flipped, corners, st.builds(Flipped, st.integers(-64, 64), st.integers(-64, 64), st.integers(0, 31))
    )


def _preferences(*, least: int, radii: bool) -> Instances[Preferred]:
    corners = tuple(Preferred(p, e, r) for p, e in ((256, 32), (128, 1), (192, 64), (256, 127)) for r in (0, 32, 96))
    chances = st.integers(least, 256), st.integers(1, 127)
    if not radii:
        return Instances(Preferred, corners[::3], st.builds(Preferred, *chances))
    return Instances(Preferred, corners, st.builds(Preferred, *chances, st.integers(0, 160)))


def _margin_verified(x: Preferred) -> bool:
    """At the margin that gives p' to the first answer the slope is 0 and rises."""
    p, eps, up = Fraction(x.prefer, 256), Fraction(x.flips, 256), x.noisy
    first, second = (1 - eps) * (up - 1) + eps * up, (1 - eps) * up + eps * (up - 1)
    return 0 < up < 1 and p * first + (1 - p) * second == 0


def _scaled_margin(x: Preferred) -> float:
    p = min(max(x.prefer / 256, 1e-6), 1 - 1e-6)
    return 1 / (1 + exp(-(1 - x.flips / 128) * log(p / (1 - p))))


def _noise_verified(x: Preferred) -> bool:
    """Some q in the ball that is worst at this margin has the slope 0: the loss is convex, so the margin is best."""
    radius, up = Fraction(x.parts, 256), max(Fraction(1, 2), x.noisy - Fraction(x.parts, 256))
    inside = abs(up - x.noisy) <= radius
    # At a margin above 0 the loss of the second label is the larger one, at 0 both are the same.
    worst = up == Fraction(1, 2) or exact_tv([0, 1], [x.noisy, 1 - x.noisy], radius) == 1 - up
    return inside and worst
