"""Slopes and bands of `robust-rlhf simulate`: right where something was sampled, none where not, floors are marked."""

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import linregress, t

import synthetic.simulate.command as command
from synthetic.simulate.curves import curve, fit_slope
from synthetic.simulate.figures import Panel, _looks, draw
from synthetic.simulate.grid import Outcome
from synthetic.simulate.results import write
from synthetic.simulate.studies.study import Choices, Study


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.3])
def test_the_slope_of_a_planted_power_law_is_recovered(exponent):
    x = 2.0 ** np.arange(3, 12)
    noise = np.random.default_rng(1).normal(0, 0.1, (20, x.size))
    rows = [
        {"seed": s, "n": float(n), "gap": float(3 * n**exponent * np.exp(e))}
        for s, line in enumerate(noise)
        for n, e in zip(x, line, strict=True)
    ]
    found = curve(rows, "n", "gap", "planted", where={}, fit=(8, 2048)).slope
    assert not found.floor
    assert found.low < exponent < found.high
    assert found.high - found.low < 0.06
    slopes = [linregress(np.log(x), np.log(3 * x**exponent * np.exp(line))).slope for line in noise]
    half = t.ppf(0.975, 19) * np.std(slopes, ddof=1) / 20**0.5
    assert (found.low, found.high) == pytest.approx((np.mean(slopes) - half, np.mean(slopes) + half), abs=1e-12)
    alone, y = fit_slope(x, 3 * x**exponent * np.exp(noise[0])), np.log(3 * x**exponent * np.exp(noise[0]))
    assert alone.value == pytest.approx(linregress(np.log(x), y).slope, abs=1e-12)
    assert alone.end == pytest.approx(linregress(np.log(x[-3:]), y[-3:]).slope, abs=1e-12)
    assert (alone.low, alone.high) == (None, None)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_curve_that_no_seed_changes_has_no_interval(seeds, tmp_path):
    rows = [{"seed": s, "n": n, "y": 5 / n} for s in range(seeds) for n in (1, 2, 4, 8, 16)]
    line = curve(rows, "n", "y", "exact", where={}, fit=(1, 99))
    assert (line.low, line.high, line.slope.low, line.slope.high) == (None,) * 4
    assert str(line.slope) == "-1.00"
    chosen = Study("exact", 1, "t", "a", (), (seeds, seeds), list, evaluated, lambda *_: [panel_of(line)])
    summary = write(chosen, Outcome(rows, [], 0), tmp_path, choices=Choices(), parameters={})
    assert "interval" not in summary["figure"]
    assert "floor" not in summary["figure"]
    assert summary["slopes"][0]["low"] is None


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_curve_that_ends_in_a_floor_is_marked(seeds, tmp_path, capsys):
    def value(seed, n):
        return (1 + 0.01 * seed) / n + 0.05

    rows = [{"seed": s, "n": n, "y": value(s, n)} for s in range(seeds) for n in 4.0 ** np.arange(8)]
    line = curve(rows, "n", "y", "floored", where={}, fit=(1, 1e9))
    slope = line.slope
    assert slope.floor
    last = np.mean([[value(s, 4.0**k) for s in range(seeds)] for k in (6, 7)], axis=1)  # a third of eight points
    assert slope.end == pytest.approx(np.log(last[1] / last[0]) / np.log(4), abs=1e-12)
    assert (slope.low is None) == (seeds == 1)
    assert f"a floor: ends with {slope.end:z.2f}" in str(slope)
    chosen = Study("floor", 1, "t", "a", (), (seeds, seeds), list, evaluated, lambda *_: [panel_of(line)])
    summary = write(chosen, Outcome(rows, [], 0), tmp_path, choices=Choices(), parameters={})
    assert "no power law" in summary["figure"]
    command._report(tmp_path, summary, Outcome(rows, [], 0), 1, Console(stderr=True))
    told = " ".join(capsys.readouterr().out.split())
    assert "floor" in told
    assert "1 to 16384" in told  # what it was fitted on
    assert "ends with: the exponent of the last third" in told


def test_a_curve_that_falls_and_rises_again_is_no_power_law():
    rows = [{"seed": 0, "n": n, "y": y} for n, y in ((4, 0.05), (16, 0.02), (64, 0.01), (256, 0.03), (1024, 0.1))]
    assert curve(rows, "n", "y", "", where={}, fit=(1, 1e9)).slope.floor
    assert not curve(rows[:3], "n", "y", "", where={}, fit=(1, 1e9)).slope.floor


def panel_of(line):
    return Panel("t", "x", "y", (line,))


def test_a_slope_uses_its_range_only_and_no_rows_are_mixed_up():
    rows = [{"seed": 0, "kind": k, "n": n, "y": 1 / n if n > 4 else 7.0} for k in "ab" for n in (1, 2, 4, 8, 16, 32)]
    assert curve(rows, "n", "y", "", where={"kind": "a"}, fit=(8, 99)).slope.value == pytest.approx(-1)
    assert curve(rows, "n", "y", "", where={"kind": "a"}, fit=(16, 99)).slope is None
    with pytest.raises(ValueError, match="name more columns"):
        curve(rows, "n", "y", "", where={})
    with pytest.raises(ValueError, match="three positive x"):
        fit_slope([1, 2, 3], [1, 0, 1])


def test_a_figure_with_nothing_but_one_point_and_a_zero_is_drawn(tmp_path):
    rows = [{"seed": s, "n": 1, "y": 0.0} for s in range(3)]
    line = curve(rows, "n", "y", "flat", where={})
    draw([Panel("t", "x", "y", (line,))], tmp_path / "a.png", title="t", caption="c")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_label_looks_the_same_in_all_panels_and_a_family_like_its_set():
    labels = [["chi2:0.5", "tv:0.2", "kl:0.2"], ["chance 0.1", "chance 0.01"], ["tv:RADIUS", "kl:RADIUS", "chance 0.1"]]
    labels += [["tv:RADIUS", "tv:RADIUS,max_ratio=8", "chi2:RADIUS", "kl:RADIUS"], ["tv:0.2", "other"]]
    labels += [[f"n = {k}" for k in range(7)]]
    panels = [Panel("t", "x", "y", tuple(curve([], "n", "y", one, where={}) for one in names)) for names in labels]
    looks = list(_looks(panels))
    assert [list(found) for found in looks] == labels
    assert all(len(set(found.values())) == len(found) for found in looks)
    for family, member in (("tv:RADIUS", "tv:0.2"), ("kl:RADIUS", "kl:0.2")):
        assert looks[2][family] == looks[3][family] == looks[0][member]
    assert looks[3]["chi2:RADIUS"] == looks[0]["chi2:0.5"]
    assert looks[2]["chance 0.1"] == looks[1]["chance 0.1"]
    assert looks[4]["tv:0.2"] == looks[0]["tv:0.2"]


def evaluated(point, seed):
    return []
