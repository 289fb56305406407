"""Study `bias`: how much a minibatch of n understates the worst case, exactly, beside what theory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from dro_core import TotalVariation, bias_bound, parse_ambiguity

from ...biases.bias import plugin_bias
from ..curves import curve
from ..figures import Panel
from .study import Choices, Study, allowed, distinct, unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dro_core import AmbiguitySet

    from ..grid import Record, Scalar

    Array = NDArray[np.float64]

_SETS = ("tv:0.2", "tv:0.2,max_ratio=8", "cvar:0.2", "chi2:0.5", "kl:0.2")
_RARE = (0.1, 0.01, 0.001)
_MARGINS = (1.0, 3.0)
_FAMILIES = ("tv:{:g}", "tv:{:g},max_ratio=8", "chi2:{:g}", "kl:{:g}")
_MOST = {"bernoulli": 20_000, "bradley-terry": 128}  # n up to which every minibatch is enumerated
_RARE_SET = "tv:0.2"
_OVER_N, _BIAS = "minibatch size n (draws)", "bias of the plug-in worst case"
_THEORY = "dro_core.bias_bound (plain tv: radius x range)"


def law(name: str, rare: float | None) -> tuple[Array, Array]:
    """Losses and their probabilities, each of shape ``(k,)``.

    ``bernoulli``: 1 with probability ``rare``, else 0. ``bradley-terry``: the pair loss log(1 + exp(-y m)) where the
    margin m of the true reward is 1 or 3 nats with equal chance, and the label y is 1 with probability sigmoid(m).

    Example:
        >>> losses, masses = law("bradley-terry", None)
        >>> losses.round(3).tolist(), masses.round(3).tolist()
        ([0.313, 0.049, 1.313, 3.049], [0.366, 0.476, 0.134, 0.024])
    """
    if name == "bernoulli":
        assert rare is not None
        return np.array([0.0, 1.0]), np.array([1 - rare, rare])
    margins = np.array(_MARGINS)
    signed = np.concatenate([margins, -margins])
    return np.logaddexp(0, -signed), expit(signed) / margins.size


def points(choices: Choices) -> list[Mapping[str, Scalar]]:
    """The grid: every set over n on three laws; total variation over n for rarer losses; families over the radius."""
    sets = allowed(choices.ambiguity or _SETS, "bias", erm=False)
    sizes = _sizes(choices)
    _refuse_large(sizes)
    return unique(
        [_point("bernoulli", 0.01, spec, n) for spec in sets for n in sizes]
        + [_point("worst", None, spec, n) for spec in sets for n in sizes]
        + [_point("bradley-terry", None, spec, n) for spec in sets for n in _pair_sizes(choices)]
        + [_point("bernoulli", rare, _RARE_SET, n) for rare in _RARE for n in sizes]
        + [_point("bernoulli", 0.01, spec.format(r), _middle(sizes)) for r in _radii(choices) for spec in _FAMILIES]
    )


def _sizes(choices: Choices) -> tuple[int, ...]:
    return choices.n or tuple(2**k for k in range(1, 12 if choices.full else 10))


def _middle(sizes: Sequence[int]) -> int:
    """The n at which the radius is varied."""
    return min(sizes, key=lambda n: abs(n - 64))


def _pair_sizes(choices: Choices) -> list[int]:
    """The n of Bradley-Terry losses, of which every minibatch is enumerated."""
    most = _MOST["bradley-terry"] if choices.full else 64
    return [n for n in _sizes(choices) if n <= most] or [min(_sizes(choices))]


def _radii(choices: Choices) -> tuple[float, ...]:
    return choices.radius or (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def _refuse_large(sizes: Sequence[int]) -> None:
    most = _MOST["bernoulli"]
    if max(sizes) > most:
        raise ValueError(f"--n of `bias` must lie in [1, {most}], got {max(sizes)}: every minibatch is enumerated.")


def _point(name: str, rare: float | None, spec: str, n: int) -> dict[str, Scalar]:
    return {"law": name, "rare": rare, "ambiguity": spec, "n": n}


def evaluate(point: Mapping[str, Any], seed: int) -> list[Record]:
    """The exact bias and the theory curve, in loss units (nats for Bradley-Terry); the seed is not used."""
    n, ambiguity = point["n"], parse_ambiguity(point["ambiguity"])
    assert ambiguity is not None
    rare, variance = point["rare"], None
    if point["law"] == "worst":
        rare, losses, masses = _hardest(ambiguity, n)
    else:
        losses, masses = law(point["law"], rare)
        variance = float(masses @ (losses - masses @ losses) ** 2)
    # Beyond rounding the bias is never negative; a logarithmic axis has no place for -1e-17.
    bias = max(plugin_bias(losses, masses, n, ambiguity), 0.0)
    bound = _bound(ambiguity, n, float(np.ptp(losses)), variance)
    return [{"bias": bias, "bound": bound, "chance": rare, "radius": getattr(ambiguity, "radius", None)}]


def _hardest(ambiguity: AmbiguitySet, n: int) -> tuple[float, Array, Array]:
    """The chance of a loss of 1, else 0, for which the bias is the largest: on a grid, then on a finer one."""

    def bias(rare: float) -> float:
        return plugin_bias(*law("bernoulli", rare), n, ambiguity)

    coarse = np.concatenate([np.geomspace(1e-6, 0.1, 21), np.linspace(0.125, 0.975, 35)])
    best = int(np.argmax([bias(float(rare)) for rare in coarse]))
    fine = np.linspace(coarse[max(best - 1, 0)], coarse[min(best + 1, coarse.size - 1)], 21)
    rare = float(max([*fine, coarse[best]], key=lambda rare: bias(float(rare))))
    return rare, *law("bernoulli", rare)


def _bound(ambiguity: AmbiguitySet, n: int, spread: float, variance: float | None) -> float | None:
    try:
        return bias_bound(ambiguity, n, spread, variance=variance)
    except ValueError:
        # Losses too rare for a minibatch: all that is left is the radius times the range, which no n improves.
        return ambiguity.radius * spread if isinstance(ambiguity, TotalVariation) else None


def panels(rows: Sequence[Record], choices: Choices) -> list[Panel]:
    """Five panels: three laws over n, rarer and rarer losses over n, and families over the radius."""
    most = max(_pair_sizes(choices))
    short = f"\nup to n = {most}, for every minibatch is enumerated" if max(_sizes(choices)) > most else ""
    made = [
        _law_panel(rows, "bernoulli", "One rare loss", "loss 1 with probability 0.01, else 0", "range 1"),
        _law_panel(rows, "worst", "The hardest law at each n", "loss 1 or 0, chance of the largest bias", "range 1"),
        _law_panel(rows, "bradley-terry", "Bradley-Terry losses", f"margins 1 and 3 nats, labels drawn{short}", "nats"),
        _rare_panel(rows),
        _radius_panel(rows, choices),
    ]
    return [panel for panel in made if any(line.x for line in panel.curves)]


def _law_panel(rows: Sequence[Record], name: str, title: str, note: str, unit: str) -> Panel:
    rare = 0.01 if name == "bernoulli" else None
    # Powers of n are looked for where there are any: rare losses vanish exponentially once they are seen.
    fit = None if rare else (8, 1e9)
    lines = []
    for spec in distinct([row for row in rows if row["law"] == "worst"], "ambiguity"):
        where = {"law": name, "rare": rare, "ambiguity": spec}
        lines.append(curve(rows, "n", "bias", spec, where=where, fit=fit))
        lines.append(curve(rows, "n", "bound", spec, where=where, theory=_THEORY))
    without = [line.label for line in lines if line.theory and not line.x]
    note += f"\nno bound is known here for {', '.join(without)}" if without else ""
    return Panel(title, _OVER_N, f"{_BIAS} ({unit})", tuple(line for line in lines if line.x), note=note)


def _rare_panel(rows: Sequence[Record]) -> Panel:
    lines = []
    for rare in _RARE:
        where = {"law": "bernoulli", "rare": rare, "ambiguity": _RARE_SET}
        lines.append(curve(rows, "n", "bias", f"chance {rare:g}", where=where))
        lines.append(curve(rows, "n", "bound", f"chance {rare:g}", where=where, theory="radius x range"))
    note = f"always {_RARE_SET}; loss 1 with a small chance, else 0"
    return Panel("Plain total variation", _OVER_N, f"{_BIAS} (range 1)", tuple(lines), note=note)


def _radius_panel(rows: Sequence[Record], choices: Choices) -> Panel:
    n, lines = _middle(_sizes(choices)), []
    rows = [row for row in rows if (row["law"], row["rare"], row["n"]) == ("bernoulli", 0.01, n)]
    for family in _FAMILIES:
        members = {family.format(radius) for radius in _radii(choices)}
        here = [row for row in rows if row["ambiguity"] in members]
        name = family.replace("{:g}", "RADIUS")
        lines.append(curve(here, "radius", "bias", name, where={}))
        lines.append(curve(here, "radius", "bound", name, where={}, theory=_THEORY))
    title = f"Over the radius, n = {n}"
    note = "loss 1 with probability 0.01, else 0; under a cap a larger radius\n"
    note += "means a larger tail, radius/(max_ratio - 1), which is less rare"
    return Panel(title, "radius", f"{_BIAS} (range 1)", tuple(lines), note=note)


STUDY = Study(
    name="bias",
    version=1,
    title="Bias of worst-case values computed on minibatches",
    about=(
        "Exact, by enumeration of every minibatch. A minibatch of n understates the worst case over the population. "
        "CVaR, chi-square, KL and capped total variation forget this as n grows; plain total variation does not before "
        "n is several times the inverse chance of the rarest large loss, and so has no bound that falls with n."
    ),
    options=("ambiguity", "n", "radius"),
    seeds=(0, 0),
    points=points,
    evaluate=evaluate,
    panels=panels,
)
