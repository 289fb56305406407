"""The real pairs of the study on whole prompts: features of its tuned backbone, and what they bear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dro_core import collapse_radius
from llm.data.pairs import Pair, read_pairs
from llm.data.questions import asked

from ..robustness.whole_prompts import NAME, seen

SETS = ("tv", "cvar", "chi2", "kl")


def features(folder: Path, file: str = "train") -> tuple[np.ndarray, list[Pair]]:
    """Features of the chosen answers less those of the rejected ones, and the pairs of the file they belong to."""
    pairs = read_pairs(folder / NAME / "told-apart" / f"{file}.jsonl").pairs
    [rows] = [differences for name, differences, _ in seen(folder) if name == file]
    return rows, pairs


def table(rows: np.ndarray, pairs: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    """In sample, for random labels and held out, over pairs, groups and prompts."""
    clusters = [asked(pair.prompt) for pair in pairs]
    gaps = np.array([abs(len(pair.chosen) - len(pair.rejected)) for pair in pairs])
    fifths = np.searchsorted(np.quantile(gaps, [0.2, 0.4, 0.6, 0.8]), gaps)
    groupings = {
        "pairs": None,
        "prompts": clusters,
        "7 sources": [pair.source for pair in pairs],
        "fifths of the length gap": fifths.tolist(),
        "sources x fifths": [f"{pair.source} {fifth}" for pair, fifth in zip(pairs, fifths, strict=True)],
    }
    yield ("the adversary weighs", "set", "in sample", "random labels", "held out")
    for name, labels in groupings.items():
        for kind in SETS:
            found = collapse_radius(rows, kind, groups=labels, clusters=clusters)
            low, high = found.interval
            vacuous = " (vacuous)" if found.vacuous else ""
            yield (
                name, f"`{kind}`", f"{found.radius:.3f}{vacuous}", f"{np.median(found.null):.3f}",
                f"{found.held_out:.3f} [{low:.3f}, {high:.3f}]",
            )  # fmt: skip
