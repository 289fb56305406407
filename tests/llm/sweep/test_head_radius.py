"""Heads whose set measures its radius on pairs that are never trained on: ``tv:auto=0.5``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dro_core import margin_collapse, parse_ambiguity, robust_loss
from llm.adversary.radius.auto import lower_end
from llm.adversary.spec import parse_reweighting
from llm.sweep.heads import HeadData, HeadSlice, HeadTraining, train_head
from llm.training.config import ConfigError

N, ASIDE, WIDTH = 320, 64, 6
SETTINGS = {"batch_size": 32, "learning_rate": 0.2, "epochs": 3, "seed": 3}
TRAINING = HeadTraining(schedule="constant", auto_every=7)
PROMPTS = np.repeat(np.arange(ASIDE // 2), 2).astype(str)


def noisy(n, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, WIDTH))
    return rows * np.where(rng.random(n) < 1 / (1 + np.exp(-3 * rows[:, 0])), 1, -1)[:, None]


def columns_of(rows):
    return {"source": np.where(np.abs(rows[:, 1]) > 1, "far", "near"), "gap": np.abs(rows[:, 2])}


@pytest.fixture(scope="module")
def data():
    rows, held = noisy(N, 0), noisy(ASIDE, 1)
    aside = HeadSlice(held, columns_of(held), PROMPTS, np.ones(ASIDE), np.ones(ASIDE))
    return HeadData(rows, columns_of(rows), rows[:0], np.array([], dtype=str), aside=aside)


def replayed(data, name, groups, *, share, batch_size, learning_rate, epochs, seed):
    """The same run in torch, at the radius that the slice bears by its margins at the time."""
    matrix, total = torch.from_numpy(data.differences), epochs * (N // batch_size)
    start = TRAINING.init_scale * np.random.default_rng([seed, 4]).standard_normal(WIDTH)
    weights = torch.nn.Parameter(torch.from_numpy(start))
    optimizer, rng = torch.optim.Adam([weights], lr=learning_rate), np.random.default_rng([seed, 3])
    looks, radius, by = [], 0.0, f",by={groups}" if groups else ""
    for step in range(total):
        if step % (N // batch_size) == 0:
            order = rng.permutation(N)
        if step % TRAINING.auto_every == 0:
            margins = data.aside.differences @ weights.detach().numpy()
            shape = parse_ambiguity(f"{name}:0{by}").bind(data.aside.columns)
            radius = share * lower_end(shape, margins, np.unique(PROMPTS, return_inverse=True)[1]).low
            looks.append((step, radius / share))
        rows = order[step % (N // batch_size) * batch_size :][:batch_size]
        losses = -torch.nn.functional.logsigmoid(matrix[rows] @ weights)
        chosen = parse_ambiguity(f"{name}:{radius}{by}").bind(data.columns).take(rows)
        optimizer.zero_grad()
        (robust_loss(losses, chosen) if radius else losses.mean()).backward()
        optimizer.step()
    return weights.detach().numpy(), np.array(looks)


@pytest.mark.parametrize(
    ("name", "groups"), [("tv", ""), ("chi2", "source"), pytest.param("kl", "", marks=pytest.mark.exhaustive)]
)
def test_a_run_is_that_of_autograd_at_the_radius_that_the_slice_bears(data, name, groups):
    spec = f"{name}:auto=0.5" + (f",by={groups}" if groups else "")
    run = train_head(data, parse_reweighting(spec), TRAINING, **SETTINGS)
    expected, looks = replayed(data, name, groups, share=0.5, **SETTINGS)
    np.testing.assert_allclose(run.measured[:, :2], looks, rtol=1e-6, atol=1e-12)
    assert run.measured[:, 0].tolist() == [0, 7, 14, 21, 28]
    assert run.measured[-1, 1] > 0
    assert run.ledger.acted
    np.testing.assert_allclose(run.iterates["last"], expected, rtol=1e-5)


def test_the_value_beside_the_lower_end_is_what_the_margins_bear(data):
    run = train_head(data, parse_reweighting("tv:auto=0.5"), replace(TRAINING, auto_every=29), **SETTINGS)
    assert run.measured[:, 0].tolist() == [0, 29]
    first = data.aside.differences @ (0.01 * np.random.default_rng([3, 4]).standard_normal(WIDTH))
    counted = np.append(first, -np.median(np.abs(first)))  # one pair more, of the median margin against its label
    assert run.measured[0, 2] == pytest.approx(max(float(margin_collapse(counted, "tv")), 0), abs=1e-9)


def test_until_it_is_scheduled_nothing_is_measured_and_training_is_plain(data):
    late = replace(TRAINING, plain_share=0.5)
    run = train_head(data, parse_reweighting("tv:auto=0.5"), late, **SETTINGS)
    assert run.measured[:, 0].tolist() == [15, 22, 29]
    np.testing.assert_array_equal(run.ledger.visits, train_head(data, None, late, **SETTINGS).ledger.visits)


def test_where_nothing_is_shown_to_be_learned_the_run_is_plain_to_the_bit(data):
    half = data.aside.differences[::2]  # and each once more with the other label
    coins = replace(data, aside=data.aside._replace(differences=np.concatenate([half, -half])))
    run = train_head(coins, parse_reweighting("tv:auto=0.5"), TRAINING, **SETTINGS)
    plain = train_head(data, None, TRAINING, **SETTINGS)
    assert (run.measured[:, 1] == 0).all()
    assert not run.ledger.acted
    np.testing.assert_array_equal(run.iterates["last"], plain.iterates["last"])


def test_weights_and_soft_labels_reach_the_slice(data):
    """Half of its labels are wrong: known to be by their preference, or hardly counted by their weight."""
    half = np.tile([1.0, -1.0], ASIDE // 2)
    rows = half[:, None] * np.abs(noisy(ASIDE, 1))
    bears = {}
    one = {**SETTINGS, "batch_size": N, "epochs": 1, "learning_rate": 1e-9}
    right = HeadTraining(init_scale=1.0)
    sure = np.where(half > 0, 1, 0.02)
    for name, more in {"hard": {}, "soft": {"preferences": sure}, "light": {"masses": sure}}.items():
        turned = rows * np.sign(np.random.default_rng([3, 4]).standard_normal(WIDTH))  # all along the first weights
        aside = HeadSlice(turned, data.aside.columns, np.arange(ASIDE).astype(str), np.ones(ASIDE), np.ones(ASIDE))
        run = train_head(replace(data, aside=aside._replace(**more)), parse_reweighting("tv:auto=0.5"), right, **one)
        bears[name] = run.measured[0, 1]
    assert bears["hard"] == 0
    assert bears["soft"] > 0.3
    assert bears["light"] > 0.15


def test_bins_of_the_slice_end_where_those_of_the_training_pairs_do(data):
    """Gaps of the slice are all large: it would hold all bins by its own edges, and holds one by theirs."""
    far = data.aside._replace(columns={**data.aside.columns, "gap": data.aside.columns["gap"] + 50})
    with pytest.raises(ValueError, match="these hold none of gap/2=at most"):
        train_head(replace(data, aside=far), parse_reweighting("tv:auto=0.5,by=gap/2"), TRAINING, **SETTINGS)


@pytest.mark.parametrize("spec", ["regret:tv:auto=0.5", "permuted_groups:tv:auto=0.5,by=source"])
def test_what_the_slice_does_not_show_is_refused(data, spec):
    with pytest.raises(ValueError, match="give the set inside it a number"):
        train_head(data, parse_reweighting(spec), TRAINING, **SETTINGS)


def test_without_a_slice_it_is_refused(data):
    with pytest.raises(ValueError, match="give the set a number"):
        train_head(replace(data, aside=None), parse_reweighting("tv:auto=0.5"), TRAINING, **SETTINGS)


def test_a_margin_that_is_not_finite_stops_the_run(data):
    broken = data.aside.differences.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match=r"before step 1 the margin of a pair held out .* is not finite"):
        train_head(
            replace(data, aside=data.aside._replace(differences=broken)), parse_reweighting("tv:auto=0.5"), TRAINING,
            **SETTINGS,
        )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"auto_slice": 0}, {"auto_every": 0}], ids=str)
def test_settings_by_which_nothing_is_measured_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HeadTraining(**wrong)
