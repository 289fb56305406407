"""Truncated importance ratios against the gradient of all answers, enumerated."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from llm.policy.experience import Experience, Weighed
from llm.policy.generation.correction import corrected, importance_ratios
from llm.policy.generation.engine import Answer
from llm.policy.generation.settings import ServerSettings
from llm.policy.surrogate import clipped_surrogate

END = 0
SEQUENCES = [
    ids for length in (1, 2, 3) for ids in product(range(3), repeat=length)
    if END not in ids[:-1] and (ids[-1] == END or length == 3)
]  # fmt: skip
MASK = torch.tensor([[place < len(ids) for place in range(3)] for ids in SEQUENCES])
REWARDS = torch.tensor(np.random.default_rng(3).normal(size=len(SEQUENCES)))
START = 3  # the row of the table that the first token is drawn by


def table(seed):
    """Logits of the next token by the one before."""
    return torch.tensor(np.random.default_rng(seed).normal(size=(4, 3)), requires_grad=True)


def logps_of(logits):
    """Of the tokens of every sequence, ``(sequences, 3)``; spoiled where there is none."""
    logs = logits.log_softmax(-1)
    rows = [[logs[before, token] for before, token in zip((START, *ids[:-1]), ids, strict=True)] for ids in SEQUENCES]
    return torch.stack([torch.stack([*row, *[logs[0, 0] + 9] * (3 - len(row))]) for row in rows])


def parts(ours, theirs):
    """What a trainer knows of all answers: drawn by ``theirs``, trained on as ``ours``."""
    shape, zeros = ours.shape, torch.zeros(len(SEQUENCES), dtype=torch.float64)
    known = Experience(REWARDS, zeros.bool(), MASK.sum(1), ours.detach(), torch.zeros(shape), torch.zeros(shape))
    drawn = theirs.detach()
    answers = [
        Answer([7], list(ids), ended=ids[-1] == END, logps=row[: len(ids)].tolist())
        for ids, row in zip(SEQUENCES, drawn, strict=True)
    ]
    advantages = (REWARDS - 0.7)[:, None] * MASK  # whatever the baseline is
    return known, answers, Weighed(advantages, advantages, zeros + 1, zeros + 1, REWARDS, zeros + 1, REWARDS.mean())


def gradient(policy, advantages, masses):
    """Of the mean surrogate of answers that are drawn with these masses."""
    logps = logps_of(policy)
    losses = clipped_surrogate(logps, logps.detach(), advantages, MASK)
    return torch.autograd.grad((masses * losses).sum(), policy)[0]


@pytest.fixture(scope="module")
def case():
    policy, other = table(1), table(1).detach() + 0.1 * table(2).detach()
    ours, theirs = logps_of(policy), logps_of(other)
    masses = (theirs * MASK).sum(1).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-12)
    exact = torch.autograd.grad(-((ours * MASK).sum(1).exp() * REWARDS).sum(), policy, retain_graph=True)[0]
    return policy, ours, theirs, masses, exact


def settings(told):
    return ServerSettings(vllm_server_base_url="http://host:1", importance_ratios=told)


def test_ratios_of_whole_answers_give_the_gradient_of_our_policy_and_those_of_tokens_most_of_it(case):
    policy, ours, theirs, masses, exact = case
    known, answers, weighed = parts(ours, theirs)
    errors = {}
    for told in ("answers:1e9", "tokens:1e9", "off"):
        found, _ = corrected(weighed, known, answers, settings(told))
        errors[told] = (gradient(policy, found.advantages, masses) - exact).norm() / exact.norm()
    of_answers, of_tokens, plain = errors.values()
    assert of_answers < 1e-12
    assert 1e-3 < of_tokens < 0.8 * plain


def test_ratios_are_cut_off_above_and_the_log_says_how_many(case):
    _, ours, theirs, _, _ = case
    known, answers, weighed = parts(ours, theirs)
    for of in ("answers", "tokens"):
        level = of == "answers"
        ratios = importance_ratios(known.logps, theirs.detach(), MASK, of=of)
        by_hand = [
            np.exp([sum(ours[row, k] - theirs[row, k] for k in range(len(ids))).item()] * len(ids)) if level else
            np.exp([(ours[row, k] - theirs[row, k]).item() for k in range(len(ids))])
            for row, ids in enumerate(SEQUENCES)
        ]  # fmt: skip
        np.testing.assert_allclose(ratios[MASK], np.concatenate(by_hand), rtol=1e-12)
        assert ratios[~MASK].eq(1).all()
        clip = float(np.quantile(ratios[MASK], 0.7))
        found, said = corrected(weighed, known, answers, settings(f"{of}:{clip!r}"))
        np.testing.assert_allclose(found.advantages, weighed.advantages * ratios.clamp(max=clip))
        single = np.array([row[0] for row in by_hand]) if level else np.concatenate(by_hand)
        kept = np.minimum(single, clip)
        assert said["importance_ratio"] == pytest.approx(single.mean())
        assert said["importance_clipped"] == pytest.approx((single > clip).mean())
        assert 0 < said["importance_clipped"] < 1
        assert said["importance_effective_share"] == pytest.approx(kept.sum() ** 2 / (len(kept) * (kept**2).sum()))


@pytest.mark.parametrize("told", [ServerSettings(), settings("off")])
def test_nothing_is_touched_where_the_policy_wrote_itself_or_no_correction_is_asked_for(told, case):
    _, ours, theirs, _, _ = case
    known, answers, weighed = parts(ours, theirs)
    found, said = corrected(weighed, known, answers, told)
    assert found is weighed
    assert said == {}
