"""Every layout in every file format gives the same pairs; every kind of bad input says what is wrong."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.pairs import DataError, Message, Pair, find_files, length_baseline, read_pairs, write_pairs
from llm.data.prompts import read_prompts

QUESTION: tuple[Message, ...] = ({"role": "user", "content": "Where is Ünna?"},)
CHAT: tuple[Message, ...] = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Where is\n\nÜnna?"},
)


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def transcript(prompt: tuple[Message, ...], final: str) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    turns = [*prompt, answer(final)]
    return "".join(f"\n\n{names[m['role']]}: {m['content']}" for m in turns)


def canonical(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"prompt": list(prompt), "chosen": "Here, see.", "rejected": "Nowhere"}


def trl_text(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"prompt": prompt[-1]["content"], "chosen": "Here, see.", "rejected": "Nowhere"}


def trl_answers(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"prompt": list(prompt), "chosen": [answer("Here, see.")], "rejected": [answer("Nowhere")]}


def trl_whole(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {
        "prompt": list(prompt),
        "chosen": [*prompt, answer("Here, see.")],
        "rejected": [*prompt, answer("Nowhere")],
    }


def trl_implicit(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"chosen": [*prompt, answer("Here, see.")], "rejected": [*prompt, answer("Nowhere")]}


def hh(prompt: tuple[Message, ...]) -> dict[str, Any]:
    return {"chosen": transcript(prompt, "Here, see."), "rejected": transcript(prompt, "Nowhere")}


LAYOUTS = {
    canonical: "canonical", trl_text: "trl", trl_answers: "trl", trl_whole: "trl",
    trl_implicit: "trl-implicit", hh: "hh-rlhf",
}  # fmt: skip


def save(rows: list[dict[str, Any]], path: Path) -> Path:
    """Write with libraries that are not under test."""
    if path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        text = json.dumps(rows, indent=1) if ".json" in path.suffixes else lines
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


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


GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}
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


LINE = json.dumps(GOOD).encode() + b"\n"
ZIPPED = gzip.compress(LINE * 200, mtime=0)
BAD_FILES = [
    ("a.jsonl", b"", "a.jsonl is empty"),
    ("a.jsonl", b"\n \n", "a.jsonl is empty"),
    ("a.json", b"[]", "a.json is empty"),
    ("a.csv", b"prompt,chosen,rejected\n", "a.csv is empty"),
    ("a.jsonl", LINE + b"\n" + b"{oops}\n", r"a.jsonl, line 3: this is not JSON"),
    ("a.jsonl", LINE + b"[1]\n", "a.jsonl, line 2: expected a JSON object, found list"),
    ("a.json", b"[\n{},\n}", "a.json, line 3: this is not JSON"),
    ("a.jsonl", LINE + b'{"prompt": "\xff"}\n', "a.jsonl, line 2, byte 13: not UTF-8"),
    ("a.csv", b"prompt,chosen,rejected\np,a,\xe9\n", "a.csv, line 2, byte 5: not UTF-8"),
    ("a.jsonl", '{"prompt": "p"}'.encode("utf-16"), "a.jsonl, line 1, byte 1: not UTF-8"),
    ("a.csv", b"prompt,chosen,rejected\np,a\n", "a.csv, line 2: 3 columns expected, 2 found"),
    ("a.csv", b'prompt,chosen,rejected\np,a,"b\n', "a.csv, line 2: this is not CSV"),
    ("a.csv", b"chosen,chosen,rejected\np,a,b\n", "a.csv, line 1: a column name occurs twice"),
    ("a.jsonl", b'{"question": "p", "good": "a"}',
     "line 1: found the columns question, good, expected 'chosen'.*known layouts: canonical.*trl.*hh-rlhf"),
    ("a.csv", b"prompt;chosen;rejected\np;a;b\n",
     "a.csv, line 2: found the columns prompt;chosen;rejected, expected"),
    ("a.jsonl", b'{"chosen": "a", "rejected": "b"}', "found the columns chosen, rejected, expected"),
    ("a.jsonl", LINE + b'{"prompt": "p", "chosen": "a"}\n',
     "a.jsonl, line 2: no 'rejected' here, found prompt, chosen"),
    ("a.jsonl", LINE + b'{"prompt": 3, "chosen": "a", "rejected": "b"}',
     "line 2: 'prompt' should be text or a list of messages, found the number 3"),
    ("a.jsonl", LINE.replace(b"{", b'{"margin": "wide", '), "line 1: 'margin' should be a number, found 'wide'"),
    ("a.jsonl", LINE.replace(b'"p"', b'[{"from": "me", "value": 1}]'),
     "line 1: a message of 'prompt' .* found from: str, value: int"),
    ("a.jsonl.gz", ZIPPED[:-12], "a.jsonl.gz is cut off"),
    ("a.jsonl.gz", LINE, "a.jsonl.gz is not a sound gzip file"),
    ("a.jsonl.gz", ZIPPED[:20] + b"\0\0\0\0" + ZIPPED[24:], "a.jsonl.gz is not a sound gzip file"),
    ("a.parquet", b"PAR1 not really", "a.parquet is not a sound Parquet file"),
    ("a.txt", LINE, "a.txt has no known suffix; the known ones are .jsonl, .jsonl.gz"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_files_say_what_is_wrong_and_where(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        read_pairs(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"no\.jsonl does not exist"):
        read_pairs(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match=r"cannot be opened: .* doesn't contain any data files"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "prompt,chosen,rejected\r\np,a,b\r\n"),
        ("a.jsonl", LINE.decode()),
        ("a.json", f"[{LINE.decode()}]"),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
    assert read_pairs(tmp_path / name).pairs[0].prompt == ({"role": "user", "content": "p"},)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip() != "")
messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": texts})
pairs = st.builds(
    Pair, st.uuids().map(str), st.lists(messages, min_size=1, max_size=3).map(tuple), texts, texts,
    texts, texts, st.none() | texts, st.none() | st.floats(allow_nan=False),
).filter(lambda pair: pair.chosen.strip() != pair.rejected.strip())  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=4, unique_by=lambda pair: pair.id))
def test_writing_and_reading_is_the_identity(tmp_path_factory, written):
    folder = tmp_path_factory.getbasetemp()
    for name in ("round.jsonl", "round.jsonl.gz"):
        write_pairs(written, folder / name)
        read = read_pairs(folder / name)
        assert (read.pairs, read.layout) == (written, "canonical")


def test_the_same_pairs_give_the_same_bytes(tmp_path):
    pair = Pair("a", QUESTION, "x", "y")
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_pairs([pair], tmp_path / name)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    def broken():
        yield Pair("b", QUESTION, "x", "y")
        raise KeyboardInterrupt

    path = tmp_path / "train.jsonl"
    write_pairs([Pair("a", QUESTION, "x", "y")], path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_pairs(broken(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]
    assert path.read_bytes() == before
    with pytest.raises(DataError, match=r"written as \.jsonl or \.jsonl\.gz"):
        write_pairs([], tmp_path / "a.csv")


def test_find_files(tmp_path):
    ignored = ("MANIFEST.json", "README.md", "notes.txt", ".x.jsonl")
    for name in ("train.csv", "ood_a.jsonl.gz", "id_test.parquet", *ignored):
        (tmp_path / name).touch()
    train, suites = find_files(tmp_path)
    assert train == tmp_path / "train.csv"
    assert suites == {"ood_a": tmp_path / "ood_a.jsonl.gz", "id_test": tmp_path / "id_test.parquet"}


def test_find_files_says_what_it_found(tmp_path):
    with pytest.raises(DataError, match=r"no training file train\.\*.*found nothing"):
        find_files(tmp_path)
    (tmp_path / "test.jsonl").touch()
    with pytest.raises(DataError, match=r"no training file train\.\*.*found test\.jsonl"):
        find_files(tmp_path)
    for name in ("train.csv", "train.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"holds train\.csv and train\.jsonl"):
        find_files(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        find_files(tmp_path / "train.csv")


@pytest.mark.parametrize(("rejected", "score"), [("c", 1.0), ("cd", 0.5), ("bcd", 0.0)])
def test_length_baseline(rejected, score):
    assert length_baseline(Pair("a", QUESTION, "ab", rejected)) == score


def test_the_real_files_agree_with_their_manifest(shared_data):
    manifest = json.loads((shared_data / "MANIFEST.json").read_text())["files"]
    train, suites = find_files(shared_data)
    assert {train.name, *(p.name for p in suites.values())} == set(manifest)
    for path in (train, *suites.values()):
        read, known = read_pairs(path), manifest[path.name]
        assert (len(read.pairs), read.sha256, read.dropped) == (known["rows"], known["sha256"], {})
        longer = sum(length_baseline(pair) == 1 for pair in read.pairs) / len(read.pairs)
        assert longer == pytest.approx(known["chosen_is_longer"], abs=5e-4)


def test_reading_needs_neither_torch_nor_pandas():
    heavy = "{'torch', 'transformers', 'pandas', 'pyarrow', 'datasets'}"
    code = f"import sys, llm.data.pairs, llm.data.corpus.corpus, llm.text.encoding; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
