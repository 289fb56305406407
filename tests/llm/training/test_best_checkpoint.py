"""The best checkpoint of a run is read before it is exported, wherever it lies and whatever happened to it."""

from __future__ import annotations

import shutil

import pytest
import torch
from checkpoint_runs import command, flipped, place_of, said_by, same_end, weights
from safetensors.torch import load_file

from llm.kinds.sft import SFTTrainer
from llm.training import checkpointing
from robust_rlhf import main

BEST = {"final": "best", "metric_for_best_model": "accuracy", "validation_share": 0.4, "max_steps": 4}


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.fixture
def second_is_best(monkeypatch):
    """The second checkpoint judges best, whatever it is."""

    def metrics(self, held_out):
        return lambda prediction: {"accuracy": {2: 0.9, 4: 0.8}.get(self.state.global_step, 0.1)}

    monkeypatch.setattr(SFTTrainer, "held_out_metrics", metrics)


@pytest.fixture
def judged(once, place, second_is_best):
    """A run whose best checkpoint is its second of four."""
    return once("checkpoint-best", lambda folder: main(command(place, "sft", folder / "run", **BEST))) / "run"


def test_a_damaged_best_checkpoint_is_not_exported(judged, place, tmp_path, capsys, caplog):
    run = shutil.copytree(judged, tmp_path / "run")
    shutil.rmtree(run / "model")
    flipped(run / "checkpoint-2" / "model.safetensors")
    status, said = said_by(capsys, caplog, command(place, "sft", run, resume=True, **BEST))
    assert status == 2
    assert "checkpoint-2/model.safetensors was altered" in said
    status, said = said_by(capsys, caplog, command(place, "sft", run, resume=True, skip_damaged=True, **BEST))
    assert status == 0, said  # it went on from before the best one, which it found again
    assert same_end(run, judged)


def test_the_best_checkpoint_is_read_before_it_is_exported(
    second_is_best, place, tmp_path, monkeypatch, capsys, caplog
):
    run, save = tmp_path / "run", checkpointing.CheckpointingTrainer._save_checkpoint

    def saved(self, model, trial):
        save(self, model, trial)
        if self.state.global_step == BEST["max_steps"]:
            flipped(run / "checkpoint-2" / "model.safetensors")

    monkeypatch.setattr(checkpointing.CheckpointingTrainer, "_save_checkpoint", saved)
    status, said = said_by(capsys, caplog, command(place, "sft", run, **BEST))
    assert status == 2
    assert "checkpoint-2/model.safetensors was altered" in said
    assert not (run / "model").exists()


def test_a_moved_run_still_exports_its_best(judged, place, tmp_path):
    """The checkpoint says where the best one was when it was written."""
    run = shutil.copytree(judged, tmp_path / "moved")
    shutil.rmtree(run / "model")
    assert main(command(place, "sft", run, resume=True, **BEST)) == 0
    assert same_end(run, judged)
    exported, best = weights(run), load_file(run / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(exported[name], best[name]) for name in exported)
