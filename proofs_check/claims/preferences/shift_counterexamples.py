"""Two readings of "robust reward estimation gains under shift and loses nothing without" that are false."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.special import expit  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from scipy.stats import multinomial  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import AmbiguitySet, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, Relation, Verdict, mutant, stated
from synthetic import sample_counts
from synthetic.pairs.populations import FinitePopulation

_BISECTIONS = 48
_TERMS = 24


@dataclass(frozen=True)
class Coin:
    """One prompt with difference 1: of every wins + losses labels, `wins` favour the first; the ball has `moved`."""

    wins: int
    losses: int
    moved: int

    @property
    def total(self) -> int:
        """The common denominator of P(first) and the radius."""
        return self.wins + self.losses

    @property
    def ball(self) -> TotalVariation:
        """Over (prompt, label) pairs."""
        return TotalVariation(self.moved / self.total)

    @property
    def population(self) -> FinitePopulation:
        """Where to train; it is well specified, as every single prompt is."""
        return FinitePopulation(np.ones((1, 1)), np.ones(1), np.array([self.wins / self.total]))


@stated
def robust_shift_labels() -> Claim[Coin]:
    """A ball over pairs is not harmless in the well-specified case.

    Problem: one prompt, P(first preferred) = p > 1/2, the total-variation ball over the two labels.
    Guarantee (false): L_rho(w_ERM) = min_w L_rho(w). The adversary turns labels: the robust margin is that of p - rho,
        and 0 as soon as rho >= p - 1/2 (all of the signal is gone; value log 2), while w_ERM is the true margin.
    Source: the words of 2503.00539, for weights on observed pairs. Over prompts it is true: `robust-shift-parity`.
    Example: p = 3/4, rho = 1/5: .782 against .688, and the robust margin is log(11/9) = .20 in place of log 3 = 1.10.
    """

    def plain(x: Coin) -> float:
        return float(x.population.worst_case(x.population.minimiser().coefficients, x.ball).value)

    def robust(x: Coin) -> float:
        return x.population.minimiser(x.ball).value

    claim = Claim[Coin](
        label="robust-shift-labels",
        statement="with a linear true reward and the TV ball over pairs, min_w L_rho(w) = L_rho(w_ERM)",
        reference="2503.00539, as read",
        assumptions={
            "p > rho > 0, p > 1/2": lambda x: min(x.losses, x.moved) > 0 and x.wins > max(x.losses, x.moved),
        },
        instances=Instances(Coin, (Coin(15, 5, 4), Coin(9, 1, 2))),
        lhs=robust,
        rhs=plain,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        expected=Verdict.REFUTED,
        violates=exceeds_log_two,
        curve=Curve("moved", tuple(Coin(15, 5, moved) for moved in range(1, 11))),
        by_hand=(
            "p = 3/4, rho = 1/5: w_ERM = log 3; the worst labels are (11/20, 9/20), so 20 L_rho(w_ERM) is\n"
            "11 log(4/3) + 9 log 4 = 20 log 4 - 11 log 3. At w = 0 every loss is log 2, so 20 min L_rho <= 20 log 2.\n"
            "2^20 = 1048576 > 177147 = 3^11, so 20 log 4 - 11 log 3 > 20 log 2: not equal."
        ),
    )
    within = mutant(claim, "equal to a twentieth of a nat", lhs=lambda x: min(plain(x), robust(x) + 0.05))
    return claim.with_mutants(within)


def exceeds_log_two(x: Coin) -> bool:
    """Whether L_rho(w_ERM) > log 2 >= min_w L_rho(w), as a comparison of rational powers."""
    if not (x.losses > 0 and x.wins > max(x.losses, x.moved)):
        return False
    kept, turned, total = x.wins - x.moved, x.losses + x.moved, Fraction(x.total)
    return (total / x.wins) ** kept * (total / x.losses) ** turned > 2**x.total


@dataclass(frozen=True)
class SampledPrompts:
    """Two equally likely prompts with differences 1 and 2; odds of their first answers; n pairs are drawn."""

    near: int
    far: int
    n: int
    radius: float
    bound: float

    @property
    def population(self) -> FinitePopulation:
        """Where the pairs come from: well specified exactly if far is the square of near."""
        odds = np.array([self.near, self.far], float)
        return FinitePopulation(np.array([[1.0], [2.0]]), np.array([0.5, 0.5]), odds / (1 + odds))

    @property
    def ball(self) -> AmbiguitySet:
        """Over prompts."""
        return self.population.by_prompt(TotalVariation(self.radius))


@stated
def robust_shift_sample() -> Claim[SampledPrompts]:
    """From finitely many pairs the robust fit is not always the better one in the worst case it guards against.

    Problem: w_hat_ERM and w_hat_rho fit n pairs over |w| <= bound; L_rho is the worst case of the population, whose
        reward is not linear, so that L_rho(w_ERM) > min L_rho there. Exact: all samples are enumerated.
    Guarantee (false): E L_rho(w_hat_rho) <= E L_rho(w_hat_ERM). The robust fit attends to the hardest prompts of the
        sample and so uses fewer of its labels: a price in variance, which a small misspecification does not pay.
    Source: the words of 2503.00539, read for samples. It may well hold: with labels near chance or prompts that pull in
        opposite directions the robust fit shrinks, and that is worth more than the variance.
    Example: odds 8 and 32, rho = 1/2: the robust fit is worse by 0.001 nats at n = 2, .034 at n = 4, .018 at n = 16.
    """
    claim = Claim[SampledPrompts](
        label="robust-shift-sample",
        statement="with a reward that is not linear, E L_rho(w_hat_rho) <= E L_rho(w_hat_ERM) at every n",
        reference="2503.00539, as read",
        assumptions={
            "misspecified": lambda x: x.far != x.near**2 and min(x.near, x.far) > 1,
            "0 <= radius <= 1, n >= 1": lambda x: 0 <= x.radius <= 1 and x.n >= 1,
            "bound >= 1": lambda x: x.bound >= 1,
        },
        instances=Instances(SampledPrompts, (SampledPrompts(8, 32, 2, 0.5, 4.0),)),
        lhs=lambda x: expected_worst_case(x, robust=True),
        rhs=lambda x: expected_worst_case(x, robust=False),
        scale=lambda x: 1.0,
        expected=Verdict.REFUTED,
        violates=plain_wins,
        curve=Curve("n", tuple(SampledPrompts(8, 32, n, 0.5, 4.0) for n in (1, 2, 3, 4, 6, 8, 12, 16))),
        by_hand=(
            "Only the samples {1+, 2-} and {1-, 2+} tell the fits apart: w_rho = 0, w_ERM = -c, c; e^c = t = 1.5214.\n"
            "Chances 8/594, 32/594; t^3 = t + 2; L_rho(0) = log 2 = .693, L_rho(c) = log(1 + t) - 8/9 c = .552 and\n"
            "L_rho(-c) = log(1 + t^2) - 2/33 c = 1.173. Plain gains 4 (.693 - .552) = .56 and loses 1.173 - .693 = .48."
        ),
    )
    straight = mutant(
        claim,
        "linear reward",
        instances=Instances(SampledPrompts, (SampledPrompts(8, 63, 2, 0.5, 4.0),)),
    )
    hundredth = mutant(claim, "to 0.0005 nats", lhs=lambda x: expected_worst_case(x, robust=True) - 0.0005)
    return claim.with_mutants(straight, hundredth)


def expected_worst_case(x: SampledPrompts, *, robust: bool) -> float:
    """E L_rho of the fit to n pairs, over all samples."""
    population = x.population
    counts = sample_counts(x.n, population.atom_masses.size)
    fits = _bounded_fits(population, counts / x.n, x.ball if robust else None, x.bound)
    margins = population.atoms.labels * population.atoms.differences[:, 0] * fits[:, None]
    reference = np.broadcast_to(population.atom_masses, margins.shape)
    worst = np.asarray(worst_case(np.logaddexp(0, -margins), x.ball, reference=reference).value)
    chances = np.asarray(multinomial.pmf(counts, x.n, population.atom_masses))  # pyright: ignore[reportUnknownMemberType]
    return float(chances @ worst)


def _bounded_fits(population: FinitePopulation, masses: Array, ball: AmbiguitySet | None, bound: float) -> Array:
    """Minimise the (worst-case) loss under every row of masses over [-bound, bound], by bisection of a subgradient."""
    signed = population.atoms.labels * population.atoms.differences[:, 0]
    low, high = np.full(len(masses), -bound), np.full(len(masses), bound)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        margins = signed * middle[:, None]
        q = masses if ball is None else worst_case(np.logaddexp(0, -margins), ball, reference=masses).weights
        rising = (q * expit(-margins) * -signed).sum(axis=1) >= 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return (low + high) / 2


def plain_wins(x: SampledPrompts) -> bool:
    """Whether the plain fit certainly has the smaller expectation, for n = 2 and the whole simplex; in rationals.

    The fits differ on two samples only. On {1-, 2+} the plain one is c = log t, on {1+, 2-} it is -c; the robust one
    is 0. The chances of these samples are as far to near. With softplus(c) = log(1 + t), softplus(2c) = log(1 + t^2)
    the risks are R_1(c) = log(1 + t) - near/(1 + near) c, R_1(-c) = log(1 + t) - c/(1 + near), and so for the far
    prompt with t^2 and 2c.
    """
    if not (x.n == 2 and x.radius >= 1 / 2 and x.bound >= 1 and min(x.near, x.far) >= 1):
        return False
    low, high = root()
    c, one = _log_bounds(low)[0], _log_bounds(1 + high)[1]
    two = _log_bounds(1 + high**2)[1]
    near, far = Fraction(x.near), Fraction(x.far)
    right = max(one - near / (1 + near) * c, two - 2 * far / (1 + far) * c)  # at least L_rho(c)
    wrong = max(one - c / (1 + near), two - 2 * c / (1 + far))  # at least L_rho(-c)
    zero = _log_bounds(Fraction(2))[0]  # at most L_rho(0)
    return far * (zero - right) + near * (zero - wrong) > 0


def root() -> tuple[Fraction, Fraction]:
    """Enclose the t > 1 with t^3 = t + 2, where the derivative of the loss on {1-, 2+} vanishes."""
    low, high = Fraction(3, 2), Fraction(8, 5)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if middle**3 < middle + 2 else (low, middle)
    return low, high


def _log_bounds(x: Fraction) -> tuple[Fraction, Fraction]:
    """Return rational numbers around log x, x > 1: partial sums of 2 artanh z, z = (x - 1)/(x + 1), and their rest."""
    z = (x - 1) / (x + 1)
    z = Fraction(int(z * 2**64), 2**64)  # rounded down, so that the numbers stay short; undone below
    total = 2 * sum((z ** (2 * k + 1) / (2 * k + 1) for k in range(_TERMS)), Fraction(0))
    rest = 2 * (z + Fraction(1, 2**64)) ** (2 * _TERMS + 1) / (1 - z) + Fraction(8, 2**64) / (1 - z)
    return total, total + rest
