"""Files in no known layout, read by a mapping: every key, every way to name a winner, and what is refused and how."""

from __future__ import annotations

import json

import pytest
from pair_layouts import answer, save

from llm.data.columns import KEYS, ColumnMap
from llm.data.objects import pairs_of
from llm.data.pairs import DataError, Pair, read_pairs, write_pairs
from llm.data.prompts import read_prompts
from llm.data.suites import describe_file, load_suites

ASKED = ["Which tea?", 'How long, "exactly"?', "A river?", "Butter\nor wax?"]
GOOD = ["Black.", "Twelve = 12.", "The Nile, north.", "Butter."]
BAD = ["It's a plant.", "Two hours", "Danube; perhaps", "Neither"]
RAW = [{"q": q, "good one": g, "bad": b} for q, g, b in zip(ASKED, GOOD, BAD, strict=True)]
PLAIN = "prompt=q,chosen=good one,rejected=bad"
SIDED = [  # the second answer is the good one in every second record
    {"q": q, "left": g if i % 2 == 0 else b, "right": b if i % 2 == 0 else g}
    for i, (q, g, b) in enumerate(zip(ASKED, GOOD, BAD, strict=True))
]
SIDES = "prompt=q,first=left,second=right,winner=says"


def user(text, *before):
    return (*before, {"role": "user", "content": text})


def system(text):
    return {"role": "system", "content": text}


def texts(pairs):
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]


TRUTH = [(user(q), g, b) for q, g, b in zip(ASKED, GOOD, BAD, strict=True)]


def told(values, rows=SIDED):
    return [row | {"says": value} for row, value in zip(rows, values, strict=True)]


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
    }  # fmt: skip
    keys = {"prompt": "q", "chosen": "yes", "rejected": "no", "system": "sys", "history": "before", "id": "nr",
            "source": "from", "category": "kind", "question_id": "case", "margin": "by how much"}  # fmt: skip
    (pair,) = read_pairs(save([row], tmp_path / "a.jsonl"), columns=keys).pairs
    turns = (system("Be brief."), {"role": "user", "content": "Hi"}, answer("Hello."), *user("And now?"))
    assert pair == Pair("7", turns, "a", "b", "web", "qa", "c1", 1.5)
    rated = {"prompt": "q", "chosen": "yes", "rejected": "no", "score_chosen": "s1", "score_rejected": "s2"}
    scores = [(4, 1), (1, 3), (2, 2)]
    rows = [row | {"q": f"q{i}", "s1": a, "s2": b} for i, (a, b) in enumerate(scores)]
    read = read_pairs(save(rows, tmp_path / "b.jsonl"), columns=rated)
    assert ([pair.margin for pair in read.pairs], read.dropped) == ([3, -2], {"tie": 1})
    assert {*keys, *rated, "first", "second", "winner"} == set(KEYS)


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
    with pytest.raises(DataError, match="line 2: 'system' and the system turn of the prompt differ"):
        read_pairs(path, columns=PLAIN + ",system=sys")


def test_a_system_text_alone_asks_nothing(tmp_path):
    rows = [row | {"sys": "Be brief."} for row in RAW]
    rows[1] = rows[1] | {"q": " "}
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=PLAIN + ",system=sys")
    assert (len(read.pairs), read.dropped) == (3, {"empty prompt": 1})


def test_a_column_may_be_missing_where_it_is_null(tmp_path):
    rows = [*RAW[:3], RAW[3] | {"sys": "Be brief."}]
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=PLAIN + ",system=sys")
    assert [len(pair.prompt) for pair in read.pairs] == [1, 1, 1, 2]


# Winners.

WINNERS = {
    "from 0": ([0, 1, 0, 1], ""),
    "from 1": ([1, 2, 1, 2], ""),
    "as text": (["1", "2", "1", "2"], ""),
    "as fractions": ([1.0, 2.0, 1.0, 2.0], ""),
    "letters": (["a", "B", "A", "b"], ""),
    "models": (["model_a", "model_b", "Model A", "winner_model_b"], ""),
    "words": (["first", "second", "First", "2nd"], ""),
    "order": (["A>B", "B>A", "a >> b", "[[B>>A]]"], ""),
    "columns": (["left", "right", "left", "Right"], ""),
    "told": ([1, 0, 1, 0], ":1/0"),
    "told, truth": ([True, False, True, False], ":true/false"),
    "told, words": (["yes", "NO", "yes", "no "], ":yes/no"),
    "told, signs": ([-1, 1, -1, 1], ":-1/1"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("kind", WINNERS)
def test_every_way_to_name_a_winner(tmp_path, kind, suffix, caplog):
    values, told_as = WINNERS[kind]
    rows = told([str(v) if suffix == ".csv" else v for v in values])
    read = read_pairs(save(rows, tmp_path / f"a{suffix}"), columns=SIDES + told_as)
    assert texts(read.pairs) == TRUTH
    counted = kind in ("from 0", "from 1", "as text", "as fractions")
    assert bool(read.notes) == counted == ("if it is the other way round, write winner=says:" in caplog.text)
    assert not counted or f"winner {values[0] and 1} is read as the first answer" in read.notes[0]


@pytest.mark.parametrize("tie", ["tie", "Tie (bothbad)", "draw", "A=B", "both", "winner_tie", 0.5])
def test_ties_are_counted_and_records_without_a_winner_too(tmp_path, tie):
    rows = told([0, tie, None, 1, 0, 1], [*SIDED[:2], *SIDED[2:], *SIDED[:2]])
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=SIDES)
    assert (len(read.pairs), read.dropped) == (4, {"tie": 1, "no winner": 1})


def test_a_tie_may_be_told(tmp_path):
    read = read_pairs(save(told([1, 2, 0, 2]), tmp_path / "a.jsonl"), columns=SIDES + ":1/2/0")
    assert (texts(read.pairs), read.dropped) == ([TRUTH[0], TRUTH[1], TRUTH[3]], {"tie": 1})


@pytest.mark.parametrize("start", [0, 1])
def test_a_one_waits_for_the_number_that_says_what_it_counts(tmp_path, start):
    """A file may begin with many of them; the order and the ids stay."""
    good = start == 1  # all but the last say 1
    rows = [
        {"q": f"q{i}", "left": "yes" if good else "no", "right": "no" if good else "yes", "says": 1} for i in range(50)
    ]
    rows.append({"q": "last", "left": "no" if good else "yes", "right": "yes" if good else "no", "says": 2 * start})
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=SIDES)
    assert {(pair.chosen, pair.rejected) for pair in read.pairs} == {("yes", "no")}
    assert [pair.id for pair in read.pairs] == [f"a-{i}" for i in range(51)]


@pytest.mark.parametrize(
    ("values", "line", "said"),
    [
        ([1, 1, 1, 1], 1, r"the winner is 1 wherever one looks, .* write winner=COLUMN:FIRST/SECOND"),
        ([0, 1, 2, 1], 3, r"the winner is 2 where others are 0 or 2: numbers count the answers from 0 or from 1"),
        ([1, 2, 0, 1], 3, r"the winner is 0 where"),
        ([True, False, True, False], 1, r"the winner is True, which is neither side nor a tie"),
        (["a", "b", "c", "a"], 3, r"the winner is 'c', which is neither side nor a tie"),
        (["model_a", "gpt-4", "model_a", "a"], 2, r"the winner is 'gpt-4'"),
        (["A>B", "A<B>A", "a", "b"], 2, "the winner is 'A<B>A'"),
        (["a", "I like a", "a", "b"], 2, "the winner is 'I like a'"),
        (["tie", "all the same", "a", "b"], 2, "the winner is 'all the same'"),
    ],
)  # fmt: skip
def test_a_winner_that_may_mean_either_is_refused_with_its_line(tmp_path, values, line, said):
    with pytest.raises(DataError, match=f"a.jsonl, line {line}: {said}"):
        read_pairs(save(told(values), tmp_path / "a.jsonl"), columns=SIDES)


def test_a_value_that_was_not_told_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 4: the winner 'maybe' is none of yes, no"):
        read_pairs(save(told(["yes", "no", "yes", "maybe"]), tmp_path / "a.jsonl"), columns=SIDES + ":yes/no")


def test_chosen_and_rejected_with_a_winner_are_sides_and_scores_go_with_their_answers(tmp_path):
    rows = [row | {"s1": 5 - i, "s2": 1} for i, row in enumerate(told([0, 1, 0, 1]))]
    columns = "prompt=q,chosen=left,rejected=right,winner=says,score_chosen=s1,score_rejected=s2"
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=columns)
    assert (texts(read.pairs), [pair.margin for pair in read.pairs]) == (TRUTH, [4, -3, 2, -1])


def test_two_sides_are_told_apart_by_their_scores_where_there_is_no_winner(tmp_path):
    rows = [row | {"s1": a, "s2": b} for row, (a, b) in zip(SIDED, [(2, 1), (-1, 4), (3, 3), (0, None)], strict=True)]
    columns = "prompt=q,first=left,second=right,score_chosen=s1,score_rejected=s2"
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=columns)
    assert (texts(read.pairs), [pair.margin for pair in read.pairs]) == (TRUTH[:2], [1, 5])
    assert read.dropped == {"tie": 1, "no rating": 1}


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
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: '(prompt|chosen|rejected)' should be"):
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


# What is said of a file in no known layout.

UNKNOWN = [
    ({"question": "Who?", "good": "I am.", "bad": "no"}, ["prompt=question,chosen=good,rejected=bad`"]),
    ({"instruction": "Who?", "preferred_output": "Me.", "non_preferred_output": "no"},
     ["prompt=instruction,chosen=preferred_output,rejected=non_preferred_output`"]),
    ({"Query": "Who?", "sys": "", "responseWin": "Me.", "responseLose": "no"},
     ["prompt=Query,chosen=responseWin,rejected=responseLose`"]),
    ({"system_prompt": "Be brief.", "question": "Who?", "answer_0": "Me.", "answer_1": "no", "preferred": "answer_0"},
     ["prompt=question,first=answer_0,second=answer_1,winner=preferred,system=system_prompt`"]),
    ({"question": "Who?", "model_a": "gpt", "model_b": "llama", "response_a": "Me.", "response_b": "no", "winner": "a"},
     ["prompt=question,first=response_a,second=response_b,winner=winner`"]),
    ({"post": "Who?", "ref_A": "Me.", "ref_B": "no", "label": 1},
     ["prompt=post,first=ref_A,second=ref_B,winner=label`", "with winner=label:1/0 where 1 means ref_A"]),
    ({"question": "Who?", "completion 1": "Me.", "completion 2": "no", "score 1": 3, "score 2": 1},
     ["first=completion 1,second=completion 2,score_chosen=score 1,score_rejected=score 2`"]),
    ({"question": "Who?", "answer_x": "Me.", "answer_y": "no"},
     ["nothing says which of answer_x and answer_y is better", "first=answer_x,second=answer_y,winner=COLUMN`"]),
    ({"question": "Who?", "query": "Whom?", "good": "Me.", "bad": "no"},
     ["prompt=question", "if the prompt is not in another column: question or query"]),
    ({"question": "Who?", "answer_a": "Me.", "answer_b": "no", "reply_a": "Us.", "reply_b": "nobody", "winner": "a"},
     ["may be answer_a and answer_b or reply_a and reply_b: say which with --columns"]),
    ({"question": "Who?", "answer": "Me.", "liked": "", "label": True},
     ["the answers stand alone, one in each record, with the label label"]),
    ({"prompt": [{"role": "user", "content": "Who?"}], "response": "Me.", "rating": 4.5}, ["the answers stand alone"]),
    ({"alpha": "x", "beta": 3}, ["say which column holds what with --columns"]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "said"), UNKNOWN, ids=range(len(UNKNOWN)))
def test_a_file_in_no_known_layout_is_refused_with_the_mapping_that_reads_it(tmp_path, row, said):
    path = save([row], tmp_path / "a.jsonl")
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert all(part in message for part in said), message
    if "most likely" in message:
        mapping = message.split("--columns ")[1].split("`")[0]
        if "with winner=" in message:
            mapping = mapping.replace("winner=label", message.split(", with ")[1].split(" where")[0])
        (pair,) = read_pairs(path, columns=mapping).pairs
        assert (pair.prompt[-1]["content"], pair.chosen, pair.rejected) == ("Who?", next(
            text for text in row.values() if text in ("Me.", "I am.")), "no")  # fmt: skip


# Mixed layouts.

MIXED = [
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, {"chosen": [*user("p"), answer("a")], "rejected": [answer("b")]},
     "trl-implicit", "trl"),
    ({"chosen": [*user("p"), answer("a")], "rejected": [*user("p"), answer("b")]},
     {"prompt": "p", "chosen": "a", "rejected": "b"}, "trl", "trl-implicit"),
    ({"prompt": "p", "chosen": "a", "rejected": "b"},
     {"instruction": "p", "completions": [{"response": "a", "overall_score": 1}]}, "ultrafeedback", "trl"),
    ({"prompt": "p", "response": "a", "helpfulness": 3},
     {"prompt": "p", "chosen": "a", "rejected": "b"}, "trl", "helpsteer2"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "found", "begins"), MIXED, ids=range(len(MIXED)))
def test_a_record_in_another_layout_stops_with_its_line_and_both_names(tmp_path, one, other, found, begins):
    with pytest.raises(DataError, match=f"line 3: this record is in the layout {found}, the file begins in {begins};"):
        read_pairs(save([one, one, other, one], tmp_path / "a.jsonl"))


def test_texts_and_messages_may_alternate_where_they_are_read_alike(tmp_path):
    rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in ("p", list(user("p")), "p")]
    assert [pair.prompt for pair in read_pairs(save(rows, tmp_path / "a.jsonl")).pairs] == [user("p")] * 3
