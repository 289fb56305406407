"""What the adversary of a set does: weights against losses at some sizes, drawn from the project's own solver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cvxpy as cp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from dro_core import (
    AmbiguitySet,
    ConvexSet,
    MeanDiscrepancy,
    Wasserstein,
    effective_sample_size,
    gaussian_kernel,
    parse_ambiguity,
    worst_case,
)

COLOURS = ("#4477aa", "#ee6677", "#228833")
STYLE: Any = {"svg.hashsalt": "robust-rlhf", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
PROBABILITIES = (np.arange(24) + 0.5) / 24
LOSSES = -np.log1p(-PROBABILITIES)  # quantiles of an exponential distribution: most are small, a few large
SOURCES = np.array(list("aaabaabaacabaabaabcacbcc"))  # the harder, the rarer
PLACES = np.random.default_rng(3).permutation(24) / 24.0  # on a line, whatever their losses
DISTANCES = np.abs(PLACES[:, None] - PLACES)
WITHOUT_TEXT = {  # sets that hold an array, which no text can say
    "wasserstein": lambda size: Wasserstein(size, DISTANCES),
    "mean_discrepancy": lambda size: MeanDiscrepancy(size, gaussian_kernel(PLACES[:, None])),
    "convex": lambda size: ConvexSet(lambda q, p: [cp.norm(q - p, "inf") <= size]),
}


def set_of(text: str) -> AmbiguitySet:
    """The set of a text, around the 24 losses of the figures: ``tv:0.2,by=source`` or ``wasserstein:0.1``."""
    name, _, size = text.partition(":")
    if name in WITHOUT_TEXT:
        return WITHOUT_TEXT[name](float(size))
    ambiguity = parse_ambiguity(text)
    assert ambiguity is not None
    return ambiguity.bind({"source": SOURCES}) if "by=" in text else ambiguity


def draw(texts: Sequence[str], path: Path) -> str:
    """Write the figure of some sets; returns what it says in words: value and effective sample size of each."""
    said = [f"mean {LOSSES.mean():.2f}"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 2.5), layout="constrained")
        axes = figure.subplots()
        axes.axhline(1, color="0.6", linewidth=0.8)
        for k, (text, colour) in enumerate(zip(texts, COLOURS, strict=False)):
            worst = worst_case(LOSSES, set_of(text))
            shift = 0.02 * (k - (len(texts) - 1) / 2)
            axes.vlines(LOSSES + shift, 1, 24 * worst.weights, color=colour, linewidth=0.8)
            axes.plot(LOSSES + shift, 24 * worst.weights, "o", color=colour, markersize=4, label=f"{text}")
            count = float(effective_sample_size(worst.weights))
            said.append(f"{text} {float(worst.value):.2f} ({count:.1f} of 24 examples count)")
        if any("by=" in text for text in texts):
            for loss, source in zip(LOSSES, SOURCES, strict=True):
                axes.annotate(source, (loss, 0), (0, 1), ("data", "axes fraction"), "offset points", fontsize=7)
        axes.set(xlabel="loss", ylabel="weight, 1 = its share")
        figure.legend(frameon=False, loc="outside upper left", ncols=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return ", ".join(said) + "."
