"""Sets and populations on which the bounds are tried, and how much rounding they are allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from dro_core import (
    KL,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    KLPenalty,
    Spectral,
    TotalVariation,
)

SLACK = 1e-9  # rounding, of the range


def sixty_fourths(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda k: k / 64)


LEVELS = sixty_fourths(1, 64)
RADII = sixty_fourths(0, 256)
ORDERS = st.sampled_from([1.125, 1.5, 1.875, 2.0, 2.5, 3.0])
SPECTRA = st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any)
BOUNDED = {  # sets with a bias bound that falls with n
    "cvar": LEVELS.map(CVaR),
    "tv_capped": st.builds(TotalVariation, sixty_fourths(0, 64), st.sampled_from([1.0, 1.25, 2.0, 8.0, 1e6])),
    "spectral": SPECTRA.map(lambda s: Spectral(tuple(np.sort(s) / np.sum(s)))),
    "chi2": RADII.map(ChiSquare),
    "kl": RADII.map(KL),
    "cressie_read": st.builds(CressieRead, ORDERS, RADII),
    "chi2_penalty": sixty_fourths(1, 256).map(ChiSquarePenalty),
    "kl_penalty": sixty_fourths(1, 256).map(KLPenalty),
    "cressie_read_penalty": st.builds(CressieReadPenalty, ORDERS, sixty_fourths(1, 256)),
    "charged_tail": st.builds(lambda alpha, price: CVaR(alpha) + KLPenalty(price), LEVELS, sixty_fourths(1, 256)),
    "charged_variation": st.builds(
        lambda radius, price: TotalVariation(radius, 4) + ChiSquarePenalty(price),
        sixty_fourths(0, 64),
        sixty_fourths(1, 256),
    ),
    "charged_kl": st.builds(lambda radius, price: KL(radius) + KLPenalty(price), RADII, sixty_fourths(1, 256)),
}
every_family = pytest.mark.parametrize("sets", BOUNDED.values(), ids=BOUNDED)


@st.composite
def populations(draw: st.DrawFn, most: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Losses with range exactly 1 and their masses, some of them rare."""
    k = draw(st.integers(2, most))
    inner = draw(st.lists(sixty_fourths(0, 64), min_size=k - 2, max_size=k - 2))
    masses = np.array(draw(st.lists(st.sampled_from([1.0, 8.0, 64.0]), min_size=k, max_size=k)))
    return np.array([0.0, 1.0, *inner]), masses / masses.sum()


def variance_of(losses: np.ndarray, masses: np.ndarray) -> float:
    return float(masses @ (losses - masses @ losses) ** 2)


def longest(k: int) -> int:
    """Draws for which every minibatch of k values is enumerated in milliseconds."""
    return {2: 64, 3: 12, 4: 6}[k]
