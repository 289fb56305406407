"""Nothing that is loaded runs code: a payload in every file of runs and of their checkpoints."""

from __future__ import annotations

import enum
import shutil
import sys
import types

import pytest
import torch
from checkpoint_runs import KINDS, command, earlier, halted, place_of
from payloads import ALL, Payload, disguises, mark_in, planted

from llm.run.folder import CheckpointError
from llm.run.manifest import write_manifest
from llm.training.resuming import checkpoint_to_resume
from robust_rlhf import main


@pytest.fixture
def mark(tmp_path, monkeypatch):
    return mark_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("every", [False, ALL])
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints(kind, every, place, tmp_path, mark):
    run = halted(place, kind, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-1")
    assert planted(run, mark, lambda: main(command(place, kind, run, resume=True)), every=every) >= 6


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_of_earlier_versions(kind, place, tmp_path, mark):
    run = earlier(place, kind, tmp_path / "run")
    shutil.rmtree(run / "checkpoint-1")
    assert planted(run, mark, lambda: main(command(place, kind, run, resume=True))) >= 6


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_libraries_look_for_in_checkpoints(kind, place, tmp_path, mark):
    """Beside those that are read, and instead of the weights."""
    for weights in (True, False):
        run = halted(place, kind, tmp_path / f"run-{weights}")
        names = ["pytorch_model.bin", "adapter_model.bin", "optimizer.bin", "scaler.pt", "training_args.bin",
                 "custom_checkpoint_0.pkl", "random_states_0.pkl", "sampler.bin", "dl_state_dict.bin"]  # fmt: skip
        for name in names:
            torch.save(Payload(mark), run / "checkpoint-2" / name)
        if not weights:
            for part in (run / "checkpoint-2").glob("*model.safetensors"):
                part.unlink()
        write_manifest(run / "checkpoint-2")
        assert main(command(place, kind, run, resume=True)) in (0, 2)
        assert not mark.exists()


def test_states_of_deepspeed(place, tmp_path, mark, monkeypatch):
    """It loads them as pickles itself, whatever is asked; so nothing but its own classes may stand in them."""
    checkpoint = halted(place, "sft", tmp_path / "run") / "checkpoint-2"
    (checkpoint / "global_step2").mkdir()
    state = checkpoint / "global_step2" / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    names = ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.runtime.zero.config")
    *_, module = modules = [types.ModuleType(name) for name in names]
    stage = enum.IntEnum("ZeroStageEnum", {"weights": 3}, module=module.__name__)
    module.__dict__["ZeroStageEnum"] = stage
    for part in modules:
        monkeypatch.setitem(sys.modules, part.__name__, part)
    own = {"zero_stage": stage(3), "fp32": torch.zeros(2)}
    torch.save(own, state)
    write_manifest(checkpoint)
    assert checkpoint_to_resume(tmp_path / "run") == checkpoint
    beside = own | {"scaler": Payload(mark)}
    for hide in (
        lambda: torch.save(beside, state),
        lambda: torch.save(beside, state, pickle_protocol=4),
        *disguises(state, mark),
    ):
        hide()
        write_manifest(checkpoint)
        with pytest.raises(CheckpointError, match=f"{state.name} (would run code .*mkdir|cannot be read)"):
            checkpoint_to_resume(tmp_path / "run")
        assert not mark.exists()


@pytest.mark.parametrize("every", [False, ALL])
@pytest.mark.parametrize("kind", ["dpo", "policy"])
def test_run_folders(kind, every, place, tmp_path, mark):
    """The doctor reads them, finished or not."""
    run = shutil.copytree(place.runs / kind, tmp_path / "run")
    for checkpoint in (1, 2):
        shutil.rmtree(run / f"checkpoint-{checkpoint}")
    assert planted(run, mark, lambda: main(["doctor", str(run)]), every=every) >= 3
    (run / "run.json").unlink()
    assert planted(run, mark, lambda: main(["doctor", str(run)]), every=every) >= 3
