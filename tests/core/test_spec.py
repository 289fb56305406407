"""Sets go to text and back, and bad text is explained."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

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
    parse_ambiguity,
)

from .examples import line
from .registry import FAMILIES, Family


@pytest.mark.parametrize(
    ("spec", "ambiguity"),
    [
        ("erm", None),
        ("tv:0.2", TotalVariation(0.2)),
        ("tv:0.2,max_ratio=8", TotalVariation(0.2, max_ratio=8)),
        ("cvar:0.3", CVaR(0.3)),
        ("chi2:0.5", ChiSquare(0.5)),
        ("kl:1e-05", KL(1e-5)),
        ("hellinger:0.25", Hellinger(0.25)),
        ("cressie_read:0.5,order=1.5", CressieRead(1.5, 0.5)),
        ("spectral:1", Spectral((1,))),
        ("spectral:0.1/0.3/0.6", Spectral((0.1, 0.3, 0.6))),
        ("kl_penalty:1", KLPenalty(1)),
        ("kl_penalty:inf", KLPenalty(float("inf"))),
        ("chi2_penalty:0.125", ChiSquarePenalty(0.125)),
        ("cvar:0", CVaR(0)),
        ("burg:0.3", Burg(0.3)),
        ("burg_penalty:2", BurgPenalty(2)),
        ("cressie_read_penalty:0.5,order=1.5", CressieReadPenalty(1.5, 0.5)),
        ("tv:0.2,by=source", Grouped(TotalVariation(0.2), "source")),
        ("tv:0.2,by=the source", Grouped(TotalVariation(0.2), "the source")),
        ("tv:0.2,trim=0.05", Trimmed(TotalVariation(0.2), 0.05)),
        ("tv:0.2,by=source,trim=0.05", Trimmed(Grouped(TotalVariation(0.2), "source"), 0.05)),
        ("tv:0.2,trim=0.05,by=source", Grouped(Trimmed(TotalVariation(0.2), 0.05), "source")),
        ("tv:0.2,max_ratio=8,by=source", Grouped(TotalVariation(0.2, max_ratio=8), "source")),
        ("cressie_read:0.5,order=1.5,trim=0.1", Trimmed(CressieRead(1.5, 0.5), 0.1)),
        ("spectral:0.5/0.5,by=source", Grouped(Spectral((0.5, 0.5)), "source")),
        ("kl_penalty:2,by=source", Grouped(KLPenalty(2), "source")),
    ],
)
def test_specs_go_both_ways(spec: str, ambiguity: AmbiguitySet | None) -> None:
    assert parse_ambiguity(spec) == ambiguity
    spaced = spec.replace(",", " , ").replace(":", " : ").replace("/", " / ").replace("=", " = ")
    assert parse_ambiguity(f" {spaced} ") == ambiguity
    assert ambiguity is None or str(ambiguity) == spec


def test_the_sets_own_options_may_come_later() -> None:
    assert parse_ambiguity("tv:0.2,by=source,max_ratio=8") == Grouped(TotalVariation(0.2, max_ratio=8), "source")


IN_TEXT = [family for family in FAMILIES if not family.name.startswith(("wasserstein", "mean", "grouped", "convex"))]


@pytest.mark.parametrize("family", IN_TEXT, ids=lambda family: family.name)
def test_every_set_of_numbers_survives_its_text(family: Family) -> None:
    @given(family.draw(3))
    def survives(ambiguity: AmbiguitySet) -> None:
        assert parse_ambiguity(str(ambiguity)) == ambiguity

    survives()


def test_sets_that_hold_arrays_have_a_short_name_all_the_same() -> None:
    assert str(Wasserstein(0.2, line(400))) == "wasserstein:0.2,cost=(400, 400)"
    assert str(MeanDiscrepancy(0.2, np.eye(400))) == "mean_discrepancy:0.2,kernel=(400, 400)"
    assert str(Trimmed(Grouped(KL(0.3), np.arange(400)), 0.1)) == "kl:0.3,by=(400 labels),trim=0.1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "total:0.2",
            r"unknown ambiguity 'total:0\.2'; the known ones are: erm, burg:RADIUS, burg_penalty:STRENGTH, "
            r"chi2:RADIUS, chi2_penalty:STRENGTH, cressie_read:RADIUS, cressie_read_penalty:STRENGTH, cvar:ALPHA, "
            r"hellinger:RADIUS, kl:RADIUS, kl_penalty:TEMPERATURE, spectral:SPECTRUM, tv:RADIUS\.",
        ),
        ("", "unknown ambiguity"),
        ("erm:0.2", "unknown ambiguity"),
        ("erm,by=source", "unknown ambiguity"),
        ("wasserstein:0.1", "unknown ambiguity"),  # its cost is no text
        ("grouped:0.2", "unknown ambiguity"),
        ("tv", "lacks its radius; write for example 'tv:0.2'"),
        ("tv:", "lacks its radius"),
        ("cvar", "lacks its alpha"),
        ("kl_penalty", "lacks its temperature; write for example 'kl_penalty:"),
        ("chi2_penalty:", "lacks its strength"),
        ("spectral:", "lacks its spectrum; write for example 'spectral:0.1/0.3/0.6'"),
        ("cressie_read:0.5", "lacks order; add ',order=NUMBER'"),
        ("cressie_read:order=1.5", "'order=1.5' where a number belongs|lacks its radius"),
        (
            "tv:0,2",
            "has the option '2', but the allowed ones, once each, are: max_ratio=NUMBER, by=NAME, minibatch=NUMBER, "
            "trim=NUMBER",
        ),
        ("tv:0.2,", "has the option ''"),
        ("tv:a lot", "has 'a lot' where a number belongs"),
        ("tv:0.1/0.2", r"must lie in \[0, 1\], got \(0\.1, 0\.2\)"),
        ("spectral:0.1/b", "has 'b' where a number belongs"),
        ("spectral:0.1//0.9", "has '' where a number belongs"),
        ("spectral:0.6/0.4", r"`Spectral\.spectrum` must be nondecreasing and sum to 1.*Sort it"),
        ("tv:0.2,max_ratio=", "has '' where a number belongs"),
        ("tv:0.2,cap=8", "has the option 'cap=8'"),
        ("tv:0.2,max_ratio=8,max_ratio=9", "has the option 'max_ratio=9'"),
        ("tv:0.2,by=a,by=b", "has the option 'by=b', but the allowed ones, once each"),
        ("tv:0.2,by", "has the option 'by'"),
        ("tv:0.2,by=", r"`Grouped\.groups` must name a column"),
        ("tv:0.2,trim=a", "has 'a' where a number belongs"),
        ("tv:0.2,trim=1", r"`Trimmed\.fraction`.*\[0, 1\), got 1\.0"),
        ("kl:0.2,max_ratio=8", "the allowed ones, once each, are: by=NAME, minibatch=NUMBER, trim=NUMBER"),
        ("tv:1.2", r"must lie in \[0, 1\], got 1\.2"),
        ("cvar:nan", r"must lie in \[0, 1\], got nan"),
    ],
)
def test_a_bad_spec_is_explained(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_ambiguity(spec)
