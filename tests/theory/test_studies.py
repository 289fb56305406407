"""The studies of `robust-rlhf simulate`: reproducible tables, measurements that obey the theory drawn beside them."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binom

import synthetic.simulate.command as command
from dro_core import CVaR, TotalVariation, bias_bound, worst_case
from synthetic.simulate.studies import NAMES, Choices, study

SMALL_RUN = ["--n", "4", "32", "--steps", "16", "--radius", "0.1", "--dimension", "2", "3", "--seeds", "2"]
TINY = {
    "bias": ["--n", "2", "4", "8", "16", "--radius", "0.1", "0.2"],
    "reward": ["--ambiguity", "tv:0.2", "erm", *SMALL_RUN],
    "dpo": ["--ambiguity", "cvar:0.5", *SMALL_RUN],
    "npg": ["--ambiguity", "tv:0.2", "--steps", "8", "--radius", "0.1", "--seeds", "2"],
    "shift": ["--ambiguity", "tv:0.1", "tv:0.2,by=group", "--n", "60", "120", "--radius", "0", "0.2", "--seeds", "2"],
    "when": ["--ambiguity", "tv:0.1", "--radius", "0.1", "0.3"],
}


def simulate(name, folder, *options, drawn=False):
    """A figure costs more than the numbers in it: it is drawn only where a test looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            patch.setattr(
                "synthetic.simulate.figures.draw", lambda panels, path, **told: path.write_bytes(b"no figure")
            )
        return command.main([name, "--output", str(folder), *TINY[name], *options])


@pytest.fixture(scope="module")
def tiny(once):
    """Folder of a run of a study, made once."""

    def run(name):
        def build(folder):
            assert simulate(name, folder) == 0

        return once(f"study-{name}", build)

    return run


def rows_of(folder):
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("name", NAMES)
def test_the_table_does_not_depend_on_jobs_or_on_resuming(tmp_path, tiny, name):
    assert simulate(name, tmp_path, "--jobs", "2") == 0
    table = (tmp_path / "curves.csv").read_bytes()
    assert table == (tiny(name) / "curves.csv").read_bytes()
    for path in sorted((tmp_path / "points").iterdir())[::9]:
        path.unlink()
    assert simulate(name, tmp_path, drawn=True) == 0
    assert table == (tmp_path / "curves.csv").read_bytes()
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "summary.json").read_text())["failures"] == []


@pytest.mark.parametrize(("name", "small", "large"), [
    ("bias", "bias", "bound"), ("reward", "gap", "bound"), ("dpo", "gap", "bound"), ("npg", "worst_gap", "bound"),
    ("shift", "best_worst_loss", "worst_loss"), ("shift", "best_shifted_loss", "shifted_loss"),
])  # fmt: skip
def test_what_is_measured_obeys_the_theory_beside_it(tiny, name, small, large):
    pairs = [(float(row[small]), float(row[large])) for row in rows_of(tiny(name)) if row[large]]
    assert len(pairs) > 8
    assert all(low <= high + 1e-9 for low, high in pairs)
    assert any(low > 0 for low, _ in pairs)


def evaluated(name, **point):
    return study(name).evaluate(point, 0)[0]


@pytest.mark.parametrize("n", [4, 30])
def test_bias_figures_agree_with_formulas_by_hand(n):
    ones = np.arange(n + 1)
    plugin = np.where(ones > 0, np.minimum(ones / n + 0.2, 1), 0) @ binom.pmf(ones, n, 0.01)
    point = {"law": "bernoulli", "rare": 0.01, "ambiguity": "tv:0.2", "n": n}
    assert evaluated("bias", **point)["bias"] == pytest.approx(0.21 - plugin, abs=1e-12)
    # The bound of CVaR is attained by a loss of chance alpha, and plain total variation at ever rarer losses.
    worst = evaluated("bias", law="worst", rare=None, ambiguity="cvar:0.2", n=n)
    assert worst["bias"] == pytest.approx(bias_bound(CVaR(0.2), n, 1.0), rel=1e-9)
    assert evaluated("bias", law="worst", rare=None, ambiguity="tv:0.2", n=n)["bias"] == pytest.approx(0.2, abs=1e-4)


def test_a_longer_run_on_full_batches_comes_closer_and_one_on_small_minibatches_does_not():
    def gap(n, steps):
        return evaluated("reward", algorithm="reward", ambiguity="tv:0.2", T=steps, n=n, d=2, beta=None)["gap"]

    assert gap(None, 256) < gap(None, 16) / 4
    assert gap(4, 256) > 3 * gap(None, 256)


def test_plain_and_robust_policies_part_only_where_the_policy_class_is_too_small(tiny):
    rows = rows_of(tiny("npg"))
    for case, agree in (("tabular", True), ("realizable", True), ("misspecified", False)):
        plain, robust = (
            np.array([float(row["worst_gap"]) for row in rows if (row["case"], row["method"]) == (case, method)])
            for method in ("plain", "robust")
        )
        assert plain.size > 7
        assert np.allclose(plain, robust, atol=1e-9) is agree


def test_shifted_losses_are_losses_of_the_shifted_population():
    from synthetic.simulate.studies.shift import _fit, population

    parameters, problem = np.array(_fit("misspecified", "tv:0.2,by=group", 60, 0)), population("misspecified")
    found = evaluated("shift", case="misspecified", ambiguity="tv:0.2,by=group", n=60, shift=0.3)
    masses = problem.masses.copy()
    masses[:32] *= 0.6 / 0.9
    masses[32:] *= 0.4 / 0.1
    margins = problem.differences @ parameters
    losses, first = np.logaddexp(0, [-margins, margins]), np.array([problem.first, 1 - problem.first])
    assert found["shifted_loss"] == pytest.approx(float((masses * first * losses).sum()))
    worst = worst_case(losses.ravel(), TotalVariation(0.3), reference=(problem.masses * first).ravel()).value
    assert found["worst_loss"] == pytest.approx(float(worst))


def test_a_set_gains_for_the_minority_only_where_one_reward_cannot_serve_both():
    """Chances by hand: at the angle 180 the minority's labels agree with what the majority wants 1 - a of the time."""

    def found(spec, **where):
        return evaluated("when", ambiguity=spec, **{"turn": 90.0, "flips": 0.1, "features": "shared", **where})

    angles = np.pi * (np.arange(60) + 0.5) / 60
    right = np.mean(1 / (1 + np.exp(-np.abs(2 * np.cos(angles)))))
    opposed = found("tv:0.01", turn=180.0)
    assert (opposed["majority"], opposed["minority"]) == pytest.approx((right, 1 - right), abs=1e-12)
    assert found("tv:0.2,by=group")["gain"] > 5
    for where in ({"turn": 0.0}, {"features": "own"}):
        assert found("tv:0.2,by=group", **where)["gain"] == pytest.approx(0, abs=1e-9)
    assert found("tv:0.05")["gain"] == pytest.approx(0, abs=1e-9)
    coin = found("tv:0.2")
    assert coin["collapse_radius"] < 0.2
    assert (coin["majority"], coin["minority"]) == (0.5, 0.5)


@pytest.mark.parametrize("turn", [0.0, 60.0])
def test_flips_take_from_the_collapse_radius_of_pairs_at_least_in_proportion(turn):
    from synthetic.simulate.studies.when import Pairs

    clean = Pairs(turn, 0.0).radius()
    for flips in (0.1, 0.35):
        assert 0.99 * (1 - 2 * flips) * clean < Pairs(turn, flips).radius() < (1 - 2 * flips) * clean
    assert Pairs(turn, 0.1).radius(grouped=True) == np.inf


@pytest.mark.parametrize("name", ["bias", "reward", "npg", "when"])
def test_a_figure_over_the_radius_shows_the_radii_that_were_asked_for_alone(name):
    """Not those of the sets that are drawn over something else."""
    chosen, asked = study(name), (0.1, 0.3)
    choices = Choices(
        ambiguity=("tv:0.2", "tv:0.4,by=group")[: 1 + (name == "when")], n=(2, 4), radius=asked, steps=2, dimension=(2,)
    )
    rows = [{"seed": 0, **point, **row} for point in chosen.points(choices) for row in chosen.evaluate(point, 0)]
    [panel] = [panel for panel in chosen.panels(rows, choices) if "ver the radius" in panel.title]
    assert {x for line in panel.curves for x in line.x} == set(asked)


def test_the_bias_figure_says_where_its_panels_show_less_than_was_asked_for():
    choices = Choices(ambiguity=("tv:0.3", "kl:0.2"), n=(2, 4, 80), radius=(0.1,))
    points = study("bias").points(choices)
    rows = [
        {"seed": 0, **p, "bias": 0.1, "bound": None if "kl" in p["ambiguity"] else 0.2, "radius": 0.1} for p in points
    ]
    notes = {panel.title: panel.note for panel in study("bias").panels(rows, choices)}
    assert "up to n = 4, for every minibatch is enumerated" in notes["Bradley-Terry losses"]
    assert "no bound is known here for kl:0.2" in notes["One rare loss"]
    assert notes["Plain total variation"].startswith("always tv:0.2")


@pytest.mark.parametrize("name", NAMES)
def test_grids_have_no_point_twice_and_the_full_one_is_larger(name):
    quick, full = (study(name).points(Choices(full=size)) for size in (False, True))
    texts = [json.dumps(point, sort_keys=True) for point in full]
    assert len(set(texts)) == len(texts)
    assert len(full) * max(study(name).seeds[1], 1) > len(quick) * study(name).seeds[0]
