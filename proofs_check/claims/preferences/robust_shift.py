"""Claims about what a robust Bradley-Terry fit buys when prompts or labels shift (theory.md, `robust-shift-gain`).

Two balls are told apart throughout. Over *pairs*, the adversary reweights (prompt, label) atoms, as an algorithm that
reweights the losses of observed pairs does: it can turn labels. Over *prompts* it leaves the labels of a prompt as
they fall: a covariate shift. What is found: in the population the gain in worst-case loss is true by definition, and
the robust fit is the plain fit to one mixture of the ball; "no loss if the model is well specified" is true over
prompts and false over pairs; and from finitely many pairs the gain can be negative even where the population's is
positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import minimize  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation
from proofs_check.claim import Array, Assumptions, Claim, Instances, Relation, dyadic, mutant, stated, swapped
from synthetic.pairs.populations import FinitePopulation, linear_population
from synthetic.pairs.shifts import total_variation

_PRECISION = 1e-12  # of the fits, relative; the claims are held to 1e-8 nats


@dataclass(frozen=True)
class Shifted:
    """A population whose rewards need not be linear, a ball, and a test distribution inside it.

    Attributes:
        differences: of k prompts with two features each, row after row.
        masses: proportional to those of the prompts.
        first: P(first answer preferred), in (0, 1).
        target: proportional to the prompt masses that the shift moves towards.
        radius: of total variation; the test mixture is as near to the target as that allows.
        moves: what the ball is over, "pairs" or "prompts".
    """

    differences: tuple[float, ...]
    masses: tuple[float, ...]
    first: tuple[float, ...]
    target: tuple[float, ...]
    radius: float
    moves: str

    @property
    def population(self) -> FinitePopulation:
        """Where to train."""
        masses = np.array(self.masses)
        return FinitePopulation(np.array(self.differences).reshape(-1, 2), masses / masses.sum(), np.array(self.first))

    @property
    def test(self) -> FinitePopulation:
        """Where to test: the segment from the training masses to the target, as far as the ball reaches."""
        population, target = self.population, np.array(self.target) / sum(self.target)
        reach = total_variation(population.masses, target)
        share = min(1.0, self.radius / reach) if reach > 0 else 0.0
        return population.with_masses((1 - share) * population.masses + share * target)

    @property
    def ball(self) -> AmbiguitySet:
        """The ambiguity set."""
        ball = TotalVariation(self.radius)
        return ball if self.moves == "pairs" else self.population.by_prompt(ball)


@stated
def robust_shift_gain() -> Claim[Shifted]:
    """What robustness buys in the population, whatever the true reward.

    Problem: w_rho minimises L_rho(w) = max E_q l(w) over the ball, w_ERM minimises E_p l.
    Guarantee (upper; exact for the last): L_rho(w_rho) <= L_rho(w_ERM), by definition; so no mixture q of the ball, p
        included, costs w_rho more than the worst one costs w_ERM; and by the minimax theorem one q* of the ball has
        min_w E_q* l(w) = L_rho(w_rho): the robust fit is the plain fit to q*, and there as good as w_ERM or better.
        It is not better on every mixture of the ball, and never on p: those are mutants.
    Source: the words of 2503.00539; theory.md section 3, `robust-shift-gain`.
    Example: two prompts with the same difference 1 and P(first) = 3/4 and 1/4, masses 3/4 and 1/4, ball over prompts
        with rho = 1/4: w_rho = 0 with worst case log 2 = .693, w_ERM = log(5/3) with .725.
    """

    def robust(x: Shifted) -> tuple[float, float, float]:
        fit = x.population.minimiser(x.ball, tolerance=_PRECISION)
        return fit.value, x.test.mean_loss(fit.coefficients), fit.value

    def plain(x: Shifted) -> tuple[float, float, float]:
        worst = float(x.population.worst_case(_erm(x.population), x.ball).value)
        adversary = x.population.minimiser(x.ball, tolerance=_PRECISION).weights
        return worst, worst, _least_loss(x.population, adversary)

    def on_test(x: Shifted) -> tuple[float, float, float]:
        return np.inf, x.test.mean_loss(_erm(x.population)), np.inf

    claim = Claim[Shifted](
        label="robust-shift-gain",
        statement="L_rho(w_rho) <= L_rho(w_ERM), E_q l(w_rho) <= L_rho(w_ERM) in the ball, and w_rho fits one q* of it",
        reference="2503.00539, as read",
        assumptions=_SHIFTED,
        instances=Instances(Shifted, _CORNERS, _shifts()),
        lhs=robust,
        rhs=plain,
        scale=lambda x: 1.0,
        effort=0.1,
    )
    everywhere = mutant(claim, "better on the mixture at hand", rhs=on_test)
    free = mutant(
        claim,
        "better without a shift",
        lhs=lambda x: x.population.mean_loss(x.population.minimiser(x.ball, tolerance=_PRECISION).coefficients),
        rhs=lambda x: x.population.mean_loss(_erm(x.population)),
    )
    return claim.with_mutants(everywhere, free, swapped(claim))


@dataclass(frozen=True)
class WellSpecified:
    """A population with the linear reward <weights, .>, and a set of one of four kinds over prompts."""

    differences: tuple[float, ...]
    masses: tuple[float, ...]
    weights: tuple[float, float]
    strength: float
    kind: str

    @property
    def population(self) -> FinitePopulation:
        """Where to train."""
        masses = np.array(self.masses)
        return linear_population(np.array(self.differences).reshape(-1, 2), masses / masses.sum(), self.weights)

    @property
    def inner(self) -> AmbiguitySet:
        """The set, from `strength` in [0, 1]."""
        sets = {"tv": TotalVariation, "chi2": ChiSquare, "kl": KL}
        return CVaR(1 - self.strength / 2) if self.kind == "cvar" else sets[self.kind](self.strength)


@stated
def robust_shift_parity() -> Claim[WellSpecified]:
    """Without misspecification nothing is lost, and nothing gained, if only prompts shift.

    Problem: P(+1 | x) = sigmoid(<w*, x>); a set of distributions over prompts, labels given a prompt untouched.
    Guarantee (exact): min_w L_rho(w) = L_rho(w*) = L_rho(w_ERM), for every set. Proof: w* minimises the mean loss of
        every single prompt, hence every mixture of them, hence the maximum over mixtures.
    Source: the words of 2503.00539 made exact; derived. Over pairs it is false: `robust-shift-labels`.
    Example: two prompts, differences (1, 0) and (0, 1), any masses: the fit is w* for every radius.
    """

    def least(x: WellSpecified, population: FinitePopulation | None = None) -> float:
        chosen = population or x.population
        return chosen.minimiser(chosen.by_prompt(x.inner), tolerance=_PRECISION).value

    def at_truth(x: WellSpecified, ambiguity: AmbiguitySet | None = None) -> float:
        return float(x.population.worst_case(x.weights, ambiguity or x.population.by_prompt(x.inner)).value)

    square, labels = (1.0, 0.0, 0.0, 1.0), (1.0, -0.5)
    claim = Claim[WellSpecified](
        label="robust-shift-parity",
        statement="with a linear true reward and a set over prompts, min_w L_rho(w) = L_rho(w_ERM)",
        reference="2503.00539, as read; derived",
        assumptions={
            "two features, one mass per prompt": lambda x: len(x.differences) == 2 * len(x.masses),
            "masses positive": lambda x: min(x.masses) > 0,
            "0 <= strength <= 1": lambda x: 0 <= x.strength <= 1,
            "the differences span the plane": lambda x: _spans(x.differences),
        },
        instances=Instances(
            WellSpecified,
            tuple(WellSpecified((*square, 1.0, 1.0), (1.0, 1.0, 2.0), labels, 0.25, kind) for kind in _KINDS),
            _well_specified(),
        ),
        lhs=least,
        rhs=at_truth,
        scale=lambda x: 1.0,
        relation=Relation.EQUAL,
        effort=0.2,
    )
    over_pairs = mutant(
        claim,
        "labels shift too",
        lhs=lambda x: x.population.minimiser(x.inner, tolerance=_PRECISION).value,
        rhs=lambda x: at_truth(x, x.inner),
    )
    noisy = mutant(claim, "labels turned in one of ten", lhs=lambda x: least(x, x.population.with_noise(0.1)))
    return claim.with_mutants(over_pairs, noisy)


_KINDS = ("tv", "cvar", "chi2", "kl")


def _erm(population: FinitePopulation) -> Array:
    return population.minimiser(tolerance=_PRECISION).coefficients


def _least_loss(population: FinitePopulation, weights: Array) -> float:
    """min_w of the mean loss under other weights of the atoms, by BFGS: independent of the fit that chose them."""
    atoms = population.atoms

    def objective(w: Array) -> tuple[float, Array]:
        return float(weights @ population.losses(w, atoms)), weights @ population.gradients(w, atoms)

    found = cast("Any", minimize(objective, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9}))
    return float(found.fun)


def _spans(differences: tuple[float, ...]) -> bool:
    """The plane, and not nearly only a line, on which the parameters would not be determined."""
    return bool(np.linalg.svd(np.array(differences).reshape(-1, 2), compute_uv=False)[-1] >= 1 / 4)


_SHIFTED: Assumptions[Shifted] = {
    "two features; one mass, probability and target per prompt": lambda x: (
        len(x.differences) == 2 * len(x.masses) == 2 * len(x.first) == 2 * len(x.target)
    ),
    "masses positive": lambda x: min(x.masses) > 0 and min(x.target) >= 0 and sum(x.target) > 0,
    "1/16 <= first <= 15/16": lambda x: min(x.first) >= 1 / 16 and max(x.first) <= 15 / 16,
    "0 <= radius <= 1": lambda x: 0 <= x.radius <= 1,
    "the differences span the plane": lambda x: _spans(x.differences),
}
_CORNERS = tuple(
    Shifted((1.0, 0.0, 1.0, 0.0, 0.0, 1.0), (3.0, 1.0, 4.0), (0.75, 0.25, 0.625), target, 0.25, moves)
    for target in ((1.0, 3.0, 4.0), (4.0, 0.0, 4.0))
    for moves in ("prompts", "pairs")
)


def _shifts() -> st.SearchStrategy[Shifted]:
    def of_length(k: int) -> st.SearchStrategy[Shifted]:
        def each(low: float, high: float) -> st.SearchStrategy[tuple[float, ...]]:
            return st.tuples(*[dyadic(low, high)] * k)

        differences = st.tuples(*[dyadic(-2, 2, steps=16)] * (2 * k))
        kinds = st.sampled_from(("pairs", "prompts"))
        masses, targets = each(1 / 16, 2), each(0, 2)
        return st.builds(Shifted, differences, masses, each(1 / 8, 7 / 8), targets, dyadic(0, 0.75), kinds)

    return st.integers(2, 4).flatmap(of_length)


def _well_specified() -> st.SearchStrategy[WellSpecified]:
    def of_length(k: int) -> st.SearchStrategy[WellSpecified]:
        differences = st.tuples(*[dyadic(-2, 2, steps=16)] * (2 * k))
        masses, weights = st.tuples(*[dyadic(1 / 16, 2)] * k), st.tuples(*[dyadic(-1.5, 1.5)] * 2)
        return st.builds(WellSpecified, differences, masses, weights, dyadic(0, 1), st.sampled_from(_KINDS))

    return st.integers(2, 4).flatmap(of_length)
