"""A claim that theory.md does not list: what a KL penalty adds to the mean. CONTRIBUTING uses it as its example."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from dro_core import KLPenalty
from proofs_check.claim import Claim, Curve, Instances, dyadic, mutant, shrunk, stated, swapped
from proofs_check.claims.inner.inner_problem import CORNERS, MASSES, Atoms, atoms, excess, variance


@dataclass(frozen=True)
class PricedLosses(Atoms):
    """Losses and the price of a nat."""

    temperature: float


@stated
def kl_penalty_gap() -> Claim[PricedLosses]:
    """A KL penalty adds at most an eighth of the squared range over the temperature.

    Problem: L_t = max <q, l> - t KL(q, p) = t log E exp(l/t), over all distributions q; range B = max l - min l.
    Guarantee (tight: two equal atoms, t -> infinity): 0 <= L_t - E l <= B^2 / (8 t).
    Source: Hoeffding's lemma [H63].
    Example: l = (0, 1), p = (1/2, 1/2), t = 1: log((1 + e)/2) - 1/2 = .1201 <= .125.
    """
    claim = Claim[PricedLosses](
        label="kl-penalty-gap",
        statement="0 <= L_t - E l <= (max l - min l)^2 / (8 t) for the KL penalty of temperature t",
        reference="H63",
        assumptions={**MASSES, "1/16 <= temperature <= 64": lambda x: 1 / 16 <= x.temperature <= 64},
        instances=_instances(),
        lhs=lambda x: (-_gap(x), _gap(x)),
        rhs=lambda x: (0.0, x.spread**2 / (8 * x.temperature)),
        scale=lambda x: x.spread * min(1.0, x.spread / x.temperature),
        tight=True,
        curve=Curve("temperature", tuple(PricedLosses((0.0, 1.0), (1.0, 1.0), 2.0**k) for k in range(-4, 7))),
    )
    second_order = mutant(claim, "Var/(2 t), the third moment forgotten", rhs=lambda x: (0.0, _second_order(x)))
    return claim.with_mutants(shrunk(claim), swapped(claim), second_order)


def _gap(x: PricedLosses) -> float:
    return excess(x, KLPenalty(x.temperature))


def _second_order(x: PricedLosses) -> float:
    return variance(x) / (2 * x.temperature)


def _instances() -> Instances[PricedLosses]:
    pairs = (((0.0, 1.0), (1.0, odds)) for odds in (1.0, 8.0))
    corners = tuple(PricedLosses(*pair, t) for pair in (*pairs, CORNERS[-1]) for t in (0.25, 1.0, 64.0))
    draws = st.tuples(atoms(), dyadic(1 / 16, 8)).map(lambda drawn: PricedLosses(*drawn[0], drawn[1]))
    return Instances(PricedLosses, corners, draws)
