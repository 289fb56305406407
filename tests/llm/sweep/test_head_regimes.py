"""Regimes of heads: which trainings they are another name for, and what they cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from head_sweeps import build, settings
from small_sweeps import prepared, quiet

from dro_core.clusters.pool import Pool
from llm.data.corpus.corpus import generate
from llm.data.pairs import read_pairs, write_pairs
from llm.results.store import read_results
from llm.sweep.plan import parse_sweep
from llm.sweep.runs import identity


@pytest.fixture(scope="module")
def folder(once):
    return once("pairs of heads", build)


def stub(**told):
    config = parse_sweep({
        "data": "builtin", "models": {"heads": {"kind": "head", "model": "tiny"},
                                      "whole": {"kind": "full", "recipe": "reward-tiny"}},
        "regimes": {"noisy": {"label_noise": 0.25}, "few": {"max_pairs": 50, "sources": "code"}},
        "head": {"weight_decay": 0.1}, "grid": {"ambiguity": ["erm", "tv:0.2"], "regime": ["all", "noisy", "few"]},
    } | told)  # fmt: skip
    heads = SimpleNamespace(answers={"train": Path("/x/a-answers.npy")}, prompts={}, made={})
    hashes, starts = {"train": "0", "suite": "1"}, {"whole": {"model": "2"}}
    return SimpleNamespace(config=config, hashes=hashes, features={"heads": heads}, starts=starts)


def names_of(**told):
    context = stub(**told)
    return [identity(cell, context) for cell in context.config.cells]


def test_trainings_of_an_earlier_version_are_not_done_again():
    """Their names, as before soft labels of heads; of whole models since reward-tiny logs every step."""
    before = ["47406498a3e5", "02612918d26a", "019a4fa3a221", "1cf8924a9f48", "21d16fe4bbff", "b2bd6e38901f",
              "4fde17f8e109", "9ee5a67957db", "f69273b873a0", "ea97a41f965c", "6dc786403d65",
              "3196dbd79d3b"]  # fmt: skip
    assert names_of() == before
    unused = {"weight_decay": 0.1, "auto_slice": 99, "auto_every": 3}
    idle = {"label_noise": 0.25, "soft_labels": "none", "soft_folds": 7, "cross_prompt": 0}
    assert names_of(head=unused, regimes={"noisy": idle, "few": {"max_pairs": 50, "sources": "code"}}) == before


def test_a_setting_that_changes_a_training_changes_its_name():
    def one(*, head=(), spec="erm", **regime):
        grid = {"model": "heads", "ambiguity": spec, "regime": "x"}
        return names_of(regimes={"x": regime}, grid=grid, head=dict(head))[0]

    names = [one(), one(soft_labels="data"), one(soft_labels="crossfit"), one(soft_labels="crossfit", soft_folds=7),
             one(cross_prompt=0.2), one(cross_prompt=0.3), one(spec="tv:auto=0.5"), one(spec="tv:auto=0.4"),
             one(spec="tv:auto=0.5", head={"auto_slice": 99}),
             one(spec="tv:auto=0.5", head={"auto_every": 9})]  # fmt: skip
    assert len(set(names)) == len(names)
    assert one(soft_labels="data", soft_folds=7) == one(soft_labels="data")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"regimes": {"x": {"soft_labels": "maybe"}}}, "soft_labels must be one of none, data, crossfit, got 'maybe'"),
        ({"regimes": {"x": {"soft_labels": "crossfit", "soft_folds": 2}}}, "soft_folds must be at least 3"),
        ({"regimes": {"x": {"cross_prompt": -0.1}}}, "cross_prompt is a share of the training pairs"),
        ({"head": {"auto_slice": -1}}, "auto_slice is a number of pairs"),
        ({"head": {"auto_every": 0}}, "auto_every must be at least 1"),
        ({"grid": {"model": "heads", "ambiguity": "chi2:?@tv:auto=0.5"}}, "has no size to be matched"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_explained(told, said):
    with pytest.raises(ValueError, match=said):
        stub(**({"regimes": {}, "grid": {"ambiguity": "erm"}} | told))


@pytest.mark.parametrize(
    ("spec", "regime", "head", "said"),
    [
        ("erm", {"soft_labels": "crossfit", "soft_folds": 25, "max_pairs": 20}, {}, "soft_folds 25 is more than the"),
        ("tv:auto=0.5", {"soft_labels": "crossfit"}, {"auto_slice": 24}, "whose labels nothing estimates"),
        ("tv:auto=0.5", {}, {}, "auto_slice 256 would hold out"),
        ("tv:auto=0.5", {"cross_prompt": 0.5}, {"auto_slice": 3}, "too few to measure a radius on"),
        ("tv:auto=0.5,by=drawn", {"cross_prompt": 0.5}, {"auto_slice": 24}, "these hold none of drawn=cross_prompt"),
        ("erm", {"soft_labels": "data"}, {}, "needs the column preference"),
        ("erm", {"cross_prompt": 0.5, "max_pairs": 1}, {}, "have the same one"),
    ],
    ids=str,
)
def test_what_the_data_cannot_give_is_a_row_with_its_error(folder, tmp_path, spec, regime, head, said):
    place = tmp_path / "data"
    place.mkdir()
    pairs = read_pairs(folder / "data" / "train.jsonl").pairs
    pairs = [replace(pair, preference=None) for pair in pairs] if regime.get("soft_labels") == "data" else pairs
    write_pairs(pairs, place / "train.jsonl")
    write_pairs(generate(16, seed=3), place / "suite.jsonl")
    grid = {"model": "heads", "ambiguity": spec, "regime": "x"}
    told = settings(folder, grid, data=str(place), regimes={"x": regime}, head=head, final=["last"])
    found = prepared(tmp_path / "s", told, folder.parent / "kept")
    assert found.run(pool=Pool(jobs=1), report=quiet)["failed"] == 1
    assert said in read_results(found.folder).table["error"].item()


@pytest.mark.parametrize("p", [1.2, -0.1])
def test_a_preference_that_is_no_probability_stops_the_sweep(folder, tmp_path, p):
    write_pairs(generate(16, seed=3), tmp_path / "suite.jsonl")
    lines = (folder / "data" / "train.jsonl").read_text().splitlines()
    odd = json.dumps(json.loads(lines[3]) | {"preference": p})
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:3], odd, *lines[4:]]))
    with pytest.raises(ValueError, match="preference"):
        prepared(tmp_path / "s", settings(folder, {"model": "heads"}, data=str(tmp_path)))
