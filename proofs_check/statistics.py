"""Confidence limits for simulated sides, from one error budget over the whole registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synthetic import Estimate, mean_estimate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FAMILY_ERROR = 1e-3  # the chance that a run of all claims refutes a true one because of its draws
MOST_CLAIMS = 64  # shares of that budget: one per claim, of which at most so many are statistical


def comparison_error(tests: int) -> float:
    """Return the error left to each of the comparisons that one claim makes (Bonferroni).

    Example:
        >>> round(comparison_error(10) * MOST_CLAIMS * 10, 12)
        0.001
    """
    if tests < 1:
        raise ValueError(f"tests must be at least 1, got {tests}: count every interval of every instance.")
    return FAMILY_ERROR / MOST_CLAIMS / tests


def claim_estimate(draws: ArrayLike, *, tests: int, bounds: tuple[float, float] | None = None) -> Estimate:
    """Estimate a mean for a side of a claim that makes ``tests`` comparisons in all; see ``mean_estimate``."""
    return mean_estimate(draws, comparison_error(tests), bounds=bounds)
