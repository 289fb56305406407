"""docs/results/when.md and atlas.md: numbers are those that are kept, statements hold, bounds begin where they say."""

from __future__ import annotations

import json
import re
from math import ceil, exp, log

import numpy as np
import pytest
from scipy.optimize import linprog

from dro_core import TotalVariation
from experiments.page_tables import unquoted
from experiments.when import atlas, measured, study, theorems
from synthetic.simulate.studies.when import Pairs


@pytest.fixture(scope="module")
def told():
    return json.loads(study.KEPT.read_text(encoding="utf-8"))


def test_pages_hold_what_is_kept(told):
    for path, written in ((study.PAGE, study.page), (study.ATLAS, study.atlas_page)):
        text = path.read_text(encoding="utf-8")
        assert written(text, told) == text
        prose = re.sub(r"\d{4}\.\d{5}", "", unquoted(text))
        assert set(re.findall(r"\d*\.\d+", prose)) <= {".1", "0.2"}, path  # parameters named in a sentence


def test_what_was_measured_is_what_the_studies_keep():
    assert measured.collapse_radius("pairs") == "0.039 [0.033, 0.044]"
    assert measured.head("as they are", "tv:0.2") == "-2.5 [-4.2, -0.8]"
    assert measured.study("whole", "tv:0.2", 2) == "-3.0 [-4.7, -1.4]"
    assert measured.accuracy("whole", "erm", 4) == "37.3"
    assert measured.bandit("opposed") == "+5.0 [+3.4, +6.5]"


def test_worst_error_never_falls_with_the_error():
    curves = theorems.zero_one()
    for curve in curves.values():
        assert (np.diff([worst for _, worst in curve]) > 0).all()
    for error, worst in curves["tv:0.2"]:
        assert worst == pytest.approx(min(1.0, error + 0.2) if error else 0.0, abs=1e-12)


def test_separable_pairs_have_the_least_margin_of_the_bound():
    assert (theorems.SEPARABLE @ np.array([1.0, 0.0])).min() == 1.0
    for ball in (None, TotalVariation(0.2)):
        for norm in (0.5, 4.0, 32.0):
            least = (theorems.SEPARABLE @ theorems.best(norm, ball)).min()
            assert theorems.margin_bound(norm) <= least <= norm + 1e-9
    assert (theorems.SEPARABLE @ theorems.best(0.5, None)).min() < 0.3  # a small reward leans to the many
    assert theorems.margin_bound(40.0) == pytest.approx(40 - log(5), abs=1e-9)


@pytest.mark.parametrize("flips", [0.0, 0.2])
def test_one_prompt_has_the_margin_of_the_closed_form(flips):
    exact, found = theorems.noise(flips)
    lines = np.array(exact)
    for rho, margin in found:
        assert margin == pytest.approx(np.interp(rho, *lines.T), abs=2e-3)
    assert max(rho for rho, margin in exact if margin > 0) < (1 - 2 * flips) * 0.4


def test_coverage_is_gone_at_one_over_the_number_of_prompts():
    """The least eigenvalue by a program: q_1 is least, half of the distance is 1/d - q_1."""
    exact, found = theorems.coverage(4)
    assert max(rho for rho, share in exact if share > 1e-9) < 0.25
    for rho, share in found:
        drained = linprog([1, 0], A_ub=[[-1, 0]], b_ub=[rho - 0.25], A_eq=[[1, 3]], b_eq=[1]).x[0]
        assert share == pytest.approx(4 * max(drained, 0), abs=1e-9)


def test_cells_of_the_map_are_fits_of_the_population(told):
    gains = {title: np.array(cells) for title, cells in told["phases"].items()}
    pairs = gains["pairs, tv:0.1"]
    radii = np.array(told["radii"])
    assert ((1 - 2 * study.FLIPS) * radii[:, :1] >= radii * (1 - 1e-5)).all()
    for place, flip in ((0, 0), (6, 2), (10, 6)):
        turn, share = study.TURNS[place], study.FLIPS[flip]
        cell = Pairs(turn, share)
        assert radii[place, flip] == pytest.approx(cell.radius(), rel=1e-5)
        coin = 50 - 100 * cell.accuracies(Pairs(turn, share).fit("erm")).min()
        assert pairs[place, flip] == pytest.approx(coin if radii[place, flip] <= 0.1 else 0.0, abs=1e-3)
    beyond = np.array(told["frontier"])[:, None] < study.FLIPS[None, :]
    assert (radii[beyond] <= 0.1).all()


@pytest.mark.parametrize(
    ("name", "parameters", "first"),
    [
        ("`cvar-bias`", "alpha .1", 9 / (0.1 * 0.9**2)),
        ("`tv-bias-root-n` (refuted)", "rho .2", 9 / 0.2**2 + 0.5),
        ("`icdf-bias`", "rho .2, G = 2 B", 2 / 0.2 - 1 + 0.5),
        ("`sgd-reward`, optimisation alone", "L 1, R 10", (20 / log(2)) ** 2),
        ("`group-dro-online`, all groups at every step", "m 10, R G = B = 1", (1 + (log(10) / 2) ** 0.5) ** 2),
        ("online group DRO", "m 10, R G = B = 1", 4000 * (1 + log(10))),
        (
            "WDPO, parameter error",
            "beta 0.1, B 10, d 10, delta 0.05, lambda at its largest, 4/d",
            8 * log(1 + exp(4)) ** 2 * log(40) / (0.01 * exp(4) / (1 + exp(4)) ** 2 * 0.4 * 400) ** 2,
        ),
    ],
)
def test_bounds_begin_where_they_meet_the_trivial_one(told, name, parameters, first):
    rows = [row for part in told["atlas"].values() for row in part]
    [row] = [row for row in rows if (row["name"], row["parameters"]) == (name, parameters)]
    assert row["first"] == ceil(first)


def test_a_bound_is_above_the_trivial_one_before_and_below_it_from_there_on(told):
    bounds = [*atlas.biases(), *atlas.descents(), *atlas.samples()]
    kept = [row["first"] for part in told["atlas"].values() for row in part]
    for bound, first in zip(bounds, kept, strict=True):
        assert bound.first == first
        if first is None:
            assert bound.value(10**12) >= bound.trivial
        else:
            assert bound.value(first) < bound.trivial
            assert first == 1 or bound.value(first - 1) >= bound.trivial
            assert bound.value(4 * first) < bound.value(first)
