"""The server's dialects, and a crowd."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import shapes
from scored_models import LENGTH, Lengths, judge
from served_models import ask, running

from llm import score
from llm.models import rewards
from llm.serving.batching import Batcher
from llm.serving.reading import Written, reader_of


def test_own_requests_have_the_rewards_of_score(bert):
    records = [
        {"prompt": "Which dog? " * 9, "responses": ["red " * 9, "blue"], "id": "long"},
        {"messages": [{"role": "user", "content": "Hi"}], "response": "red"},
    ]
    expected = score(judge("bert"), records, max_length=LENGTH).rows
    status, found = ask(bert.address, "/score", {"items": records})
    assert status == 200
    assert [one["id"] for one in found["results"]] == ["long", "1"]
    assert [one["cut"] for one in found["results"]] == [True, False]
    numbers = [reward for one in found["results"] for reward in one["rewards"]]
    assert numbers == pytest.approx([row["reward"] for row in expected], abs=1e-6)
    assert [n for one in found["results"] for n in one["tokens"]] == [row["tokens"] for row in expected]
    alone = ask(bert.address, "/score", records[0])[1]
    assert alone["rewards"] == pytest.approx(numbers[:2], abs=1e-6)
    assert alone | {"rewards": []} == found["results"][0] | {"rewards": []}
    assert ask(bert.address, "/score", {"items": []}) == (200, {"results": []})


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "qwen", "gemma3"])
def test_trainers_are_answered_as_transformers_reads_their_texts(name):
    """With the special tokens of the model written out or not, and padded."""
    model, tokenizer = judge(name)
    whole, bare = (shapes.whole_text(name, "Which?", "red dog"), f"{shapes.prompt_text(name, 'Which?')} red dog")
    expected = shapes.reward(model, shapes.own_tokens(tokenizer, whole))
    pad = tokenizer.pad_token if tokenizer.pad_token_id != tokenizer.eos_token_id else ""
    texts = [whole, whole + pad * 3]
    if name not in ("qwen",):  # whose layout writes no space before the answer
        texts += [bare, bare.removeprefix(shapes.SHAPES[name].around[0])]
    prompt = shapes.prompt_text(name, "Which?")
    with running(reader_of(model, tokenizer, max_length=LENGTH)) as server:
        for more in ({}, {"prompts": [prompt] * len(texts), "labels": ["x"] * len(texts)}):
            status, found = ask(server.address, "/get_reward", {"query": texts, **more})
            assert (status, found["scores"], found["extra_logs"]) == (200, found["rewards"], {})
            assert found["rewards"] == pytest.approx([expected] * len(texts), abs=2e-5)
        _, found = ask(server.address, "/classify", {"model": "m", "input": whole, "use_activation": False})
        assert found["data"][-1]["probs"][-1] == pytest.approx(expected, abs=2e-5)
        _, found = ask(server.address, "/v1/embeddings", {"model": "m", "input": whole})
        assert found["data"][-1]["embedding"][-1] == pytest.approx(expected, abs=2e-5)
        assert found["usage"]["prompt_tokens"] == len(shapes.own_tokens(tokenizer, whole))


def test_a_long_text_keeps_its_answer_and_loses_the_middle_of_its_prompt():
    model, tokenizer = judge("llama")
    prompt = f"User: begin {'x' * 200} end\n\nAssistant:"
    reader = reader_of(model, tokenizer, max_length=LENGTH)
    with running(reader) as server:
        query = {"query": [f"{prompt} red dog"], "prompts": [prompt]}
        _, found = ask(server.address, "/get_reward", query)
        (row,) = reader._answers.read_written([(query["query"][0], prompt)])
    text = tokenizer.decode(row.rows[0][0])
    assert len(row.rows[0][0]) == LENGTH
    assert text.startswith("<s>User: begin xx")
    assert text.endswith("end\n\nAssistant: red dog</s>")
    assert found["rewards"] == pytest.approx([shapes.reward(model, row.rows[0][0])], abs=2e-5)


def test_a_crowd_shares_forward_passes_and_each_gets_its_own():
    reader, passes = reader_of(*judge("bert"), max_length=LENGTH), []
    whole = reader.rewards
    reader.rewards = lambda items, *more: passes.append(len(items)) or whole(items, *more)
    texts = [f"{'dog ' * (number % 5)}{number}" for number in range(200)]
    expected = [row["reward"] for row in score(judge("bert"), [{"prompt": "Hi", "response": t} for t in texts]).rows]
    before = threading.active_count()
    with running(reader) as server, ThreadPoolExecutor(200) as pool:
        gate = threading.Barrier(200)

        def one(text):
            gate.wait(60)
            return ask(server.address, "/score", {"prompt": "Hi", "response": text})

        found = list(pool.map(one, texts))
        assert threading.active_count() <= before + 200 + 2  # clients, the server and the model's
    assert {status for status, _ in found} == {200}
    assert [content["rewards"][0] for _, content in found] == pytest.approx(expected, abs=1e-5)
    assert sum(passes) == 200
    assert len(passes) < 100


def test_a_request_waits_a_moment_for_company():
    reader = Lengths()
    whole, passes = reader.rewards, []
    reader.rewards = lambda items, *more: passes.append(len(items)) or whole(items, *more)
    batcher = Batcher(reader, linger=1.0)
    found = [batcher.submit([Written(text)]) for text in ("a", "bc") if time.sleep(0.05) is None]
    assert [future.result(20)[0].rewards for future in found] == [[1.0], [2.0]]
    assert passes == [2]
    batcher.close(20)


def test_a_request_that_is_given_up_is_computed_no_further(monkeypatch):
    """One of many forward passes."""
    reader, passes, found = reader_of(*judge("bert"), max_length=LENGTH, batch_size=1), [], []
    whole, may = rewards.batch_rewards, threading.Event()

    def given_up(*told):
        passes.append(1)
        may.wait(20)
        found[0].cancel()
        return whole(*told)

    monkeypatch.setattr(rewards, "batch_rewards", given_up)
    batcher = Batcher(reader)
    found.append(batcher.submit([Written(f"{number}") for number in range(20)]))
    may.set()
    batcher.close(20)
    assert (len(passes), found[0].cancelled()) == (1, True)
