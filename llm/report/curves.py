"""What margins say beyond right and wrong: calibration, the tail of the losses, and the error under shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from dro_core import CVaR, robust_loss

from ..statistics.arms import LEVEL, Array, share_right
from ..statistics.intervals import Clusters
from ..statistics.shift_bounds import SHIFTS, error_limit
from ..statistics.ties import credit

BINS = 10
SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
RADII = {"total variation": np.linspace(0.0, 0.6, 25), "chi-square": np.linspace(0.0, 3.0, 31)}

Rows = list[dict[str, Any]]


def reliability(margins: ArrayLike) -> Rows:
    """Confidence against accuracy in ten equal bins of confidence from 1/2 to 1; empty bins are left out.

    The model prefers one answer with probability sigmoid(|margin|), its confidence; it is right where the margin is
    positive, half right where it is 0. A calibrated model is right as often as it is confident.

    Args:
        margins: Shape (n,).

    Returns:
        One row per bin: ``confidence`` and ``accuracy`` (averages over its pairs) and ``pairs``.

    >>> reliability([3.0, 3.0, -3.0])[0]["accuracy"].__round__(3)
    0.667
    """
    values = np.asarray(margins, dtype=np.float64)
    confidence = expit(np.abs(values))
    bins = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    members = [bins == number for number in range(BINS)]
    return [
        {
            "confidence": float(confidence[rows].mean()),
            "accuracy": float(np.mean(credit(values[rows]))),
            "pairs": int(rows.sum()),
        }
        for rows in members
        if rows.any()
    ]


def calibration_error(rows: Rows) -> float | None:
    """Expected calibration error: the average over pairs of |accuracy - confidence| of their bin; None without pairs.

    With few pairs it is above zero for a calibrated model too, by about the noise of the bins' accuracies.

    >>> round(calibration_error(reliability([3.0, 3.0, -3.0])), 3)  # sigmoid(3) - 2/3
    0.286
    """
    pairs = sum(row["pairs"] for row in rows)
    return sum(row["pairs"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / pairs if pairs else None


def tail_losses(seeds: Mapping[int, Array]) -> Rows:
    """Mean Bradley-Terry loss of the worst share of the pairs, by share, averaged over seeds; share 1 is the mean."""
    losses = np.stack([np.logaddexp(0.0, -values) for values in seeds.values()])
    found = {share: robust_loss(losses, CVaR(share)) for share in SHARES if share * losses.shape[1] >= 1}
    return [{"share": share, "loss": float(np.mean(values))} for share, values in found.items()]


def shift_bounds(seeds: Mapping[int, Array], questions: Clusters, *, confidence: float = LEVEL) -> dict[str, object]:
    """Upper bounds for the error under every shift of total variation or chi-square up to a radius.

    Returns:
        ``error``, ``limit``, ``units`` and ``method`` as of ``shift_bounds.ErrorLimit``, and ``rows``: ``shift``,
        ``radius`` and ``bound``.
    """
    found = error_limit(1.0 - share_right(seeds), questions, confidence=confidence)
    rows = [
        {"shift": shift, "radius": float(radius), "bound": float(bound)}
        for shift, formula in SHIFTS.items()
        for radius, bound in zip(RADII[shift], formula(found.limit, RADII[shift]), strict=True)
    ]
    return {**found._asdict(), "rows": rows}


def pooled(margins: Sequence[Mapping[int, Array]]) -> dict[int, Array]:
    """Margins of several suites end to end, for the seeds that have them all."""
    seeds = set.intersection(*(set(of) for of in margins)) if margins else set()
    return {seed: np.concatenate([of[seed] for of in margins]) for seed in sorted(seeds)}
