"""Several files as one training set: how weights are written, what an epoch sees, what is counted across files."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from llm.data.corpus.corpus import generate
from llm.data.mixing import files_of, mixed_pairs, mixed_prompts, once, split
from llm.data.mixtures import Part, parts_of, settled
from llm.data.overview import across
from llm.data.pairs import DataError, read_pairs, write_pairs

A, B = generate(40, seed=1), generate(31, seed=2)


def said(pair):
    """A pair but for its name."""
    return json.dumps(pair.prompt), pair.chosen, pair.rejected


def files(folder, **contents):
    for name, pairs in contents.items():
        write_pairs(pairs, folder / f"{name}.jsonl")
    return [str(folder / f"{name}.jsonl") for name in contents]


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [
        ("a.jsonl", "a.jsonl", 1),
        ("a.jsonl:2", "a.jsonl", 2),
        ("a.jsonl:.5", "a.jsonl", 0.5),
        ("a.jsonl:1e-1", "a.jsonl", 0.1),
        ("a.jsonl:0", "a.jsonl", 0),
        ("hf://datasets/own/votes:train", "hf://datasets/own/votes:train", 1),
        ("hf://datasets/own/votes:train[0:10]", "hf://datasets/own/votes:train[0:10]", 1),
        ("hf://datasets/own/votes@v1/web:train[0:10]:3", "hf://datasets/own/votes@v1/web:train[0:10]", 3),
        ("folder:train:2", "folder:train", 2),
        (r"C:\data\a.jsonl", r"C:\data\a.jsonl", 1),
        (r"C:\data\a.jsonl:2", r"C:\data\a.jsonl", 2),
        ("a:b.jsonl", "a:b.jsonl", 1),
        ("2024:1:a.jsonl", "2024:1:a.jsonl", 1),
        ("a.jsonl:2x", "a.jsonl:2x", 1),
        (":2", ":2", 1),
        ('{"file": "a:2", "weight": 3}', "a:2", 3),
    ],
)
def test_a_number_behind_the_last_colon_is_a_weight(text, file, weight):
    found = Part.of(text)
    assert (found.file, found.weight, found.source, found.columns) == (file, weight, None, None)
    assert Part.of(str(found)) == found


def test_a_file_of_that_very_name_wins_and_stays_that_file_when_it_is_gone(tmp_path):
    file = tmp_path / "votes:2"
    assert Part.of(str(file)) == Part(str(tmp_path / "votes"), 2.0)
    file.write_text("")
    found = Part.of(str(file))
    assert found == Part(str(file))
    kept = settled(str(file))
    file.unlink()
    assert parts_of(kept) == [found]


@pytest.mark.parametrize(
    "given",
    ["a.jsonl", ["a.jsonl"], {"file": "a.jsonl"}, [{"file": Path("a.jsonl"), "weight": 1}], ["a.jsonl:1.0"]],
)  # fmt: skip
def test_a_single_plain_file_is_its_name_however_it_is_written(given):
    assert settled(given) == "a.jsonl"


def test_settings_are_read_back_as_they_were():
    given = [{"file": "a", "weight": 1 / 3, "source": "é, b", "columns": {"prompt": "q", "chosen": "x,y"}}, "b:0"]
    texts = settled(given)
    assert all(isinstance(text, str) for text in texts)
    assert settled(json.loads(json.dumps(texts))) == texts
    assert parts_of(texts)[0].weight == 1 / 3
    assert settled("") == settled([]) == ""


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("a.jsonl:-1", "the weight of a.jsonl:-1 says how often its pairs are seen in an epoch and must be a number"),
        ("a.jsonl:nan", "got 'nan'"),
        ("a.jsonl:inf", "to 1000, got 'inf'"),
        ("a.jsonl:1e9", "got '1e9'"),
        ({"file": "a", "weight": "two"}, "got 'two'"),
        ({"file": "a", "weight": True}, "got True"),
        ({"file": "a", "weight": None}, "got None"),
        ({"file": "a", "wieght": 2}, "there is no entry 'wieght' of a file; write FILE, FILE:WEIGHT, or"),
        ({"weight": 2}, "names no file"),
        ({"file": "a", "source": ""}, "the source of a is a name, got ''"),
        ({"file": "a", "columns": "prompt"}, "is no KEY=COLUMN"),
        ('{"file": ', "is no JSON"),
        (["a:0", "b:0"], "a, b: every weight is 0; raise one"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(given, sentence):
    with pytest.raises(DataError, match=r"^[^\n]*$") as refused:
        settled(given)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("weight", "of_each"), [(1, {1: 40}), (2, {2: 40}), (0.25, {1: 10, 0: 30}), (2.5, {3: 20, 2: 20})]
)
def test_a_weight_is_how_often_each_pair_is_seen(tmp_path, weight, of_each):
    a, b = files(tmp_path, a=A, b=B)
    drawn = mixed_pairs([f"{a}:{weight}", b]).drawn(seed=0)
    seen = Counter(map(said, drawn))
    assert Counter(seen[said(pair)] for pair in A) == of_each  # no pair of A stands twice, nor in B
    assert all(seen[said(pair)] == 1 for pair in B)
    assert len({pair.id for pair in drawn}) == len(drawn) == round(40 * weight) + 31


def test_the_fraction_is_the_same_wherever_the_file_lies_and_another_one_for_another_seed(tmp_path):
    (tmp_path / "other").mkdir()
    a, b = files(tmp_path, a=A, b=B)
    (c,) = files(tmp_path / "other", c=[replace(pair, id=f"c{n}") for n, pair in enumerate(A)])

    def subset(parts, seed):
        return {said(pair) for pair in mixed_pairs(parts).drawn(seed=seed)} & set(map(said, A))

    alone = subset(f"{a}:0.5", 0)
    assert len(alone) == 20
    assert alone == subset([b, f"{c}:0.5"], 0) == {said(p) for p in A if said(p) in subset(f"{a}:0.75", 0)} & alone
    others = [subset(f"{a}:0.5", seed) for seed in range(1, 9)]
    assert len({frozenset(other) for other in [alone, *others]}) == 9
    assert 5 < sum(len(alone & other) for other in others) / 8 < 15  # ten of twenty, were they independent


def test_copies_within_a_file_are_drawn_on_their_own(tmp_path):
    (file,) = files(tmp_path, a=[replace(pair, id=f"{pair.id}-{n}") for pair in A[:32] for n in range(2)])
    seen = Counter(map(said, mixed_pairs(f"{file}:0.5").drawn(seed=3)))
    assert seen.total() == 32
    assert set(seen.values()) == {1, 2}  # together they would all be there twice


def test_repetitions_are_known_and_duplicates_of_the_files_are_not_taken_for_them(tmp_path):
    """The audit of a run counts what stands in the files, whatever their weights."""
    pairs = list(generate(12, seed=1))
    first, second = files(tmp_path, a=[*pairs, replace(pairs[0], id="again")], b=pairs[:3])
    mixture = mixed_pairs([f"{first}:2.5", f"{second}:3"])
    drawn = mixture.drawn(seed=0)
    assert len(drawn) == 2 * 13 + 7 + 9  # half of thirteen, rounded up
    assert once(drawn, mixture) == mixture.items


def test_a_file_of_weight_zero_is_not_read_and_named(tmp_path, caplog):
    (a,) = files(tmp_path, a=A)
    mixture = mixed_pairs([a, str(tmp_path / "nowhere.jsonl:0")])
    assert mixture.drawn(seed=0) == A
    assert "nowhere.jsonl: left out of the training set, by a weight of 0" in caplog.text
    assert mixture.describe()["files_left_out"] == [str(tmp_path / "nowhere.jsonl")]


def test_a_weight_that_takes_nothing_is_refused(tmp_path):
    a, b = files(tmp_path, a=A, b=B)
    with pytest.raises(DataError, match=r"a weight of 0.01 takes none of its 40 examples: raise it"):
        mixed_pairs([f"{a}:0.01", b]).drawn(seed=0)


def test_sources_are_those_that_were_given_else_those_of_the_file_else_its_name(tmp_path):
    mixed = [replace(pair, source="unknown") if n % 2 else pair for n, pair in enumerate(B)]
    a, b = files(tmp_path, a=A, b=mixed)
    found = mixed_pairs([{"file": a, "source": "mine"}, b])
    assert {pair.source for pair in found.items[:40]} == {"mine"}
    assert [pair.source for pair in found.items[40:]] == ["b" if n % 2 else pair.source for n, pair in enumerate(B)]
    assert [file.get("source_name") for file in found.describe()["files"]] == ["mine", "b"]
    assert [pair.source for pair in mixed_pairs(b).items] == [pair.source for pair in mixed]  # alone: as it says


def test_the_same_ids_in_two_files_are_told_apart(tmp_path, caplog):
    other = [replace(pair, id=A[n].id) for n, pair in enumerate(B)]
    drawn = mixed_pairs([f"{file}:2" for file in files(tmp_path, a=A, b=other)]).drawn(seed=0)
    assert len({pair.id for pair in drawn}) == len(drawn) == 142
    assert "31 ids stand in several files" in caplog.text


@pytest.mark.parametrize("weights", [(1, 1), (3, 0.5)])
def test_no_prompt_is_trained_on_and_held_out_whichever_file_it_stands_in(tmp_path, weights):
    again = [replace(pair, id=f"again-{pair.id}", chosen=pair.chosen + " Yes.") for pair in A]
    parts = [f"{file}:{weight}" for file, weight in zip(files(tmp_path, a=A, b=B + again), weights, strict=True)]
    rest, held_out = split(mixed_pairs(parts), share=0.4, seed=1)
    train = rest.drawn(seed=0)
    asked = [{json.dumps(pair.prompt) for pair in part} for part in (train, held_out)]
    assert not asked[0] & asked[1]
    assert Counter(map(said, held_out)).most_common(1)[0][1] == 1  # once, whatever the weight
    assert len(held_out) > 10
    assert len(rest.items) + len(held_out) == 111


def swapped(pair, name):
    return replace(pair, id=name, chosen=pair.rejected, rejected=pair.chosen)


def test_what_files_have_in_common_is_counted_and_said(tmp_path, caplog):
    one = [*A[:10], replace(A[0], id="twice"), swapped(A[1], "both-ways")]  # within a file: not across
    two = [replace(A[2], id="x"), replace(A[2], id="x2"), swapped(A[3], "y"), *B[:5]]
    three = [replace(A[2], id="z"), swapped(A[3], "z2"), swapped(B[0], "z3")]
    again, against = across([one, two, three])
    assert (again.count, again.examples) == (3, ["x", "z", "z2"])
    assert (against.count, against.examples) == (3, ["y", "z2", "z3"])
    mixture = mixed_pairs(files(tmp_path, one=one, two=two, three=three))
    assert mixture.noted == {
        "pairs that stand in an earlier file": 3, "pairs that an earlier file labels otherwise": 3
    }  # fmt: skip
    assert "pairs that an earlier file labels otherwise: 3 (y, z2, z3)" in caplog.text


def test_the_same_file_twice_is_read_twice_and_said(tmp_path, caplog):
    (a,) = files(tmp_path, a=A)
    drawn = mixed_pairs([a, a]).drawn(seed=0)
    assert Counter(map(said, drawn)) == {said(pair): 2 for pair in A}
    assert "pairs that stand in an earlier file: 40" in caplog.text


def test_every_file_may_have_a_mapping_of_its_own(tmp_path):
    raw = [{"ask": p.prompt[-1]["content"], "good": p.chosen, "bad": p.rejected} for p in A]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    (b,) = files(tmp_path, b=B)
    columns = "prompt=ask,chosen=good,rejected=bad"
    for parts, shared in (([{"file": str(tmp_path / "raw.jsonl"), "columns": columns}, b], None),
                          ([str(tmp_path / "raw.jsonl"), b], columns)):  # fmt: skip
        found = mixed_pairs(parts, columns=shared)
        assert [(p.chosen, p.rejected) for p in found.items] == [(p.chosen, p.rejected) for p in A + B]
        assert [file.get("columns") for file in found.describe()["files"]] == [columns, None]
    with pytest.raises(DataError, match=r"none of .* has the columns of prompt=q,chosen=c,rejected=r"):
        mixed_pairs(files(tmp_path, a=A, b=B), columns="prompt=q,chosen=c,rejected=r")


def test_one_file_is_described_as_ever_and_several_by_all_that_decides(tmp_path):
    a, b = files(tmp_path, a=A, b=B)
    alone = mixed_pairs(a).describe()
    assert alone == {
        "file": "a.jsonl",
        "sha256": read_pairs(a).sha256,
        "layout": "canonical",
        "pairs": 40,
        "dropped": {},
    }
    assert list(files_of(alone)) == []
    ways = [
        [a, b],
        [b, a],
        [f"{a}:2", b],
        [a, f"{b}:2"],
        [{"file": a, "source": "s"}, b],
        [{"file": a, "source": "t"}, b],
    ]
    told = [mixed_pairs(way).describe() for way in ways]
    assert len({one["sha256"] for one in told} | {alone["sha256"], mixed_pairs(f"{a}:2").describe()["sha256"]}) == 8
    assert told[2]["file"] == "a.jsonl x 2 + b.jsonl"
    assert [file["pairs"] for file in told[2]["files"]] == [40, 31]
    assert told[2]["pairs"] == 71
    write_pairs(B[:-1], tmp_path / "b.jsonl")
    changed = mixed_pairs([a, b]).describe()
    assert [
        name for (name, one), (_, other) in zip(files_of(told[0]), files_of(changed), strict=True) if one != other
    ] == ["training file 2"]


@pytest.mark.parametrize("distinct", [True, False])
def test_prompts_of_several_files_are_asked_as_often_as_their_weights_say(tmp_path, distinct, caplog):
    caplog.set_level(logging.ERROR)
    prompts = [{"prompt": f"question {n}"} for n in range(10)]
    (tmp_path / "alone.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*prompts, prompts[0]]))
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*prompts[:3], {"prompt": "new"}]))
    mixture = mixed_prompts([str(tmp_path / "alone.jsonl:2"), str(tmp_path / "more.jsonl")], distinct=distinct)
    asked = Counter(prompt.messages[0]["content"] for prompt in mixture.drawn(seed=0))
    if distinct:
        assert asked == {"new": 1, **{f"question {n}": 2 for n in range(10)}}
        assert mixture.describe()["dropped"] == {"repeated prompt": 4}
    else:
        assert asked == {
            "question 0": 5,
            "question 1": 3,
            "question 2": 3,
            "new": 1,
            **{f"question {n}": 2 for n in range(3, 10)},
        }
    drawn = mixture.drawn(seed=0)
    assert len({prompt.id for prompt in drawn}) == len(drawn) == asked.total()
    assert {prompt.source for prompt in drawn} == {"alone", "more"}


def test_a_file_without_a_prompt_of_its_own_is_refused(tmp_path):
    a, b = files(tmp_path, a=A, b=A[:5])
    with pytest.raises(DataError, match=r"b\.jsonl holds no prompt that is not in an earlier file: leave it out"):
        mixed_prompts([a, b], distinct=True)
