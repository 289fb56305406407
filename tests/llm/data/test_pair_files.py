"""Files of pairs: which are refused and why, what is written, and which are found in a folder."""

from __future__ import annotations

import gzip
import json
import shlex
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_layouts import GOOD, QUESTION

from llm.data.pairs import DataError, Pair, find_files, length_baseline, read_pairs, write_pairs
from llm.data.prompts import read_prompts
from robust_rlhf import main

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
    ("a.csv", b'prompt,chosen,rejected\n"p\n\nq","a\nb",c\np,a\n', "a.csv, line 6: 3 columns expected, 2 found"),
    ("a.csv", b'\nquestion,good\n"p\n\nq",a\n', "a.csv, line 2, the header: found the columns question, good, exp"),
    ("a.jsonl", b'{"question": "p", "good": "a"}',
     "line 1: found the columns question, good, expected 'chosen'.*known layouts: canonical.*trl.*hh-rlhf"),
    ("a.csv", b"prompt~chosen~rejected\np~a~b\n",
     "a.csv, line 1, the header: found the columns prompt~chosen~rejected, expected"),
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


def test_the_corpus_of_the_pages_is_made_by_the_command_that_its_absence_names(tmp_path):
    wanted = tmp_path / "my data" / "corpus" / "train.jsonl"
    with pytest.raises(DataError, match="robust-rlhf data builtin") as raised:
        read_pairs(wanted)
    command = shlex.split(str(raised.value).split("built-in corpus: ")[1].removesuffix("."))
    assert main([*command[1:], "--train", "10", "--test", "10"]) == 0
    assert len(read_pairs(wanted).pairs) == 10


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
calls = st.builds(
    lambda name, arguments: {"type": "function", "function": {"name": name, "arguments": arguments}},
    texts,
    st.dictionaries(texts, texts, max_size=2),
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": texts},
    optional={"tool_calls": st.lists(calls, min_size=1, max_size=2), "tool_call_id": texts, "name": texts},
)
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


@pytest.mark.slow("it reads all real pairs")
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


def test_sets_show_themselves_in_one_line(tmp_path):
    path = tmp_path / "many.jsonl"
    rows = [{"prompt": f"p{row}", "chosen": "a", "rejected": "b", "source": f"s{row % 6}"} for row in range(13)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = "sources: 's0' 3, 's1' 2, 's2' 2, 's3' 2, 2 more, from "
    assert repr(read_pairs(path)) == f"PairSet(13 pairs, {shown}{str(path)!r})"
    assert repr(read_prompts(path)) == f"PromptSet(13 prompts, {shown}'many.jsonl')"
