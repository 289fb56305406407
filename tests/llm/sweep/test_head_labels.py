"""Heads on uncertain labels: against autograd, scikit-learn and a whole reward model whose backbone is frozen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import TrainingArguments

from dro_core import parse_ambiguity, worst_case
from llm.adversary.spec import parse_reweighting
from llm.data.corpus.corpus import generate
from llm.kinds.reward import RewardTrainer
from llm.models.loading import tiny_reward_model
from llm.sweep.heads import HeadData, HeadTraining, train_head
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.settings import TRAINING_DEFAULTS

N, WIDTH, BATCH = 96, 7, 16
SETTINGS = {"batch_size": BATCH, "learning_rate": 0.05, "epochs": 3, "seed": 2}
P = np.random.default_rng(1).choice([0.0, 0.2, 0.5, 0.7, 0.9, 1.0], size=N)
EXHAUSTIVE = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(N, WIDTH))
    differences *= np.sign(differences @ rng.normal(size=WIDTH) + rng.logistic(size=N))[:, None]
    source = np.array(["a", "b", "c"])[rng.integers(0, 3, N)]
    return HeadData(differences, {"source": source}, differences[:0], source[:0], preferences=P)


def entropy(p):
    return -rel_entr(p, 1) - rel_entr(1 - p, 1)


def replayed(data, spec, training, *, batch_size, learning_rate, epochs, seed):
    """The same training in torch: cross-entropy against p, and weights that a set answers to losses or regrets."""
    matrix, targets = torch.from_numpy(data.differences), torch.from_numpy(data.preferences)
    start = training.init_scale * np.random.default_rng([seed, 4]).standard_normal(WIDTH)
    weights = torch.nn.Parameter(torch.from_numpy(start))
    kind = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}[training.optimizer]
    optimizer, per_epoch = kind([weights], lr=learning_rate, weight_decay=0.0), N // batch_size
    inner = parse_ambiguity(spec.removeprefix("regret:"))
    rng, iterates = np.random.default_rng([seed, 3]), []
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = rng.permutation(N)
        rows = order[step % per_epoch * batch_size :][:batch_size]
        losses = binary_cross_entropy_with_logits(matrix[rows] @ weights, targets[rows], reduction="none")
        shown = losses.detach().numpy() - ("regret" in spec) * entropy(data.preferences[rows])
        q = np.full(batch_size, 1 / batch_size)
        if inner is not None:
            q = worst_case(shown, inner.bind(data.columns).take(rows)).weights
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 + np.cos(np.pi * step / (epochs * per_epoch))) / 2
        optimizer.zero_grad()
        (torch.from_numpy(q) @ losses).backward()
        optimizer.step()
        iterates.append(weights.detach().numpy().copy())
    return iterates


@pytest.mark.parametrize(
    "spec",
    [
        "erm", "tv:0.2", "regret:tv:0.3", "regret:kl:0.2,by=source", pytest.param("chi2:0.5", marks=EXHAUSTIVE),
        pytest.param("regret:cvar:0.4", marks=EXHAUSTIVE), pytest.param("tv:0.3,by=source", marks=EXHAUSTIVE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_step_is_that_of_autograd_on_soft_losses(data, spec, optimizer):
    training = HeadTraining(optimizer=optimizer)
    one = train_head(data, parse_reweighting(spec), training, **{**SETTINGS, "epochs": 1 / 6})
    expected = replayed(data, spec, training, **SETTINGS)
    first = replayed(data, spec, training, **{**SETTINGS, "epochs": 1})[0]
    np.testing.assert_allclose(one.iterates["last"], first, rtol=1e-9, atol=1e-12)
    run = train_head(data, parse_reweighting(spec), training, **SETTINGS)
    np.testing.assert_allclose(run.iterates["last"], expected[-1], rtol=1e-6)


@pytest.mark.parametrize("spec", ["erm", "tv:0.3", "regret:tv:0.3", "micro:8:kl:0.2"])
def test_labels_that_are_certain_change_no_bit(data, spec):
    """And without soft labels regret: is the set inside it."""
    certain = replace(data, preferences=np.ones(N))
    bare = replace(data, preferences=None)
    inner = parse_reweighting(spec.removeprefix("regret:"))
    runs = [train_head(bare, inner, HeadTraining(), **SETTINGS)]
    runs += [train_head(given, parse_reweighting(spec), HeadTraining(), **SETTINGS) for given in (certain, bare)]
    for run in runs[1:]:
        np.testing.assert_array_equal(run.iterates["last"], runs[0].iterates["last"])
        np.testing.assert_array_equal(run.ledger.multiplier_sum, runs[0].ledger.multiplier_sum)


def test_plain_training_reaches_the_fit_of_scikit_learn(data):
    """Every pair twice, once with each label, weighed by their probabilities."""
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    rows, labels = np.concatenate([data.differences] * 2), np.repeat([1, 0], N)
    fit.fit(rows, labels, sample_weight=np.concatenate([P, 1 - P]))
    run = train_head(data, None, HeadTraining(schedule="linear"), batch_size=N, learning_rate=0.1, epochs=3000, seed=0)
    np.testing.assert_allclose(run.iterates["last"], fit.coef_[0], atol=1e-4)


def test_the_account_is_of_regrets(data):
    margins = data.differences @ (0.01 * np.random.default_rng([2, 4]).standard_normal(WIDTH))
    losses = P * np.log1p(np.exp(-margins)) + (1 - P) * np.log1p(np.exp(margins))
    one, coins = {**SETTINGS, "epochs": 1, "batch_size": N}, P == 0.5
    runs = [train_head(data, parse_reweighting(spec), HeadTraining(), **one) for spec in ("tv:0.3", "regret:tv:0.3")]
    for run, seen in zip(runs, (losses, losses - entropy(P)), strict=True):
        np.testing.assert_allclose(run.ledger.last_loss, seen, atol=1e-12)
    assert runs[0].ledger.mean_multiplier()[coins].mean() > runs[1].ledger.mean_multiplier()[coins].mean()


def test_regrets_that_differ_by_rounding_are_equal():
    """At the fit every regret is 0 up to the rounding of two losses: no reason to prefer a pair."""
    p = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.95, 0.85, 0.75])
    start = float(0.01 * np.random.default_rng([2, 4]).standard_normal(1)[0])
    data = HeadData(np.log(p / (1 - p))[:, None] / start, {}, np.zeros((0, 1)), np.array([], dtype=str), preferences=p)
    assert len(set(data.losses(data.differences[:, 0] * start)[0] - data.least)) > 1
    run = train_head(
        data, parse_reweighting("regret:tv:0.3"), HeadTraining(), **{**SETTINGS, "batch_size": 8, "epochs": 1}
    )
    np.testing.assert_allclose(run.ledger.mean_multiplier(), 1, rtol=1e-12)


def test_one_step_is_that_of_a_whole_model_whose_backbone_is_frozen(tmp_path):
    """Features are what the last layer of the model was given; nothing of the head's code made them."""
    pairs = generate(24, seed=7)
    torch.manual_seed(0)
    model, tokenizer = tiny_reward_model((pair.chosen + pair.rejected for pair in pairs), max_length=96)
    encoded = encode_pairs(pairs, tokenizer, max_length=96)
    p, n = P[: len(encoded)], len(encoded)
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().double().numpy()))
    batch = PairCollator(tokenizer)([encoded[row] for row in range(n)])
    with torch.no_grad():
        model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    differences = seen[0][:n] - seen[0][n:]
    width = differences.shape[1]
    training = HeadTraining(optimizer="sgd", schedule="constant", init_scale=2.0)
    start = training.init_scale * np.random.default_rng([5, 4]).standard_normal(width)
    for name, part in model.named_parameters():
        part.requires_grad_(name.startswith("classifier."))
    told = {"output_dir": str(tmp_path), "per_device_train_batch_size": n, "max_steps": 1, "learning_rate": 0.5,
            "optim": "sgd", "lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 0.0,
            "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}  # fmt: skip
    for spec in ("erm", "tv:0.3", "regret:tv:0.3"):
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(start)[None])
        trainer = RewardTrainer(
            model=model, args=TrainingArguments(**{**TRAINING_DEFAULTS, **told}), train_dataset=encoded,
            data_collator=PairCollator(tokenizer), ambiguity=parse_reweighting(spec), columns={},
        )  # fmt: skip
        trainer.soften(p.tolist())
        trainer.train()
        head = HeadData(differences, {}, differences[:0], np.array([], dtype=str), preferences=p)
        run = train_head(head, parse_reweighting(spec), training, batch_size=n, learning_rate=0.5, epochs=1, seed=5)
        moved = model.classifier.weight.detach().double().numpy()[0] - start
        assert np.abs(moved).max() > 1e-3
        np.testing.assert_allclose(run.iterates["last"] - start, moved, atol=2e-6)


@pytest.mark.parametrize("wrong", [np.full(N, 1.2), np.full(N, -0.1), np.full(N, np.nan), np.ones(N - 1)], ids=len)
def test_what_is_no_probability_for_every_pair_is_refused(data, wrong):
    with pytest.raises(ValueError, match="soft labels are 96 probabilities"):
        replace(data, preferences=wrong)


def test_what_reads_margins_out_of_losses_is_refused(data):
    with pytest.raises(ValueError, match="soft_labels none"):
        train_head(data, parse_reweighting("focal:2"), HeadTraining(), **SETTINGS)
    train_head(replace(data, preferences=None), parse_reweighting("focal:2"), HeadTraining(), **SETTINGS)
