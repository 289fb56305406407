"""Every claim that can be checked, in the order of theory.md section 3."""

from __future__ import annotations

from typing import Any

from proofs_check.claim import Claim
from proofs_check.inner_problem import ball_nesting, chi2_variance, radius_concave, tv_gap
from proofs_check.minibatch import cvar_bias, plugin_underestimates, tv_bias_root_n, tv_bias_split

CLAIMS: tuple[Claim[Any], ...] = (
    radius_concave(),
    tv_gap(),
    chi2_variance(),
    ball_nesting(),
    plugin_underestimates(),
    cvar_bias(),
    tv_bias_split(),
    tv_bias_root_n(),
)
