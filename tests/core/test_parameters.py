"""Sets check their parameters when they are made, and are values: equality, hashes, pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any, NamedTuple

import numpy as np
import pytest

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
    Grouped,
    Hellinger,
    KLPenalty,
    MeanDiscrepancy,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    duality_gap,
    worst_case,
)

from . import tolerances as tol
from .examples import Maker, every_set, line


class Parameter(NamedTuple):
    """One number of a set: what its refusal says, values in and at the ends of the interval, and values beyond it."""

    make: Callable[[Any], AmbiguitySet]
    message: str
    inside: list[float]
    outside: list[float]


TINY, INF = 5e-324, float("inf")
JUST_BELOW_0, JUST_ABOVE_1 = -TINY, 1 + 2.0**-52
PARAMETERS = {
    "tv": Parameter(
        TotalVariation, r"`TotalVariation\.radius`.*\[0, 1\]", [0, TINY, 0.5, 1], [JUST_BELOW_0, JUST_ABOVE_1, INF]
    ),
    "tv_ratio": Parameter(
        lambda ratio: TotalVariation(0.2, max_ratio=ratio),
        r"`TotalVariation\.max_ratio`.*\[1, inf\)",
        [1, 1.5, 1e300],
        [0.9, 1 - 2.0**-53, INF],
    ),
    "cvar": Parameter(
        CVaR,
        r"`CVaR\.alpha` is the tail mass and must lie in \[0, 1\]",
        [0, TINY, 1e-300, 0.5, 1],
        [JUST_BELOW_0, JUST_ABOVE_1, -1.0],
    ),
    "chi2": Parameter(ChiSquare, r"`ChiSquare\.radius`.*\[0, inf\)", [0, TINY, 1, 1e300], [JUST_BELOW_0, INF]),
    "kl": Parameter(KL, r"`KL\.radius`.*\[0, inf\)", [0, TINY, 1, 1e300], [JUST_BELOW_0, INF]),
    "hellinger": Parameter(
        Hellinger, r"`Hellinger\.radius`.*\[0, 2\)", [0, TINY, 1, 2 - 2.0**-52], [JUST_BELOW_0, 2.0, INF]
    ),
    "order": Parameter(
        lambda order: CressieRead(order, 0.3),
        r"`CressieRead\.order`.*must lie in .*, 3\]",
        [0.01, 0.5, 0.998, 1.002, 2, 3],
        [0.0, -1.0, 3 + 2.0**-50, INF],
    ),
    "cressie_read": Parameter(
        lambda radius: CressieRead(1.5, radius),
        r"`CressieRead\.radius`.*\[0, inf\)",
        [0, TINY, 1, 1e300],
        [JUST_BELOW_0, INF],
    ),
    "burg": Parameter(Burg, r"`Burg\.radius`.*\[0, inf\)", [0, TINY, 1, 1e300], [JUST_BELOW_0, INF]),
    "wasserstein": Parameter(
        lambda radius: Wasserstein(radius, line(4)),
        r"`Wasserstein\.radius`.*\[0, inf\)",
        [0, TINY, 1, 1e300],
        [JUST_BELOW_0, INF],
    ),
    "mean_discrepancy": Parameter(
        lambda radius: MeanDiscrepancy(radius, np.eye(4)),
        r"`MeanDiscrepancy\.radius` is a mean discrepancy.*\[0, inf\)",
        [0, TINY, 1, 1e300],
        [JUST_BELOW_0, INF],
    ),
    "trimmed": Parameter(
        lambda fraction: Trimmed(KL(0.3), fraction),
        r"`Trimmed\.fraction` is .* and must lie in \[0, 1\)",
        [0, TINY, 0.5, 0.99],
        [JUST_BELOW_0, 1.0],
    ),
    "kl_penalty": Parameter(
        KLPenalty, r"`KLPenalty\.temperature`.*\(0, inf\]", [1e-6, 1, 1e9, INF], [0.0, JUST_BELOW_0, -INF]
    ),
    "chi2_penalty": Parameter(
        ChiSquarePenalty, r"`ChiSquarePenalty\.strength`.*\(0, inf\]", [1e-6, 1, 1e9, INF], [0.0, JUST_BELOW_0, -INF]
    ),
    "burg_penalty": Parameter(
        BurgPenalty, r"`BurgPenalty\.strength`.*\(0, inf\]", [1e-300, 1, 1e9, INF], [0.0, JUST_BELOW_0, -INF]
    ),
    "priced_order": Parameter(
        lambda order: CressieReadPenalty(order, 0.3),
        r"`CressieReadPenalty\.order`.*must lie in .*, 3\]",
        [0.01, 0.5, 0.998, 1.002, 2, 3],
        [0.0, -1.0, 3 + 2.0**-50, INF],
    ),
    "cressie_read_penalty": Parameter(
        lambda strength: CressieReadPenalty(1.5, strength),
        r"`CressieReadPenalty\.strength`.*\(0, inf\]",
        [1e-300, 1, 1e9, INF],
        [0.0, JUST_BELOW_0, -INF],
    ),
}
ONE_NUMBER = [PARAMETERS[name] for name in ("tv_ratio", "order", "trimmed")]  # the others may be one per problem
every_parameter = pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=PARAMETERS)


@every_parameter
def test_parameters_are_checked_at_construction(parameter: Parameter) -> None:
    several = [np.array([0.5])] if parameter in ONE_NUMBER else []
    for value in [*parameter.outside, np.nan, True, "0.5", [0.5], None, 0.5j, *several]:
        if value is None and parameter is PARAMETERS["tv_ratio"]:
            continue  # no bound
        with pytest.raises(ValueError, match=parameter.message) as caught:
            parameter.make(value)
        assert f"got {value!r}. " in str(caught.value)
        assert str(caught.value).endswith(".")
        assert len(str(caught.value).split(f"got {value!r}. ")[1]) > 10  # what to do instead


@every_parameter
def test_every_allowed_parameter_can_be_solved(parameter: Parameter) -> None:
    losses, reference = np.array([0.5, 3.0, -1.0, 3.0]), np.array([0.5, 0.125, 0.125, 0.25])
    for at in parameter.inside:
        result = worst_case(losses, parameter.make(at), reference=reference)
        assert -1 <= float(result.value) <= 3
        assert abs(result.weights.sum() - 1) < 1e-12
        assert abs(float(duality_gap(losses, parameter.make(at), result, reference=reference))) <= 4 * tol.CERTIFICATE


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1\.3\. For the mean use alpha=1\."):
        CVaR(1.3)


@pytest.mark.parametrize("order", [1, 1.0, 1.0005, 0.9995])
def test_order_one_is_called_kl(order: float) -> None:
    with pytest.raises(ValueError, match=r"`CressieRead\.order` must differ from 1 .*Order 1 is KL\(radius\)"):
        CressieRead(order, 0.3)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        ((0.6, 0.4), r"must be nondecreasing and sum to 1, got sum 1\.0 not in nondecreasing order. Sort it"),
        ((0.1, 0.3), r"got sum 0\.4 in nondecreasing order.*divide it by its sum"),
        ((0.5, 0.5 + 1e-6), "sum to 1"),
        ((), "sum to 1"),
        (
            (-0.5, 1.5),
            r"weight of one share and must lie in \[0, 1\], got -0\.5. Give for example \(0\.1",
        ),
        ((0.2, np.nan), "must lie in"),
        ((0, True), "must lie in"),
        (("0.2", "0.8"), "must lie in"),
        ("0.2/0.8", "must lie in"),
        (0.5, "sum to 1"),
        (None, "must lie in"),
        (np.array([[0.2, 0.8]]), "must lie in"),
    ],
    ids=str,
)
def test_bad_spectra(spectrum: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)`Spectral\.spectrum`.*" + message):
        Spectral(spectrum)


@pytest.mark.parametrize(
    "spectrum",
    [(0.25, 0.75), [0.25, 0.75], np.array([0.25, 0.75], np.float32), iter((0.25, 0.75))],
)
def test_any_sequence_is_a_spectrum(spectrum: Any) -> None:
    assert Spectral(spectrum).spectrum == (0.25, 0.75)
    assert Spectral(1) == Spectral((1.0,))
    thirds = Spectral((1 / 3,) * 3)  # sums to 1 but for rounding
    assert thirds.with_strength(0.5).spectrum == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize("number", [1, 1.0, np.int64(1), np.float32(1), np.array(1), np.array(1.0), np.array(1, "i1")])
def test_any_real_number_is_a_parameter(number: Any) -> None:
    made = [CVaR(number), KL(number), KLPenalty(number), TotalVariation(0.2, max_ratio=number), Burg(number)]
    assert made == [CVaR(1.0), KL(1.0), KLPenalty(1.0), TotalVariation(0.2, max_ratio=1.0), Burg(1.0)]
    assert type(made[0].alpha) is float
    assert Trimmed(CVaR(0.5), number / 2) == Trimmed(CVaR(0.5), 0.5)
    assert Spectral(np.array([number])) == Spectral(1)
    with pytest.raises(TypeError, match="must hold real numbers, got dtype bool"):
        CVaR(np.array([0.5]) > 0.1)


def test_numbers_are_stored_as_floats_and_frozen() -> None:
    ball = TotalVariation(np.float64(1), max_ratio=4)
    assert (type(ball.radius), type(ball.max_ratio)) == (float, float)
    assert ball == TotalVariation(1.0, 4.0)
    for one, field in ((ball, "radius"), (Spectral(1), "spectrum"), (Wasserstein(0, line(2)), "cost")):
        with pytest.raises(FrozenInstanceError):
            setattr(one, field, 0.5)
    with pytest.raises(FrozenInstanceError):
        Grouped(KL(0.3), [0, 1]).count = 3  # type: ignore[misc]


@every_set
def test_sets_are_values(make: Maker) -> None:
    one, again, weaker = make(5), make(5), make(5).with_strength(0.5)
    for twin in (again, copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert twin == one
        assert hash(twin) == hash(one)
    assert one != weaker
    assert len({one, again, weaker}) == 2
    assert one not in ("tv:0.2", None, 0.2)
    assert sum(one == other for other in (TotalVariation(0.2), CVaR(0.3), ChiSquare(0.5), KL(0.3))) <= 1


def test_kinds_of_equal_numbers_differ() -> None:
    kinds = [ChiSquare(0.3), KL(0.3), Hellinger(0.3), TotalVariation(0.3), KLPenalty(0.3), ChiSquarePenalty(0.3)]
    assert len(set(kinds)) == len(kinds)
    assert CressieRead(1.5, 0.3) != CressieRead(0.3, 1.5)
