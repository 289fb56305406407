"""Curves of proxy and gold reward: fits against known laws and statsmodels, and what is refused a fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from llm.report.overoptimisation import write_overoptimisation
from llm.statistics.best_of import BestOfN, best_of, kl_bound
from llm.statistics.overoptimisation import Curve, Law, best_of_curve, fit, training_curve

SIZES = np.array([1, 2, 4, 8, 16, 64, 256, 1000])


def exact(law, alpha, beta, kl):
    d = np.sqrt(kl)
    return d * (alpha - beta * (d if law is Law.BEST_OF_N else np.log(d)))


def noisy(law, *, units=6, noise=0.1, kl=None, clusters=None, seed=0):
    """Units with coefficients of their own around (1.5, 0.6), and points with noise."""
    rng = np.random.default_rng(seed)
    kl = np.tile(np.linspace(0.3, 6, 9) if kl is None else kl, (units, 1))
    alpha, beta = 1.5 + noise * rng.normal(size=(units, 1)), 0.6 + noise * rng.normal(size=(units, 1))
    gold = exact(law, alpha, beta, kl) + noise * rng.normal(size=kl.shape)
    return Curve("noisy", law, kl, gold + kl, gold, clusters)


@pytest.mark.parametrize("law", Law)
def test_a_curve_without_noise_gives_its_coefficients_and_its_peak(law):
    kl = np.linspace(0.2, 9, 8)
    found = fit(Curve("exact", law, *(np.tile(x, (3, 1)) for x in (kl, kl, exact(law, 1.5, 0.6, kl)))))
    assert found.alpha == pytest.approx((1.5,) * 3, abs=1e-9)
    assert found.beta == pytest.approx((0.6,) * 3, abs=1e-9)
    fine = np.linspace(1e-3, 40, 400_001)
    gains = exact(law, 1.5, 0.6, fine)
    assert found.peak.kl == pytest.approx(fine[gains.argmax()], abs=1e-3)
    assert found.peak.gain == pytest.approx(gains.max(), abs=1e-6)
    assert found.peak.measured == (found.peak.kl <= 9)
    np.testing.assert_allclose(found.gain(kl), exact(law, 1.5, 0.6, kl), rtol=1e-9)


@pytest.mark.parametrize("law", Law)
@pytest.mark.parametrize("clusters", [None, [0, 0, 1, 1, 1, 2, 3, 4]])
def test_intervals_over_units_are_those_of_a_regression_clustered_by_unit(law, clusters):
    """Least squares on all points at once, errors free to depend on each other within a unit or a cluster of them."""
    curve = noisy(law, units=8, clusters=clusters)
    found = fit(curve)
    labels = np.arange(8) if clusters is None else np.array(clusters)
    groups = np.repeat(labels, curve.kl.shape[1])
    design = law.columns(np.sqrt(curve.kl.reshape(-1)))
    pooled = OLS(curve.gold.reshape(-1), design).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}, use_t=True
    )
    count, n = len(set(labels)), len(labels)
    wider = math.sqrt(count / (count - 1) * (n - 1) / (n - 1))  # the small-sample factor of a mean
    for coefficient, place in ((found.alpha, 0), (found.beta, 1)):
        low, high = pooled.conf_int()[place]
        assert coefficient.mean == pytest.approx(pooled.params[place], rel=1e-9)
        assert coefficient.high - coefficient.low == pytest.approx(wider * (high - low), rel=1e-6)


@pytest.mark.parametrize("law", Law)
def test_intervals_of_a_single_unit_are_those_of_its_residuals(law):
    curve = noisy(law, units=1)
    found = fit(curve, level=0.9)
    reference = OLS(curve.gold[0], law.columns(np.sqrt(curve.kl[0]))).fit()
    np.testing.assert_allclose([found.alpha[1:], found.beta[1:]], reference.conf_int(alpha=0.1), rtol=1e-9)
    assert "residuals" in str(found)


def test_a_curve_that_does_not_fall_has_no_peak():
    kl = np.tile(np.linspace(0.3, 6, 9), (4, 1))
    rising = Curve("rising", Law.BEST_OF_N, kl, kl, exact(Law.BEST_OF_N, 1.0, -0.1, kl))
    assert fit(rising).peak is None
    assert "no decline shown" in str(fit(rising))
    sinking = Curve("sinking", Law.BEST_OF_N, kl, kl, exact(Law.BEST_OF_N, -1.0, 0.1, kl))
    assert fit(sinking).peak is None  # the highest point is the start
    extrapolated = noisy(Law.TRAINING, noise=0.01)
    assert not fit(extrapolated).peak.measured
    assert "BEYOND what was measured" in str(fit(extrapolated))
    assert fit(extrapolated, gains=extrapolated.proxy).beta.mean < 0


def test_a_law_that_does_not_describe_the_curve_says_nothing_about_its_peak():
    kl = np.tile(np.linspace(0.3, 6, 9), (4, 1))
    cliff = np.where(kl < 4, 1.0, -9.0)
    found = fit(Curve("cliff", Law.BEST_OF_N, kl, kl, cliff))
    plain = OLS(cliff[0], Law.BEST_OF_N.columns(np.sqrt(kl[0]))).fit()
    assert found.beta.low > 0
    assert found.missed == pytest.approx(np.abs(plain.resid).max(), rel=1e-9)
    assert found.peak is None
    assert "TOO MUCH to tell its peak" in str(found)
    flat = fit(Curve("flat", Law.BEST_OF_N, kl, kl, np.zeros_like(kl)))
    assert (flat.missed, flat.peak) == (0, None)


@pytest.mark.parametrize(
    ("kl", "reason"),
    [
        ([1.0, 2.0], "2 points away from the start"),
        ([0.0, 1.0, 2.0], "2 points away from the start"),
        ([1.0, 1.0, 1.0, 2.0], "2 points"),
        ([4.0, 4.1, 4.2, 4.3], "too close together"),
    ],
)
def test_where_coefficients_cannot_be_told_apart_there_are_none(kl, reason):
    found = fit(noisy(Law.BEST_OF_N, kl=np.array(kl)))
    assert (found.alpha, found.beta, found.peak) == (None, None, None)
    assert reason in found.reason
    assert str(found).startswith("not fitted")
    with pytest.raises(ValueError, match="there is no fit"):
        found.gain(1.0)


def test_intervals_cover_the_coefficients_that_made_the_data():
    seeds, hits = range(300), 0
    for seed in seeds:
        beta = fit(noisy(Law.BEST_OF_N, units=8, seed=seed)).beta
        hits += beta.low <= 0.6 <= beta.high
    assert 0.91 <= hits / len(seeds) <= 0.985


def test_best_of_n_counts_gains_from_the_policy_itself():
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(2, 7, 16)) + 5
    curve = best_of_curve(best_of(proxy, gold))
    assert not curve.gold[:, 0].any()
    np.testing.assert_allclose(curve.gold[:, -1], gold[np.arange(7), proxy.argmax(axis=1)] - gold.mean(axis=1))
    np.testing.assert_allclose(curve.kl, np.tile(kl_bound([1, 2, 4, 8, 16]), (7, 1)))
    with pytest.raises(ValueError, match="n = 1 too"):
        best_of_curve(best_of(proxy, gold, sizes=[2, 4]))


def history(scale=1.0):
    rows = [{"step": s, "kl": scale * 0.2 * s, "reward": 1.0 + s, "gold": 2.0 + 0.5 * s} for s in range(5)]
    return [*rows, {"step": 2, "loss": 0.1}, {"step": 5, "kl": 1.0, "reward": float("nan"), "gold": 1.0}]


def test_runs_are_compared_at_the_steps_that_all_of_them_judged():
    shorter = [row for row in history(2.0) if row["step"] != 3]
    curve = training_curve([history(), shorter], name="PPO")
    np.testing.assert_allclose(curve.kl, [[0.0, 0.2, 0.4, 0.8], [0.0, 0.4, 0.8, 1.6]])
    np.testing.assert_allclose(curve.gold, [[0.0, 0.5, 1.0, 2.0]] * 2)
    np.testing.assert_allclose(curve.proxy, [[0.0, 1.0, 2.0, 4.0]] * 2)
    assert curve.means(curve.kl)[1] == (pytest.approx(0.3), pytest.approx((0.3, 0.3 - 1.2706, 0.3 + 1.2706), rel=1e-4))


def test_gains_need_a_start():
    late = [row for row in history() if row["step"] > 1]
    with pytest.raises(ValueError, match=r"0\.4 nats from the starting policy.*judge step 0"):
        training_curve([late], name="PPO")
    curve = training_curve([late], name="PPO", start={"reward": 1.0, "gold": 2.0})
    np.testing.assert_allclose(curve.gold, [[1.0, 1.5, 2.0]])
    other = training_curve([[row | {"score": 3.0} for row in history()]], name="PPO", proxy="score")
    assert not other.proxy.any()
    for runs in ([], [[{"step": 1, "loss": 2.0}]], [history(), []]):
        with pytest.raises(ValueError, match="there is no curve"):
            training_curve(runs, name="PPO")
    with pytest.raises(ValueError, match="the same for all"):
        Curve("odd", Law.TRAINING, np.ones((1, 3)), np.ones((1, 3)), np.ones((1, 2)))


def drawn():
    kl = kl_bound(SIZES)
    gold = exact(Law.BEST_OF_N, 1.0, 0.3, np.tile(kl, (6, 1))) * np.linspace(0.9, 1.1, 6)[:, None]
    best = best_of_curve(BestOfN(SIZES, np.tile(np.sqrt(kl), (6, 1)), gold))
    return [best, training_curve([history()], name="PPO"), noisy(Law.TRAINING)]


def test_neighbouring_steps_can_be_one_point():
    whole, few = (training_curve([history()], name="PPO", points=points) for points in (None, 3))
    for one, other in ((whole.kl, few.kl), (whole.proxy, few.proxy), (whole.gold, few.gold)):
        groups = np.array_split(one[0, 1:], 3)
        np.testing.assert_allclose(other[0], [one[0, 0], *(group.mean() for group in groups)], atol=1e-15)
    assert training_curve([history()], name="PPO", points=1000).kl.shape == whole.kl.shape


def test_figure_shows_every_curve_and_the_same_bytes_again(tmp_path):
    files = [tmp_path / name for name in ("one.svg", "one.png")]
    for file in files:
        write_overoptimisation(drawn(), file)
    before = [file.read_bytes() for file in files]
    for said in ("best-of-n", "PPO", "noisy", "gold reward: what judges", "nats (square-root axis)"):
        assert said in files[0].read_text()
    for file in files:
        write_overoptimisation(drawn(), file)
    assert [file.read_bytes() for file in files] == before
    with pytest.raises(ValueError, match="no curve"):
        write_overoptimisation([], files[0])
    with pytest.raises(ValueError, match="different names"):
        write_overoptimisation([drawn()[0]] * 2, files[0])
