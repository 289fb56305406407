"""Why claims hold for whole families, one function for each: the reduction in words, the rest in exact arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proofs_check.proofs import layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proofs_check.proof import Proof

PROOFS: Mapping[str, Proof[Any]] = {
    "tv-gap": layers.tv_gap(),
    "plugin-underestimates": layers.plugin_underestimates(),
    "cvar-bias": layers.cvar_bias(),
    "cvar-bias-sharp": layers.cvar_bias_sharp(),
    "tv-capped-bias": layers.tv_capped_bias(),
}
