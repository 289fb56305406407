"""Study `npg`: natural policy gradient on the worst-case mixture of prompts, against the plain one."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

from dro_core import parse_ambiguity

from ...bandits.mdp import TabularMDP, garnet, prompts
from ...bandits.natural_gradient import natural_policy_gradient, worst_value
from ...bandits.policies import LogLinearPolicy, TabularPolicy
from ..curves import curve
from ..figures import Panel
from .study import Choices, Study, allowed, distinct, unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...bandits.policies import PolicyClass
    from ..grid import Record, Scalar

_SETS = ("tv:0.2", "cvar:0.3")
_CASES = {
    "tabular": "tabular policy in a random MDP: 8 states, 4 actions, discount 0.8",
    "realizable": "log-linear policy, reward linear in its 3 features: 8 prompts, 4 answers",
    "misspecified": "log-linear policy, reward not linear in its 3 features: 8 prompts, 4 answers",
}
_PROMPTS, _ANSWERS, _FEATURES, _DISCOUNT = 8, 4, 3, 0.8
_STEP_SIZE = 1.0
_T, _LACKING = "number of steps t", "worst-case value lacking (units of reward)"
_GAIN, _PAIRED = "plain - robust (units of reward)", "misspecified; above 0 robust is better; problem by problem"
_THEORY = "log|A|/(eta T) + 1/((1-gamma)^2 T)"


def points(choices: Choices) -> list[Mapping[str, Scalar]]:
    """Every set in every case, judged by that set, with its own weights and with plain ones; over the radius too."""
    sets = allowed(choices.ambiguity or _SETS, "npg", erm=False)  # the plain method is always run
    steps = choices.steps or (1024 if choices.full else 128)

    def point(case: str, spec: str, method: str) -> dict[str, Scalar]:
        return {"case": case, "ambiguity": spec, "method": method, "T": steps}

    methods = ("plain", "robust")
    grid = [point(case, spec, method) for case in _CASES for spec in sets for method in methods]
    return unique(grid + [point("misspecified", f"tv:{radius:g}", m) for radius in _radii(choices) for m in methods])


def _radii(choices: Choices) -> tuple[float, ...]:
    return choices.radius or (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def problem(case: str, seed: int) -> tuple[TabularMDP, PolicyClass]:
    """A random problem, rewards in [0, 1], and the policies to choose from; the seed fixes both.

    Example:
        >>> mdp, policies = problem("realizable", 0)
        >>> mdp.shape, policies.size, float(mdp.rewards.min()), float(mdp.rewards.max())
        ((8, 4), 3, 0.0, 1.0)
    """
    rng = np.random.default_rng([seed, list(_CASES).index(case)])
    if case == "tabular":
        return garnet(_PROMPTS, _ANSWERS, 3, _DISCOUNT, rng), TabularPolicy(_PROMPTS, _ANSWERS)
    features = rng.standard_normal((_PROMPTS, _ANSWERS, _FEATURES))
    rewards = features @ rng.standard_normal(_FEATURES)
    if case == "misspecified":
        rewards = rewards + 2 * rng.standard_normal(rewards.shape)
    rewards = (rewards - rewards.min()) / np.ptp(rewards)
    return prompts(rewards), LogLinearPolicy(features)


def evaluate(point: Mapping[str, Any], seed: int) -> list[Record]:
    """Worst-case values along the run, as what they lack to the best policy of all, in units of reward."""
    mdp, policies = problem(point["case"], seed)
    judge, steps = parse_ambiguity(point["ambiguity"]), point["T"]
    assert judge is not None
    run = natural_policy_gradient(
        mdp, policies, steps=steps, step_size=_STEP_SIZE, ambiguity=judge if point["method"] == "robust" else None
    )
    best = mdp.optimal_values()
    path = run.trajectory(judge, float(worst_value(best, judge, mdp.start)))
    mean = mdp.start @ best - run.values
    return [
        {
            "t": t,
            # The best policy is best in every state, so that only rounding can make what is lacking negative.
            "worst_gap": max(float(path.iterate_gaps[t]), 0.0),
            "average_worst_gap": max(float(path.gaps[t - 1]), 0.0),
            "mean_gap": max(float(mean[t]), 0.0),
            "bound": _bound(t) if point["case"] == "tabular" else None,
            "radius": getattr(judge, "radius", None),
        }
        for t in sorted({2**k for k in range(steps.bit_length())} | {steps})
    ]


def _bound(t: int) -> float:
    """Of the last iterate from the uniform policy [AKLM21, Theorem 5.3]; from every start, so of the worst mixture."""
    return log(_ANSWERS) / (_STEP_SIZE * t) + 1 / ((1 - _DISCOUNT) ** 2 * t)


def panels(rows: Sequence[Record], choices: Choices) -> list[Panel]:
    """A panel for each case over t; what robust weights gain over t for two outputs, and over the radius."""
    sets = distinct([row for row in rows if row["case"] == "tabular"], "ambiguity")
    made = [_case_panel(rows, case, sets) for case in _CASES] if sets else []
    gains = _gains([row for row in rows if row["case"] == "misspecified"])
    for column, name in (("worst_gap", "last iterate"), ("average_worst_gap", "average of the parameters")):
        lines = tuple(curve(gains, "t", column, spec, where={"ambiguity": spec}) for spec in sets)
        made.append(Panel(f"Gain by robust weights, {name}", _T, _GAIN, lines, "log", "linear", _PAIRED))
    made.append(_radius_panel(gains, _radii(choices)))
    return [panel for panel in made if any(line.x for line in panel.curves)]


def _case_panel(rows: Sequence[Record], case: str, sets: Sequence[str]) -> Panel:
    here, lines = [row for row in rows if row["case"] == case], []
    for spec in sets:
        for method in ("plain", "robust"):
            where = {"ambiguity": spec, "method": method}
            lines.append(curve(here, "t", "worst_gap", f"{method}, {spec}", where=where))
    where = {"ambiguity": sets[0], "method": "robust"}
    bound = curve(here, "t", "bound", f"robust, {sets[0]}", where=where, theory=_THEORY)
    apart = max((abs(row["worst_gap"]) for row in _gains(here)), default=0.0)
    note = f"{_CASES[case]}\nlargest difference plain - robust: {apart:.1g}"
    return Panel(f"Last iterate, {case}", _T, _LACKING, (*lines, *([bound] if bound.x else [])), note=note)


def _gains(rows: Sequence[Record]) -> list[Any]:
    """Plain less robust on the same problem at the same step: positive where robust weights lack less."""

    def key(row: Record) -> tuple[Scalar, ...]:
        return row["case"], row["ambiguity"], row["seed"], row["t"]

    columns = ("worst_gap", "average_worst_gap", "mean_gap")
    plain: dict[Any, Any] = {key(row): row for row in rows if row["method"] == "plain"}
    robust: list[Any] = [row for row in rows if row["method"] == "robust" and key(row) in plain]
    return [{**row, **{name: plain[key(row)][name] - row[name] for name in columns}} for row in robust]


def _radius_panel(gains: Sequence[Record], radii: Sequence[float]) -> Panel:
    last = max(distinct(gains, "t"), default=None)
    balls = {f"tv:{radius:g}" for radius in radii}
    here = [row for row in gains if row["t"] == last and row["ambiguity"] in balls]
    names = {
        "worst_gap": "worst case, last iterate",
        "average_worst_gap": "worst case, average of the parameters",
        "mean_gap": "mean over prompts, last iterate",
    }
    lines = tuple(curve(here, "radius", column, name, where={}) for column, name in names.items())
    title, label = f"Gain over the radius, t = {last}", "radius of the total-variation ball"
    return Panel(title, label, _GAIN, lines, "log", "linear", _PAIRED)


STUDY = Study(
    name="npg",
    version=1,
    title="Algorithm 2, robust natural policy gradient, against the plain one",
    about=(
        "Both methods are judged by the worst-case value over mixtures of prompts. With tabular policies, and where "
        "the reward is linear in the policy's features, the natural direction does not depend on the mixture, while "
        "that leaves every state some mass, and both are the same; weights matter where the policies cannot serve all "
        "prompts. All values are exact; every seed draws another problem, and bands are over problems."
    ),
    options=("ambiguity", "steps", "radius"),
    seeds=(16, 32),
    points=points,
    evaluate=evaluate,
    panels=panels,
)
