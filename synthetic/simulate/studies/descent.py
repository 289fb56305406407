"""What the studies `reward` and `dpo` share: Algorithms 1 and 3 on a population whose optimum is certified."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dro_core import CVaR, TotalVariation, bias_bound, parse_ambiguity

from ...pairs.convergence import full_batch_run, method_for, minibatch_runs
from ...pairs.robust_pairs import RobustPairs
from ..curves import curve
from ..figures import Panel
from .study import Choices, allowed, distinct, unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dro_core import AmbiguitySet

    from ..grid import Record, Scalar

    Array = NDArray[np.float64]

_SETS = ("erm", "tv:0.2", "tv:0.2,max_ratio=8", "cvar:0.2", "chi2:0.5", "kl:0.2")
_FAMILIES = ("tv:{:g}", "tv:{:g},max_ratio=8", "chi2:{:g}", "kl:{:g}")
_MANY, _FEW = 32, 4  # kinds of pairs of the majority and of the minority
_RUNS = 8  # that one seed averages
_REACH = 3.0  # largest margin in the ball, in nats
_BETAS = (0.02, 0.1, 0.5)
_BETA = 0.1
_THEORY = "G R/sqrt(T) + bound of delta_n"
_GAP = "expected gap of the average iterate (nats)"


def points(choices: Choices, algorithm: str) -> list[Mapping[str, Scalar]]:
    """Over T and over n for every set, over the radius, over d, for one set also over T at several n."""
    sets = allowed(choices.ambiguity or _SETS, algorithm, erm=True)
    steps = choices.steps or (1024 if choices.full else 256)
    horizons = sorted({4**k for k in range(1, 11) if 4**k < steps} | {steps})
    sizes = choices.n or (4, 16, 32, 128) + ((8, 64, 256, 512) if choices.full else ())
    dimensions = choices.dimension or (2, 4, 8, 32) + ((16, 64, 128) if choices.full else ())
    n, d = min(sizes, key=lambda size: abs(size - 32)), dimensions[len(dimensions) // 3]
    floors = (*[size for size in sizes if size in (4, 16)], n, max(sizes), None)

    def point(
        spec: str, t: int = steps, size: int | None = n, width: int = d, beta: float = _BETA
    ) -> dict[str, Scalar]:
        return {
            "algorithm": algorithm, "ambiguity": spec, "T": t, "n": size, "d": width,
            "beta": beta if algorithm == "dpo" else None,
        }  # fmt: skip

    grid = [point(spec, t=t) for spec in sets for t in horizons]
    grid += [point(spec, size=size) for spec in sets for size in sizes]
    grid += [point(family.format(radius)) for radius in _radii(choices) for family in _FAMILIES]
    grid += [point(spec, width=width) for spec in sets for width in dimensions]
    grid += [point("tv:0.2", t=t, size=size) for size in floors for t in horizons]
    grid += [point(spec, beta=beta) for spec in sets for beta in _BETAS if algorithm == "dpo"]
    return unique(grid)


def _radii(choices: Choices) -> tuple[float, ...]:
    return choices.radius or (0.05, 0.1, 0.2, 0.4, 0.8) + ((0.02, 0.3, 0.6) if choices.full else ())


@lru_cache(maxsize=64)
def problem(algorithm: str, spec: str, d: int, beta: float | None) -> RobustPairs:
    """The population: a group of 3 % of the pairs prefers the opposite of what the others prefer, more or less.

    Feature differences, chosen minus rejected, have norm 1 and lie around u for the majority, around -u for the
    minority. Robust sets weigh the minority up, which holds <w, u> back; minibatches without any of it do not.
    For DPO the ball has the radius at which the usual beta, 0.1, gives margins of 3 nats.

    Example:
        >>> pairs = problem("reward", "cvar:0.5", 4, None)
        >>> np.shape(pairs.differences), round(pairs.steepness, 12), pairs.radius
        ((36, 4), 1.0, 3.0)
    """
    rng = np.random.default_rng([d, _MANY])
    centre, around = _unit(rng.standard_normal(d)), _unit(rng.standard_normal((_MANY + _FEW, d)))
    signs, masses = np.repeat([1.0, -1.0], [_MANY, _FEW]), np.repeat([0.97 / _MANY, 0.03 / _FEW], [_MANY, _FEW])
    chosen = _unit(np.outer(signs, centre) + 0.6 * around)
    ambiguity = parse_ambiguity(spec) or CVaR(1.0)
    if algorithm == "reward":
        return RobustPairs.reward(chosen, 0 * chosen, masses, ambiguity, radius=_REACH)
    assert beta is not None
    start = rng.standard_normal(d)
    return RobustPairs.dpo(
        chosen, 0 * chosen, masses, ambiguity, radius=_REACH / _BETA, beta=beta, reference_policy=start
    )


def _unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def evaluate(point: Mapping[str, Any], seed: int) -> list[Record]:
    """Mean gap of some runs with the step size for this T, and what theory allows; in nats."""
    pairs, steps, n = problem(point["algorithm"], point["ambiguity"], point["d"], point["beta"]), point["T"], point["n"]
    method = method_for(pairs, steps)
    if n is None:
        run = full_batch_run(pairs, method, steps)
    else:
        run = minibatch_runs(pairs, method, steps, n, np.random.default_rng([seed, steps, n, point["d"]]), runs=_RUNS)
    slow = method.bound(steps, distance=pairs.radius, lipschitz=pairs.lipschitz)
    bias = _bias_bound(pairs, n)
    return [
        {
            # The optimum is a certified lower bound, so only rounding can make a gap negative.
            "gap": float(np.mean(np.maximum(run.gaps[..., -1], 0.0))),
            "last_gap": float(np.mean(np.maximum(run.iterate_gaps[..., -1], 0.0))),
            "optimisation": slow,
            "bias": bias,
            "bound": slow + bias,
            "radius": getattr(pairs.ambiguity, "radius", None),
            "optimum": float(pairs.optimum.value),
        }
    ]


def _bias_bound(pairs: RobustPairs, n: int | None) -> float:
    """An upper bound of delta_n, the largest bias in the ball; 0 for full batches.

    Margins in the ball are at most X R in size, so losses lie in [softplus(-X R), softplus(X R)], of length X R.
    """
    spread = pairs.steepness * pairs.radius
    if n is None:
        return 0.0
    ambiguity: AmbiguitySet = pairs.ambiguity
    if isinstance(ambiguity, TotalVariation) and ambiguity.max_ratio is None:
        return ambiguity.radius * spread  # no bound falls with n [tv-bias-root-n]
    return bias_bound(ambiguity, n, spread)


def panels(rows: Sequence[Record], choices: Choices) -> list[Panel]:
    """Gap over T, n, radius and d, over T at several n, and for DPO over beta."""
    base = _base(rows)
    made = [
        _sets_panel(rows, base, "T", "number of steps T", "Over the steps"),
        _floor_panel(rows, base),
        _sets_panel(rows, base, "n", "minibatch size n (pairs)", "Over the minibatch size"),
        _radius_panel(rows, base, _radii(choices)),
        _sets_panel(rows, base, "d", "dimension d of the features", "Over the dimension"),
    ]
    if base["beta"] is not None:
        made.append(_sets_panel(rows, base, "beta", "beta", "Over beta, at one radius of the ball"))
    return [panel for panel in made if any(line.x for line in panel.curves)]


def _base(rows: Sequence[Record]) -> dict[str, Any]:
    """The values that every column keeps while another one is varied: the commonest ones, and the longest run."""
    base: dict[str, Any] = {"T": max(distinct(rows, "T"))}
    for column in ("n", "d", "beta"):
        values = [row[column] for row in rows]
        base[column] = max(dict.fromkeys(values), key=values.count)
    return base


def _sets_panel(rows: Sequence[Record], base: Mapping[str, Any], x: str, x_label: str, title: str) -> Panel:
    fixed = {column: value for column, value in base.items() if column != x}
    lines = []
    for spec in _chosen(rows, base):
        where = {**fixed, "ambiguity": spec}
        lines.append(curve(rows, x, "gap", spec, where=where, fit=(16, 1e9) if x == "T" else None))
        lines.append(curve(rows, x, "bound", spec, where=where, theory=_THEORY))
    kept = [line for line in lines if x != "n" or line.x]
    return Panel(title, x_label, _GAP, tuple(kept), note=_note(fixed))


def _chosen(rows: Sequence[Record], base: Mapping[str, Any]) -> list[str]:
    """The sets that were run at more than the base: those over the radius were not."""
    return distinct([row for row in rows if row["d"] != base["d"] or row["T"] not in (None, base["T"])], "ambiguity")


def _floor_panel(rows: Sequence[Record], base: Mapping[str, Any]) -> Panel:
    fixed = {"d": base["d"], "beta": base["beta"], "ambiguity": "tv:0.2"}
    lines = []
    sizes = {row["n"] for row in rows if row["ambiguity"] == "tv:0.2" and row["T"] != base["T"]}
    for n in sorted(sizes, key=lambda size: float("inf") if size is None else float(size)):
        label = "full batch" if n is None else f"n = {n}"
        lines.append(curve(rows, "T", "gap", label, where={**fixed, "n": n}, fit=(16, 1e9) if n is None else None))
        if n is None:
            lines.append(curve(rows, "T", "optimisation", label, where={**fixed, "n": n}, theory="G R/sqrt(T)"))
    return Panel("Bias is a floor: plain total variation", "number of steps T", _GAP, tuple(lines), note=_note(fixed))


def _radius_panel(rows: Sequence[Record], base: Mapping[str, Any], radii: Sequence[float]) -> Panel:
    families = {family: {family.format(radius) for radius in radii} for family in _FAMILIES}
    lines = []
    for family, members in families.items():
        here, name = [row for row in rows if row["ambiguity"] in members], family.replace("{:g}", "RADIUS")
        lines.append(curve(here, "radius", "gap", name, where=base))
        lines.append(curve(here, "radius", "bound", name, where=base, theory=_THEORY))
    return Panel("Over the radius", "radius of the set", _GAP, tuple(lines), note=_note(base))


def _note(fixed: Mapping[str, Any]) -> str:
    return ", ".join(f"{column} = {value}" for column, value in fixed.items() if value is not None)
