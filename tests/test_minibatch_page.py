"""docs/results/minibatch.md: its numbers are those that are kept, and these are right."""

from __future__ import annotations

import json
import re
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad

from dro_core import CVaR, TotalVariation, worst_case
from experiments.minibatch import descent, pairs, study
from experiments.minibatch.densities import density, rank_weights, shares, square
from experiments.page_tables import unquoted
from experiments.tv_bias.repairs import LAWS


@pytest.fixture(scope="module")
def told():
    return json.loads(study.KEPT.read_text(encoding="utf-8"))


def test_tables_and_quoted_numbers_are_those_that_are_kept(told):
    page = study.PAGE.read_text(encoding="utf-8")
    assert study.written(page, told) == page
    assert set(re.findall(r"\d+\.\d+", unquoted(page))) == set()


def test_the_risk_is_the_mean_of_all_batches():
    """Every draw of three from five equal losses, one by one."""
    losses = np.array([0.1, 0.2, 0.7, 1.5, 4.0])
    drawn = np.array(list(product(losses, repeat=3)))
    for ambiguity in (TotalVariation(0.2), CVaR(0.5), TotalVariation(0.4, max_ratio=1.5)):
        mean = float(np.mean(worst_case(drawn, ambiguity).value))
        assert shares(rank_weights(ambiguity, 3), 5) @ losses == pytest.approx(mean, abs=1e-12)


def test_densities_are_nondecreasing_and_their_squares_integrate_to_what_is_said():
    for ambiguity, n in ((TotalVariation(0.2), 8), (CVaR(0.3), 24), (TotalVariation(0.2), 1)):
        weights = rank_weights(ambiguity, n)
        assert (np.diff(density(weights, np.linspace(0, 1, 201))) >= -1e-12).all()
        assert square(weights) == pytest.approx(quad(lambda u: density(weights, u) ** 2, 0, 1)[0], rel=1e-9)  # noqa: B023
    assert density(rank_weights(TotalVariation(0.2), 8), 1.0) == pytest.approx(1 + 8 * 0.2)


def test_risks_by_the_density_are_those_by_the_steps_of_the_losses(told):
    """``exact`` integrates over quantiles; ``Layers`` adds up biases of Bernoulli losses."""
    law = LAWS["true reward"]
    for row in told["sizes"]:
        by_density = pairs.exact(rank_weights(TotalVariation(0.2), row["n"]))[0]
        assert by_density == pytest.approx(law.plugin_value(row["n"], TotalVariation(0.2)), abs=2e-5)
        assert row["true reward"] == pytest.approx(by_density, abs=3e-5)
        again = law.plugin_value(512, TotalVariation(row["true reward, radius"]))
        assert again == pytest.approx(row["true reward"], abs=1e-5)
        assert square(rank_weights(TotalVariation(row["like"]), 512)) == pytest.approx(1 / row["share"], rel=1e-4)


def test_what_was_drawn_agrees_with_quadrature_and_tells_the_two_kinds_of_weights_apart(told):
    for row in told["unbiased"]:
        for drawn, exact in (("value", "value_exact"), ("slope", "slope_exact")):
            assert row[drawn][1] < row[exact] < row[drawn][2]
        if "minibatch" in row["weights"]:
            assert abs(row["value_exact"]) + abs(row["slope_exact"]) < 1e-12
        elif row["weights"] == "shares of the density":
            assert row["paired"][2] < 0
            assert row["paired"][1] <= row["value_exact"] * (1 + 1e-3)


def test_gradients_are_the_slopes_of_values():
    margins = pairs.drawn(16, 3, seed=5)
    weights = pairs.rules(16)["shares of the density"]
    up, down = (pairs.measured(margins * scale, weights)[0] for scale in (1 + 1e-5, 1 - 1e-5))
    np.testing.assert_allclose(pairs.measured(margins, weights)[1], (up - down) / 2e-5, rtol=1e-6)


def test_a_run_has_the_gaps_that_are_kept(told):
    judge = descent.risk(rank_weights(TotalVariation(0.2), 8))
    for place, arm in enumerate(descent.arms()):
        gaps = judge.objective(descent.average(arm, descent.STEPS[0])) - judge.optimum.bound
        assert told["descent"]["arms"][place]["eight"][0][0] == pytest.approx(gaps.mean(), rel=1e-4)


def test_small_batches_have_no_floor_and_keep_below_the_bound(told):
    found = told["descent"]
    for arm in found["arms"][:2]:
        upper = np.array(arm["eight"])[:, 2]
        assert (upper < found["bound"]).all()
        assert (upper[1:] < upper[:-1] / 2).all()  # four times the steps
        assert arm["eight end"] < 1e-6 < arm["all end"]
