"""Sets by a size between 0 and 1, which may be a number or an array of one per problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Grouped,
    Hellinger,
    KLPenalty,
    MeanDiscrepancy,
    TotalVariation,
    Trimmed,
    Wasserstein,
)

from .examples import line, three_groups

N = 7
Sized = Callable[[Any], AmbiguitySet]
# By a size between 0 and 1.
SIZED: dict[str, Sized] = {
    "tv": TotalVariation,
    "tv_capped": lambda size: TotalVariation(size, max_ratio=2.5),
    "tv_fixed": lambda size: TotalVariation(size, max_ratio=1),
    "cvar": lambda size: CVaR(1 - 0.9 * size),
    "chi2": lambda size: ChiSquare(2 * size),
    "kl": KL,
    "cressie_read_below_1": lambda size: CressieRead(0.5, 5 * size),
    "cressie_read_above_1": lambda size: CressieRead(1.5, size),
    "cubic": lambda size: CressieRead(3, 4 * size),
    "hellinger": Hellinger,
    "wasserstein": lambda size: Wasserstein(size, line(N)),
    "mean_discrepancy": lambda size: MeanDiscrepancy(size, np.exp(-line(N))),
    "burg": lambda size: Burg(3 * size),
    "burg_penalty": lambda size: BurgPenalty(size + 0.01),
    "entmax": lambda size: CressieReadPenalty(1.5, size + 0.01),
    "root_penalty": lambda size: CressieReadPenalty(0.5, size + 0.01),
    "grouped": lambda size: Grouped(KL(size), three_groups(N)),
    "grouped_tails": lambda size: Grouped(CVaR(1 - 0.9 * size), three_groups(N)),
    "trimmed": lambda size: Trimmed(ChiSquare(size), 0.1),
    "kl_penalty": lambda size: KLPenalty(size + 0.01),
    "chi2_penalty": lambda size: ChiSquarePenalty(size + 0.01),
    "grouped_penalty": lambda size: Grouped(KLPenalty(size + 0.01), three_groups(N)),
}
every_size = pytest.mark.parametrize("make", SIZED.values(), ids=SIZED)


def close(ours: Any, theirs: Any, *, atol: float = 1e-11) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=atol)
