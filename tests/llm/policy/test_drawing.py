"""What is drawn depends on (seed, purpose, step, prompt, sample) alone: not on batches, their mates, or their order."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from bigram import bigram, tokenizer
from scipy import stats
from transformers import LogitsProcessorList

from llm.data.corpus.corpus import generate
from llm.data.prompts import Prompt
from llm.models.loading import tiny_policy
from llm.policy.actor_critic import Reference
from llm.policy.judging import judge_policy
from llm.policy.rollouts import Answers, ForeignSampler, Sampling
from llm.policy.token_draws import Draws, Lots, Purpose
from llm.training.guards import NonFiniteLoss

LOTS = Lots(5, Purpose.TRAINING, step=2)
PROMPTS = [[5, 6, 7, 9, 11], [8, 9], [12], [5, 6, 7], [30, 31, 32, 33], [8, 9]]
SAMPLINGS = [Sampling(7), Sampling(7, temperature=1.7), Sampling(7, temperature=0.6, top_p=0.8)]


@pytest.fixture(scope="module")
def policy():
    """In float64: rounding that depends on the batch then stands in digits that ``generate`` does not look at."""
    torch.manual_seed(0)
    model, words = tiny_policy((pair.prompt[-1]["content"] for pair in generate(40, seed=5)), max_length=64)
    return model.double(), words


def drawn(policy, size, *, sampling=SAMPLINGS[0], rows=(0, 1, 2, 3, 4, 5), samples=6, lots=LOTS):
    """(prompt, sample) -> ids; of the prompts ``rows``, in that order."""
    model, words = policy
    pen = Answers(words, sampling, batch_size=size)
    found = pen(model, [PROMPTS[row] for row in rows], lots, samples=samples, positions=list(rows))
    return {
        (row, sample): found[place * samples + sample].ids
        for place, row in enumerate(rows)
        for sample in range(samples)
    }


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_batch_sizes_draw_the_same_answers(policy, sampling):
    alone = drawn(policy, 1, sampling=sampling)
    assert len({str(ids) for ids in alone.values()}) == len(alone)  # also of the prompt that is asked twice
    for size in (3, 32):
        assert drawn(policy, size, sampling=sampling) == alone


def test_mates_order_and_length_change_no_answer(policy):
    torch.manual_seed(1)
    whole = drawn(policy, 4)
    torch.manual_seed(2)
    part = drawn(policy, 5, rows=[4, 1, 2], samples=3)
    assert part == {key: whole[key] for key in part}
    longer = drawn(policy, 4, sampling=Sampling(11))
    assert all(longer[key][:7] == ids for key, ids in whole.items())


@pytest.mark.parametrize(
    "other", [Lots(6, Purpose.TRAINING, 2), Lots(5, Purpose.EVALUATION, 2), Lots(5, Purpose.TRAINING, 3)]
)
def test_another_seed_purpose_or_step_draws_others(policy, other):
    ours, theirs = drawn(policy, 8), drawn(policy, 8, lots=other)
    assert len(ours) >= len(PROMPTS)
    assert all(ours[key] != theirs[key] for key in ours)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_token_is_where_the_cumulative_probabilities_reach_its_number(policy, sampling):
    """One sequence at a time, in numpy, from the logits of the whole sequence."""
    model, words = policy
    pen = Answers(words, sampling, batch_size=32)
    answers = pen(model, PROMPTS[:2], LOTS)
    assert len(answers) == 2
    for answer in answers:
        assert answer.ids
        numbers = LOTS.of(PROMPTS.index(answer.prompt), 0, len(answer.ids))
        with torch.no_grad():
            logits = model(torch.tensor([answer.prompt + answer.ids])).logits[0, len(answer.prompt) - 1 : -1].numpy()
        for row, number, token, logp in zip(logits, numbers, answer.ids, answer.logps, strict=True):
            masses = np.exp(row / sampling.temperature - np.max(row / sampling.temperature))
            assert logp == pytest.approx(np.log(masses[token] / masses.sum()), abs=1e-5)
            likeliest = np.argsort(-masses)
            held = np.cumsum(masses[likeliest]) / masses.sum()
            masses[likeliest[np.searchsorted(held, sampling.top_p) + 1 :]] = 0
            sums = np.cumsum(masses / masses.sum())
            assert sums[token] > number - 1e-6
            assert token == 0 or sums[token - 1] <= number + 1e-6


def test_numbers_are_uniform_and_no_two_answers_share_any():
    keys = list(product((0, 7), Purpose, (0, 1), (0, 1, 500), (0, 1, 2)))
    found = np.array(
        [Lots(seed, purpose, step).of(prompt, sample, 300) for seed, purpose, step, prompt, sample in keys]
    )
    assert len(np.unique(found)) == found.size
    assert found.min() >= 0
    assert found.max() < 1
    assert stats.kstest(found.ravel(), "uniform").pvalue > 1e-3
    between = np.corrcoef(found)[np.triu_indices(len(found), 1)]
    assert np.abs(between).max() < 5.5 / np.sqrt(300)
    assert np.array_equal(Lots(7, Purpose.TRAINING).of(1, 2, 4), Lots(7, Purpose.TRAINING).of(1, 2, 300)[:4])
    assert np.unique([Lots(2**63 + k, Purpose.TRAINING).of(0, 0, 1) for k in range(3)]).size == 3


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("top_p", [1.0, 0.7])
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])  # the latter where a device has no other
def test_no_token_without_probability_is_ever_drawn(number, top_p, precision):
    """Not at either end of the numbers, of which single precision rounds the last to one."""
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(400, 333, generator=generator) * 8
    banned = torch.rand(400, 333, generator=generator) < 0.6
    banned[:, [0, 1, -1]], banned[:, 5] = True, False
    logits[banned] = -torch.inf
    drawing = Draws(torch.full((400, 1), number, dtype=precision), start=4, temperature=1.0, top_p=top_p)
    forced = drawing(torch.zeros(400, 4, dtype=torch.long), logits)
    assert not banned.gather(1, drawing.tokens[0][:, None]).any()
    assert drawing.logps[0].isfinite().all()
    assert torch.equal(forced.argmax(dim=1), drawing.tokens[0])
    assert (forced == 0).sum() == 400


def test_each_token_has_the_numbers_from_the_sum_before_it_to_its_own():
    numbers = torch.tensor([0.0, 0.2, 0.25, 0.9, 0.5], dtype=torch.float64)[:, None]
    masses = torch.tensor([[0.0, 0.25, 0.0, 0.25, 0.5, 0.0]]).repeat(5, 1)
    drawing = Draws(numbers, start=1, temperature=1.0, top_p=1.0)
    drawing(torch.zeros(5, 1, dtype=torch.long), masses.log())
    assert drawing.tokens[0].tolist() == [1, 1, 3, 4, 4]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_is_drawn_from_logits_that_are_not_finite(value):
    model = bigram(2, 3)
    model.lm_head.weight.data[3, 5] = value
    with pytest.raises(NonFiniteLoss, match="logits are not finite"):
        Answers(tokenizer(2, 3), Sampling(2), batch_size=4)(model, [[5], [6]], LOTS)


def test_a_model_that_writes_what_was_not_drawn_is_refused(monkeypatch):
    """As one would whose own sampler takes the logits after us."""
    model = bigram(2, 3, np.zeros((2, 3)))

    def undone(self, *args, logits_processor, **kwargs):
        return LogitsProcessorList([*logits_processor, lambda ids, scores: -scores.clamp(min=-9)])

    monkeypatch.setattr(type(model), "_get_logits_processor", undone)
    with pytest.raises(ForeignSampler, match="does not heed a logits processor"):
        Answers(tokenizer(2, 3), Sampling(2), batch_size=4)(model, [[5], [6]], LOTS, samples=8)


def test_evaluations_write_the_same_at_every_batch_size(policy):
    model, words = policy
    prompts = [Prompt(pair.id, pair.prompt) for pair in generate(5, seed=2)]

    def texts(size, seed=3):
        scorer = {"reward": lambda asked, answers: np.zeros(len(answers))}
        judged = judge_policy(
            model, Reference(model), words, prompts, scorer,
            sampling=SAMPLINGS[0], samples=3, batch_size=size, seed=seed,
        )  # fmt: skip
        return judged.texts

    alone = texts(1)
    assert texts(3) == texts(32) == alone
    assert texts(32, seed=4) != alone
