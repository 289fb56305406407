"""Rewards of files and streams: as evaluation has them, in order, in constant memory, as soon as they can be had."""

from __future__ import annotations

import json
import os
import re
import tracemalloc

import numpy as np
import pytest
import shapes
from datasets import Dataset
from loaded_models import SUITE
from scored_models import LENGTH, Lengths, judge, save_judge

from llm import evaluate, score
from llm.data.pairs import DataError, Pair, write_pairs
from llm.models.loading import ModelError
from llm.serving import scoring
from llm.serving.items import items_of
from llm.serving.reading import reader_of
from llm.serving.scoring import score_stream
from robust_rlhf import main

ASKED = ({"role": "user", "content": "Which dog? " * 9},)
LONG = [
    Pair("long", ASKED, "red dog " * 4, "blue"),
    Pair("alike", ASKED, "red " * 30 + "a", "red " * 30 + "b"),
    Pair("both", SUITE[0].prompt, "green " * 20, "amber " * 19),
]
PAIRS = [*SUITE, *LONG]


def margins_of(rows):
    return np.array([np.nan if row["margin"] is None else row["margin"] for row in rows])


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_margins_are_those_of_evaluate_and_rewards_those_of_transformers(name):
    model, tokenizer = judge(name)
    how = {"max_length": LENGTH, "batch_size": 5}
    rows = score((model, tokenizer), PAIRS, **how).rows
    expected = evaluate((model, tokenizer), PAIRS, **how).result["margins"]["suite"]
    assert [row["id"] for row in rows] == [pair.id for pair in PAIRS]
    np.testing.assert_allclose(margins_of(rows), expected, rtol=0, atol=1e-6)
    assert np.flatnonzero(np.isnan(expected)).tolist() == [len(SUITE) + 1]
    assert [row["id"] for row in rows if "reason" in row] == ["alike"]
    assert [row["cut"] for row in rows[-3:]] == [True] * 3
    for row, pair in zip(rows[:6], PAIRS, strict=False):
        for side in ("chosen", "rejected"):
            whole = shapes.whole_text(name, pair.prompt[0]["content"], getattr(pair, side))
            ids = shapes.own_tokens(tokenizer, whole)
            assert (row["cut"], row[f"tokens_{side}"]) == (False, len(ids))
            assert row[f"reward_{side}"] == pytest.approx(shapes.reward(model, ids), abs=2e-5)


@pytest.mark.parametrize("name", ["bert", "llama", "qwen"])
def test_answers_in_any_form_have_the_rewards_of_pairs(name):
    """A chat with both answers of a pair is read after the same part of it."""
    by_pair = {row["id"]: row for row in score(judge(name), [PAIRS[0], LONG[0], LONG[2]], max_length=LENGTH).rows}
    for pair in (PAIRS[0], LONG[0], LONG[2]):
        row, text, chat = by_pair[pair.id], pair.prompt[0]["content"], list(pair.prompt)
        both = [pair.chosen, pair.rejected]
        for record in (
            {"prompt": text, "responses": both},
            {"prompt": chat, "completions": [[{"role": "assistant", "content": answer}] for answer in both]},
            {"instruction": text, "answers": both},
            {"messages": chat, "responses": both},
        ):
            found = score(judge(name), [record], max_length=LENGTH).rows
            assert [one["reward"] for one in found] == pytest.approx(
                [row["reward_chosen"], row["reward_rejected"]], abs=1e-5
            )
            assert [(one["answer"], one["tokens"]) for one in found] == [
                (0, row["tokens_chosen"]),
                (1, row["tokens_rejected"]),
            ]
        alone = [
            {"prompt": text, "response": pair.chosen},
            {"messages": [*chat, {"role": "assistant", "content": pair.chosen}]},
            {"prompt": text, "completion": pair.chosen, "label": True},
        ]
        for record in alone if not row["cut"] else []:
            (one,) = score(judge(name), [record | {"id": "x"}], max_length=LENGTH).rows
            assert (one["id"], one["reward"]) == ("x", pytest.approx(row["reward_chosen"], abs=1e-5))


def test_files_rows_and_mapped_columns_give_the_same(tmp_path):
    write_pairs(PAIRS, tmp_path / "a.jsonl")
    expected = score(judge("bert"), PAIRS, max_length=LENGTH).rows
    rows = [{"id": p.id, "q": p.prompt[0]["content"], "good": p.chosen, "bad": p.rejected} for p in PAIRS]
    mapped = {"columns": "prompt=q,chosen=good,rejected=bad", "max_length": LENGTH}
    assert score(judge("bert"), tmp_path / "a.jsonl", max_length=LENGTH).rows == expected
    assert score(judge("bert"), Dataset.from_list(rows), **mapped).rows == expected
    found = score(judge("bert"), rows[:2], columns="prompt=q,answer=good", max_length=LENGTH)
    assert found.table["reward"].tolist() == pytest.approx([row["reward_chosen"] for row in expected[:2]], abs=1e-5)
    assert "BertForSequenceClassification" in found.caption()


@pytest.mark.parametrize("window", [1, 7])
def test_windows_keep_the_order_and_change_nothing(window, monkeypatch):
    expected = score(judge("llama"), PAIRS, max_length=LENGTH).rows
    monkeypatch.setattr(scoring, "WINDOW", window)
    rows = score(judge("llama"), PAIRS, max_length=LENGTH).rows
    assert [row["id"] for row in rows] == [pair.id for pair in PAIRS]
    np.testing.assert_allclose(margins_of(rows), margins_of(expected), atol=1e-6)


def test_what_cannot_be_read_is_a_line_and_ends_nothing():
    records = [
        {"prompt": "Hi", "response": "\ud83d"},
        {"prompt": [{"role": "user", "content": [{"type": "image"}]}], "response": "a"},
        {"prompt": None, "response": "a"},
        {"prompt": float("nan"), "responses": ["a", "b"]},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"prompt": "Hi", "response": ""},
    ]
    rows = score(judge("qwen"), records).rows
    reasons = ["text is not valid Unicode", "content that is no text (image)", *["empty prompt"] * 3, None]
    assert [row["id"] for row in rows] == [f"objects-{number}" for number in range(len(records))]
    assert [row.get("reason") for row in rows] == reasons
    assert [row["reward"] is None for row in rows] == [True, True, True, True, True, False]


def test_a_chat_that_the_template_refuses_is_a_line(monkeypatch):
    model, tokenizer = judge("qwen")
    monkeypatch.setattr(
        tokenizer,
        "chat_template",
        "{% if 'no' in messages[0].content %}{{ raise_exception('never') }}{% endif %}" + shapes.CHATML,
    )
    rows = score((model, tokenizer), [{"prompt": text, "response": "a"} for text in ("yes", "no", "yes")]).rows
    assert [row["reward"] is None for row in rows] == [False, True, False]
    assert "refuses the chat: never" in rows[1]["reason"]
    assert rows[0]["reward"] == pytest.approx(rows[2]["reward"])


@pytest.mark.timeout(60)
def test_a_slow_writer_sees_each_answer_before_it_sends_the_next():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as writer:
        writer.write(line("first"))
        rows = score_stream(reader_of(*judge("bert")), items_of("-", stdin=stream), slow=True)
        # The source is open, so whoever waits for its end or for a full window waits here for ever.
        for name in ("second", "third"):
            writer.write(line(name)[:10])
            assert next(rows)["id"] == {"second": "first", "third": "second"}[name]
            writer.write(line(name)[10:])
        assert next(rows)["id"] == "third"
        writer.close()
        assert next(rows, None) is None


def line(name, answer="red"):
    return json.dumps({"id": name, "prompt": "Which?", "response": answer}).encode() + b"\n"


@pytest.mark.parametrize("slow", [False, True])
def test_what_stands_before_a_broken_line_is_given_before_the_error(slow):
    stream = [line("a"), line("b"), b"{broken\n", line("c")]
    rows = score_stream(Lengths(), items_of("-", stdin=stream), slow=slow)
    assert [next(rows)["id"], next(rows)["id"]] == ["a", "b"]
    with pytest.raises(DataError, match="stdin, line 3: this is not JSON"):
        next(rows)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("kind", ["pairs", "answers"])
def test_memory_does_not_grow_with_the_stream(kind, slow):
    def lines(count):
        for number in range(count):
            answers = (
                {"chosen": f"red {number}" * 9, "rejected": "blue"} if kind == "pairs" else {"response": "red" * 30}
            )
            yield json.dumps({"id": f"{number}" * 9, "prompt": f"Which {number}?", **answers}).encode()

    def peak(count):
        tracemalloc.start()
        assert sum(1 for _ in score_stream(Lengths(), items_of("-", stdin=lines(count)), slow=slow)) == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(6 * scoring.WINDOW) < 1.25 * peak(2 * scoring.WINDOW)


def test_a_broken_model_is_named_with_the_item():
    class Broken(Lengths):
        def rewards(self, items, wanted=None):
            return [[float("nan")] for _ in items]

    with pytest.raises(FloatingPointError, match="'a' is nan or infinite: check the model"):
        list(score_stream(Broken(), items_of("-", stdin=[line("a")])))


def test_the_command_writes_what_python_gives(once, tmp_path, capsys, monkeypatch):
    model = str(once("plain-judge", lambda folder: save_judge("roberta", folder)))
    write_pairs(PAIRS, tmp_path / "a.jsonl")
    told = ["--max-length", str(LENGTH), "--batch-size", "5"]
    assert main(["score", model, str(tmp_path / "a.jsonl"), *told]) == 0
    written = capsys.readouterr()
    rows = [json.loads(text) for text in written.out.splitlines()]
    expected = score(model, tmp_path / "a.jsonl", max_length=LENGTH, batch_size=5).rows
    assert rows == expected
    assert "1 of the lines have no reward or margin" in written.err
    judging = ["--suite", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "e")]
    assert main(["evaluate", model, *judging, *told]) == 0
    capsys.readouterr()
    judged = [json.loads(text) for text in (tmp_path / "e" / "margins.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(margins_of(rows), margins_of(judged), rtol=0, atol=1e-6)
    with (tmp_path / "a.jsonl").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert main(["score", model, "-", *told]) == 0
    piped = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(margins_of(piped), margins_of(rows), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "told", "said"),
    [
        ('{"foo": "a"}', [], r"line 1: found foo; give a 'prompt' with a 'response'"),
        ('{"prompt": "a"}', [], r"line 1: there is no answer to score beside the prompt"),
        ('{"prompt": "a", "responses": []}', [], r"line 1: 'responses' holds no answer"),
        ('{"prompt": "a", "response": 3}', [], r"line 1: .*found the number 3"),
        ('{"prompt": "a", "chosen": "b"}', [], r"no 'rejected'|found the columns prompt, chosen"),
        ("[1]", [], r"expected a JSON object, found int"),
        ("", [], r"is empty"),
        ('{"prompt": "a", "response": "b"}', ["--columns", "prompt=q,answer=response"], r"no column for prompt=q"),
        ('{"prompt": "a", "response": "b"}', ["--max_length", "0"], r"max_length must be at least 1"),
        ('{"prompt": "a", "response": "b"}', ["--max_length", "999"], r"reads at most 94 tokens"),
        ('{"prompt": "a", "response": "b"}', ["--batch_size", "-1"], r"batch_size must be at least 1"),
    ],
)
def test_wrong_input_is_a_sentence(text, told, said, once, tmp_path, capsys):
    model = str(once("plain-judge", lambda folder: save_judge("roberta", folder)))
    (tmp_path / "a.jsonl").write_text(text)
    assert main(["score", model, str(tmp_path / "a.jsonl"), *told]) == 2
    (last,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("robust-rlhf: ")]
    assert re.search(said, last), last


def test_a_policy_has_no_rewards(once):
    start = once("shape-llama-right", lambda folder: shapes.save_start("llama", folder))
    with pytest.raises(ModelError, match="is a policy, which has no rewards"):
        score(str(start), PAIRS)
