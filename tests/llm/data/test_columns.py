"""Files in no known layout, read by a mapping: every key, every way to name a winner, and what is refused and how."""

from __future__ import annotations

import json

import pytest
from pair_layouts import answer, save
from raw_records import ASKED, PLAIN, RAW, TRUTH, system, texts, user

from llm.data.columns import KEYS, ColumnMap
from llm.data.layouts.tools import tools_of
from llm.data.objects import pairs_of
from llm.data.pairs import DataError, Pair, read_pairs, write_pairs
from llm.data.prompts import read_prompts
from llm.data.suites import describe_file, load_suites

# Every key, in every format, however the mapping is written.


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize("form", [str, lambda text: dict(p.split("=") for p in text.split(",")), ColumnMap.of,
                                  lambda text: json.dumps(dict(p.split("=") for p in text.split(",")))])  # fmt: skip
def test_a_mapping_reads_any_file_however_it_is_written(tmp_path, suffix, form):
    read = read_pairs(save(RAW, tmp_path / f"a{suffix}"), columns=form(PLAIN))
    assert texts(read.pairs) == TRUTH
    assert (read.layout, read.columns) == ("mapped", PLAIN)
    assert describe_file(read)["columns"] == PLAIN


def test_every_key_is_read(tmp_path):
    row = {
        "q": "And now?", "yes": "a", "no": "b", "sys": "Be brief.", "before": [["Hi", "Hello."]], "nr": 7,
        "from": "web", "kind": "qa", "case": "c1", "by how much": "1.5",
        "sure": "0.75", "counts": 2,
    }  # fmt: skip
    keys = {"prompt": "q", "chosen": "yes", "rejected": "no", "system": "sys", "history": "before", "id": "nr",
            "source": "from", "category": "kind", "question_id": "case", "margin": "by how much", "preference": "sure",
            "weight": "counts"}  # fmt: skip
    (pair,) = read_pairs(save([row], tmp_path / "a.jsonl"), columns=keys).pairs
    turns = (system("Be brief."), {"role": "user", "content": "Hi"}, answer("Hello."), *user("And now?"))
    assert pair == Pair("7", turns, "a", "b", "web", "qa", "c1", 1.5, 0.75, 2.0)
    rated = {"prompt": "q", "chosen": "yes", "rejected": "no", "score_chosen": "s1", "score_rejected": "s2"}
    scores = [(4, 1), (1, 3), (2, 2)]
    rows = [row | {"q": f"q{i}", "s1": a, "s2": b} for i, (a, b) in enumerate(scores)]
    read = read_pairs(save(rows, tmp_path / "b.jsonl"), columns=rated)
    assert ([pair.margin for pair in read.pairs], read.dropped) == ([3, -2], {"tie": 1})
    assert {*keys, *rated, "first", "second", "winner", "answer"} == set(KEYS)  # the answer is of prompts


def test_columns_with_a_name_of_their_own_need_no_mapping(tmp_path):
    row = {"prompt": "p", "good": "a", "bad": "b", "id": "i1", "source": "s", "system": "Be brief."}
    (pair,) = read_pairs(save([row], tmp_path / "a.jsonl"), columns="chosen=good,rejected=bad").pairs
    assert pair == Pair("i1", user("p", system("Be brief.")), "a", "b", "s")
    (pair,) = read_pairs(tmp_path / "a.jsonl", columns="chosen=good,rejected=bad,category=source").pairs
    assert (pair.category, pair.source) == ("s", "unknown")  # what is mapped elsewhere is not read twice


@pytest.mark.parametrize("how", ["messages", "whole conversations", "one object"])
def test_what_is_mapped_is_read_as_the_plain_layouts_read_it(tmp_path, how):
    rows = []
    for row in RAW:
        turns = list(user(row["q"]))
        good, bad = answer(row["good one"]), answer(row["bad"])
        if how == "messages":
            rows.append({"q": turns, "good one": [good], "bad": [bad]})
        elif how == "whole conversations":
            rows.append({"good one": [*turns, good], "bad": [*turns, bad]})
        else:
            rows.append({"q": {"turns": turns}, "good one": {"text": row["good one"]}, "bad": [{"text": row["bad"]}]})
    mapping = {
        "messages": PLAIN,
        "whole conversations": "chosen=good one,rejected=bad",
        "one object": "prompt=q.turns,chosen=good one.text,rejected=bad.0.text",
    }[how]
    assert texts(read_pairs(save(rows, tmp_path / "a.jsonl"), columns=mapping).pairs) == TRUTH


def test_a_system_turn_that_stands_there_twice_is_one_and_two_are_none(tmp_path):
    row = {"q": [system("Be brief."), *user("p")], "good one": "a", "bad": "b", "sys": " Be brief. "}
    (pair,) = read_pairs(save([row], tmp_path / "a.jsonl"), columns=PLAIN + ",system=sys").pairs
    assert pair.prompt == user("p", system("Be brief."))
    path = save([row, row | {"sys": "Be long."}], tmp_path / "b.jsonl")
    with pytest.raises(DataError, match=r"line 2: the column 'system' says 'Be long\.', but the chat has"):
        read_pairs(path, columns=PLAIN + ",system=sys")


def test_a_system_text_alone_asks_nothing(tmp_path):
    rows = [row | {"sys": "Be brief."} for row in RAW]
    rows[1] = rows[1] | {"q": " "}
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=PLAIN + ",system=sys")
    assert (len(read.pairs), read.dropped) == (3, {"empty prompt": 1})


def test_pictures_and_tools_beside_mapped_columns_are_read_as_in_every_layout(tmp_path):
    rows = [RAW[0] | {"images": [{"path": "a.png"}]}, RAW[1] | {"tools": [{"name": "find"}]}, *RAW[2:]]
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=PLAIN)
    assert read.dropped == {"content that is no text (images)": 1}
    assert [tools_of(pair.prompt) for pair in read.pairs] == [
        [{"type": "function", "function": {"name": "find"}}], [], []
    ]  # fmt: skip
    unread = read_pairs(save([RAW[0], RAW[1] | {"tools": "find, go"}], tmp_path / "b.jsonl"), columns=PLAIN)
    assert unread.noted == {"definitions of tools left out": 1}
    assert texts(unread.pairs) == TRUTH[:2]


def test_a_column_may_be_missing_where_it_is_null(tmp_path):
    rows = [*RAW[:3], RAW[3] | {"sys": "Be brief."}]
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=PLAIN + ",system=sys")
    assert [len(pair.prompt) for pair in read.pairs] == [1, 1, 1, 2]


# What is refused.

WRONG = [
    ("promt=q", r"there is no key 'promt', did you mean 'prompt'\?; keys are prompt, chosen"),
    ("prompt", r"'prompt' is no KEY=COLUMN; write KEY=COLUMN"),
    ("prompt=", "prompt names no column"),
    ("prompt=q,prompt=r", "a key stands twice"),
    ("{}", "nothing is named"),
    ("{oops", "is not JSON"),
    ('{"prompt": 3}', "prompt names no column"),
    ("prompt=q,first=a", "first stands alone; name first and second"),
    ("first=a,second=b,chosen=c,winner=d", "not both"),
    ("prompt=q,first=a,second=b", "nothing says which of first and second is better; name winner, or both scores"),
    ("chosen=a,rejected=b,score_chosen=c", "name score_chosen and score_rejected"),
    ("chosen=a,rejected=b,winner=w:x/X", "two outcomes the same value"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=range(len(WRONG)))
def test_a_mapping_that_makes_no_sense_is_refused_before_a_file_is_read(tmp_path, text, said):
    with pytest.raises(DataError, match=f"columns: .*{said}"):
        read_pairs(tmp_path / "nowhere.jsonl", columns=text)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("prompt=qq,chosen=good one,rejected=bad", r"prompt=qq, did you mean 'q'\?; the columns are q, good one, bad"),
        ("prompt=q,chosen=Good_One,rejected=bad", r"chosen=Good_One, did you mean 'good one'\?"),
        ("prompt=q.text,chosen=good one,rejected=bad", r"there is no column for prompt=q\.text"),
        ("prompt=x,chosen=y,rejected=z", r"for prompt=x, chosen=y, rejected=z; the columns"),
        ("prompt=q,chosen=good one", r"(line|row) 1: nothing is mapped to 'rejected', and no column is called so"),
        ("chosen=good one,rejected=bad", r"(line|row) 1: the answers are no conversations, .* add prompt=COLUMN"),
    ],
)  # fmt: skip
def test_a_mapping_to_columns_that_are_not_there_is_refused(tmp_path, columns, said):
    path = save(RAW, tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=rf"a\.jsonl.*{said}"):
        read_pairs(path, columns=columns)
    with pytest.raises(DataError, match=said):
        pairs_of(RAW, columns=columns)


@pytest.mark.parametrize("damage", [{"q": 3}, {"good one": 3.5}, {"bad": {"a": "b"}}], ids=str)
def test_one_damaged_record_in_the_middle_stops_with_its_line(tmp_path, damage):
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: .*'(prompt|chosen|rejected)' should "):
        read_pairs(save([*RAW[:2], RAW[2] | damage, RAW[3]], tmp_path / "a.jsonl"), columns=PLAIN)


# Several files, some of which have these columns.


def test_one_mapping_serves_the_files_that_have_its_columns(tmp_path):
    files = {"raw": save(RAW, tmp_path / "raw.jsonl"), "other": tmp_path / "other.jsonl"}
    write_pairs([Pair("1", user("p"), "a", "b")], files["other"])
    suites, records = load_suites(files, columns=PLAIN)
    assert (texts(suites["raw"]), texts(suites["other"])) == (TRUTH, [(user("p"), "a", "b")])
    assert {name: record.get("columns") for name, record in records.items()} == {"raw": PLAIN, "other": None}
    with pytest.raises(DataError, match=r"none of other has the columns of prompt=q"):
        load_suites({"other": files["other"]}, columns=PLAIN)
    assert load_suites({"other": files["other"]}, columns=PLAIN, used=True)[0]["other"]
    half = save([{"q": "p", "good": "a", "bad": "b"}], tmp_path / "half.jsonl")  # it has some of them: that is a slip
    with pytest.raises(DataError, match=r"chosen=good one, did you mean 'good'\?"):
        load_suites({"half": half}, columns=PLAIN, used=True)


def test_objects_are_read_by_a_mapping_and_pairs_need_none():
    pd, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    for rows in (RAW, pd.DataFrame(RAW), datasets.Dataset.from_list(RAW)):
        found = pairs_of(rows, columns=PLAIN)
        assert (texts(found.pairs), found.columns) == (TRUTH, PLAIN)
    with pytest.raises(DataError, match="pairs have no columns that could be mapped"):
        pairs_of(found.pairs, columns=PLAIN)
    assert pairs_of(found.pairs, columns=PLAIN, shared=True).pairs == found.pairs


# Prompts.


@pytest.mark.parametrize("columns", [PLAIN, "prompt=q"])
def test_prompts_by_a_mapping(tmp_path, columns):
    rows = RAW if columns == PLAIN else [{"q": row["q"], "topic": "t", "system": "Be brief."} for row in RAW]
    before = () if columns == PLAIN else (system("Be brief."),)
    read = read_prompts(save(rows, tmp_path / "a.jsonl"), columns=columns)
    assert [prompt.messages for prompt in read.prompts] == [user(q, *before) for q in ASKED]
    assert read.describe()["columns"] == columns
    plain = read_prompts(
        save([{"prompt": "p", "system": "Be brief."}], tmp_path / "b.jsonl"), columns=columns, shared=True
    )
    assert plain.prompts[0].messages == user("p", system("Be brief."))
    assert "columns" not in plain.describe()


def test_prompts_under_another_name_are_refused_with_the_mapping(tmp_path):
    path = save([{"question": "Which tea?", "topic": "tea"}], tmp_path / "a.jsonl")
    with pytest.raises(
        DataError, match=r"line 1: no 'prompt' here, found question, topic; .* `--columns prompt=question`"
    ):
        read_prompts(path)
    with pytest.raises(DataError, match=r"prompt=qestion, did you mean 'question'\?"):
        read_prompts(path, columns="prompt=qestion")
