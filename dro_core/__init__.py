"""The inner worst-case problem of distributionally robust optimisation, solved exactly, and what rests on it.

    max_q <q, losses>   over the distributions q in an ambiguity set around a reference p.

Give ``worst_case`` or ``robust_loss`` unreduced losses (larger is worse, scenarios on the last axis) and a
set, for example ``TotalVariation(0.2)``. Every solution carries dual variables, so ``duality_gap`` can certify
it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .inner import WorstCase, dual_objective, duality_gap, robust_loss, worst_case
from .sampling.estimators import effective_sample_size, largest_multiplier
from .sets.ambiguity import AmbiguitySet, Dual
from .sets.burg import Burg, BurgPenalty
from .sets.composed import Charged
from .sets.composition import Grouped, Trimmed
from .sets.divergences import KL, CressieRead, Hellinger
from .sets.minibatch import Minibatch, minibatch
from .sets.penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty
from .sets.sorted import ChiSquare, CVaR, Spectral, TotalVariation
from .sets.transport import Wasserstein
from .spec import parse_ambiguity

if TYPE_CHECKING:
    from .collapse.margins import margin_collapse
    from .collapse.radius import CollapseRadius, collapse_radius
    from .learn.classifier import RobustPreferenceClassifier as RobustPreferenceClassifier
    from .learn.linear import fit_linear, fit_pairs
    from .learn.optimise import AcceleratedGradient, ProjectedSubgradient, robust_smoothness
    from .robust_mdp import robust_bellman, robust_value_iteration
    from .sampling.bounds import (
        bias_bound,
        effective_sample_size_bound,
        excess_bound,
        gradient_variance_bound,
        inverse_cdf_bias_bound,
    )
    from .sampling.estimators import dual_init, dual_step, multilevel_estimate, plugin_estimate
    from .sampling.radius import radius_from_confidence
    from .sampling.shift_budget import shift_budget
    from .sets.convex import ConvexSet
    from .sets.discrepancy import MeanDiscrepancy, gaussian_kernel

# Loaded at first use: some of them need scipy, scikit-learn or cvxpy. RobustPreferenceClassifier is not in __all__,
# which must not need scikit-learn.
_LATER = {
    "AcceleratedGradient": "learn.optimise",
    "CollapseRadius": "collapse.radius",
    "ConvexSet": "sets.convex",
    "MeanDiscrepancy": "sets.discrepancy",
    "ProjectedSubgradient": "learn.optimise",
    "RobustPreferenceClassifier": "learn.classifier",
    "bias_bound": "sampling.bounds",
    "collapse_radius": "collapse.radius",
    "dual_init": "sampling.estimators",
    "dual_step": "sampling.estimators",
    "effective_sample_size_bound": "sampling.bounds",
    "excess_bound": "sampling.bounds",
    "fit_linear": "learn.linear",
    "fit_pairs": "learn.linear",
    "gaussian_kernel": "sets.discrepancy",
    "gradient_variance_bound": "sampling.bounds",
    "inverse_cdf_bias_bound": "sampling.bounds",
    "margin_collapse": "collapse.margins",
    "multilevel_estimate": "sampling.estimators",
    "plugin_estimate": "sampling.estimators",
    "radius_from_confidence": "sampling.radius",
    "robust_bellman": "robust_mdp",
    "robust_smoothness": "learn.optimise",
    "robust_value_iteration": "robust_mdp",
    "shift_budget": "sampling.shift_budget",
}

__all__ = [
    "KL",
    "AcceleratedGradient",
    "AmbiguitySet",
    "Burg",
    "BurgPenalty",
    "CVaR",
    "Charged",
    "ChiSquare",
    "ChiSquarePenalty",
    "CollapseRadius",
    "ConvexSet",
    "CressieRead",
    "CressieReadPenalty",
    "Dual",
    "Grouped",
    "Hellinger",
    "KLPenalty",
    "MeanDiscrepancy",
    "Minibatch",
    "ProjectedSubgradient",
    "Spectral",
    "TotalVariation",
    "Trimmed",
    "Wasserstein",
    "WorstCase",
    "bias_bound",
    "collapse_radius",
    "dual_init",
    "dual_objective",
    "dual_step",
    "duality_gap",
    "effective_sample_size",
    "effective_sample_size_bound",
    "excess_bound",
    "fit_linear",
    "fit_pairs",
    "gaussian_kernel",
    "gradient_variance_bound",
    "inverse_cdf_bias_bound",
    "largest_multiplier",
    "margin_collapse",
    "minibatch",
    "multilevel_estimate",
    "parse_ambiguity",
    "plugin_estimate",
    "radius_from_confidence",
    "robust_bellman",
    "robust_loss",
    "robust_smoothness",
    "robust_value_iteration",
    "shift_budget",
    "worst_case",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
