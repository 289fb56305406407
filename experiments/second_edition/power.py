"""What a comparison can show: the difference that so many pairs detect, and the pairs that equivalence needs.

Of pairs that share no prompt, at a share of pairs that only one of two arms ranks right, the *discordance*; its part of
the difference in the variance is left out, so the numbers are a little cautious.
"""

from __future__ import annotations

import math

from scipy.stats import norm

from .rules import LEVEL, POWER


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


def _z(*shares: float) -> float:
    return sum(float(norm.ppf(share)) for share in shares)
