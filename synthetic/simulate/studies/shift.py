"""Study `shift`: robust and plain Bradley-Terry fits under the shifts that they were, or were not, prepared for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from dro_core import TotalVariation, parse_ambiguity

from ...pairs.populations import FinitePopulation
from ...pairs.preferences import fit_preferences
from ...pairs.shifts import group_shift
from ..curves import curve
from ..figures import Panel
from .study import Choices, Study, allowed, distinct, unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..grid import Record, Scalar

_SETS = ("erm", "tv:0.1", "tv:0.2", "tv:0.2,max_ratio=4", "tv:0.2,by=group")
_CASES = {
    "well-specified": "the reward is linear",
    "misspecified": "the minority's reward has other weights than the majority's",
    "noisy": "the reward is linear, 20 % of the labels are turned round",
}
_MAJORITY, _MINORITY, _SHARE = 32, 8, 0.1  # prompts of each group; mass of the minority
_GROUPS = (0,) * _MAJORITY + (1,) * _MINORITY
_DIMENSION, _MARGIN = 4, 2.0
_PENALTY = 1e-4  # of the fits: small samples can be separable
_BEST = "the best parameters for that shift, from the population"


def points(choices: Choices) -> list[Mapping[str, Scalar]]:
    """Every fit in every case over the size of the shift; over the sample size at one shift."""
    sets = allowed(("erm", *(choices.ambiguity or _SETS)), "shift", erm=True, groups=True)
    sizes = choices.n or ((100, 200, 400, 800, 1600, 3200) if choices.full else (100, 400, 1600))
    radii = choices.radius or (0.0, 0.05, 0.1, 0.2, 0.3, 0.4) + ((0.15, 0.25, 0.6, 0.8) if choices.full else ())
    _refuse_far(radii)
    n, middle = min(sizes, key=lambda size: abs(size - 400)), min(radii, key=lambda radius: abs(radius - 0.2))

    def point(case: str, spec: str, size: int, radius: float) -> dict[str, Scalar]:
        return {"case": case, "ambiguity": spec, "n": size, "shift": radius}

    grid = [point(case, spec, n, radius) for case in _CASES for spec in sets for radius in radii]
    grid += [point(case, spec, size, middle) for case in _CASES for spec in sets for size in sizes]
    return unique(grid + [point(case, "erm", size, 0.0) for case in _CASES for size in sizes])


def _refuse_far(radii: Sequence[float]) -> None:
    if max(radii) > 1 - _SHARE:
        raise ValueError(
            f"--radius of `shift` must lie in [0, {1 - _SHARE:g}], got {max(radii):g}: the minority's share can grow "
            f"from {_SHARE:g} to 1."
        )


@lru_cache(maxsize=8)
def population(case: str) -> FinitePopulation:
    """40 prompts, the last 8 of them the minority's; the same in every run.

    Example:
        >>> problem = population("misspecified")
        >>> problem.differences.shape, round(float(problem.masses[32:].sum()), 12)
        ((40, 4), 0.1)
    """
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((_MAJORITY + _MINORITY, _DIMENSION))
    weights, others = (_of_length(rng.standard_normal(_DIMENSION), _MARGIN) for _ in range(2))
    margins = rows @ weights
    if case == "misspecified":
        margins[_MAJORITY:] = rows[_MAJORITY:] @ others
    masses = np.repeat([(1 - _SHARE) / _MAJORITY, _SHARE / _MINORITY], [_MAJORITY, _MINORITY])
    exact = FinitePopulation(rows, masses, expit(margins))
    return exact.with_noise(0.2) if case == "noisy" else exact


def _of_length(vector: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    return length * vector / np.linalg.norm(vector)


@lru_cache(maxsize=64)
def _fit(case: str, spec: str, n: int, seed: int) -> tuple[float, ...]:
    """Parameters from one sample; the same sample for every set."""
    problem, ambiguity = population(case), parse_ambiguity(spec)
    counts = problem.sample_counts(n, np.random.default_rng([seed, n, list(_CASES).index(case)]))[0]
    bound = None if ambiguity is None else ambiguity.bind({"group": np.tile(_GROUPS, 2)})
    fit = fit_preferences(problem.atoms, bound, penalty=_PENALTY, reference=counts / n)
    return tuple(fit.coefficients.tolist())


def evaluate(point: Mapping[str, Any], seed: int) -> list[Record]:
    """Exact losses of the fit on the population: in the worst case over shifts of that size, and under one of them."""
    problem, radius = population(point["case"]), point["shift"]
    parameters = np.array(_fit(point["case"], point["ambiguity"], point["n"], seed))
    best_worst, best_shifted = _best(point["case"], radius)
    shifted = _shifted(point["case"], radius).mean_loss(parameters)
    worst = float(problem.worst_case(parameters, TotalVariation(radius)).value)
    return [
        {
            "worst_loss": worst,
            "best_worst_loss": best_worst,
            "excess": max(worst - best_worst, 0.0),
            "shifted_loss": shifted,
            "best_shifted_loss": best_shifted,
            "shifted_excess": max(shifted - best_shifted, 0.0),
            "asymptotic": _DIMENSION / (2 * point["n"]),
        }
    ]


@lru_cache(maxsize=64)
def _shifted(case: str, radius: float) -> FinitePopulation:
    """The population in which the minority has gained that much mass: exactly so far away in total variation."""
    shift = group_shift(population(case), np.array(_GROUPS), [1 - _SHARE - radius, _SHARE + radius])
    test = shift.test
    assert isinstance(test, FinitePopulation)
    return test


@lru_cache(maxsize=64)
def _best(case: str, radius: float) -> tuple[float, float]:
    """The smallest worst-case loss, and the smallest loss under the shift to the minority: lower bounds for any fit."""
    robust, shifted = population(case).minimiser(TotalVariation(radius)), _shifted(case, radius).minimiser()
    return robust.value - robust.gap, shifted.value - shifted.gap


def panels(rows: Sequence[Record], choices: Choices) -> list[Panel]:
    """Two rows over the shift: the worst case and the minority's growth; one over the sample size."""
    sets, sizes = distinct(rows, "ambiguity"), [row["n"] for row in rows]
    n = max(dict.fromkeys(sizes), key=sizes.count)
    made = []
    for measured, best, title in (
        ("worst_loss", "best_worst_loss", "Worst shift of this size"),
        ("shifted_loss", "best_shifted_loss", "The minority grows"),
    ):
        for case, note in _CASES.items():
            where = {"case": case, "n": n}
            lines = [curve(rows, "shift", measured, spec, where={**where, "ambiguity": spec}) for spec in sets]
            lines.append(curve(rows, "shift", best, "erm", where={**where, "ambiguity": "erm"}, theory=_BEST))
            made.append(_over_shift(f"{title}, {case}", lines, f"{note}; n = {n}"))
    if len(set(sizes)) < 2:
        return made
    return [*made, *(_over_n(rows, sets, case) for case in ("well-specified", "misspecified")), _rate(rows)]


def _over_shift(title: str, lines: Sequence[Any], note: str) -> Panel:
    label = "size of the shift (total variation)"
    return Panel(title, label, "population loss (nats)", tuple(lines), "linear", "linear", note)


def _over_n(rows: Sequence[Record], sets: Sequence[str], case: str) -> Panel:
    """Over n there is one shift other than 0, the one that several n have."""
    shifts = [row["shift"] for row in rows if row["ambiguity"] == sets[-1] and row["seed"] == 0]
    shift = max(dict.fromkeys(shifts), key=shifts.count)
    lines = tuple(
        curve(rows, "n", "worst_loss", spec, where={"case": case, "ambiguity": spec, "shift": shift}) for spec in sets
    )
    best = curve(rows, "n", "best_worst_loss", "erm", where=_where(case, "erm", shift), theory=_BEST)
    title, note = f"Worst shift of {shift:g} over the sample size", f"{case}: {_CASES[case]}"
    return Panel(title, "sample size n (pairs)", "population loss (nats)", (*lines, best), "log", "linear", note)


def _rate(rows: Sequence[Record]) -> Panel:
    lines = [
        curve(rows, "n", "shifted_excess", f"erm, {case}", where=_where(case, "erm", 0.0), fit=(1, 1e9))
        for case in _CASES
    ]
    theory = "d/(2n), maximum likelihood if well-specified"
    lines.append(
        curve(rows, "n", "asymptotic", "erm, well-specified", where=_where("well-specified", "erm", 0.0), theory=theory)
    )
    label = "mean loss above the best (nats)"
    return Panel("No shift: the cost of a finite sample", "sample size n (pairs)", label, tuple(lines))


def _where(case: str, spec: str, shift: Scalar) -> dict[str, Scalar]:
    return {"case": case, "ambiguity": spec, "shift": shift}


STUDY = Study(
    name="shift",
    version=1,
    title="Bradley-Terry fits under shift: robust against plain",
    about=(
        "Linear rewards fitted to n pairs of a finite population by maximum likelihood and by robust losses, judged "
        "exactly: by the worst case over all shifts of a size, labels included, and by one real shift, the growth of a "
        "minority. Sets over single pairs turn to the surprising labels: they guard against that worst case, at the "
        "price of the mean, up to a reward of 0 with loss log 2. The set over groups guards against the real shift, "
        "where the minority's reward differs. Seeds redraw the sample, bands are over samples."
    ),
    options=("ambiguity", "n", "radius"),
    seeds=(8, 32),
    points=points,
    evaluate=evaluate,
    panels=panels,
)
