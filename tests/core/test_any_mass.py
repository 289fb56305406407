"""Right at any reference mass: every set against 60-digit arithmetic, down to a top of mass 1e-300.

One table drives this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    AmbiguitySet,
    Burg,
    BurgPenalty,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CressieReadPenalty,
    CVaR,
    Dual,
    Grouped,
    Hellinger,
    KLPenalty,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    WorstCase,
    duality_gap,
    worst_case,
)
from dro_core._solvers import selection

from . import sixty_digits as exact
from . import tolerances as tol
from .examples import SETS, Maker, line
from .registry import BACKENDS, Backend

_LARGEST_RADIUS = 1e300
Oracle = Callable[[exact.Numbers, exact.Numbers], Any]


class Kind(NamedTuple):
    """A set that reaches a fraction of all it could around masses ``(n,)``, largest loss first, and its exact value."""

    make: Callable[[float, np.ndarray], AmbiguitySet]
    value: Callable[[Any, exact.Numbers, exact.Numbers], Any]


def _power_capacity(order: float, top: float) -> float:
    """E phi_k(q/p) with all of q on the top, in logarithms, because 1 / top^(k - 1) may overflow."""
    growth = (1 - order) * math.log(top)  # of top * (1 / top)^k
    return min(math.expm1(growth) / (order * (order - 1)), _LARGEST_RADIUS) if growth < 690 else _LARGEST_RADIUS


def _power(order: float) -> Kind:
    return Kind(
        lambda f, p: CressieRead(order, f * _power_capacity(order, p[0])),
        lambda a, losses, p: exact.divergence_ball(order, a.radius, losses, p),
    )


def _power_penalty(order: float) -> Kind:
    """At fraction 1 the top of all mass but its own loses about as much as the gap below it is worth."""

    def make(f: float, p: np.ndarray) -> AmbiguitySet:
        price = _gap_below_top(p) * max(p[0] ** max(order - 1, 1 / 8), 1e-300) / f if f > 0 else math.inf
        return BurgPenalty(price) if order == 0 else CressieReadPenalty(order, price)

    return Kind(make, lambda a, *given: exact.power_penalty(order, a.strength, *given))


def _trimmed(a: Trimmed, losses: exact.Numbers, p: exact.Numbers) -> Any:
    """The largest losses give up the fraction, and the rest is what is solved."""
    left, kept = exact.mp.mpf(a.fraction), []
    for mass in p:
        gone = min(left, mass)
        left -= gone
        kept.append((mass - gone) / (1 - exact.mp.mpf(a.fraction)))
    some = [i for i, mass in enumerate(kept) if mass > 0]
    return exact.divergence_ball(1, a.inner.radius, [losses[i] for i in some], [kept[i] for i in some])


def _grouped(a: Grouped, losses: exact.Numbers, p: exact.Numbers) -> Any:
    """The top alone against all others."""
    rest = exact.mp.fsum(p[1:])
    below = exact.mean(losses[1:], p[1:]) / rest
    return exact.divergence_ball(1, a.inner.radius, [losses[0], below], [p[0], rest])


def _spectral_mass(spectrum: tuple[float, ...], mass: Any) -> Any:
    """The integral of the spectrum over the worst share."""
    k, falling = len(spectrum), [exact.mp.mpf(part) for part in reversed(spectrum)]
    return exact.mp.fsum(part * min(max(k * mass - j, 0), 1) for j, part in enumerate(falling)) / exact.mp.fsum(falling)


def _charged_ball(a: Any, losses: exact.Numbers, p: exact.Numbers) -> Any:
    """A ball's answer costs its radius times the price; or the penalty's answer is inside."""
    binding = exact.divergence_ball(1, a.base.radius, losses, p) - exact.mp.mpf(a.price.temperature) * a.base.radius
    free, step = exact.kl_penalty(a.price.temperature, losses, p), exact.mp.mpf(10) ** -20
    t = exact.mp.mpf(a.price.temperature)
    spent = (exact.kl_penalty(t * (1 - step), losses, p) - free) / (t * step)  # minus d value / d price
    return free if spent <= a.base.radius else binding


def _gap_below_top(p: np.ndarray) -> float:
    return float(LOSSES[len(p)][0] - LOSSES[len(p)][1])


KINDS: dict[str, Kind] = {
    "tv": Kind(lambda f, p: TotalVariation(f * (1 - p[0])), lambda a, *given: exact.total_variation(a.radius, *given)),
    "tv_capped": Kind(
        lambda f, p: TotalVariation(f * (1 - p[0]), max_ratio=max(0.5 / p[0], 1.5)),
        lambda a, *given: exact.capped_variation(a.radius, a.max_ratio, *given),
    ),
    "cvar": Kind(lambda f, p: CVaR(f * p[0] + (1 - f)), lambda a, *given: exact.cvar(a.alpha, *given)),
    "spectral": Kind(
        lambda f, p: Spectral((0.0, 0.25, 0.75)).with_strength(f), lambda a, *given: exact.spectral(a.spectrum, *given)
    ),
    "chi2": Kind(
        lambda f, p: ChiSquare(f * min(0.5 / p[0] - 0.5, _LARGEST_RADIUS)),
        lambda a, *given: exact.chi_square(a.radius, *given),
    ),
    "kl": Kind(lambda f, p: KL(-f * math.log(p[0])), lambda a, *given: exact.divergence_ball(1, a.radius, *given)),
    "cressie_read_.1": _power(0.1),
    "cressie_read_.5": _power(0.5),
    "cressie_read_.998": _power(0.998),
    "cressie_read_1.002": _power(1.002),
    "cressie_read_1.5": _power(1.5),
    "cressie_read_2": _power(2.0),
    "cressie_read_2.5": _power(2.5),
    "cressie_read_3": _power(3.0),
    "hellinger": Kind(
        lambda f, p: Hellinger(min(f * (2 - 2 * math.sqrt(p[0])), math.nextafter(2, 0))),
        lambda a, *given: exact.divergence_ball(0.5, 2 * exact.mp.mpf(a.radius), *given),
    ),
    "burg": Kind(
        lambda f, p: Burg(f * -math.log(p[0]) / 8), lambda a, *given: exact.divergence_ball(0, a.radius, *given)
    ),
    "wasserstein": Kind(
        lambda f, p: Wasserstein(f * float(p @ line(len(p))[0]), line(len(p))),
        lambda a, *given: exact.transport(a.radius, a.cost, *given),
    ),
    "grouped": Kind(lambda f, p: Grouped(KL(-f * math.log(p[0])), [0] + [1] * (len(p) - 1)), _grouped),
    "trimmed": Kind(lambda f, p: Trimmed(KL(-f * math.log(p[1])), 0.75 * p[0]), _trimmed),
    "trimmed_top": Kind(lambda f, p: Trimmed(KL(-f * math.log(p[1])), 1.25 * p[0]), _trimmed),
    "kl_penalty": Kind(
        lambda f, p: KLPenalty(_gap_below_top(p) / f / -math.log(p[0]) if f > 0 else math.inf),
        lambda a, *given: exact.kl_penalty(a.temperature, *given),
    ),
    "chi2_penalty": Kind(
        lambda f, p: ChiSquarePenalty(_gap_below_top(p) * p[0] / f if f > 0 else math.inf),
        lambda a, *given: exact.chi_square_penalty(a.strength, *given),
    ),
    "burg_penalty": _power_penalty(0),
    "cressie_read_penalty_.1": _power_penalty(0.1),
    "cressie_read_penalty_.5": _power_penalty(0.5),
    "cressie_read_penalty_.998": _power_penalty(0.998),
    "cressie_read_penalty_1.002": _power_penalty(1.002),
    "cressie_read_penalty_1.5": _power_penalty(1.5),
    "cressie_read_penalty_3": _power_penalty(3.0),
    "charged_tail": Kind(
        lambda f, p: CVaR(f * p[0] + (1 - f)) + KLPenalty(_gap_below_top(p) / -math.log(p[0]) / 2),
        lambda a, *given: exact.charged(
            lambda mass: mass / exact.mp.mpf(a.base.alpha), "kl", a.price.temperature, *given
        ),
    ),
    "charged_variation": Kind(
        lambda f, p: TotalVariation(f * (1 - p[0])) + ChiSquarePenalty(2 * _gap_below_top(p) * p[0]),
        lambda a, *given: exact.charged(
            lambda mass: mass + exact.mp.mpf(a.base.radius), "chi2", a.price.strength, *given
        ),
    ),
    "charged_spectrum": Kind(
        lambda f, p: Spectral((0.0, 0.25, 0.75)).with_strength(f) + ChiSquarePenalty(0.1),
        lambda a, *given: exact.charged(partial(_spectral_mass, a.base.spectrum), "chi2", a.price.strength, *given),
    ),
    "charged_ball": Kind(
        lambda f, p: KL(-f * math.log(p[0])) + KLPenalty(_gap_below_top(p) / -math.log(p[0]) / 2), _charged_ball
    ),
}

LOSSES = {
    2: np.array([2.0, -1.0]),
    3: np.array([5.0, 4.25, 2.0]),
    4: np.array([1.0, 0.9, 0.5, 0.0]),
    5: np.array([1.0, 0.5, 0.5 - 2.0**-51, 0.25, 0.0]),
}
SHAPES: dict[str, Callable[[float], list[float]]] = {  # largest loss first
    "two": lambda mass: [mass, 1 - mass],
    "three": lambda mass: [mass, 3 * mass, 1 - 4 * mass],
    "light_ends": lambda mass: [mass, 1 - 2 * mass, mass],
    "four": lambda mass: [mass, math.sqrt(mass) / 4, 0.25, 0.75 - mass - math.sqrt(mass) / 4],
    "nearly_tied": lambda mass: [mass, 0.5, mass, 0.25, 0.25 - 2 * mass],
}
FRACTIONS = [0.0, 1e-15, 0.5, 0.999, 1.0]
MASSES = [1e-3, 1e-8, 1e-18, 1e-40, 1e-100, 1e-200, 1e-300]


def rows(*, every: int) -> list[Any]:
    """By default every kind, mass and fraction occurs; exhaustively every combination."""
    found: list[Any] = []
    for k, (kind, shape) in enumerate((kind, shape) for kind in KINDS for shape in SHAPES):
        for i, mass in enumerate(MASSES):
            least = shape in ("two", "three") and mass == MASSES[-1]
            always = least or (shape in ("two", "four", "nearly_tied") and (i + k) % every == 0)
            marks = () if always else pytest.mark.exhaustive
            found.append(pytest.param(kind, shape, mass, id=f"{kind}-{shape}-{mass:g}", marks=marks))
    return found


def with_all_sizes(sets: list[Any]) -> Any:
    """Sets that differ in their size only, as one that has a size for every problem of a batch."""
    first = sets[0]
    if isinstance(first, Grouped | Trimmed):
        return replace(first, inner=with_all_sizes([one.inner for one in sets]))
    return replace(first, **{first.size: np.array([getattr(one, first.size) for one in sets])})


def solved(losses: np.ndarray, p: np.ndarray, sets: list[Any], backend: Backend, *, together: bool) -> Iterator[Any]:
    """The answer for each set, from one call each or from one for all."""
    array, numpy = backend.array, backend.numpy
    if not together:
        for ambiguity in sets:
            found = worst_case(array(losses), ambiguity, reference=array(p))
            yield WorstCase(numpy(found.weights), numpy(found.value), Dual(*map(numpy, found.dual)))
        return
    batch = np.tile(losses, (len(sets), 1))
    found = worst_case(array(batch), with_all_sizes(sets), reference=array(p))
    parts = [numpy(part) for part in (found.weights, found.value, *found.dual)]
    for weights, value, *dual in zip(*parts, strict=True):
        yield WorstCase(weights, value, Dual(*dual))


def check(kind: str, shape: str, mass: float, backend: Backend, *, together: bool = False) -> None:
    p = np.array(SHAPES[shape](mass))
    losses = LOSSES[len(p)]
    spread = float(np.ptp(losses))
    sets = [KINDS[kind].make(fraction, p) for fraction in FRACTIONS]
    for ambiguity, result in zip(sets, solved(losses, p, sets, backend, together=together), strict=True):
        expected = KINDS[kind].value(ambiguity, *exact.levels(losses, p))
        error = float((exact.mp.mpf(float(result.value)) - expected) / spread)
        assert abs(error) <= 1e-11, (ambiguity, float(result.value), float(expected))
        assert np.all(result.weights >= 0)
        assert abs(result.weights.sum() - 1) <= 1e-12
        gap = float(duality_gap(losses, ambiguity, result, reference=p)) / spread
        assert abs(gap) <= tol.CERTIFICATE + 4 * tol.EPS * np.abs(losses).max(), (ambiguity, gap)


@pytest.mark.parametrize(("kind", "shape", "mass"), rows(every=3))
def test_agrees_with_sixty_digits(kind: str, shape: str, mass: float) -> None:
    check(kind, shape, mass, BACKENDS[0])


@pytest.mark.parametrize(("kind", "shape", "mass"), rows(every=7))
def test_so_does_the_device(kind: str, shape: str, mass: float) -> None:
    """One row of every kind has its problems solved one by one; else all fractions are one batch, where they can be."""
    alone = kind == "spectral" or kind.startswith("charged") or (shape, mass) == ("two", MASSES[-1])
    check(kind, shape, mass, next(one for one in BACKENDS if one.name == "torch_device"), together=not alone)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "kind", ["tv", "tv_capped", "cvar", "spectral", "chi2", "chi2_penalty", "trimmed", "trimmed_top"]
)
def test_so_does_selection(kind: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By which long problems are solved, in place of a sort."""
    monkeypatch.setattr(selection, "_FEW", 0)
    for mass in MASSES:
        check(kind, shape, mass, BACKENDS[0])


KNOWN = [  # losses 1 and 0, the mass of the first: by hand, or by the docstring's formula in 60 digits
    (CressieRead(0.1, 8), 1e-18, 0.999997),
    (Hellinger(0.5), 1e-40, 0.4375),  # 1 - (1 - 1/4)^2
    (CressieRead(3, 1e13), 1e-8, 0.18171206),
    (ChiSquare(1e14), 1e-15, 0.4472136),  # the root of 0.2
    (ChiSquare(1e11), 1e-12, 0.4472136),
]


@pytest.mark.parametrize(("ambiguity", "mass", "value"), KNOWN, ids=str)
def test_known_values(ambiguity: AmbiguitySet, mass: float, value: float) -> None:
    losses, p = np.array([1.0, 0.0]), np.array([mass, 1 - mass])
    result = worst_case(losses, ambiguity, reference=p)
    assert float(result.value) == pytest.approx(value, abs=1e-7)
    assert abs(float(duality_gap(losses, ambiguity, result, reference=p))) <= 1e-12


@pytest.mark.parametrize(
    "kind", ["chi2", "cressie_read_.5", "cressie_read_1.5", "cressie_read_3", "hellinger", "kl", "burg"]
)
def test_random_masses_over_all_decades(kind: str) -> None:
    """Five levels, some of them within roundings of each other; in a batch, so that no row disturbs another."""
    rng = np.random.default_rng(3)
    rows = 12
    losses = rng.standard_normal((rows, 5))
    losses[::3, 1] = np.nextafter(losses[::3, 0], 9)
    losses[1::3, 1:3] = losses[1::3, :1] - 1e-15
    masses = 10.0 ** -rng.uniform(0, 60, (rows, 5)) * [1e-20, 1e-20, 1e-5, 1e-5, 1]
    masses[:, 4] = 1.0
    losses[:, 4] = losses.min(axis=-1) - rng.uniform(0, 1, rows) * (np.arange(rows) % 2)
    p = masses / masses.sum(axis=-1, keepdims=True)
    top = np.sum(np.where(losses == losses.max(-1, keepdims=True), p, 0), axis=-1)
    for fraction in (0.3, 0.9):
        ambiguity = KINDS[kind].make(fraction, np.array([np.median(top), 1.0]))
        result = worst_case(losses, ambiguity, reference=p)
        spread = np.ptp(losses, axis=-1)
        for k in range(rows):
            expected = KINDS[kind].value(ambiguity, *exact.levels(losses[k], p[k]))
            assert float(result.value[k]) == pytest.approx(float(expected), abs=1e-11 * spread[k]), (k, ambiguity)
        gap = duality_gap(losses, ambiguity, result, reference=p)
        assert np.all(np.abs(gap) <= tol.CERTIFICATE * spread)


SMALL = [
    "burg",
    "chi2",
    "kl",
    "cressie_read_.1",
    "cressie_read_.5",
    "cressie_read_.998",
    "cressie_read_1.002",
    "cressie_read_3",
]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("radius", [1e-15, 1e-9])
def test_a_small_radius_goes_as_far_as_it_says(kind: str, radius: float) -> None:
    """Of order .998 it went 2.3 times too far: what is gained over the mean is compared, not the value."""
    rng = np.random.default_rng(5)
    losses = np.round(rng.standard_normal(9), 2)
    for p in (np.full(9, 1 / 9), rng.dirichlet(np.full(9, 0.2))):
        made = KINDS[kind].make(0.5, np.array([0.1, 0.9]))
        ambiguity: Any = replace(made, radius=radius)  # type: ignore[type-var]
        middle = float(exact.mean(*exact.levels(losses, p)))
        gained = float(KINDS[kind].value(ambiguity, *exact.levels(losses, p)) - exact.mean(*exact.levels(losses, p)))
        weights = worst_case(losses, ambiguity, reference=p).weights
        assert float(weights @ (losses - middle)) == pytest.approx(gained, rel=1e-6)


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_radius_on_a_device(kind: str) -> None:
    """Where no one looks whether an iteration is done, it must not be led astray by roundings of a small divergence."""
    rng, device = np.random.default_rng(6), next(one for one in BACKENDS if one.name == "torch_device")
    losses = np.concatenate([rng.standard_normal((2, 6)), np.exp(3 * rng.standard_normal((2, 6)))])
    p = np.concatenate([np.full((1, 6), 1 / 6), rng.dirichlet(np.full(6, 0.3), 3)])
    spread = np.ptp(losses, axis=-1)
    for radius in (7e-16, 1e-13, 1e-8):
        made: Any = KINDS[kind].make(0.5, np.array([0.1, 0.9]))
        ambiguity: Any = replace(made, radius=radius)
        values = device.numpy(worst_case(device.array(losses), ambiguity, reference=device.array(p)).value)
        expected = [float(KINDS[kind].value(ambiguity, *exact.levels(*row))) for row in zip(losses, p, strict=True)]
        np.testing.assert_array_less(np.abs(values - expected) / spread, 1e-12, err_msg=f"{ambiguity}")


@pytest.mark.parametrize("make", SETS.values(), ids=SETS)
@pytest.mark.parametrize("scale", [4.4e307, 2.0**1021])
def test_losses_near_the_largest_float_are_certified(make: Maker, scale: float) -> None:
    """Where a multiplier overflows, it is found anew in centred units."""
    losses = scale * np.array([1.0, -1.0, 0.25, 0.0])
    for fraction in (1.0, 1e-3, 1e-12, 0.0):
        ambiguity = make(4).with_strength(fraction)
        for array in (losses, torch.from_numpy(losses)):
            gap = duality_gap(array, ambiguity, worst_case(array, ambiguity))
            assert abs(float(gap)) <= tol.CERTIFICATE * 2 * scale


class Lazy(ChiSquare):
    """Returns the reference, and so a gap."""

    def maximise(self, problem: Any) -> Any:
        _, dual = super().maximise(problem)
        return problem.masses().copy(), dual


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_an_answer_without_certificate_warns(library: Callable[[np.ndarray], Any]) -> None:
    losses, tiny = library(np.array([2.0, 1.0, 0.0])), library(np.array([1e-20, 0.5, 0.5]))
    with pytest.warns(RuntimeWarning, match=r"chi2:0\.5 was solved to a duality gap of 0\.\d+ only.*Drop") as seen:
        worst_case(losses[None].repeat(2, 1) if library is torch.from_numpy else losses, Lazy(0.5), reference=tiny)
    assert len(seen) == 1
    worst_case(losses, ChiSquare(0.5), reference=tiny)
    worst_case(losses, Lazy(0.5), reference=library(np.array([0.0, 0.5, 0.5])))  # a mass of zero hides nothing
