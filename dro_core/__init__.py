"""The inner worst-case problem of distributionally robust optimisation, solved exactly.

    max_q <q, losses>   over the distributions q in an ambiguity set around a reference p.
 Give ``worst_case`` or ``robust_loss`` unreduced losses (larger is worse, scenarios on the last axis) and a
set: ``TotalVariation``, ``CVaR``, ``ChiSquare`` or ``KL``. Every solution carries dual variables, so
``duality_gap`` can certify it.
"""

from .estimators import effective_sample_size, largest_multiplier
from .inner import WorstCase, dual_objective, duality_gap, robust_loss, worst_case
from .sets import KL, AmbiguitySet, ChiSquare, CVaR, Dual, TotalVariation
from .spec import parse_ambiguity

__all__ = [
    "KL",
    "AmbiguitySet",
    "CVaR",
    "ChiSquare",
    "Dual",
    "TotalVariation",
    "WorstCase",
    "dual_objective",
    "duality_gap",
    "effective_sample_size",
    "largest_multiplier",
    "parse_ambiguity",
    "robust_loss",
    "worst_case",
]
