"""Several training files in one sweep: which pairs its runs see, and that it knows them by their content."""

from __future__ import annotations

import json
from collections import Counter

import pandas as pd
import pytest
from small_sweeps import HEADS, WHOLE, assert_same, prepared, quiet, sweep

from dro_core.clusters.pool import Pool
from llm.data.corpus.corpus import generate
from llm.data.pairs import read_pairs, write_pairs
from llm.data.suites import split_by_prompt
from llm.features.features import FeatureCache
from llm.report.collect import collect
from llm.report.training import origin
from llm.results.audits import read_audits
from llm.sweep.head_pairs import head_data
from llm.sweep.plan import parse_sweep
from llm.sweep.sources import find_sources
from llm.sweep.sweep import planned
from llm.training.config import ConfigError

HEAD = {"kind": "head", "model": "tiny", "max_length": 96, "epochs": 2, "batch_size": 16}
OF = {
    "heads": {"models": {"tiny": HEAD}, "grid": {"ambiguity": ["erm", "tv:0.2"]}},
    "whole models": {
        "models": {"whole": {**WHOLE["models"]["whole"], "final": ["last"], "max_steps": 2}},
        "grid": {"ambiguity": "tv:0.25"},
    },
}


@pytest.fixture(scope="module")
def files(once):
    """Two training files, a suite, and folders as a sweep takes them: the first file alone, and both in one."""

    def build(folder):
        pairs = generate(150, seed=4)
        parts = {"a": pairs[:70], "b": pairs[70:120]}
        for name, own in parts.items():
            write_pairs(own, folder / f"{name}.jsonl")
        for name, own in {"alone": parts["a"], "both": [*parts["a"], *parts["b"]]}.items():
            (folder / name).mkdir()
            write_pairs(own, folder / name / "train.jsonl")
            write_pairs(pairs[120:], folder / name / "test.jsonl")
        write_pairs(pairs[120:], folder / "test.jsonl")

    return once("sweep sources", build)


def told(files, kind, *parts, **more):
    return {
        "train_file": [f"{files / name}.jsonl{weight}" for name, weight in parts],
        "suites": [str(files / "test.jsonl")], **OF[kind], **more,
    }  # fmt: skip


def content(pair):
    return json.dumps([pair.prompt, pair.chosen, pair.rejected])


def said(pairs):
    return Counter(map(content, pairs))


@pytest.mark.slow("a whole model trains in a process of its own, which loads torch first")
@pytest.mark.parametrize("kind", ["heads", pytest.param("whole models", marks=pytest.mark.exhaustive)])
def test_files_are_known_by_their_pairs_however_they_are_named(kind, files, tmp_path):
    """What was trained on one folder is not trained again where its files are named, weights of 1 or not."""

    def done(place, *parts):
        settings = parse_sweep(told(files, kind, *parts))
        rows = planned(settings, tmp_path / place, cache=FeatureCache(tmp_path / "cache")).rows
        return sum(row["done"] for row in rows), sum(row["trainings"] for row in rows)

    counts = prepared(tmp_path / "both", {"data": str(files / "both"), **OF[kind]}).run(pool=Pool(jobs=1), report=quiet)
    assert counts["failed"] == 0
    assert done("both", ("a", ":1"), ("b", "")) == (counts["done"], counts["done"])
    for others in ([("a", "")], [("a", ""), ("b", ":2")], [("a", ""), ("b", ":0.5")], [("b", ""), ("a", "")]):
        assert done("both", *others) == (0, counts["done"])
    if kind == "heads":
        prepared(tmp_path / "alone", {"data": str(files / "alone"), **OF[kind]}).run(pool=Pool(jobs=1), report=quiet)
        assert done("alone", ("a", "")) == (2, 2)
    else:
        doubled = prepared(tmp_path / "both", told(files, kind, ("a", ""), ("b", ":2"))).run(
            pool=Pool(jobs=1), report=quiet
        )
        assert (doubled["done"], doubled["before"], doubled["failed"]) == (1, 0, 0)


def test_weights_repeat_and_thin_out_what_is_trained_on_and_leave_alone_what_is_held_out(files, tmp_path):
    context = prepared(tmp_path / "r", told(files, "heads", ("a", ":2"), ("b", ":0.5"), validation_share=0.3)).context
    pairs = context.sources.training().pairs
    rows = {name: read_pairs(files / f"{name}.jsonl").pairs for name in "ab"}
    halves = {name: split_by_prompt(own, share=0.3, seed=0) for name, own in rows.items()}

    held_out = [pair for _, held in halves.values() for pair in held]
    assert len(held_out) > 20
    assert said(pairs[row] for row in context.validation) == said(held_out)
    trained = said(pairs[row] for row in context.train)
    assert {key: n for key, n in trained.items() if n == 2} == dict.fromkeys(said(halves["a"][0]), 2)
    thinned = said(halves["b"][0])
    once = [key for key, n in trained.items() if n == 1]
    assert set(once) <= set(thinned)
    assert len(once) == round(len(halves["b"][0]) / 2)
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_copies_are_labelled_alike_and_stand_once_where_pairs_are_judged_or_counted(files, tmp_path):
    regimes = {"noisy": {"label_noise": 0.3}, "no-code": {"without_sources": "code"}}
    grid = {"ambiguity": "erm", "regime": list(regimes)}
    sweep = prepared(tmp_path / "r", told(files, "heads", ("a", ":3"), ("b", ""), regimes=regimes, grid=grid))
    context, pairs = sweep.context, sweep.context.sources.training().pairs
    noisy = next(cell for cell in context.config.cells if cell.regime == "noisy")
    _, selection, _ = head_data(noisy, context)
    labels: dict[str, set[bool]] = {}
    for row, wrong in zip(context.train[selection.rows], selection.flipped, strict=True):
        labels.setdefault(content(pairs[row]), set()).add(bool(wrong))
    assert all(len(found) == 1 for found in labels.values())
    assert sum(found == {True} for found in labels.values()) == round(0.3 * len(labels))

    judged = pd.read_parquet(tmp_path / "r" / "suites" / "left-out-no-code.parquet")
    everything = [*read_pairs(files / "a.jsonl").pairs, *read_pairs(files / "b.jsonl").pairs]
    assert sorted(judged["id"]) == sorted(pair.id for pair in everything if pair.source == "code")
    audit = read_audits(tmp_path / "r")["tiny"]["audit"]
    assert audit["pairs"]["count"] == len(everything)
    assert audit["duplicates"]["count"] == len(everything) - len(said(everything))


@pytest.mark.exhaustive(turns=8)
def test_a_repeated_command_comes_to_the_same_and_the_page_says_what_it_was_made_of(files, tmp_path):
    settings = told(files, "heads", ("a", ":2"), ("b", ":0.5"))
    named = {**settings, "train_file": [str(files / "a.jsonl")]}
    for name, asked in {"one": settings, "two": settings, "plain": named}.items():
        assert sweep(tmp_path / name, asked, jobs=1) == 0
    assert_same(tmp_path / "one", tmp_path / "two")
    about = origin(collect(tmp_path / "one"))["data"]["train"]
    assert [(file["file"], file["weight"]) for file in about["files"]] == [("a.jsonl", 2), ("b.jsonl", 0.5)]
    assert origin(collect(tmp_path / "plain"))["data"] == {}
    assert sweep(tmp_path / "one", named, jobs=1) == 0
    assert origin(collect(tmp_path / "one"))["data"] == {}


def test_a_mapping_reads_the_files_and_not_what_they_are_put_together_into(files, tmp_path):
    """It says that the better answers stand where files that need no mapping have the worse ones."""
    mapping = "prompt=prompt,chosen=rejected,rejected=chosen"
    settings = told(files, "heads", ("a", ":2"), columns=mapping)
    found = find_sources(parse_sweep(settings), tmp_path)
    plain = read_pairs(files / "a.jsonl").pairs
    assert [(pair.chosen, pair.rejected) for pair in found.training().pairs[: len(plain)]] == [
        (pair.rejected, pair.chosen) for pair in plain
    ]
    assert found.suites()[0]["test"][0].chosen == read_pairs(files / "test.jsonl").pairs[0].rejected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_file": "a.jsonl"}, "there is nothing to judge by"),
        ({"train_file": "a.jsonl", "suites": {"x": 1}}, "suites must be files"),
        ({"train_file": ["a.jsonl:0"], "suites": "b.jsonl"}, "every weight is 0"),
        ({"train_file": [{"file": "a.jsonl", "times": 2}], "suites": "b.jsonl"}, "no entry 'times' of a file"),
    ],
)
def test_what_cannot_be_trained_on_or_judged_by_is_said(settings, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        parse_sweep({**settings, **OF["heads"]})


def test_one_command_takes_files_and_suites(files, tmp_path, capsys):
    from robust_rlhf import main

    (tmp_path / "own.yaml").write_text(json.dumps({**HEADS, **OF["heads"]}))
    arguments = ["--config", tmp_path / "own.yaml", "--output", tmp_path / "r", "--cache", tmp_path / "c", "--dry-run"]
    parts = ["--train_file", f"{files}/a.jsonl:2", f"{files}/b.jsonl", "--suites", f"{files}/test.jsonl"]
    assert main(["sweep", *map(str, arguments), "--data", str(files / "alone"), *parts]) == 0
    assert "2 trainings, 0 of them done" in capsys.readouterr().out
    assert not (tmp_path / "r").exists()
