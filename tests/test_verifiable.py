"""The bandits of docs/results/verifiable.md: their gradients, draws and weights against what was computed elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.verifiable import arms, bandit, estimates, problem, training
from experiments.verifiable.measures import NAMES, Judge
from llm.policy.advantages.groups import prompt_weight

SEEDS = (7, 8)


@pytest.fixture(scope="module")
def prompts():
    return problem.draw(SEEDS)


def answered(prompts, weights, places, seed=0):
    uniforms = np.random.default_rng(seed).random((len(SEEDS), bandit.GROUP, places.shape[1], 1))
    return bandit.answer(prompts[0], places, weights, uniforms)


def test_the_gradient_is_that_of_autograd(prompts):
    """Of sum A log pi over the drawn answers, with every estimator's advantages."""
    rng = np.random.default_rng(1)
    weights, places = 0.3 * rng.normal(size=(2, problem.WIDTH, 1)), np.stack([rng.permutation(300)[:32] for _ in SEEDS])
    found = answered(prompts, weights, places)
    assert (found.counts.sum(axis=1) == bandit.GROUP).all()
    counts = found.successes.astype(int)
    for name, estimator in arms.ESTIMATORS.items():
        right, wrong = bandit.advantages(estimator)
        ours = found.gradient(right[counts], wrong[counts])
        for one in range(len(SEEDS)):
            w = torch.tensor(weights[one, :, 0], requires_grad=True)
            features = torch.tensor(prompts[0].features[one][:, places[one]])
            logits = features @ w + torch.tensor(prompts[0].base[one][:, places[one]])
            is_right, drawn = prompts[0].right[one][:, places[one]], found.counts[one, ..., 0]
            total = torch.zeros((), dtype=torch.float64)
            for prompt in range(32):
                answers = np.repeat(np.arange(problem.ANSWERS), drawn[:, prompt].astype(int))
                rewards = torch.tensor(is_right[answers, prompt])
                logs = torch.log_softmax(logits[:, prompt], dim=0)[answers]
                total = total + (torch.as_tensor(estimator(rewards)) * logs).mean() / 32
            total.backward()
            assert ours[one, :, 0] == pytest.approx(w.grad.numpy(), abs=1e-12), name


def test_answers_are_drawn_as_often_as_the_policy_says(prompts):
    places = np.zeros((2, 4000), dtype=int) + np.array([[3], [250]])
    found = answered(prompts, np.zeros((2, problem.WIDTH, 1)), places)
    rate = prompts[0].rates(np.zeros((2, problem.WIDTH, 1)))[0][[0, 1], [3, 250], 0]
    share = found.successes.mean(axis=(1, 2)) / bandit.GROUP
    assert np.abs(share - rate).max() < 4 * np.sqrt(0.25 / (4000 * bandit.GROUP))
    assert found.rates()[:, 0, 0] == pytest.approx(rate, abs=1e-12)
    chances = found.chances[:, :, 0, 0]
    assert np.abs(found.counts.mean(axis=2)[..., 0] / bandit.GROUP - chances).max() < 0.01


def test_what_an_estimator_weighs_is_what_enumeration_says():
    """The mean step along grad p over the outcomes of a group, against ``prompt_weight``."""
    from scipy.stats import binom

    for name, estimator in arms.ESTIMATORS.items():
        right, wrong = bandit.advantages(estimator)
        for rate in (0.02, 0.4, 0.9):
            counts = np.arange(bandit.GROUP + 1)
            chances = binom.pmf(counts, bandit.GROUP, rate)
            step = counts * right / rate - (bandit.GROUP - counts) * wrong / (1 - rate)
            expected = prompt_weight(lambda r, f=estimator: torch.as_tensor(f(r)), rate, bandit.GROUP)
            assert chances @ step / bandit.GROUP == pytest.approx(expected, rel=1e-10), name


def test_weights_have_mean_one_and_controls_keep_what_they_must():
    rates = np.random.default_rng(2).integers(0, 9, (3, 5, 32)) / 8
    for name in (*arms.SETS, *arms.RULES, "easy", "signal"):
        for there in (rates, np.zeros((1, 32)), np.ones((1, 32))):
            state, first = arms.weighting(name)(None, there)
            _, again = arms.weighting(name)(state, there)
            for found in (first, again):
                assert found.mean(axis=-1) == pytest.approx(np.ones(there.shape[:-1])), name
                assert (found >= -1e-12).all(), name
    _, weights = arms.weighting("kl_penalty:0.3")(None, rates)
    assert weights == pytest.approx(np.exp(-rates / 0.3) / np.exp(-rates / 0.3).mean(axis=-1, keepdims=True))
    chance = np.random.default_rng(3).random(rates.shape)
    permuted = arms.controlled(weights, "permuted", chance)
    assert np.sort(permuted) == pytest.approx(np.sort(weights))
    assert np.abs([np.corrcoef(p, -r)[0, 1] for p, r in zip(permuted[0], rates[0], strict=True)]).mean() < 0.4
    random = arms.controlled(weights, "random", chance)
    assert (random**2).sum(axis=-1) == pytest.approx((weights**2).sum(axis=-1), rel=1e-6)
    assert random.mean(axis=-1) == pytest.approx(np.ones((3, 5)))


def test_estimates_are_what_their_names_say():
    rates, exact = np.array([[0.0, 1.0, 0.5]]), np.array([[0.1, 0.9, 0.4]])
    sources, places = np.array([[0, 0, 2]]), np.array([[4, 7, 9]])
    seen = estimates.Seen(rates, exact, places, sources)
    assert estimates.raw(None, seen)[1] is rates
    assert estimates.oracle(None, seen)[1] is exact
    assert estimates.shrunk(None, seen)[1] == pytest.approx(np.array([[2 / 12, 10 / 12, 0.5]]))
    state, first = estimates.running(None, seen)
    assert first == pytest.approx(np.array([[0.35, 0.65, 0.5]]))
    assert state[0, 5] == 0.5
    before = state.copy()
    assert estimates.running(state, seen)[1] == pytest.approx(np.array([[0.245, 0.755, 0.5]]))
    assert (state == before).all(), "states are not changed in place"
    state, first = estimates.pooled(None, seen)
    assert first == pytest.approx(np.array([[0.5, 0.5, 0.5]]))
    assert estimates.pooled(state, seen._replace(rates=np.array([[1.0, 1.0, 0.0]])))[1] == pytest.approx(
        np.array([[0.65, 0.65, 0.35]])
    )


def test_a_run_does_not_depend_on_what_runs_beside_it():
    """Neither on other arms, sizes and problems; and an arm on answers of its own differs."""
    by_name = {arm.name: arm for arm in arms.ARMS}
    runs = [training.Run(arm, 10.0) for arm in arms.ARMS]
    together, rates = training.train(SEEDS, runs, 6, every=3)
    assert together.shape == (3, 2, len(runs), len(NAMES))
    for name in ("plain", "kl_penalty:0.3, running", "drawn again", "drawn by weight, corrected", "random weights"):
        alone, alone_rates = training.train(SEEDS[1:], [training.Run(by_name[name], 10.0)], 6, every=3)
        column = [run.arm.name for run in runs].index(name)
        assert alone[:, 0, 0] == pytest.approx(together[:, 1, column], abs=1e-12), name
        assert alone_rates[0, :, 0] == pytest.approx(rates[1, :, column], abs=1e-12), name
    twice, _ = training.train(SEEDS, [training.Run(arms.PLAIN, 10.0)] * 2, 6, every=6, own=True)
    assert np.abs(twice[-1, :, 0] - twice[-1, :, 1]).min(axis=0).max() > 1e-4


def test_groups_drawn_again_step_as_often_as_the_groups_with_signal_allow():
    """A step of it is the mean gradient of all groups with signal since the last one."""
    again = next(arm for arm in arms.ARMS if arm.draws == "again")
    shared = training.Shared([training.Run(again, 1.0)], 1)
    train, _ = problem.draw([7])
    rng = np.random.default_rng(0)
    right, wrong = bandit.advantages(arms.ESTIMATORS["rloo"])
    signal, gradients = 0, np.zeros((1, problem.WIDTH, 1))
    for _ in range(20):
        chosen, uniforms = rng.permutation(300)[None, :32], rng.random((1, bandit.GROUP, 32, 1))
        before = shared.weights.copy()
        answers = bandit.answer(train, chosen, before, uniforms)
        counts = answers.successes.astype(int)
        gradients += 32 * answers.gradient(right[counts], wrong[counts])
        signal += int(((counts > 0) & (counts < bandit.GROUP)).sum())
        shared.step(train, chosen, uniforms, rng.random((1, 32)))
        if signal >= 32:
            assert shared.weights - before == pytest.approx(gradients / signal)
            signal, gradients = 0, np.zeros_like(gradients)
        else:
            assert (shared.weights == before).all()


def test_prompts_drawn_by_weight_and_corrected_have_the_plain_gradient():
    """Over many draws the corrected gradient is the mean over all prompts."""
    arm = next(arm for arm in arms.ARMS if arm.draws == "corrected")
    train, _ = problem.draw([7])
    rng, total, count = np.random.default_rng(0), np.zeros((problem.WIDTH, 1)), 400
    estimated = train.rates(np.zeros((1, problem.WIDTH, 1)))[0][..., 0]
    for _ in range(count):
        drawn = training.Drawn(training.Run(arm, 1.0), 1)
        drawn.state = estimated
        drawn.step(train, np.zeros((1, 32), dtype=int), rng.random((1, bandit.GROUP, 32, 1)), rng.random((1, 32)))
        total += drawn.weights[0] / count
    w = torch.zeros(problem.WIDTH, dtype=torch.float64, requires_grad=True)
    chances = torch.softmax(torch.tensor(train.features[0]) @ w + torch.tensor(train.base[0]), dim=0)
    (chances * torch.tensor(train.right[0])).sum(dim=0).mean().backward()
    error = np.linalg.norm(total[:, 0] - w.grad.numpy()) / np.linalg.norm(w.grad.numpy())
    assert error < 0.12


def test_measures_are_of_the_policy(prompts):
    """By a plain loop over prompts."""
    weights = np.random.default_rng(5).normal(size=(2, problem.WIDTH, 2))
    found = dict(zip(NAMES, np.moveaxis(Judge(*prompts)(weights), -1, 0), strict=True))

    def rates(part, w):
        logits = np.einsum("knd,d->kn", part.features[1], w) + part.base[1]
        chances = np.exp(logits - logits.max(axis=0))
        chances /= chances.sum(axis=0)
        return (chances * part.right[1]).sum(axis=0), -(chances * np.log(chances)).sum(axis=0).mean()

    train, held_out = prompts
    for part, name in ((train, "train"), (held_out, "held-out")):
        rate, entropy = rates(part, weights[1, :, 1])
        start, _ = rates(part, np.zeros(problem.WIDTH))
        assert found[f"{name} pass@16"][1, 1] == pytest.approx(np.mean(1 - (1 - rate) ** 16))
        assert found[f"{name} worst fifth"][1, 1] == pytest.approx(rate[np.argsort(start)[:60]].mean())
        assert found[f"{name} entropy"][1, 1] == pytest.approx(entropy)
        by_source = [rate[part.source[1] == s].mean() for s in range(5)]
        assert found[f"{name} worst source"][1, 1] == pytest.approx(min(by_source))
    assert found["shifted pass@1"][1, 1] == pytest.approx(np.dot(problem.MIXTURE[::-1], by_source))


@pytest.mark.parametrize("estimate", ["raw", "oracle"])
def test_a_step_is_the_sum_of_what_prompts_say_times_their_weights(estimate):
    """Tilted by hand from the rates that the adversary sees, prompt by prompt."""
    arm = arms.Arm("tilted", weighting="kl_penalty:0.3", estimate=estimate)
    shared = training.Shared([training.Run(arms.PLAIN, 1.0), training.Run(arm, 2.0)], 1)
    train, _ = problem.draw([7])
    rng = np.random.default_rng(0)
    chosen, uniforms = rng.permutation(300)[None, :32], rng.random((1, bandit.GROUP, 32, 1))
    answers = bandit.answer(train, chosen, shared.weights.copy(), uniforms)
    right, wrong = bandit.advantages(arms.ESTIMATORS["rloo"])
    counts = answers.successes.astype(int)
    alone = [answers.gradient(right[counts] * only, wrong[counts] * only) for only in np.eye(32)[:, None, :, None]]
    seen = answers.successes / bandit.GROUP if estimate == "raw" else train.rates(np.zeros((1, problem.WIDTH, 1)))[0]
    rates = seen[0, :, 0] if estimate == "raw" else seen[0, chosen[0], 0]
    tilt = np.exp(-rates / 0.3)
    shared.step(train, chosen, uniforms, rng.random((1, 32)))
    assert shared.weights[0, :, 0] == pytest.approx(sum(one[0, :, 0] for one in alone))
    expected = 2 * sum(weight * one[0, :, 1] for weight, one in zip(tilt / tilt.mean(), alone, strict=True))
    assert shared.weights[0, :, 1] == pytest.approx(expected)
