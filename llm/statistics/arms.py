"""One arm on some pairs, alone and against another arm, as the records that reports are made of.

An arm is a set of seeds with a margin per pair. Its accuracy on a pair is the share of the seeds that rank the pair
right (a tie counts one half), so every interval is over test pairs *given these seeds*; the seeds stand beside it, one
accuracy each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr

from .intervals import Clusters, Interval, accuracy_interval, holm, paired_difference, paired_p
from .ties import credit, ties

Array = NDArray[np.float64]
LEVEL = 0.95


def accuracy_record(seeds: Mapping[int, Array], questions: Clusters) -> dict[str, object]:
    """Accuracy of an arm with its interval over test pairs, the accuracy of every seed, and the ties.

    Args:
        seeds: Seed -> margins, shape (n,).
        questions: One label per pair, as in :func:`llm.statistics.intervals.accuracy_interval`.
    """
    return {
        **limits("accuracy", accuracy_interval(share_right(seeds), questions, level=LEVEL)),
        "by_seed": {seed: float(np.mean(credit(values))) if len(values) else None for seed, values in seeds.items()},
        "ties": sum(ties(values) for values in seeds.values()),
    }


def difference_record(
    arm: Mapping[int, Array], baseline: Mapping[int, Array], questions: Clusters
) -> dict[str, object]:
    """Accuracy of an arm minus that of the baseline, pair by pair: interval, p-value, seeds, outcome."""
    # The same seeds start from the same weights and batches: compare those where both arms have them.
    shared = [seed for seed in arm if seed in baseline]
    a, b = (share_right({seed: side[seed] for seed in shared} or side) for side in (arm, baseline))
    interval = paired_difference(a, b, questions, level=LEVEL)
    return {
        **limits("difference", interval),
        "p": paired_p(a, b, questions),
        "by_seed": {
            seed: float(np.mean(credit(arm[seed]) - credit(baseline[seed]))) if len(a) else None for seed in shared
        },
        "outcome": outcome_of(interval),
    }


def outcome_of(interval: Interval) -> str:
    """What a difference says: better, worse, no difference shown, or too few pairs."""
    if np.isnan(interval.low) or np.isnan(interval.high):
        return "too few pairs"
    return "better" if interval.low > 0 else "worse" if interval.high < 0 else "no difference shown"


def share_right(seeds: Mapping[int, Array]) -> Array:
    """Per pair, the share of the seeds that rank it right; a tie counts one half."""
    return np.mean([credit(values) for values in seeds.values()], axis=0)


def length_correlation(margins: ArrayLike, lengths: ArrayLike) -> float | None:
    """Spearman's rank correlation of margins with the lengths of chosen minus rejected; None where there is none.

    >>> length_correlation([0.1, 0.2, 0.3], [1, 2, 3]), length_correlation([1, 1, 1], [1, 2, 3])
    (1.0, None)
    """
    scores, sizes = np.asarray(margins), np.asarray(lengths)
    if len(scores) < 3 or np.ptp(sizes) == 0 or np.ptp(scores) == 0:
        return None
    found: Any = spearmanr(scores, sizes)
    return float(found.statistic)


def limits(name: str, interval: Interval) -> dict[str, float]:
    """An interval as a record: its mean under ``name``, ``low`` and ``high``."""
    return {name: interval.mean, "low": interval.low, "high": interval.high}


def add_holm(records: Sequence[dict[str, Any]]) -> int:
    """Give every record the Holm-adjusted ``p_holm`` of its ``p`` within these records; returns the number of tests."""
    for record, adjusted in zip(records, holm([record["p"] for record in records]), strict=True):
        record["p_holm"] = adjusted
    return sum(not np.isnan(record["p"]) for record in records)
