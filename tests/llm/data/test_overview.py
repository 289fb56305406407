"""What is said of pairs without understanding them: repeats, contradictions, what was left aside; in bounded memory."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections import Counter

import pytest
from export_samples import EXPORTS
from hub_samples import SAMPLES
from pair_layouts import save

from llm.data.conversion import convert
from llm.data.overview import overview
from llm.data.pairs import Pair, PairStream, read_pairs, stream_pairs
from llm.data.records import Record
from robust_rlhf import main


def drawn(count, seed, *, prompts=5, answers=4):
    """Pairs that repeat and contradict each other a lot."""
    draw = random.Random(seed)
    pairs = []
    for number in range(count):
        chosen, rejected = draw.sample([f"answer {i}" for i in range(answers)], 2)
        prompt = ({"role": draw.choice(["user", "system"]), "content": f"q{draw.randrange(prompts)}"},)
        margin = draw.choice([None, -1.0, 2.0])
        pairs.append(Pair(f"p{number}", prompt, chosen + " " * draw.randrange(2), rejected, margin=margin))
    return pairs


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.exhaustive) for s in range(1, 8))])
def test_counts_are_those_of_texts_held_and_compared(seed):
    pairs = drawn(300, seed)
    texts = [(p.prompt[0]["role"], p.prompt[0]["content"], p.chosen.strip(), p.rejected.strip()) for p in pairs]
    there = Counter(texts)
    against = {frozenset((a, b)) | {(role, prompt)} for role, prompt, a, b in there if (role, prompt, b, a) in there}
    seen = overview(iter(pairs))
    assert seen.duplicates.count == len(pairs) - len(there)
    assert seen.contradictions.count == len(against) > 0
    assert seen.prompts == len({text[:2] for text in texts})
    negative = [pair.id for pair in pairs if pair.margin == -1]
    assert (seen.negative_margins.count, seen.negative_margins.examples) == (len(negative), negative[:3])
    assert seen.margins == sum(pair.margin is not None for pair in pairs)
    assert seen.first == pairs[0]
    first = {text: pair.id for text, pair in zip(reversed(texts), reversed(pairs), strict=True)}
    assert seen.duplicates.examples == [p.id for p, t in zip(pairs, texts, strict=True) if first[t] != p.id][:3]


def test_where_a_text_ends_is_part_of_it():
    """Two answers that are one text when put together, and two turns that are one."""
    one, two = (
        ({"role": "user", "content": "a"}, {"role": "user", "content": "b"}),
        ({"role": "user", "content": "auserb"},),
    )
    pairs = [Pair("1", one, "x", "yz"), Pair("2", one, "xy", "z"), Pair("3", two, "x", "yz")]
    seen = overview(pairs)
    assert (seen.prompts, seen.duplicates.count, seen.contradictions.count) == (2, 0, 0)


# What is left aside.

ROW = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_ignored_columns_that_carry_text_are_named(tmp_path, suffix):
    more = {"rationale": "because", "lang": "", "score": "3", "source": "web", "id": "one"}
    rows = [ROW | more, ROW | more | {"rationale": " - "}, ROW | more | {"lang": "en", "rationale": "so"}]
    path = save(rows, tmp_path / f"a{suffix}")
    stream = stream_pairs(path)
    assert len(list(stream)) == 3
    assert stream.ignored == {"rationale": 2, "lang": 1}
    assert convert(path, tmp_path / "b.jsonl").ignored == stream.ignored


def test_text_inside_of_objects_counts_and_what_a_mapping_reads_is_not_ignored(tmp_path):
    rows = [{"q": "p", "good": "a", "bad": {"text": "b"}, "remarks": [{"by": "x"}], "numbers": [1, {"n": None}]}]
    stream = stream_pairs(save(rows, tmp_path / "a.jsonl"), columns="prompt=q,chosen=good,rejected=bad.text")
    assert len(list(stream)) == 1
    assert stream.ignored == {"remarks": 1}


def test_the_rows_of_a_layout_that_joins_them_are_watched_too(tmp_path):
    rows = [{"prompt": "p", "response": f"r{i}", "helpfulness": i, "remark": "why"} for i in range(2)]
    stream = stream_pairs(save(rows, tmp_path / "a.jsonl"))
    assert len(list(stream)) == 1
    assert stream.ignored == {"remark": 2}


ROWS = {name: sample.rows for name, sample in (SAMPLES | EXPORTS).items()}


@pytest.mark.parametrize("name", ROWS)
def test_what_is_said_to_be_ignored_changes_nothing(name):
    """In no layout that there is: other texts in these columns, and the pairs are the same."""

    def read(rows):
        stream = PairStream("rows", "rows", (Record(f"row {i}", dict(row)) for i, row in enumerate(rows)))
        return list(stream), dict(stream.dropped), stream.ignored

    def other(value):
        if isinstance(value, dict):
            return {key: other(part) for key, part in value.items()}
        return [other(part) for part in value] if isinstance(value, list) else f"another {len(str(value))}"

    pairs, dropped, ignored = read(ROWS[name])
    changed = [{key: other(value) if key in ignored else value for key, value in row.items()} for row in ROWS[name]]
    assert read(changed)[:2] == (pairs, dropped)
    assert not ignored.keys() & {"prompt", "chosen", "rejected", "instruction", "question", "system"}


# Memory.


@pytest.mark.slow("every allocation is traced")
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_large_file_is_looked_at_without_being_held(tmp_path, count, suffix):
    """The texts are some 7 kB a pair; of each, two hashes and an id are kept."""
    path = tmp_path / f"a{suffix}"
    with path.open("w") as stream:
        if suffix == ".csv":
            stream.write("prompt,chosen,rejected,remark\n")
        for i in range(count):
            row = {
                "prompt": f"p{i} " * 300,
                "chosen": f"c{i} " * 300,
                "rejected": f"r{i} " * 300,
                "remark": f"m{i} " * 300,
            }
            stream.write(json.dumps(row) + "\n" if suffix == ".jsonl" else ",".join(row.values()) + "\n")
    tracemalloc.start()
    seen = overview(stream_pairs(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen.groups["all"].pairs == seen.prompts == count
    assert peak < 2e6 + 800 * count < path.stat().st_size / 4


# The command.


def shown(capsys, *flags):
    assert main(["data", "show", *map(str, flags)]) == 0
    return capsys.readouterr().out


def test_show_says_what_was_found(tmp_path, capsys):
    pair = {"q": "p", "a": "x", "b": "longer", "w": 0, "m": -1, "remark": "why"}
    rows = [pair, pair, pair | {"w": 1}, pair | {"q": "other", "w": 1, "m": 2}]
    columns = "prompt=q,first=a,second=b,winner=w,margin=m"
    said = shown(capsys, save(rows, tmp_path / "a.jsonl"), "--columns", columns)
    whole = " ".join(said.split())  # lines end where the path makes them
    for line in (
        "a.jsonl: 4 pairs, mapped layout",
        f"columns: {columns}",
        "read: winner 0 is read as the first answer, 1 as the second",
        "ignored columns with text: remark (4 records)",
        "dropped: nothing",
        "prompts: 2 different ones",
        "duplicates, pairs that stand there before: 1 (a-1)",
        "contradictions, comparisons labelled both ways: 1 (a-2)",
        "negative margins, of 4 pairs with one: 3 (a-0, a-1, a-2)",
        "chosen: x",
    ):
        assert line in whole, said
    assert "50.0" in said  # the longer answer wins in two of four


def test_what_is_read_and_left_aside_is_said_by_convert_too(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("question;good;bad;remark\np;a;b;why\n")
    flags = ["data", "convert", str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")]
    assert main([*flags, "--columns", "prompt=question,chosen=good,rejected=bad"]) == 0
    said = capsys.readouterr().out
    assert "1 pairs from the mapped layout" in said
    assert "read: cells separated by semicolons" in said
    assert "ignored columns with text: remark (1 records)" in said
    assert read_pairs(tmp_path / "b.jsonl").pairs[0].prompt[0]["content"] == "p"
    assert main(flags) == 2
    assert "--columns prompt=question,chosen=good,rejected=bad`" in capsys.readouterr().err
