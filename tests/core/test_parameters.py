"""Sets check their parameters when they are made, and go to text and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given

from dro_core import KL, AmbiguitySet, ChiSquare, CVaR, TotalVariation, parse_ambiguity

from .registry import FAMILIES, Family

MAKERS: list[tuple[Callable[[object], AmbiguitySet], str, list[float]]] = [
    (TotalVariation, r"`TotalVariation\.radius`.*\[0, 1\]", [-0.1, 1.1]),
    (lambda ratio: TotalVariation(0.2, max_ratio=ratio), r"`TotalVariation\.max_ratio`.*\[1, inf\)", [0.9, np.inf]),
    (CVaR, r"`CVaR\.alpha` is the tail mass and must lie in \(0, 1\]", [0.0, 1.3, -1.0]),
    (ChiSquare, r"`ChiSquare\.radius`.*\[0, inf\)", [-1e-9, np.inf]),
    (KL, r"`KL\.radius`.*\[0, inf\)", [-1e-9, np.inf]),
]


@pytest.mark.parametrize(("make", "message", "outside"), MAKERS)
def test_parameters_are_checked_at_construction(
    make: Callable[[object], AmbiguitySet], message: str, outside: list[float]
) -> None:
    for value in [*outside, np.nan, True, "0.5", [0.5], 0.5j]:
        with pytest.raises(ValueError, match=message) as caught:
            make(value)
        assert f"got {value!r}. For " in str(caught.value)


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got 1\.3\. For the mean use alpha=1\."):
        CVaR(1.3)


def test_numbers_are_stored_as_floats_and_frozen() -> None:
    ball = TotalVariation(np.float64(1), max_ratio=4)
    assert (type(ball.radius), type(ball.max_ratio)) == (float, float)
    assert ball == TotalVariation(1.0, 4.0)
    with pytest.raises(FrozenInstanceError):
        ball.radius = 0.5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("spec", "ambiguity"),
    [
        ("erm", None),
        ("tv:0.2", TotalVariation(0.2)),
        ("tv:0.2,max_ratio=8", TotalVariation(0.2, max_ratio=8)),
        ("cvar:0.3", CVaR(0.3)),
        ("chi2:0.5", ChiSquare(0.5)),
        ("kl:1e-05", KL(1e-5)),
    ],
)
def test_specs_go_both_ways(spec: str, ambiguity: AmbiguitySet | None) -> None:
    assert parse_ambiguity(spec) == ambiguity
    assert parse_ambiguity(f" {spec.replace(',', ' , ').replace(':', ' : ')} ") == ambiguity
    assert ambiguity is None or str(ambiguity) == spec


TEXTUAL = [family for family in FAMILIES if family.name not in ("wasserstein", "grouped", "grouped_kl", "convex")]


@pytest.mark.parametrize("family", TEXTUAL, ids=lambda family: family.name)
def test_every_set_survives_its_text(family: Family) -> None:
    @given(family.draw(4))
    def survives(ambiguity: AmbiguitySet) -> None:
        assert parse_ambiguity(str(ambiguity)) == ambiguity

    survives()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "total:0.2",
            r"unknown ambiguity 'total:0\.2'; the known ones are: erm, chi2:RADIUS, .*cvar:ALPHA, .*tv:",
        ),
        ("", "unknown ambiguity"),
        ("erm:0.2", "unknown ambiguity"),
        ("tv", "lacks its radius; write for example 'tv:0.2'"),
        ("tv:", "lacks its radius"),
        ("cvar", "lacks its alpha"),
        ("tv:0,2", "has the option '2', but the allowed ones, once each, are: max_ratio=NUMBER"),
        ("tv:a lot", "has 'a lot' where a number belongs"),
        ("tv:0.2,max_ratio=", "has '' where a number belongs"),
        ("tv:0.2,cap=8", "has the option 'cap=8'"),
        ("tv:0.2,max_ratio=8,max_ratio=9", "has the option 'max_ratio=9'"),
        ("kl:0.2,max_ratio=8", "allowed ones, once each, are: by=NAME, trim=NUMBER"),
        ("tv:1.2", r"must lie in \[0, 1\], got 1\.2"),
        ("cvar:nan", r"must lie in \(0, 1\], got nan"),
    ],
)
def test_a_bad_spec_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_ambiguity(spec)


def test_strength_runs_from_the_mean_to_the_set_itself() -> None:
    assert TotalVariation(0.4, max_ratio=3).with_strength(0.5) == TotalVariation(0.2, max_ratio=3)
    assert CVaR(0.3).with_strength(0.5) == CVaR(0.65)
    assert [ball.with_strength(1) for ball in (CVaR(0.3), KL(0.1))] == [CVaR(0.3), KL(0.1)]
    assert [ball.with_strength(0) for ball in (CVaR(0.3), ChiSquare(0.1))] == [CVaR(1), ChiSquare(0)]
    for fraction in (-0.1, 1.1, np.nan, True):
        with pytest.raises(ValueError, match=r"`fraction`.*\[0, 1\]"):
            KL(0.3).with_strength(fraction)
