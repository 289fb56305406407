"""Published weightings of prompts: the formulas as they were read, sets that they are, and batches without signal."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from dro_core import Burg, CVaR, KLPenalty, worst_case
from llm.adversary.weightings import formulas

BATCHES, PROMPTS, SAMPLES = 1000, 12, 8
ALL = {
    "maxrl": formulas.maxrl,
    "rs_grpo": partial(formulas.rs_grpo, beta=2.0),
    "pass_at_k": partial(formulas.pass_at_k, k=8),
    "entropic": partial(formulas.entropic, temperature=0.3),
    "difficulty_filter": formulas.difficulty_filter,
    "difficulty_band": partial(formulas.difficulty_band, low=0.25, high=0.75),
    "grpo_std": formulas.grpo_std,
    "dgpo": formulas.dgpo,
    "riskpo": formulas.riskpo,
    "curverl": formulas.curverl,
    "gdro": formulas.gdro,
}


def rewards(seed=0, batches=BATCHES):
    """0/1 answers, ``(batches, prompts, samples)``, of prompts from hopeless to easy, and whole batches of both."""
    rng = np.random.default_rng(seed)
    chances = rng.beta(0.5, 0.5, (batches, PROMPTS, 1))
    chances[:5], chances[5:10] = 0, 1
    return (rng.random((batches, PROMPTS, SAMPLES)) < chances).astype(float)


# The advantages of 0/1 rewards (prompts, samples), transcribed prompt by prompt from the papers and their code.


def published_maxrl(answers):
    return np.stack([(r - r.mean()) / r.mean() if r.mean() > 0 else 0 * r for r in answers])


def published_rs_grpo(answers, beta=2.0):
    soft = [np.log(np.exp(beta * r).mean()) / beta for r in answers]
    return np.stack([(np.exp(beta * (r - s)) - 1) / beta for r, s in zip(answers, soft, strict=True)])


def published_grpo(answers):
    return np.stack([(r - r.mean()) / r.std() if r.std() > 0 else 0 * r for r in answers])


def published_dgpo(answers, temperature=2.0):
    valid = [r for r in answers if 0 < r.mean() < 1]
    total = sum(np.exp(-r.mean() / temperature) for r in valid)
    found = np.zeros_like(answers)
    for i, r in enumerate(answers):
        if 0 < r.mean() < 1:
            balanced = len(r) * (r - r.mean()) / np.abs(r - r.mean()).sum()
            found[i] = len(valid) * np.exp(-r.mean() / temperature) / total * balanced
    return found


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("maxrl", published_maxrl),
        ("rs_grpo", published_rs_grpo),
        ("grpo_std", published_grpo),
        ("dgpo", published_dgpo),
    ],
)
def test_weighted_advantages_are_the_published_ones_up_to_a_factor_of_the_batch(name, published):
    answers = rewards()
    rates = answers.mean(-1)
    weights = ALL[name](None, torch.from_numpy(rates))[1].numpy()
    mine = weights[..., None] * (answers - rates[..., None])
    told = 0
    for found, batch in zip(mine, answers, strict=True):
        wanted = published(batch)
        scale = np.abs(wanted).sum()
        told += scale > 0
        np.testing.assert_allclose(found * scale, wanted * np.abs(found).sum(), atol=1e-12 * max(scale, 1))
    assert told == BATCHES - 10  # all but the batches that failed or were solved whole


def published_curverl(window, rates, pool=10, bins=SAMPLES + 1):
    """Algorithm 1: a list of the rates of every earlier batch, the weights of this one."""
    values = [x for batch in window[-pool:] for x in batch] or [x for x in rates if 0 < x < 1]
    mass = np.bincount([min(int(x * bins), bins - 1) for x in values], minlength=bins) / max(len(values), 1)
    cdf = mass.cumsum()
    slot = [min(int(x * bins), bins - 1) for x in rates]
    weights = [mass[b] / max(cdf[b], 1e-6) if 0 < x < 1 else 0.0 for x, b in zip(rates, slot, strict=True)]
    window.append([x for x in rates if 0 < x < 1])
    return np.array(weights)


def published_gdro(scores, rates, rate=0.65, decay=0.12):
    """The class scores of the code and equation 16, with the loss 1 - p."""
    classes = [min(int(x * 10), 9) for x in rates]
    for b in set(classes):
        mean = np.mean([1 - x for x, c in zip(rates, classes, strict=True) if c == b])
        scores[b] = mean if b not in scores else (1 - decay) * scores[b] + decay * mean
    return np.array([min(np.exp(rate * scores[c]), 15.0) for c in classes])


@pytest.mark.parametrize(
    ("name", "published", "memory"), [("curverl", published_curverl, list), ("gdro", published_gdro, dict)]
)
def test_those_with_a_memory_are_the_published_ones_over_many_steps(name, published, memory):
    """Forty runs of twenty-five steps at once, each against its own transcription."""
    rates = rewards(1).mean(-1).reshape(25, 40, PROMPTS)
    state, kept = None, [memory() for _ in range(40)]
    for step in rates:
        state, weights = ALL[name](state, torch.from_numpy(step))
        for mine, run, shown in zip(weights.numpy(), kept, step, strict=True):
            wanted = published(run, shown)
            wanted = wanted / wanted.sum() if wanted.sum() > 0 else np.full(PROMPTS, 1 / PROMPTS)
            np.testing.assert_allclose(mine, wanted, atol=1e-12)


def utility_slopes(utility, rates, step=1e-6):
    return (utility(rates + step) - utility(rates - step)) / (2 * step)


@pytest.mark.parametrize(
    ("name", "utility"),
    [
        ("maxrl", np.log),
        ("rs_grpo", lambda p: np.log1p(p * np.expm1(2.0)) / 2),
        ("pass_at_k", lambda p: 1 - (1 - p) ** 8),
        ("entropic", lambda p: -0.3 * np.exp(-p / 0.3)),
        ("difficulty_filter", lambda p: p**2 / 2 - p**3 / 3),
        ("grpo_std", lambda p: 2 * np.arcsin(np.sqrt(p))),
    ],
)
def test_weights_are_the_slopes_of_their_utility(name, utility):
    """By finite differences, at rates that no group of answers need have."""
    rates = np.random.default_rng(2).uniform(0.02, 0.98, (BATCHES, PROMPTS))
    wanted = utility_slopes(utility, rates)
    found = ALL[name](None, torch.from_numpy(rates))[1].numpy()
    np.testing.assert_allclose(found, wanted / wanted.sum(-1, keepdims=True), rtol=1e-6, atol=1e-9)


def test_which_are_worst_cases_of_which_set():
    """Solved by dro_core: the set at the radius that the weights themselves have."""
    for rates in rewards(3, batches=50).mean(-1):
        losses, tensor = -rates, torch.from_numpy(rates)
        tilted = worst_case(losses, KLPenalty(0.3)).weights
        np.testing.assert_allclose(ALL["entropic"](None, tensor)[1].numpy(), tilted, atol=1e-9)
        weights = ALL["rs_grpo"](None, tensor)[1].numpy()
        burg = worst_case(losses, Burg(float(-np.log(PROMPTS * weights).mean()))).weights
        np.testing.assert_allclose(weights, burg, atol=1e-6)
        least, most = (worst_case(losses, CVaR(alpha)).weights for alpha in (0.2, 0.8))
        above = 0.8 / (2.5 * 0.6)  # of the part from .2 to .8, which is (.8 CVaR_.8 - .2 CVaR_.2)/.6
        np.testing.assert_allclose(
            ALL["riskpo"](None, tensor)[1].numpy(), above * most + (1 - above) * least, atol=1e-9
        )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["failed", "solved", "one", "extremes"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_without_signal_are_finite_and_defined(name, kind, dtype):
    rates = {
        "failed": torch.zeros(2, 3, 4, dtype=dtype),
        "solved": torch.ones(2, 3, 4, dtype=dtype),
        "one": torch.full((5, 1), 0.5, dtype=dtype),
        "extremes": torch.tensor([0.0, torch.finfo(dtype).tiny, 1 - torch.finfo(dtype).eps, 1.0], dtype=dtype),
    }[kind]
    state = None
    for _ in range(3):
        state, weights = ALL[name](state, rates)
        assert weights.shape == rates.shape
        assert weights.dtype == dtype
        assert torch.isfinite(weights).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    if kind in ("failed", "solved"):
        torch.testing.assert_close(weights, torch.full_like(weights, 1 / 4))


@pytest.mark.parametrize("name", ALL)
def test_runs_side_by_side_are_the_runs_one_by_one(name):
    rates = torch.from_numpy(rewards(4, batches=24).mean(-1).reshape(8, 3, PROMPTS))
    state, alone = None, [None] * 3
    for step in rates:
        state, together = ALL[name](state, step)
        for run in range(3):
            alone[run], weights = ALL[name](alone[run], step[run])
            torch.testing.assert_close(together[run], weights)


def test_asking_changes_nothing():
    rates = torch.from_numpy(rewards(5, batches=2).mean(-1))
    for weigh in ALL.values():
        state = weigh(None, rates[0])[0]
        before = None if state is None else state.clone()
        first, again = weigh(state, rates[1])[1], weigh(state, rates[1])[1]
        assert torch.equal(first, again)
        assert state is None or torch.equal(state.nan_to_num(-1.0), before.nan_to_num(-1.0))
