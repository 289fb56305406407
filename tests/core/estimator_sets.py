"""Sets on which the estimates are tried."""

from __future__ import annotations

import pytest

from dro_core import KL, ChiSquare, ChiSquarePenalty, CVaR, KLPenalty, Spectral, TotalVariation

CAPPED, PLAIN = TotalVariation(0.3, max_ratio=3), TotalVariation(0.3)
UNBIASED = [CVaR(0.3), CAPPED, TotalVariation(0.5, max_ratio=1.5), Spectral((0.1, 0.2, 0.7))]
UNBIASED += [ChiSquarePenalty(0.4), ChiSquarePenalty(5.0), KLPenalty(0.6)]
EVERY = [*UNBIASED, PLAIN, ChiSquare(0.5), KL(0.3)]
every_set = pytest.mark.parametrize("ambiguity", EVERY, ids=str)
every_dual = pytest.mark.parametrize("ambiguity", UNBIASED, ids=str)
