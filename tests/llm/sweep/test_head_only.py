"""Heads against autograd, torch's optimizers and a maximum-likelihood fit that none of our code made."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from statsmodels.discrete.discrete_model import Logit

from dro_core import parse_ambiguity, robust_loss
from llm.adversary.spec import parse_reweighting
from llm.sweep.heads import HeadData, HeadTraining, train_head
from llm.sweep.regimes import flips
from llm.training.config import ConfigError

N, WIDTH = 96, 7
SETTINGS = {"batch_size": 16, "learning_rate": 0.05, "epochs": 3, "seed": 2}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(N, WIDTH))
    truth = rng.normal(size=WIDTH)
    differences *= np.sign(differences @ truth + rng.logistic(size=N))[:, None]
    source = np.array(["a", "b", "c"])[rng.integers(0, 3, N)]
    return HeadData(differences, {"source": source}, differences[:40] + 0.1, source[:40])


def replayed(data, spec, training, *, batch_size, learning_rate, epochs, seed):
    """The same training in torch: autograd of ``robust_loss`` over the whole batch, and torch's own optimizer."""
    matrix = torch.from_numpy(data.differences)
    start = training.init_scale * np.random.default_rng([seed, 4]).standard_normal(WIDTH)
    weights = torch.nn.Parameter(torch.from_numpy(start))
    kind = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[training.optimizer]
    decay = training.weight_decay if training.optimizer == "adam" else 0.0
    optimizer = kind([weights], lr=learning_rate, weight_decay=decay)
    total = epochs * (N // batch_size)
    ambiguity = parse_ambiguity(spec)
    bound = None if ambiguity is None else ambiguity.bind(data.columns)
    rng, iterates = np.random.default_rng([seed, 3]), []
    for step in range(total):
        if step % (N // batch_size) == 0:
            order = rng.permutation(N)
        rows = order[step % (N // batch_size) * batch_size :][:batch_size]
        losses = -torch.nn.functional.logsigmoid(matrix[rows] @ weights)
        masses = np.ones(N) if data.masses is None else data.masses
        p = torch.from_numpy(masses[rows] / masses[rows].sum())
        loss = p @ losses if bound is None else robust_loss(losses, bound.take(rows), reference=p)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 + np.cos(np.pi * step / total)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        iterates.append(weights.detach().numpy().copy())
    return iterates


@pytest.mark.parametrize("spec", ["erm", "tv:0.2", "tv:0.3,max_ratio=3", "chi2:0.5", "cvar:0.4,by=source"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_step_is_that_of_autograd_on_the_batch(data, spec, optimizer):
    training = HeadTraining(optimizer=optimizer, weight_decay=0.1 if optimizer == "adam" else 0.0)
    one = train_head(data, parse_reweighting(spec), training, **{**SETTINGS, "epochs": 1 / 6})
    assert one.steps == 1
    first = replayed(data, spec, training, **{**SETTINGS, "epochs": 1})[0]
    np.testing.assert_allclose(one.iterates["last"], first, rtol=1e-9, atol=1e-12)
    run = train_head(data, parse_reweighting(spec), training, **SETTINGS)
    np.testing.assert_allclose(run.iterates["last"], replayed(data, spec, training, **SETTINGS)[-1], rtol=1e-6)


@pytest.mark.parametrize("spec", ["erm", "tv:0.2", "chi2:0.5,by=source"])
def test_weights_of_pairs_are_the_reference(data, spec):
    weighted = replace(data, masses=1.0 + np.arange(N) % 3)
    run = train_head(weighted, parse_reweighting(spec), HeadTraining(), **SETTINGS)
    expected = replayed(weighted, spec, HeadTraining(), **SETTINGS)[-1]
    np.testing.assert_allclose(run.iterates["last"], expected, rtol=1e-4, atol=1e-6)
    alike = train_head(replace(data, masses=np.full(N, 3.0)), parse_reweighting(spec), HeadTraining(), **SETTINGS)
    bare = train_head(data, parse_reweighting(spec), HeadTraining(), **SETTINGS)
    np.testing.assert_array_equal(alike.iterates["last"], bare.iterates["last"])
    assert np.abs(bare.iterates["last"] - expected).max() > 1e-3


def test_plain_training_reaches_the_maximum_of_the_likelihood(data):
    both = np.concatenate([data.differences, -data.differences])
    fit = Logit(np.repeat([1, 0], N), both).fit(disp=False)
    training = HeadTraining(schedule="linear")
    run = train_head(data, None, training, batch_size=N, learning_rate=0.1, epochs=3000, seed=0)
    np.testing.assert_allclose(run.iterates["last"], fit.params, atol=1e-4)


def test_average_and_best_are_iterates_of_the_same_run(data):
    training = HeadTraining(checks=6)
    run = train_head(data, None, training, **SETTINGS)
    iterates = replayed(data, "erm", training, **SETTINGS)
    np.testing.assert_allclose(run.iterates["average"], np.mean(iterates[9:], axis=0), rtol=1e-6)
    looked_at = iterates[2::3]
    accuracies = [np.mean(data.validation @ weights > 0) for weights in looked_at]
    np.testing.assert_allclose(run.iterates["best"], looked_at[int(np.argmax(accuracies))], rtol=1e-6)


def test_without_validation_pairs_there_is_no_best_iterate(data):
    bare = HeadData(data.differences, data.columns, data.validation[:0], data.validation_categories[:0])
    assert set(train_head(bare, None, HeadTraining(), **SETTINGS).iterates) == {"last", "average"}


def test_the_account_of_the_adversary_adds_up(data):
    run = train_head(data, parse_reweighting("tv:0.25"), HeadTraining(), **SETTINGS)
    assert run.ledger.visits.tolist() == [3] * N
    assert run.ledger.multiplier_sum.sum() == pytest.approx(3 * N)
    # 4 of 16 at zero, one at 1/4 + 1/16, the rest as they were
    assert run.effective_sample_size == pytest.approx(1 / (11 / 256 + (5 / 16) ** 2))
    plain = train_head(data, None, HeadTraining(), **SETTINGS)
    assert plain.effective_sample_size == pytest.approx(16)


def test_seeds_change_weights_and_order_and_nothing_else_does(data):
    runs = [train_head(data, None, HeadTraining(), **{**SETTINGS, "seed": seed}) for seed in (0, 1, 0)]
    first, second, again = (run.iterates["last"] for run in runs)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, again)


def test_the_schedule_delays_the_adversary(data):
    plain_first = HeadTraining(plain_share=0.5)
    run = train_head(data, parse_reweighting("tv:0.5"), plain_first, **SETTINGS)
    half = train_head(data, None, HeadTraining(), **SETTINGS)
    robust = train_head(data, parse_reweighting("tv:0.5"), HeadTraining(), **SETTINGS)
    assert not np.allclose(run.iterates["last"], half.iterates["last"])
    assert not np.allclose(run.iterates["last"], robust.iterates["last"])
    with pytest.raises(ValueError, match="plain_share 1 leaves the adversary no step of 18"):
        train_head(data, parse_reweighting("tv:0.5"), HeadTraining(plain_share=1.0), **SETTINGS)


def test_an_adaptive_radius_starts_at_a_quarter_and_moves(data):
    fixed, adaptive = (
        train_head(data, parse_reweighting("tv:0.8"), HeadTraining(checks=6), **SETTINGS, adaptive=adaptive)
        for adaptive in (False, True)
    )
    quarter = train_head(data, parse_reweighting("tv:0.2"), HeadTraining(checks=6), **SETTINGS)
    assert adaptive.effective_sample_size > fixed.effective_sample_size
    assert adaptive.effective_sample_size != quarter.effective_sample_size


def test_a_batch_larger_than_the_data_is_refused(data):
    with pytest.raises(ValueError, match="batch_size 97 is more than the 96 training pairs"):
        train_head(data, None, HeadTraining(), **{**SETTINGS, "batch_size": 97})


def test_a_diverging_run_says_so(data):
    far = HeadData(data.differences * 1e200, data.columns, data.validation, data.validation_categories)
    with pytest.raises(ArithmeticError, match="ceased to be finite"), np.errstate(all="ignore"):
        train_head(far, None, HeadTraining(optimizer="sgd"), **{**SETTINGS, "learning_rate": 1e300})


@pytest.mark.parametrize("wrong", [{"optimizer": "lbfgs"}, {"average_after": 1.0}, {"checks": 0}, {"schedule": "step"}])
def test_head_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HeadTraining(**wrong)


def test_wrong_labels_are_exactly_as_many_as_asked_for():
    wrong = flips(1000, 0.3, seed=4)
    assert wrong.sum() == 300
    assert (wrong != flips(1000, 0.3, seed=5)).any()
    np.testing.assert_array_equal(wrong, flips(1000, 0.3, seed=4))
