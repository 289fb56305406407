"""Study `reward`: Algorithm 1, robust reward estimation by projected subgradient steps, against its guarantee."""

from __future__ import annotations

from functools import partial

from .descent import evaluate, panels, points
from .study import Study

STUDY = Study(
    name="reward",
    version=1,
    title="Algorithm 1, robust reward estimation: gap to the certified optimum",
    about=(
        "Projected subgradient steps on minibatch worst-case weights, for a population of known optimum. The "
        "gap of the average iterate falls with T until the bias of minibatches of n is left: a floor that falls with "
        "n, but for plain total variation not in general. Seeds redraw the minibatches, not the population; every seed "
        "averages 8 runs. Every T has a run of its own, with step size R/(G sqrt T)."
    ),
    options=("ambiguity", "n", "steps", "radius", "dimension"),
    seeds=(4, 8),
    points=partial(points, algorithm="reward"),
    evaluate=evaluate,
    panels=panels,
)
