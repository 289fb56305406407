"""Looking changes nothing: a dry run neither makes nor removes a folder, whatever stands or appears there meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from signalled_runs import KINDS, SWEEP, arguments, place_of
from test_pipeline import write as write_pipeline
from transformers import Trainer
from yaml import safe_dump

from llm.policy.trainer import PolicyTrainer
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def snapshot(*folders):
    """Every folder, and every file with its size and time."""
    paths = [path for folder in folders for path in Path(folder).rglob("*")]
    return {path: (path.is_dir() or (path.stat().st_size, path.stat().st_mtime_ns)) for path in paths}


def commands(kind, place, folder):
    if kind == "sweep":
        (folder / "sweep.yaml").write_text(safe_dump(SWEEP))
        config = ["--config", str(folder / "sweep.yaml"), "--cache", str(folder / "cache")]
        return ["sweep", *config, "--output", str(folder / "run"), "--dry-run"]
    if kind == "pipeline":
        return ["pipeline", "--config", str(write_pipeline(folder)), "--dry-run"]
    return arguments(kind, place, folder / "run", "--dry_run", "true")


@pytest.mark.parametrize("there", ["nothing", "a run"])
@pytest.mark.parametrize("kind", [*KINDS, "pipeline", "sweep"])
def test_a_dry_run_leaves_the_disk_as_it_was(kind, there, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = commands(kind, place, tmp_path)
    if there == "a run":
        (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
        (tmp_path / "run" / "settings.json").write_text("{}")
    before = snapshot(tmp_path, place)
    assert main(argv) == 0
    assert snapshot(tmp_path, place) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_run_makes_meanwhile_stays(kind, place, tmp_path, monkeypatch):
    trainer = PolicyTrainer if kind == "policy" else Trainer
    construct = trainer.__init__

    def meanwhile(self, *args, **kwargs):
        (tmp_path / "run").mkdir()
        construct(self, *args, **kwargs)
        (tmp_path / "run" / "settings.json").write_text("{}")

    monkeypatch.setattr(trainer, "__init__", meanwhile)
    assert main(arguments(kind, place, tmp_path / "run", "--dry_run", "true")) == 0
    assert os.listdir(tmp_path / "run") == ["settings.json"]
