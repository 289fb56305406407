"""Sets whose worst-case weights move with the losses, and the Hessian of their value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    CressieRead,
    Grouped,
    KLPenalty,
    MeanDiscrepancy,
    Trimmed,
    robust_loss,
)

from .examples import SETS, Maker, line, over, three_groups

N = 7
CURVED: dict[str, Maker] = {  # whose weights move
    **{name: SETS[name] for name in ("chi2", "kl", "cressie_read_below_1", "cressie_read_above_1", "hellinger")},
    **{name: SETS[name] for name in ("kl_penalty", "chi2_penalty", "mean_discrepancy", "trimmed", "trimmed_groups")},
    **{name: SETS[name] for name in ("burg", "burg_penalty", "cressie_read_penalty_below_1", "charged_ball")},
    "entmax": SETS["cressie_read_penalty_above_1"],
    "charged_and_bound": lambda n: KL(0.05) + KLPenalty(0.1),
    "cubic": lambda n: CressieRead(3, 0.4),
    "chi2_sparse": lambda n: ChiSquare(1.5),
    "grouped_chi2": lambda n: Grouped(ChiSquare(0.2), three_groups(n)),
    "grouped_trimmed": lambda n: Grouped(Trimmed(KLPenalty(0.4), 0.3), three_groups(n)),
    "wide_discrepancy": lambda n: MeanDiscrepancy(0.6, np.exp(-line(n))),
}
FLAT = ["tv", "tv_capped", "cvar", "spectral", "wasserstein", "grouped"]
every_homogeneous_set = over(name for name in SETS if "penalty" not in name and "charged" not in name)
every_curved_set = pytest.mark.parametrize("make", CURVED.values(), ids=CURVED)


def generic(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def masses(n: int) -> torch.Tensor:
    """One of them zero."""
    reference = torch.softmax(generic(n, seed=5), 0)
    reference[2] = 0.0
    return reference / reference.sum()


def hessian(ambiguity: AmbiguitySet, losses: torch.Tensor, **how: Any) -> torch.Tensor:
    found: Any = torch.autograd.functional.hessian(lambda row: robust_loss(row, ambiguity, **how), losses)
    return found
