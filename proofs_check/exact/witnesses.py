"""What proves worst cases and collapse radii in certificates: searched here, believed by nobody, checked elsewhere."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from dro_core import KL, ChiSquare, worst_case
from proofs_check.exact.balance import EXACT, exact_balance
from proofs_check.exact.certificates import transport_plan
from proofs_check.exact.enclosures import feasible
from proofs_check.exact.entropies import enclosed_balance

if TYPE_CHECKING:
    from collections.abc import Sequence

    Vector = Sequence[Fraction]

_GRID = 2**64  # of dual variables: any will do
_INWARDS = 1 - Fraction(1, 2**80)  # so that another enclosure of the logarithm sees the weights in the ball too


class Found(dict[Any, Any]):
    """Witnesses by what they are of; one that is not there yet is searched."""

    def __missing__(self, key: Any) -> Any:
        name, *of = key
        self[key] = {"balance": _balance, "chi2": _chi2, "kl": _kl, "transport": transport_plan}[name](*of)
        return self[key]


def _balance(rows: Sequence[Vector], p: Vector, kind: str) -> list[list[Fraction]]:
    """Weights that balance, none if there are no such, and a direction."""
    if kind in EXACT:
        exact = exact_balance(rows, p, kind)
        return [list(exact.weights or ()), list(exact.reward)]
    scale = lcm(*(mass.denominator for mass in p))
    whole = [[int(entry) for entry in row] for row in rows]
    found = enclosed_balance(whole, [int(mass * scale) for mass in p], kind)
    return [list(found.weights or ()), list(found.reward)]


def _chi2(losses: Vector, p: Vector, radius: Fraction) -> list[Any]:
    """Weights in the ball, and a threshold of the dual."""
    q, _, threshold = _solved(losses, p, ChiSquare(float(radius)))
    return [q, threshold]


def _kl(losses: Vector, p: Vector, radius: Fraction) -> list[Any]:
    """Weights in the ball, and a temperature of the dual."""
    q, multiplier, _ = _solved(losses, p, KL(float(radius)))
    return [q, multiplier]


def _solved(losses: Vector, p: Vector, ball: ChiSquare | KL) -> tuple[list[Fraction], Fraction, Fraction]:
    """What dro_core finds: its weights drawn into the ball, its multiplier and its threshold."""
    reference = np.array([float(mass) for mass in p])
    worst = worst_case(np.array([float(loss) for loss in losses]), ball, reference=reference / reference.sum())
    q = feasible([Fraction(weight) for weight in worst.weights.tolist()], list(p), ball)
    multiplier, threshold = (Fraction(round(float(part) * _GRID), _GRID) for part in worst.dual)
    if multiplier <= 0:  # the ball holds a mass on the largest loss
        return q, Fraction(0), max(losses)
    return [mass + _INWARDS * (weight - mass) for mass, weight in zip(p, q, strict=True)], multiplier, threshold
