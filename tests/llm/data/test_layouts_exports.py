"""Every shape that tools write preferences in gives the pairs that are in it, in every file format and on every way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from export_samples import BRIEF, EXPORTS
from hub_samples import SAMPLES
from pair_layouts import GOOD, LAYOUTS, QUESTION
from test_layouts import save

from llm.data.conversion import convert
from llm.data.objects import pairs_of
from llm.data.pairs import DataError, read_pairs
from llm.data.prompts import read_prompts


def expected(name, stem="part"):
    return [replace(pair, id=pair.id.replace("@", f"{stem}-")) for pair in EXPORTS[name].pairs]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
@pytest.mark.parametrize("name", EXPORTS)
def test_every_export_in_every_format(tmp_path, name, suffix):
    sample = EXPORTS[name]
    read = read_pairs(save(sample.rows, tmp_path / f"part{suffix}"))
    assert (read.layout, read.pairs) == (sample.layout, expected(name))
    assert (read.dropped, read.noted) == (sample.dropped, sample.noted)


@pytest.mark.parametrize("name", EXPORTS)
def test_exports_as_objects_and_converted_are_the_same_pairs(tmp_path, name):
    sample = EXPORTS[name]
    reverse = [dict(reversed(row.items())) for row in sample.rows]
    assert pairs_of(reverse, name="part").pairs == expected(name)
    convert(save(sample.rows, tmp_path / "part.jsonl"), tmp_path / "new.jsonl")
    again = read_pairs(tmp_path / "new.jsonl")
    assert (again.layout, again.pairs, again.noted) == ("canonical", expected(name), {})


ODD = [{}, {"unrelated": 1}, *(dict.fromkeys(("all",), value) for value in (3, None, "", [], {}, [3], {"a": 1}))]


@pytest.mark.parametrize("name", [*EXPORTS, *SAMPLES])
def test_a_damaged_record_in_the_middle_is_refused_with_its_line_or_counted(tmp_path, name):
    rows = (EXPORTS.get(name) or SAMPLES[name]).rows[:1]
    for odd in ODD:
        damaged = dict.fromkeys(rows[0], odd["all"]) if "all" in odd else odd
        path = save([*rows * 4, damaged, *rows * 4], tmp_path / "a.jsonl")
        try:
            dropped, said = read_pairs(path).dropped, ""
        except DataError as refused:
            dropped, said = {}, str(refused)
        assert dropped or f"{path}, line 5" in said or "line 5: " in said or "holds no comparison" in said, said


WITHOUT = [name for name in EXPORTS if EXPORTS[name].pairs[0].prompt[0]["role"] != "system"]


@pytest.mark.parametrize("column", ["system", "system_prompt"])
@pytest.mark.parametrize("name", WITHOUT)
def test_a_system_column_is_a_turn_of_the_prompt(name, column):
    rows = [row | {column: "Be brief."} for row in EXPORTS[name].rows]
    assert pairs_of(rows, name="part").pairs == [replace(pair, prompt=(BRIEF, *pair.prompt)) for pair in expected(name)]
    empty = [row | {column: None} for row in EXPORTS[name].rows]
    assert pairs_of(empty, name="part").pairs == expected(name)


@pytest.mark.parametrize("name", [name for name in EXPORTS if name not in WITHOUT])
def test_a_system_column_that_the_chat_repeats_stands_once_and_another_is_refused(name):
    rows = [row | {"system": " Be brief.\n"} for row in EXPORTS[name].rows]
    assert pairs_of(rows, name="part").pairs == expected(name)
    other = [row | {"system": "Be long."} for row in EXPORTS[name].rows]
    with pytest.raises(DataError, match=r"row 1: the column 'system' says 'Be long.', but the chat has a system turn"):
        pairs_of(other)
    with pytest.raises(DataError, match="'system' should be text, found the number 3"):
        pairs_of([GOOD | {"system": 3}])


def test_single_answers_alone_are_refused_as_what_they_are(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": "a", "label": bool(i % 2)} for i in range(4)]
    path = save(rows, tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"holds no comparison: all 4 records .* \(single answer: it stands alone"):
        read_pairs(path)
    assert [prompt.messages[0]["content"] for prompt in read_prompts(path).prompts] == ["q0", "q1", "q2", "q3"]
    with pytest.raises(DataError, match="'label' should be true or false"):
        read_pairs(save([rows[0], rows[1] | {"label": "good"}], path))


def test_single_answers_find_their_partners_far_away(tmp_path):
    good = [{"prompt": f"q{i}", "completion": "good", "label": 1} for i in range(300)]
    bad = [{"prompt": f"q{i}", "completion": "bad", "label": 0} for i in reversed(range(300))]
    read = read_pairs(save(good + bad, tmp_path / "a.jsonl"))
    assert {(pair.chosen, pair.rejected) for pair in read.pairs} == {("good", "bad")}
    assert sorted(pair.prompt[0]["content"] for pair in read.pairs) == sorted(row["prompt"] for row in good)


def test_prompts_alone_are_read_as_the_prompts_of_pairs_are(tmp_path):
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]
    rows = [
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "system": "Be brief."},
        {"prompt": EXPORTS["tool calls"].rows[0]["prompt"]},
        {"prompt": picture},
    ]
    read = read_prompts(save(rows, tmp_path / "a.jsonl"))
    assert [prompt.messages for prompt in read.prompts] == [
        (BRIEF, {"role": "user", "content": "Hi"}),
        EXPORTS["tool calls"].pairs[0].prompt,
    ]
    assert read.dropped == {"content that is no text (image_url)": 1}


@pytest.mark.parametrize("column", ["images", "image", "videos", "audios"])
@pytest.mark.parametrize("name", ["sharegpt, LLaMA-Factory", "Intel/orca_dpo_pairs", "one object as an answer"])
def test_pictures_beside_the_texts_are_lost_and_counted(name, column):
    row, none = EXPORTS[name].rows[0], [[], None, "a note", float("nan")]
    kept = [row | {column: value} for value in none]
    read = pairs_of([*kept, row | {column: ["x.png"]}, row | {column: {"bytes": b"x", "path": None}}])
    assert (len(read.pairs), read.dropped) == (len(kept), {f"content that is no text ({column})": 2})


WRONG = [
    ("ScalerLab/JudgeBench", {"label": "C"}, "'label' should be A>B, B>A or tie, found 'C'"),
    ("PKU-SafeRLHF", {"better_response_id": 2}, "'better_response_id' should be 0, 1 or tie, found '2'"),
    ("THU-KEG/RM-Bench", {"chosen": ["a"]}, "should hold three styles, found 1 and 3"),
    ("Arena, winner columns", {"winner_tie": 1}, "one of winner_model_a, .* should be 1, found 1.0, 0.0, 1.0"),
    ("Arena, winner columns", {"response_a": '["a", "b"]'}, "'prompt' has 1 turns, but 'response_a' has 2"),
    ("distilabel, generations", {"ratings": [1]}, "there are 4 answers, but 'ratings' has 1 entries"),
    ("berkeley-nest/Nectar", {"answers": [{"rank": 1}]}, "no 'answer' here"),
    ("alpaca, LLaMA-Factory", {"history": ["Hi"]}, "'history' should hold pairs of question and answer, found 'Hi'"),
    ("alpaca, two outputs", {"output": ["a"]}, "'output' should hold the chosen and the rejected answer, found 1"),
    ("openai/webgpt_comparisons", {"question": 3}, "'question' should hold its full_text, found the number 3"),
    ("OpenAI preference", {"input": "q"}, "'input' should hold messages, found str"),
    ("sharegpt, LLaMA-Factory", {"conversations": [{"from": "me", "value": "a"}]}, "is from 'me'; known are user"),
    ("one object as an answer", {"chosen": {"role": "assistant"}}, "'chosen' should have role and content, both text"),
]


@pytest.mark.parametrize(("name", "change", "message"), WRONG, ids=range(len(WRONG)))
def test_a_record_that_breaks_an_export_says_how(name, change, message):
    row = EXPORTS[name].rows[0]
    with pytest.raises(DataError, match=f"row 2: .*{message}"):
        pairs_of([row, row | change])


KNOWN = sorted({name for sample in EXPORTS.values() for row in sample.rows for name in row})
MEANT = {"prompt", "chosen", "rejected", "system", "initial_reason_steps", "history", "preference"}


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in MEANT])
def test_a_plain_layout_keeps_its_reading_beside_a_column_of_another_one(name):
    for kind in LAYOUTS:
        row = kind(QUESTION)
        assert pairs_of([row | {name: "5"}]).pairs[0].prompt == pairs_of([row]).pairs[0].prompt, kind


def test_a_refusal_tells_the_layouts_that_are_near(tmp_path):
    with pytest.raises(DataError, match=r"canonical .*; shp {history, human_ref_A.*; and .*nectar") as said:
        read_pairs(save([{"history": "q", "human_ref_A": "a"}], tmp_path / "a.jsonl"))
    assert "webgpt {" not in str(said.value)
