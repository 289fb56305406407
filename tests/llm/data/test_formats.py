"""The same records from every file that people have: separators, printed lists, JSON of all shapes, saved sets."""

from __future__ import annotations

import csv
import json
import random

import pytest
from pair_layouts import CHAT, QUESTION, answer

from llm.data.formats.cells import printed
from llm.data.pairs import DataError, read_pairs
from llm.data.records import read_records

ROWS = [{"prompt": f"Which, {i}?", "chosen": f'it\'s; "{i}"\n,ok', "rejected": f"no\t{i}"} for i in range(5)]
CHATS = [
    {
        "prompt": [*CHAT[:2], {"role": "user", "content": f"It's {i}: \"what\" [{{'a'}} {{'b'}}]?\n"}],
        "chosen": [answer(f"'yes' {i}")],
        "rejected": [answer('"no"\\')],
    }
    for i in range(3)
]


def texts(read):
    return [(pair.prompt[-1]["content"], pair.chosen, pair.rejected) for pair in read.pairs]


def expected(rows):
    return [tuple(v if isinstance(v, str) else v[-1]["content"] for v in row.values()) for row in rows]


def delimited(path, sign, rows=ROWS, first=""):
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(first)
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=sign)
        writer.writeheader()
        writer.writerows(rows)
    return path


def spread(rows, between="\n"):
    return between.join(json.dumps(row, indent=2) for row in rows)


@pytest.mark.parametrize(("sign", "said"), [(",", []), (";", ["semicolons"]), ("\t", ["tabs"]), ("|", ["bars"])])
@pytest.mark.parametrize(("name", "first"), [("a.csv", ""), ("a.tsv", "\n\n"), ("a.csv", "sep={}\n")])
def test_the_separator_is_found_and_said(tmp_path, sign, said, name, first):
    read = read_pairs(delimited(tmp_path / name, sign, first=first.format(sign)))
    assert texts(read) == expected(ROWS)
    assert read.read_as == tuple(f"cells separated by {name}" for name in said)


def test_a_separator_of_ones_own_may_be_told(tmp_path):
    assert texts(read_pairs(delimited(tmp_path / "a.csv", "^", first="sep=^\n"))) == expected(ROWS)


def test_a_header_that_may_be_split_in_two_ways_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen;rejected\nx,y;z\n")
    with pytest.raises(DataError, match=r"line 1: .* separated by commas or semicolons; write the line sep=, above"):
        read_pairs(tmp_path / "a.csv")


@pytest.mark.parametrize("first", ["", "\n", "sep=;\n"])
def test_lines_are_counted_from_the_top_of_the_file(tmp_path, first):
    path = tmp_path / "a.csv"
    path.write_text(first + "prompt;chosen;rejected\np;a;b\np;a\n")
    with pytest.raises(DataError, match=f"line {3 + first.count(chr(10))}: 3 columns expected, 2 found"):
        read_pairs(path)


@pytest.mark.parametrize("characters", [131_073, pytest.param(5_000_000, marks=pytest.mark.exhaustive)])
def test_a_cell_may_be_as_large_as_it_is(tmp_path, characters):
    rows = [{**ROWS[0], "chosen": "rice " * (characters // 5)}, ROWS[1]]
    assert len(read_pairs(delimited(tmp_path / "a.csv", ",", rows)).pairs[0].chosen) == characters // 5 * 5


# Lists that Python, pandas and numpy print.


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("how", ["list", "numpy", "numpy without a break"])
def test_chats_printed_by_python_come_back_whole(tmp_path, how, suffix):
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")

    def shown(turns):
        if how == "list":
            return str(turns)
        array = np.array(turns, dtype=object)
        return str(array) if how == "numpy" else " ".join(str(array).split("\n "))

    frame = pd.DataFrame([{name: shown(turns) for name, turns in row.items()} for row in CHATS])
    path = tmp_path / f"a{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    read = read_pairs(path)
    assert texts(read) == expected(CHATS)
    assert read.pairs[0].prompt[:2] == CHAT[:2]
    assert "Python lists in cells" in read.read_as


def test_numpy_prints_texts_side_by_side_and_python_would_join_them():
    np = pytest.importorskip("numpy")
    draw = random.Random(0)
    for _ in range(200):
        words = ["".join(draw.choices("ab'\" \\\n[]{}(),é", k=draw.randint(0, 8))) for _ in range(draw.randint(1, 4))]
        assert printed(str(np.array(words, dtype=object))) == words
        assert printed(repr(words)) == words
    assert printed(str(np.array([{"a": 1, "b": [1, "x"]}, {"a": None}]))) == [{"a": 1, "b": [1, "x"]}, {"a": None}]


@pytest.mark.parametrize(
    "cell",
    [
        "[{'role': 'user', 'content': 'cut of]",
        "[{'role': 'user', 'content': __import__('os').getcwd()}]",
        "array([{'role': 'user', 'content': 'a'}], dtype=object)",
        "[{'role': 'user', 'content': 'a'}, ..., {'role': 'user'}]",
        "[" * 500 + "{'role': 'user', 'content': 'a'}" + "]" * 500,
    ],
)
def test_a_printed_list_that_does_not_come_back_is_refused_with_the_way_out(tmp_path, cell):
    good = {name: str(turns) for name, turns in CHATS[0].items()}
    path = delimited(tmp_path / "a.csv", ",", [good, good | {"prompt": cell}, good])
    if not cell.startswith("[["):
        with pytest.raises(
            DataError, match=r"line \d+: 'prompt' looks like a list that Python printed.*orient='records'"
        ):
            read_pairs(path)
    else:  # brackets around brackets are no chat, whoever printed them
        assert read_pairs(path).pairs[1].prompt[0]["content"] == cell


@pytest.mark.parametrize(
    "text", ["['role', 'content']", "{'a': 1}", "[x] or [y]", "array of [1]", "{role} and {content}"]
)
def test_brackets_in_ordinary_text_stay_text(tmp_path, text):
    read = read_pairs(delimited(tmp_path / "a.csv", ",", [ROWS[0] | {"prompt": text}]))
    assert (read.pairs[0].prompt[0]["content"], read.read_as) == (text, ())


# JSON of all shapes.


SHAPES = {
    "lines": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "array": lambda rows: json.dumps(rows),
    "spread array": lambda rows: "\n " + json.dumps(rows, indent=1),
    "spread objects": spread,
    "spread objects close together": lambda rows: spread(rows, ""),
    "key": lambda rows: json.dumps({"data": rows}),
    "spread key among others": lambda rows: json.dumps({"version": "1", "tags": ["a"], "rows": rows}, indent=1),
}
KEYS = {"key": "records under the key 'data'", "spread key among others": "records under the key 'rows'"}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [ROWS, ROWS[:2], CHATS], ids=["texts", "two", "chats"])
def test_json_of_every_shape(tmp_path, rows, shape, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text(SHAPES[shape](rows), encoding="utf-8-sig")
    read = read_pairs(path)
    assert texts(read) == expected(rows)
    assert read.read_as == ((KEYS[shape],) if shape in KEYS else ())


@pytest.mark.parametrize("damage", ["7", '{"prompt": }', '{"prompt": 1' + "0" * 5000 + "}"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_damaged_record_in_the_middle_stops_with_its_place(tmp_path, shape, damage):
    path = tmp_path / "a.json"
    path.write_text(SHAPES[shape]([*ROWS[:2], {"damage": "here"}, *ROWS[2:]]))
    text = path.read_text()
    begin = text.index("{", text.index("no\\t1"))
    end = text.index("}", begin) + 1
    path.write_text(text[:begin] + damage + text[end:])
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    line, said = text[:begin].count("\n") + 1, str(caught.value)
    known = (f"line {line}:", f"line {line}, in the object of", "record 3:", "record 3 of 'data'", "record 3 of 'rows'")
    assert any(place in said for place in known) or ("digits" in said and f", line {line + 1}" not in said), said


@pytest.mark.parametrize("cut", [5, -3])
@pytest.mark.parametrize("before", [0, 1])
def test_an_object_that_never_ends_is_named_by_its_beginning(tmp_path, cut, before):
    """On one line, the first too, where it may be the first of an object over several; and over several lines."""
    line, path = json.dumps(ROWS[0]), tmp_path / "a.jsonl"
    path.write_text((line + "\n") * before + line[:cut] + "\n")
    with pytest.raises(DataError, match=rf"line {before + 1}: this is not JSON"):
        read_pairs(path)
    path.write_text(spread(ROWS[: before + 1])[:cut])
    if cut < 0:
        with pytest.raises(DataError, match=rf"line {1 + 5 * before}: this is not JSON"):
            read_pairs(path)


def test_a_record_with_a_list_of_objects_is_no_key_of_records(tmp_path):
    completions = [{"response": "a", "overall_score": 1}, {"response": "b", "overall_score": 2}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"instruction": "x", "completions": completions}, indent=1))
    assert read_pairs(path).layout == "ultrafeedback"
    path.write_text(json.dumps({"q": "p", "good": "a", "bad": "b", "remarks": [{"by": "x"}]}))
    assert read_pairs(path, columns="prompt=q,chosen=good,rejected=bad").pairs
    path.write_text(json.dumps({"rows": ROWS[:1]}))
    assert texts(read_pairs(path)) == expected(ROWS[:1])
    chat = {"chosen": [*QUESTION, answer("a")], "rejected": [*QUESTION, answer("b")]}
    path.write_text(json.dumps(chat))
    assert read_pairs(path).layout == "trl-implicit"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train": ROWS, "test": ROWS}, r"one object with records under 'train', 'test': write each list to a file"),
        ({name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}, r"df\.to_json\(orient="),
        ({name: [row[name] for row in ROWS] for name in ROWS[0]}, r"df\.to_json\(orient="),
    ],
)
def test_an_object_that_is_no_record_is_refused_with_the_way_out(tmp_path, content, said):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        read_pairs(tmp_path / "a.json")


def test_lines_are_streamed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(SHAPES["lines"](ROWS) + "{oops\n")
    records = read_records(path)
    assert [next(records).columns for _ in ROWS] == ROWS
    with pytest.raises(DataError, match="line 6: this is not JSON"):
        next(records)


# What save_to_disk writes.


def saved(rows, folder, split=None):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows, split=split).save_to_disk(folder)
    return folder


@pytest.mark.parametrize("rows", [ROWS, CHATS], ids=["texts", "chats"])
@pytest.mark.parametrize(("split", "tail"), [(None, ""), (None, ":train"), ("test", ""), ("test", ":test")])
def test_a_saved_split(tmp_path, rows, split, tail):
    folder = saved(rows, tmp_path / "set", split)
    assert texts(read_pairs(f"{folder}{tail}")) == expected(rows)
    assert texts(read_pairs(f"{folder}:{split or 'train'}[1:3]")) == expected(rows)[1:3]


def test_a_saved_dictionary_of_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(CHATS)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "set")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")  # the folder above is a data set of the hub's form
    assert texts(read_pairs(f"{tmp_path / 'set'}:train")) == expected(ROWS)
    assert texts(read_pairs(f"{tmp_path / 'set'}:test")) == expected(CHATS)
    assert texts(read_pairs(tmp_path / "set" / "test")) == expected(CHATS)
    for tail, said in (
        ("", "which split is meant is not said; the splits are train, test"),
        (":dev", "no split 'dev'"),
    ):
        with pytest.raises(DataError, match=said):
            read_pairs(f"{tmp_path / 'set'}{tail}")


def test_a_damaged_saved_split_is_one_sentence(tmp_path):
    folder = saved(ROWS, tmp_path / "set")
    (table,) = folder.glob("*.arrow")
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(DataError, match=r"set cannot be opened: "):
        read_pairs(folder)
