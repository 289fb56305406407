"""Every layout in every file format gives the same pairs, and records that are none are dropped and counted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pair_layouts import CHAT, GOOD, LAYOUTS, QUESTION, answer, canonical, hh, save, transcript, trl_implicit, trl_text

from llm.data.pairs import DataError, Pair, read_pairs
from llm.data.prompts import read_prompts


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv"])
@pytest.mark.parametrize("prompt", [QUESTION, CHAT], ids=["question", "chat"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_every_layout_in_every_format(tmp_path, layout, prompt, suffix):
    if layout is trl_text:
        prompt = prompt[-1:]
    read = read_pairs(save([layout(prompt)] * 2, tmp_path / f"my.train{suffix}"))
    expected = [Pair(f"my.train-{i}", prompt, "Here, see.", "Nowhere") for i in range(2)]
    assert (read.layout, read.pairs, read.dropped) == (LAYOUTS[layout], expected, {})
    assert read.sha256 == hashlib.sha256(Path(read.path).read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_optional_columns_are_kept(tmp_path, suffix):
    extra = {"id": "7", "source": "web", "category": "qa", "question_id": "81", "margin": "2"}
    (pair,) = read_pairs(save([canonical(QUESTION) | extra], tmp_path / f"a{suffix}")).pairs
    assert (pair.id, pair.source, pair.category, pair.question_id) == ("7", "web", "qa", "81")
    assert pair.margin == 2.0


@pytest.mark.parametrize("alone", [False, True])
def test_nan_is_a_missing_column(tmp_path, alone):
    """As `json.dumps` writes what pandas has for a missing text; as a question it would make one of all pairs."""
    columns = ("id", "source", "category", "question_id", "margin")
    row = {"prompt": "Where?"} if alone else canonical(QUESTION)
    path = save([row | dict.fromkeys(columns, float("nan"))], tmp_path / "a.jsonl")
    (found,) = read_prompts(path).prompts if alone else read_pairs(path).pairs
    assert (found.id.startswith("a-0"), found.source, found.category) == (True, "unknown", "unknown")
    assert (getattr(found, "question_id", None), getattr(found, "margin", None)) == (None, None)


def test_a_prompt_that_is_text_in_brackets_stays_text(tmp_path):
    row = {"prompt": '["role", "content"]', "chosen": "a", "rejected": "b"}
    assert read_pairs(save([row], tmp_path / "a.csv")).pairs[0].prompt[0]["content"] == row["prompt"]


def test_a_prompt_text_with_whole_conversations(tmp_path):
    row = {"prompt": QUESTION[0]["content"], **trl_implicit(QUESTION)}
    assert read_pairs(save([row], tmp_path / "a.jsonl")).pairs[0].prompt == QUESTION


def test_repeated_speakers_of_a_transcript_are_merged(tmp_path):
    text = "\n\nHuman: a\n\nHuman: b\n\nAssistant:"
    row = {"chosen": text + " yes", "rejected": text + " no"}
    (pair,) = read_pairs(save([row], tmp_path / "a.jsonl")).pairs
    assert pair.prompt == ({"role": "user", "content": "a\n\nb"},)
    assert (pair.chosen, pair.rejected) == ("yes", "no")


TURN = [{"role": "user", "content": "p"}]
DROPS = [
    ("chosen equals rejected", GOOD, GOOD | {"rejected": " a\n"}),
    ("empty prompt", GOOD, GOOD | {"prompt": " "}),
    ("empty prompt", GOOD, GOOD | {"prompt": []}),
    ("empty prompt", GOOD, GOOD | {"prompt": None}),
    ("empty answer", GOOD, GOOD | {"rejected": "\n"}),
    ("empty answer", GOOD, GOOD | {"chosen": None}),
    ("text is not valid Unicode", GOOD, GOOD | {"chosen": "\ud83d"}),
    ("chosen equals rejected", trl_implicit(QUESTION), {"chosen": TURN, "rejected": TURN}),
    ("conversations differ before the last answer", trl_implicit(CHAT),
     {"chosen": [answer("x"), *CHAT, answer("y")], "rejected": [*CHAT, answer("y")]}),
    ("conversation does not end with an assistant turn", trl_implicit(CHAT),
     {"chosen": [*CHAT, *TURN], "rejected": [*CHAT, answer("y")]}),
    ("conversations differ before the last answer", hh(CHAT), hh(CHAT) | {"rejected": transcript(QUESTION,
     "No")}),
    ("conversation does not end with an assistant turn", hh(CHAT),
     {k: v + "\n\nHuman: ok" for k, v in hh(CHAT).items()}),
    ("text is not a Human/Assistant transcript", hh(CHAT), hh(CHAT) | {"rejected": "hello"}),
    ("empty prompt", hh(CHAT), {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}),
]  # fmt: skip


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize(("reason", "good", "bad"), DROPS)
def test_unusable_records_are_counted_and_dropped(tmp_path, caplog, reason, good, bad, where):
    rows = [good, good]
    rows.insert(where, bad)
    read = read_pairs(save(rows, tmp_path / "a.jsonl"))
    assert (len(read.pairs), read.dropped) == (2, {reason: 1})
    assert f"dropped 1 of 3 records ({reason}: 1)" in caplog.text


def test_half_dropped_passes_and_more_than_half_stops(tmp_path):
    bad = GOOD | {"rejected": "a"}
    assert read_pairs(save([GOOD, bad], tmp_path / "a.jsonl")).dropped == {"chosen equals rejected": 1}
    with pytest.raises(DataError, match=r"jsonl: 2 of 3 records are unusable \(chosen equals rejected: 2\)"):
        read_pairs(save([GOOD, bad, bad], tmp_path / "a.jsonl"))


def test_repeated_ids_are_numbered(tmp_path, caplog):
    rows = [GOOD | {"id": name} for name in ("q", "q", "q#2", "q")]
    read = read_pairs(save(rows, tmp_path / "a.jsonl"))
    assert [p.id for p in read.pairs] == ["q", "q#2", "q#2#2", "q#3"]
    assert "3 ids are not unique" in caplog.text
