"""The natural policy gradient study: many bandits at once, its search for the best policy, its page, what it proves."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, t

from dro_core import KL, ChiSquare, CVaR, TotalVariation, worst_case
from experiments.npg import optimum
from synthetic.bandits.bandit_batch import BanditBatch, ascend, random_bandits
from synthetic.bandits.mdp import KLRegulariser, prompts
from synthetic.bandits.natural_gradient import natural_policy_gradient
from synthetic.bandits.policies import LogLinearPolicy, TabularPolicy

RESULTS = Path(__file__).parents[2] / "docs" / "results"
SETS = (TotalVariation(0.2), CVaR(0.4), ChiSquare(0.6))


def few(**changes):
    shape = {"prompts": 5, "answers": 3, "features": 2, "noise": 1.0, "strength": 0.1}
    return random_bandits(3, **(shape | changes), rng=np.random.default_rng(2))


@pytest.mark.parametrize("strength", [0.0, 0.1])
@pytest.mark.parametrize("ambiguity", [None, TotalVariation(0.3), CVaR(0.3), KL(0.2)], ids=str)
def test_many_bandits_at_once_take_the_steps_of_one(ambiguity, strength):
    batch, start = few(strength=strength), np.array([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0]])
    run = ascend(batch, np.full(9, 0.75), ambiguity=ambiguity, initial=start)
    assert run.iterates.shape == (10, 3, 2)
    regulariser = KLRegulariser(np.full((5, 3), 1 / 3), strength) if strength else None
    for i in range(3):
        one = natural_policy_gradient(
            prompts(batch.rewards[i]), LogLinearPolicy(batch.features[i]), steps=9, step_size=0.75,
            ambiguity=ambiguity, initial=start[i], regulariser=regulariser,
        )  # fmt: skip
        assert run.iterates[:, i] == pytest.approx(one.iterates, abs=1e-11)
        assert run.prompt_values[:, i] == pytest.approx(one.prompt_values, abs=1e-12)
        assert run.weights[:, i] == pytest.approx(one.weights, abs=1e-11)


def test_minibatches_hold_drawn_prompts_only_and_steps_have_their_own_sizes():
    batch, sizes = few(), np.array([1.0, 0.5, 0.25])
    run = ascend(batch, sizes, ambiguity=TotalVariation(0.2), batch=2, rng=np.random.default_rng(0))
    drawn = np.random.default_rng(0)
    for k, size in enumerate(sizes):
        reference = drawn.multinomial(2, np.full((3, 5), 0.2)) / 2
        assert (run.weights[k][reference == 0] == 0).all()
        assert np.abs(run.weights[k] - reference).sum(axis=1) / 2 == pytest.approx(0.2, abs=0.2 + 1e-12)
        step = batch.direction(run.iterates[k], run.weights[k])
        assert run.iterates[k + 1] - run.iterates[k] == pytest.approx(size * step, abs=1e-13)


def test_bad_batches_say_what_to_do():
    with pytest.raises(ValueError, match="one row of features per bandit"):
        BanditBatch(np.zeros((2, 3, 4, 1)), np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="for no charge use 0"):
        BanditBatch(np.zeros((2, 3, 4, 1)), np.zeros((2, 3, 4)), -1.0)
    with pytest.raises(ValueError, match="default_rng"):
        ascend(few(), [1.0], batch=2)


@pytest.mark.parametrize("strength", [None, 0.25])
@pytest.mark.parametrize("ambiguity", [*SETS, KL(0.3)], ids=str)
def test_on_tabular_bandits_robust_steps_are_never_better_at_any_prompt(ambiguity, strength):
    """theory.md section 3, `npg-tabular-invariance`: every prompt moves along one path, the drained ones later."""
    slower = 0
    for seed in range(12):
        bandit = prompts(np.random.default_rng(seed).random((5, 3)))
        regulariser = KLRegulariser(np.full((5, 3), 1 / 3), strength) if strength else None
        plain, robust = (
            natural_policy_gradient(
                bandit, TabularPolicy(5, 3), steps=12, step_size=2.0, ambiguity=which, regulariser=regulariser
            )
            for which in (None, ambiguity)
        )
        behind = plain.prompt_values - robust.prompt_values
        assert behind.min() >= -1e-12
        assert (behind.max() > 1e-6) == (robust.weights.min() == 0)  # the same path while no prompt is drained
        slower += bool(behind.max() > 1e-6)
    assert slower == 0 if isinstance(ambiguity, KL) else slower >= 3


@pytest.mark.parametrize("ambiguity", SETS, ids=str)
def test_the_search_finds_the_best_point_of_a_dense_grid(ambiguity):
    batch, axis = few(noise=2.0), np.linspace(-8, 8, 201)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 1, 2)
    for i in range(3):
        one = BanditBatch(batch.features[i : i + 1], batch.rewards[i : i + 1], batch.strength)
        value = -np.asarray(worst_case(-one.values(grid)[:, 0], ambiguity).value)
        bandit = optimum.Bandit.of(batch, i)
        starts = optimum.guided(bandit, ambiguity, np.random.default_rng(i).normal(size=(6, 2)) * 2)
        found = max(optimum.local_optima(bandit, ambiguity, starts), key=lambda o: o.value)
        assert np.abs(found.theta).max() < 8
        assert value.max() - 1e-12 <= found.value <= value.max() + 1e-3
        there = -worst_case(-one.values(found.theta[None])[0], ambiguity).value
        assert found.value == pytest.approx(there, abs=1e-12)


def clopper_pearson(hits, n):
    low, high = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0, beta.ppf(0.975, hits + 1, n - hits)
    return f"{100 * hits / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


@pytest.mark.slow("it counts every table")
def test_the_page_shows_these_numbers():
    page = (RESULTS / "npg.md").read_text()
    tables = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", page, re.DOTALL))
    rows = {name: [re.split(r" *\| *", line)[1:-1] for line in text.split("\n")[2:]] for name, text in tables.items()}
    for name, *cells in rows["invariance"][:5]:
        bounds = [float(cell[2:]) for cell in cells[:3]]
        assert max(bounds) < 1e-9, name
    batch = random_bandits(
        300, prompts=8, answers=4, features=3, noise=2.0, strength=0.1, rng=np.random.default_rng([8, 3])
    )
    ends = [ascend(batch, np.ones(256), ambiguity=s).prompt_values[-1] for s in (None, TotalVariation(0.2))]
    # The worst case of TV(0.2) over 8 equal prompts: 1.6 of them lose their weight, and the worst gains 0.2.
    filled = np.array([0.325, 0.125, 0.125, 0.125, 0.125, 0.125, 0.05, 0.0])
    plain, robust = (np.sort(values) @ filled for values in ends)
    gain, mean = robust - plain, (ends[1] - ends[0]).mean(axis=1)
    half = [t.ppf(0.975, 299) * x.std(ddof=1) / 300**0.5 for x in (gain, mean)]
    (row,) = [row for row in rows["gains"] if row[:2] == ["0.1", "`tv:0.2`"]]
    assert row[2:] == [
        f"{gain.mean():+.4f} ± {half[0]:.4f}",
        clopper_pearson((gain > 1e-3).sum(), 300),
        clopper_pearson((gain < -1e-3).sum(), 300),
        f"{mean.mean():+.4f} ± {half[1]:.4f}",
    ]
    (row,) = [row for row in rows["refuted"] if row[:2] == ["0.1", "`tv:0.2`"]]
    assert row[2:4] == [clopper_pearson((gain < -least).sum(), 300) for least in (1e-6, 1e-3)]
