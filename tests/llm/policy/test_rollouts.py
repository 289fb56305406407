"""What a policy writes, how it is padded and scored, and what is refused on the way."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from bigram import Table, bigram, trainer
from statsmodels.stats.proportion import proportion_confint
from tokenizer_shapes import shaped

from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError, write_pairs
from llm.data.prompts import Prompt, questions, read_prompts, subset
from llm.models.loading import tiny_policy, tiny_reward_model
from llm.models.logprobs import answer_logps
from llm.policy.judging import ScoredAnswers, render_policy_table, summarise_policy
from llm.policy.rollouts import Answers, Sampling, aligned, batch_of
from llm.policy.run import fitting
from llm.policy.setup import KLExplosion
from llm.policy.token_draws import Lots, Purpose
from llm.rewards.bench import BadScores
from llm.rewards.checked import checked_scores
from llm.rewards.model import RewardScorer
from llm.rewards.names import RewardError
from llm.rewards.scorer import ExactChecker, tokenizers_of
from llm.text.answers import encode_answers, encode_prompts
from llm.text.encoding import encode_pairs
from llm.training.config import ConfigError
from llm.training.guards import NonFiniteLoss

LOTS = Lots(1, Purpose.TRAINING)


@pytest.fixture(scope="module")
def pairs():
    return generate(64, seed=3)


@pytest.fixture(scope="module")
def asked(pairs):
    return [Prompt(pair.id, pair.prompt, pair.source, pair.category) for pair in pairs]


@pytest.fixture(scope="module")
def policy(pairs):
    torch.manual_seed(0)
    return tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=128)


def test_answers_written_in_a_batch_are_those_written_alone(policy, asked):
    """Left padding changes nothing: at a temperature near 0 sampling is a function of the prompt."""
    model, tokenizer = policy
    encoded = encode_prompts(asked[:7], tokenizer)
    cold = Sampling(max_new_tokens=9, temperature=1e-4)
    together = Answers(tokenizer, cold, batch_size=4)(model, encoded, LOTS, samples=2)
    alone = [Answers(tokenizer, cold, batch_size=1)(model, [ids], LOTS)[0] for ids in encoded]
    assert [answer.ids for answer in together[::2]] == [answer.ids for answer in alone]
    assert [answer.prompt for answer in together] == [ids for ids in encoded for _ in range(2)]
    assert len({len(ids) for ids in encoded}) > 1


def test_an_answer_stops_at_its_end_and_no_batch_is_longer_than_needed(policy, asked):
    model, tokenizer = policy
    end = tokenizer.eos_token_id
    model.generation_config.eos_token_id = [end, 7, 8, 9, *range(20, 400)]  # several ends, so that lengths differ
    try:
        found = Answers(tokenizer, Sampling(12), batch_size=8)(
            model, encode_prompts(asked[:8], tokenizer), LOTS, samples=4
        )
    finally:
        model.generation_config.eos_token_id = end
    ends = {end, 7, 8, 9, *range(20, 400)}
    for answer in found:
        assert not ends & set(answer.ids[:-1])
        assert answer.ended == (answer.ids[-1] in ends)
        assert answer.ended or len(answer.ids) == 12
    lengths = [len(answer.prompt) + len(answer.ids) for answer in found]
    assert len({len(answer.ids) for answer in found}) > 2
    batch = batch_of(found, tokenizer.pad_token_id)
    assert batch["input_ids"].shape == (32, max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["answer_mask"].sum(1).tolist() == [len(answer.ids) for answer in found]
    for row, answer in enumerate(found):
        assert batch["input_ids"][row][batch["answer_mask"][row].bool()].tolist() == answer.ids


def test_samples_follow_the_policy(tmp_path):
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    model = bigram(2, 3, np.log(probabilities))
    subject = trainer(model, np.zeros((2, 3)), tmp_path, actions=3)
    found = subject.pen(model, subject.encoded, LOTS, samples=4000)
    counts = np.array(
        [[sum(a.ids[0] == 2 + k for a in found[4000 * i : 4000 * i + 4000]) for k in range(3)] for i in range(2)]
    )
    assert np.abs(counts / 4000 - probabilities).max() < 0.04  # five standard errors
    hot = Answers(subject.pen.tokenizer, Sampling(1, temperature=2.0, top_p=1.0), batch_size=4000)
    heated = np.sqrt(probabilities[0]) / np.sqrt(probabilities[0]).sum()
    drawn = np.bincount([a.ids[0] - 2 for a in hot(model, subject.encoded[:1], LOTS, samples=4000)], minlength=3)
    assert np.abs(drawn / 4000 - heated).max() < 0.04
    cut = Answers(subject.pen.tokenizer, Sampling(1, top_p=0.6), batch_size=500)
    assert {a.ids[0] for a in cut(model, subject.encoded[:1], LOTS, samples=500)} == {2, 3}


def test_tokens_are_aligned_to_the_first_of_each_answer():
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]]).bool()
    tokens = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    found = aligned(tokens, mask, 5)
    assert found.tolist() == [[1, 2, 0, 0, 0], [7, 0, 0, 0, 0], [8, 9, 10, 11, 0]]
    (gradient,) = torch.autograd.grad(found.sum(), tokens)
    assert torch.equal(gradient.bool(), mask)


def test_a_reward_model_reads_answers_through_its_own_tokenizer(policy, pairs, asked):
    """Another vocabulary than the policy's; scores are those of the pairs' own encoding, whatever the batches."""
    torch.manual_seed(1)
    model, tokenizer = tiny_reward_model((pair.chosen for pair in pairs), max_length=96)
    assert tokenizer.get_vocab() != policy[1].get_vocab()
    scorer = RewardScorer(model, tokenizer, max_length=96, batch_size=5)
    scores = scorer(asked[:12], [pair.chosen for pair in pairs[:12]])
    encoded = encode_pairs(pairs[:12], tokenizer, max_length=96)
    ids = encode_answers(asked[:12], [pair.chosen for pair in pairs[:12]], tokenizer, max_length=96)
    assert ids == [encoded[row]["chosen"] for row in range(12)]
    with torch.no_grad():
        alone = [float(model.eval()(input_ids=torch.tensor([row])).logits) for row in ids]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert np.ptp(scores) > 0


def test_the_exact_checker_tells_right_from_wrong(pairs, asked):
    assert ExactChecker()(asked, [pair.chosen for pair in pairs]).all()
    assert not ExactChecker()(asked, [pair.rejected for pair in pairs]).any()
    with pytest.raises(RewardError, match="categories of the built-in corpus, not 'chat'"):
        ExactChecker()([Prompt("1", ({"role": "user", "content": "?"},), category="chat")], ["x"])


def test_prompts_are_read_once_each_from_pairs_or_alone(tmp_path, pairs):
    write_pairs([*pairs, *generate(4, seed=3)], tmp_path / "pairs.jsonl")
    found = read_prompts(tmp_path / "pairs.jsonl")
    assert [p.messages[0]["content"] for p in found.prompts] == list(
        dict.fromkeys(p.prompt[0]["content"] for p in pairs)
    )
    assert found.dropped["repeated prompt"] >= 4
    repeated = read_prompts(tmp_path / "pairs.jsonl", distinct=False)
    assert [p.messages for p in repeated.prompts] == [p.prompt for p in [*pairs, *generate(4, seed=3)]]
    assert not repeated.dropped
    assert repeated.sha256 != found.sha256
    numbers = questions(repeated.prompts)
    for one, first in zip(numbers, repeated.prompts, strict=True):
        assert [p.messages == first.messages for p in repeated.prompts] == [other == one for other in numbers]
    lines = [{"prompt": "one", "source": "s"}, {"prompt": [{"role": "user", "content": "two"}]}, {"prompt": " "}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    alone = read_prompts(tmp_path / "p.jsonl")
    assert [(p.messages[0]["content"], p.source) for p in alone.prompts] == [("one", "s"), ("two", "unknown")]
    assert alone.dropped == {"empty prompt": 1}
    assert subset(found.prompts, 5, seed=1) == subset(found.prompts, 5, seed=1) != subset(found.prompts, 5, seed=2)
    for content, said in (('{"prompt": 3}', "should be text or a list of messages"), ('{"prompt": ""}', "no prompt")):
        (tmp_path / "bad.jsonl").write_text(content)
        with pytest.raises(DataError, match=said):
            read_prompts(tmp_path / "bad.jsonl")


def test_scores_that_teach_nothing_are_refused_or_named(asked, caplog):
    with pytest.raises(BadScores, match=f"2 of 3 scores that are nan or infinite at step 5.*{asked[1].id}"):
        checked_scores(np.array([1.0, np.nan, -np.inf]), asked[:3], step=4)
    with pytest.raises(BadScores, match="one score per answer"):
        checked_scores(np.zeros((3, 1)), asked[:3], step=0)
    with caplog.at_level(logging.WARNING):
        checked_scores(np.full(3, 0.25), asked[:3], step=0)
    assert "same score 0.25" in caplog.text


class Spoilt(Table):
    def __call__(self, prompts, answers):
        return np.full(len(answers), np.nan)


def test_training_stops_before_an_update_that_makes_no_sense(tmp_path):
    rewards, start = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), np.zeros((2, 3))

    def run(model=None, scorer=None, **settings):
        model = bigram(2, 3, start) if model is None else model
        subject = trainer(model, rewards, tmp_path, actions=3, scorer=scorer, samples=4, **settings)
        before = model.lm_head.weight.detach().clone()
        return subject, before

    subject, before = run(scorer=Spoilt(rewards))
    with pytest.raises(BadScores, match="nan"):
        subject.train()
    assert torch.equal(subject.core.policy.lm_head.weight, before)
    subject, before = run(max_kl=0.5, kl_coefficient=0.1)
    subject.reference.model.lm_head.weight.data[2:5, 5:] = torch.tensor([[0.0, -9.0, -9.0]] * 2).T
    with pytest.raises(KLExplosion, match=r"nats from the reference at step 1, more than max_kl \(0.5\)"):
        subject.train()
    assert torch.equal(subject.core.policy.lm_head.weight, before)
    subject, _ = run(estimator="ppo", arguments={"learning_rate": float("inf")})
    with pytest.raises(NonFiniteLoss, match="not finite after step 1"):
        subject.train()
    with pytest.raises(ConfigError, match=r"a step needs 3 prompts .* there are 2"):
        run(prompts_per_step=3)
    with pytest.raises(ConfigError, match="gradient_accumulation_steps does nothing here"):
        run(arguments={"gradient_accumulation_steps": 2})


def test_log_probabilities_of_the_loss_are_those_of_the_answer(policy, asked):
    model, tokenizer = policy
    found = Answers(tokenizer, Sampling(6), batch_size=8)(model, encode_prompts(asked[:4], tokenizer), LOTS)
    assert len(found) == 4
    batch = batch_of(found, tokenizer.pad_token_id)
    with torch.no_grad():
        together = answer_logps(model, batch)
        for row, answer in enumerate(found):
            ids = torch.tensor([answer.prompt + answer.ids])
            logs = model(ids).logits[0].log_softmax(-1)
            own = sum(float(logs[len(answer.prompt) - 1 + k, token]) for k, token in enumerate(answer.ids))
            assert abs(own - float(together[row])) < 1e-4


def test_a_repeated_prompt_is_one_question_of_an_interval():
    chats = [({"role": "user", "content": text},) for text in "abcdef"]
    once = [Prompt(str(number), chat) for number, chat in enumerate(chats)]
    scores = np.array([[0.0], [1.0], [0.5], [0.2], [0.9], [0.4]])

    def limits(prompts, values):
        other = np.zeros_like(values)
        judged = ScoredAnswers([[""]] * len(prompts), {"gold": values}, other, other, other)
        return summarise_policy(prompts, judged)["overall"]["gold"]

    eight_times = [Prompt(f"{number}-{copy}", chat) for copy in range(8) for number, chat in enumerate(chats)]
    alone, repeated = limits(once, scores), limits(eight_times, np.tile(scores, (8, 1)))
    assert repeated["mean"] == pytest.approx(alone["mean"])
    assert repeated["high"] - repeated["low"] >= 0.9 * (alone["high"] - alone["low"])  # not narrower by the root of 8


def test_judges_of_right_and_wrong_say_how_many_prompts_have_any_right_answer():
    prompts = [Prompt(str(row), ({"role": "user", "content": str(row)},)) for row in range(40)]
    draws = np.random.default_rng(0)
    right, other = (draws.random((40, 3)) < 0.3).astype(float), np.zeros((40, 3))
    judged = ScoredAnswers([["", "", ""]] * 40, {"reward": draws.random((40, 3)), "gold": right}, other, other, other)
    record = summarise_policy(prompts, judged)["overall"]
    assert [name for name, found in record.items() if isinstance(found, dict)] == ["reward", "gold", "gold pass@3"]
    solved = int(right.any(axis=1).sum())
    expected = proportion_confint(solved, 40, method="wilson")
    found = record["gold pass@3"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((solved / 40, *expected), abs=2e-3)
    table = render_policy_table({"a": {"overall": record, "by_source": {}}, "b": {"overall": {
        name: entry for name, entry in record.items() if "pass" not in name
    }, "by_source": {}}})  # fmt: skip
    assert "gold pass@3" in [str(column.header) for column in table.columns]


def test_prompts_that_a_judge_cannot_read_are_left_out(caplog):
    """Its template refuses system turns; the policy's does not."""
    system = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Red?"})
    prompts = [Prompt("a", ({"role": "user", "content": "Red?"},)), Prompt("s", system)]
    judge = RewardScorer(torch.nn.Linear(1, 1), shaped("bytewise", "gemma"), max_length=64)
    policy = shaped("bytewise", "chatml")
    kept, encoded, _ = fitting(prompts, policy, most=100, judges=tokenizers_of([judge, ExactChecker(), None]))
    assert [prompt.id for prompt in kept] == ["a"]
    assert encoded == encode_prompts(prompts[:1], policy)
    assert "1 of 2 prompts cannot be read, 's' first: of its judge, its chat template refuses the chat" in caplog.text
    with pytest.raises(DataError, match="1 of 1 prompts cannot be read"):
        fitting(prompts[1:], policy, most=100, judges=tokenizers_of([judge]))
