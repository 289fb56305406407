"""The frame of a run: what stands in its folder at every moment, what a failure leaves, and what is refused first."""

from __future__ import annotations

import json
import shutil

import pytest
from checkpoint_runs import KINDS, command, place_of, same_end

from dro_core.locks import LOCK
from llm.kinds.registry import config_of
from llm.policy.run import _OnOwnAnswers
from llm.training import frame
from llm.training.run import _OnPairs
from robust_rlhf import main

MOMENTS = {  # what stands in the folder of a run of one step as each begins
    "build": {LOCK},
    "prepare": {LOCK, "settings.json"},
    "train": {LOCK, "settings.json"},
    "outcome": {LOCK, "settings.json", "checkpoint-1"},
    "card": {LOCK, "settings.json", "checkpoint-1", "model.partial"},
}
WORKS = {kind: _OnOwnAnswers if config_of(kind).own_answers else _OnPairs for kind in KINDS}


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def watched(monkeypatch, kind, look):
    """Let ``look`` see the name of every part of a run of that kind before it begins."""

    def after_look(name, part):
        return lambda *args: (look(name), part(*args))[1]

    for name in MOMENTS:
        place, called = (frame, "model_card") if name == "card" else (WORKS[kind], name)
        monkeypatch.setattr(place, called, after_look(name, getattr(place, called)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_any_kind_goes_the_same_way(kind, place, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []
    watched(monkeypatch, kind, lambda name: seen.append((name, names(run))))
    assert main(command(place, kind, run, max_steps=1)) == 0
    assert seen == list(MOMENTS.items())
    assert names(run) == {"settings.json", "checkpoint-1", "model", "run.json", "seal.json"}
    ours, theirs = (json.loads((folder / "run.json").read_text()) for folder in (run, place.runs / "sft"))
    assert [name for name in theirs if name in ours] == list(ours)  # in the order of every kind
    assert theirs.keys() - ours.keys() <= {"adds_special_tokens"}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "sft" else pytest.mark.exhaustive) for kind in KINDS]
)
def test_a_failure_anywhere_leaves_a_run_to_go_on_with(kind, moment, place, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:

        def fail(name):
            if name == moment:
                raise OSError(28, "No space left on device", "a file")

        watched(patch, kind, fail)
        assert main(command(place, kind, run)) == 2
    left = {"build": set(), "prepare": {"settings.json"}, "train": {"settings.json"}}
    assert names(run) == left.get(moment, {"settings.json", "checkpoint-1", "checkpoint-2", "checkpoint-3"})
    assert main(command(place, kind, run, resume=True)) == 0
    assert same_end(run, place.runs / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_is_said_in_the_same_order(kind, place, tmp_path, capsys):
    """Flags, then the folder, then the settings it was started with, then the data: what costs least comes first."""
    run = shutil.copytree(place.runs / kind, tmp_path / "run")
    wrong = {"train_sampling_strategy": "group_by_length", "seed": 9, "train_file": tmp_path / "nowhere.jsonl"}
    told = {
        "train_sampling_strategy=group_by_length is": {},
        "already holds a run": {"train_sampling_strategy": "random"},
        "another seed": {"resume": True},
        "nowhere.jsonl": {"seed": json.loads((run / "settings.json").read_text())["seed"]},
    }
    for expected, mended in told.items():
        wrong |= mended
        assert main(command(place, kind, run, **wrong)) == 2
        assert expected in capsys.readouterr().err.splitlines()[-1]
