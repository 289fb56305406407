"""Sets of less strength: from the mean to the set itself, and which are the mean alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dro_core import (
    KL,
    ChiSquare,
    ChiSquarePenalty,
    CressieRead,
    CVaR,
    Grouped,
    KLPenalty,
    MeanDiscrepancy,
    Spectral,
    TotalVariation,
    Trimmed,
    Wasserstein,
    parse_ambiguity,
    worst_case,
)

from .examples import Maker, every_set, line

INF, TINY = float("inf"), 5e-324


def test_strength_runs_from_the_mean_to_the_set_itself() -> None:
    assert TotalVariation(0.4, max_ratio=3).with_strength(0.5) == TotalVariation(0.2, max_ratio=3)
    assert CVaR(0.3).with_strength(0.5) == CVaR(0.65)
    assert Spectral((0.0, 1.0)).with_strength(0.5) == Spectral((0.25, 0.75))
    assert CressieRead(1.5, 0.4).with_strength(0.5) == CressieRead(1.5, 0.2)
    assert Wasserstein(0.4, line(3)).with_strength(0.5) == Wasserstein(0.2, line(3))
    assert Grouped(KL(0.4), [0, 1], count=5).with_strength(0.5) == Grouped(KL(0.2), [0, 1], count=5)
    assert Grouped(KL(0.4), "source").with_strength(0.5) == Grouped(KL(0.2), "source")
    assert Trimmed(KL(0.4), 0.1).with_strength(0.5) == Trimmed(KL(0.2), 0.1)
    assert KLPenalty(0.4).with_strength(0.5) == KLPenalty(0.8)
    assert ChiSquarePenalty(0.4).with_strength(0) == ChiSquarePenalty(INF)
    assert KLPenalty(1.0).with_strength(TINY) == KLPenalty(INF)
    assert [ball.with_strength(0) for ball in (CVaR(0.3), ChiSquare(0.1))] == [CVaR(1), ChiSquare(0)]


@every_set
def test_full_strength_is_the_set_itself(make: Maker) -> None:
    ambiguity = make(5)
    assert ambiguity.with_strength(1) == ambiguity.with_strength(np.float64(1)) == ambiguity
    for fraction in (-0.1, 1.1, np.nan, True, None):
        with pytest.raises(ValueError, match=r"`fraction`.*\[0, 1\]"):
            ambiguity.with_strength(fraction)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("tv:0", True),
        ("tv:0.3,max_ratio=1", True),
        ("cvar:1", True),
        ("spectral:0.25/0.25/0.25/0.25", True),
        ("chi2:0", True),
        ("kl:0,by=source", True),
        ("hellinger:0,trim=0", True),
        ("cressie_read:0,order=1.5", True),
        ("kl_penalty:inf", True),
        ("tv:0,trim=0.1", False),
        ("kl:0,by=source,trim=0.1", False),
        ("tv:1e-9", False),
        ("cvar:0.999", False),
        ("spectral:0.25/0.25/0.5", False),
        ("kl_penalty:1000", False),
    ],
)
def test_a_set_says_whether_it_is_its_reference_alone(*, text: str, alone: bool) -> None:
    """And far losses agree: 64 of them keep equal weights exactly where it says so."""
    given = parse_ambiguity(text)
    assert given is not None
    assert given.holds_only_reference is alone
    bound = given.bind({"source": ["a", "b"] * 32})
    assert bound.holds_only_reference is alone
    weights = worst_case(np.arange(64.0), bound).weights
    assert (float(np.ptp(weights)) < 1e-15) is alone


def test_a_set_of_places_says_whether_it_is_its_reference_alone() -> None:
    assert Wasserstein(0, line(3)).holds_only_reference
    assert Wasserstein(0, torch.from_numpy(np.array(line(3)))).holds_only_reference
    assert not Wasserstein(0, np.zeros((3, 3))).holds_only_reference  # mass may go where the way is free
    assert not Wasserstein(0.1, line(3)).holds_only_reference
    ball = MeanDiscrepancy(0.2, np.eye(3))
    assert not ball.holds_only_reference
    assert ball.with_strength(0).holds_only_reference
    assert ball == ball.with_strength(1)
    assert ball != MeanDiscrepancy(0.3, np.eye(3))
