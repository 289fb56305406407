"""What a comparison can show: the difference that so many pairs detect, and the pairs that equivalence needs.

Of pairs that share no prompt, at a share of pairs that only one of two arms ranks right, the *discordance*; its part of
the difference in the variance is left out, so the numbers are a little cautious.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from scipy.stats import norm

from .hypotheses import BLIND, HYPOTHESES, tests_of
from .rules import LEVEL, POWER, Comparison

PAIRS: Mapping[str, int] = {
    "test": 4004, "Chat": 797, "Chat-Hard": 418, "Reasoning": 1715, "average": 1916, "shifted": 3287, "minority": 400,
}  # fmt: skip
"""By place, how many pairs of equal weight say as much as there are: n, or (sum w)^2 / sum w^2."""
DISCORDANCES = (0.1, 0.2, 0.3)


def detectable(pairs: float, discordance: float, *, tests: int = 1) -> float:
    """The difference in accuracy that a two-sided test detects with probability POWER.

    Args:
        pairs: That are judged.
        discordance: Share of them that one arm alone ranks right.
        tests: In the family; the first step of Holm's procedure divides LEVEL by it.
    """
    return _z(1 - LEVEL / (2 * tests), POWER) * math.sqrt(discordance / pairs)


def pairs_for_equivalence(margin: float, discordance: float) -> float:
    """How many pairs two one-sided tests need, to show with POWER that two equal arms differ by less than ``margin``.

    Both tests must come out, so each may fail with half of 1 - POWER.
    """
    return _z(1 - LEVEL, (1 + POWER) / 2) ** 2 * discordance / margin**2


def equivalence_margin(pairs: float, discordance: float) -> float:
    """The margin that two one-sided tests show with POWER, where the arms are equal."""
    return _z(1 - LEVEL, (1 + POWER) / 2) * math.sqrt(discordance / pairs)


class Stated(NamedTuple):
    """What comparisons of a hypothesis at a place can show, at DISCORDANCES.

    Attributes:
        hypothesis: Its name.
        kind: Of the comparisons.
        where: The place.
        pairs: See PAIRS.
        shows: Differences (of *lost*, beyond the margin) that the first step of Holm's procedure detects, or margins of
            equivalence.
    """

    hypothesis: str
    kind: str
    where: str
    pairs: int
    shows: tuple[float, ...]


def stated() -> Iterator[Stated]:
    """The power of every kind of comparison in every place, fixed before anything is trained."""
    for one in (*HYPOTHESES, BLIND):
        tests = [test for test in tests_of(one) if isinstance(test, Comparison) and test.kind != "norm"]
        family = max(sum(test.kind in ("more", "lost") for test in tests), 1)
        for kind, where in dict.fromkeys((test.kind, test.where) for test in tests):
            pairs, signed = PAIRS[where], kind in ("more", "lost")
            shows = (
                detectable(pairs, share, tests=family) if signed else equivalence_margin(pairs, share)
                for share in DISCORDANCES
            )
            yield Stated(one.name, kind, where, pairs, tuple(shows))


def _z(*shares: float) -> float:
    return sum(float(norm.ppf(share)) for share in shares)
