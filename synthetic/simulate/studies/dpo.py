"""Study `dpo`: Algorithm 3, robust direct preference optimisation of a log-linear policy, against its guarantee."""

from __future__ import annotations

from functools import partial

from .descent import evaluate, panels, points
from .study import Study

STUDY = Study(
    name="dpo",
    version=1,
    title="Algorithm 3, robust DPO: gap to the certified optimum",
    about=(
        "Projected subgradient steps on minibatch worst-case weights of the DPO loss, for a log-linear policy that "
        "starts at its reference, on a population of known optimum. It is Algorithm 1 with margins scaled by beta: at "
        "beta = 0.1 the curves are those of `reward`, and at one radius of the ball G R/sqrt(T) is proportional to "
        "beta, up to a factor of 2. Seeds redraw the minibatches, not the population; every seed averages 8 runs. "
        "Every T has a run of its own, with step size R/(G sqrt T)."
    ),
    options=("ambiguity", "n", "steps", "radius", "dimension"),
    seeds=(4, 8),
    points=partial(points, algorithm="dpo"),
    evaluate=evaluate,
    panels=panels,
)
