"""Why claims hold for whole families, one function for each: the reduction in words, the rest in exact arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proofs_check.proofs.layers import (
    cvar_bias,
    cvar_bias_sharp,
    plugin_underestimates,
    tv_capped_bias,
    tv_floor_bias,
    tv_gap,
)
from proofs_check.proofs.polynomials import (
    ball_nesting,
    difficulty_filter_is_no_worst_case,
    group_weights,
    grpo_std_is_no_worst_case,
    kl_penalty_gap,
)
from proofs_check.proofs.samples import chi2_penalty_bias, icdf_bias, tv_bias_split, tv_gradient_variance_floor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proofs_check.proof import Proof

_MADE = (
    *(tv_gap, ball_nesting, kl_penalty_gap),
    *(
        plugin_underestimates,
        cvar_bias,
        cvar_bias_sharp,
        chi2_penalty_bias,
        icdf_bias,
        tv_bias_split,
        tv_capped_bias,
        tv_floor_bias,
    ),
    tv_gradient_variance_floor,
    *(grpo_std_is_no_worst_case, difficulty_filter_is_no_worst_case, group_weights),
)
PROOFS: Mapping[str, Proof[Any]] = {make.__name__.replace("_", "-"): make() for make in _MADE}
