"""One set of every kind for n scenarios: for what needs no random sets, or would be too slow for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
)

Maker = Callable[[int], AmbiguitySet]


def line(n: int) -> np.ndarray:
    """Distances of n points on a line; unevenly spread, so that no two ways cost the same."""
    at = (np.arange(n) / n) ** 2
    return np.abs(at[:, None] - at)


def three_groups(n: int) -> np.ndarray:
    return np.arange(n) % 3


SETS: dict[str, Maker] = {
    "tv": lambda n: TotalVariation(0.2),
    "tv_capped": lambda n: TotalVariation(0.3, max_ratio=2.5),
    "cvar": lambda n: CVaR(0.3),
    "spectral": lambda n: Spectral((0.1, 0.3, 0.6)),
    "chi2": lambda n: ChiSquare(0.5),
    "kl": lambda n: KL(0.3),
    "cressie_read_below_1": lambda n: CressieRead(0.5, 0.3),
    "cressie_read_above_1": lambda n: CressieRead(1.5, 0.3),
    "hellinger": lambda n: Hellinger(0.3),
    "burg": lambda n: Burg(0.3),
    "wasserstein": lambda n: Wasserstein(0.15, line(n)),
    "mean_discrepancy": lambda n: MeanDiscrepancy(0.2, np.exp(-line(n))),
    "grouped": lambda n: Grouped(TotalVariation(0.3), three_groups(n)),
    "grouped_penalty": lambda n: Grouped(ChiSquarePenalty(0.5), three_groups(n)),
    "trimmed": lambda n: Trimmed(KL(0.3), 0.1),
    "trimmed_groups": lambda n: Trimmed(Grouped(KL(0.3), three_groups(n)), 0.1),
    "kl_penalty": lambda n: KLPenalty(0.5),
    "chi2_penalty": lambda n: ChiSquarePenalty(0.5),
    "burg_penalty": lambda n: BurgPenalty(0.5),
    "cressie_read_penalty_below_1": lambda n: CressieReadPenalty(0.5, 0.5),
    "cressie_read_penalty_above_1": lambda n: CressieReadPenalty(1.5, 0.5),
    "charged_tail": lambda n: CVaR(0.3) + KLPenalty(0.5),
    "charged_variation": lambda n: TotalVariation(0.3, max_ratio=2.5) + ChiSquarePenalty(0.2),
    "charged_spectrum": lambda n: Spectral((0.1, 0.3, 0.6)) + ChiSquarePenalty(0.5),
    "charged_ball": lambda n: KL(0.3) + KLPenalty(0.5),
}
HOSTED = ("mean_discrepancy", "charged_tail", "charged_variation", "charged_spectrum")  # solved in main memory
PRICED_POWERS = ("burg_penalty", "cressie_read_penalty_below_1", "cressie_read_penalty_above_1")
POWERS = (
    "cressie_read_below_1",
    "cressie_read_above_1",
    "hellinger",
    "burg",
    *PRICED_POWERS,
)  # up to 100 steps where none may be skipped


def over(names: Iterable[str], *, rest: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Test sets by name; those of ``rest``, whose code the others share, exhaustively only."""
    rows = [pytest.param(SETS[name], id=name) for name in names]
    more = [pytest.param(SETS[name], id=name, marks=pytest.mark.exhaustive) for name in rest]
    return pytest.mark.parametrize("make", rows + more)


every_set = over(SETS)
PLACES = ("wasserstein", "mean_discrepancy")
# Where mass moves only to scenarios that have some, and n^2 distances are not too many.
every_set_without_places = over(name for name in SETS if name not in PLACES)
# What needs no look at a value, so that it stays on its device and in a graph.
every_set_in_arrays = over(name for name in SETS if name not in HOSTED)
every_quick_set = over(name for name in SETS if name not in POWERS)
