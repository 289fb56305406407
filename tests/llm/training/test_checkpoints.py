"""Checkpoints that were damaged, lost in part or never finished, of every kind of run."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from checkpoint_runs import (
    DAMAGES,
    KINDS,
    command,
    flipped,
    halted,
    main_with_a_slow_rank,
    parts,
    place_of,
    said_by,
    same_end,
)
from forked import finished, start_ranks

from llm.policy import checkpoints as policy_checkpoints
from llm.policy.config import PolicyConfig
from llm.policy.run import build_policy_trainer
from llm.run.finished import SEAL
from llm.run.folder import LISTED, CheckpointError, by_step, is_complete, keep_newest, latest_checkpoint
from llm.run.manifest import MANIFEST, manifest_damage, write_manifest
from llm.training import checkpointing
from llm.training.resuming import checkpoint_to_resume
from llm.training.settings import parse_train
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_names_every_file_as_it_is(kind, place):
    checkpoints = by_step(place.runs / kind)
    assert set(checkpoints) == {1, 2, 3}
    for checkpoint in checkpoints.values():
        listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
        assert {str(path.relative_to(checkpoint)) for path in parts(checkpoint)} == {*listed, MANIFEST}
        for name, facts in listed.items():
            content = (checkpoint / name).read_bytes()
            assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_folders_inside_a_checkpoint_are_named_too(tmp_path):
    """As FSDP and DeepSpeed make them, one per rank or part."""
    for name in ("pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/.metadata", "global_step2/zero_pp_rank_1.pt"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(name.encode())
    write_manifest(tmp_path)
    assert manifest_damage(tmp_path) is None
    flipped(path)
    assert manifest_damage(tmp_path) == (path, "was altered since it was written")


def test_these_runs_write_every_kind_of_file(place):
    written = {path.name for kind in KINDS for path in parts(place.runs / kind / "checkpoint-2")}
    assert {"model.safetensors", "adapter_model.safetensors", "average.safetensors", "optimizer.pt", "scheduler.pt",
            "schedule.json", "rng_state.pth", "rng_state_0.json", "ledger.npz", "groups.npy", "running.npy",
            "adaptive.json", "clock.json", "trainer_state.json", "tokenizer.json"} <= written  # fmt: skip
    assert not [name for name in written if name.endswith((".pkl", ".bin"))]


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_to_any_file_is_named(kind, place, tmp_path):
    run = halted(place, kind, tmp_path / "run")
    for path in parts(run / "checkpoint-2"):
        kept = path.read_bytes()
        for damage in DAMAGES if path.name != MANIFEST else ("cut off", "one bit"):
            DAMAGES[damage](path)
            with pytest.raises(CheckpointError) as told:
                checkpoint_to_resume(run)
            assert str(path) in str(told.value), damage
            assert "--skip_damaged true" in str(told.value)
            assert "\n" not in str(told.value)
            path.write_bytes(kept)
    assert checkpoint_to_resume(run) == run / "checkpoint-2"


@pytest.mark.slow("runs of every kind")
@pytest.mark.parametrize(
    ("kind", "file", "damage"),
    [
        ("sft", "optimizer.pt", "missing"),
        ("reward", "average.safetensors", "one bit"),
        ("dpo", "adapter_model.safetensors", "cut off"),
        ("policy", "optimizer.pt", "one bit"),
        pytest.param("sft", "scheduler.pt", "missing", marks=pytest.mark.exhaustive),
        pytest.param("sft", "rng_state.pth", "missing", marks=pytest.mark.exhaustive),
        pytest.param("reward", "optimizer.pt", "cut off", marks=pytest.mark.exhaustive),
        pytest.param("policy", "rng_state_0.json", "missing", marks=pytest.mark.exhaustive),
    ],
)
def test_a_damaged_checkpoint_stops_the_run_or_is_skipped_when_asked(
    kind, file, damage, place, tmp_path, capsys, caplog
):
    run = halted(place, kind, tmp_path / "run")
    DAMAGES[damage](run / "checkpoint-2" / file)
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert status == 2
    assert said.count("robust-rlhf: ") == 1
    assert f"{run}/checkpoint-2/{file} " in said
    assert not (run / "model").exists()
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True, skip_damaged=True))
    assert status == 0, said
    assert f"skipped {run}/checkpoint-2" in said
    assert same_end(run, place.runs / kind)
    assert is_complete(run / "checkpoint-3")
    assert (run / "skipped-checkpoint-2").is_dir()


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_without_a_whole_checkpoint_nothing_is_trained(kind, place, tmp_path, capsys, caplog):
    run = halted(place, kind, tmp_path / "run")
    for checkpoint in by_step(run).values():
        flipped(checkpoint / "model.safetensors")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True, skip_damaged=True))
    assert status == 2
    assert "no whole checkpoint is left" in said
    assert all(f"checkpoint-{step}/model.safetensors" in said for step in (1, 2))
    assert set(by_step(run)) == {1, 2}


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_while_saving_loses_that_checkpoint_alone(kind, place, tmp_path, monkeypatch):
    """Older checkpoints go when the new one has its manifest, not before: there is always one to resume from."""
    run, written = tmp_path / "run", []
    module = policy_checkpoints if kind == "policy" else checkpointing
    write = module.write_manifest

    def killed(folder):
        written.append(folder.name)
        if len(written) == 2:
            raise KeyboardInterrupt
        write(folder)

    monkeypatch.setattr(module, "write_manifest", killed)
    assert main(command(place, kind, run, save_total_limit=1)) == 130
    assert sorted(by_step(run)) == [1, 2]
    assert not is_complete(run / "checkpoint-2")
    monkeypatch.setattr(module, "write_manifest", write)
    assert latest_checkpoint(run) == run / "checkpoint-1"
    assert not (run / "checkpoint-2").exists()
    assert main(command(place, kind, run, save_total_limit=1, resume=True)) == 0
    assert same_end(run, place.runs / kind)
    assert set(by_step(run)) == {3}


def test_the_newest_and_the_best_checkpoint_are_never_deleted(tmp_path):
    def left(steps, limit, best):
        shutil.rmtree(tmp_path)
        for step in steps:
            (tmp_path / f"checkpoint-{step}").mkdir(parents=True)
        keep_newest(tmp_path, limit, best=best and f"elsewhere/checkpoint-{best}")
        return sorted(by_step(tmp_path))

    assert left([1, 2, 9, 10], None, None) == [1, 2, 9, 10]
    assert left([1, 2, 9, 10], 2, None) == [9, 10]
    assert left([1, 2, 9, 10], 1, None) == [10]
    assert left([1, 2, 9, 10], 1, 2) == [2, 10]
    assert left([1, 2, 9, 10], 3, 1) == [1, 9, 10]
    assert left([1, 2, 9, 10], 2, 10) == [9, 10]
    assert left([1, 2, 9, 10], 2, 7) == [9, 10]


@pytest.mark.parametrize("damage", ["cut off", "missing"])
@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_lost_settings_are_named_and_let_through_by_force(kind, damage, place, tmp_path, capsys, caplog):
    run = halted(place, kind, tmp_path / "run")
    DAMAGES[damage](run / "settings.json")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert status == 2
    assert f"{run}/settings.json is {'missing' if damage == 'missing' else 'damaged'}" in said
    assert main(command(place, kind, run, resume=True, force=True)) == 0
    assert same_end(run, place.runs / kind)
    assert json.loads((run / "settings.json").read_text())[LISTED] == 0  # every checkpoint here has a manifest
    assert json.loads((run / "run.json").read_text())["forced"] == [
        "settings.json was lost, so that nothing was compared"
    ]


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_what_force_would_have_changed_is_not_noted_where_nothing_goes_on(kind, place, tmp_path):
    run = halted(place, kind, tmp_path / "run")
    damaged, before = run / "checkpoint-2" / "model.safetensors", (run / "settings.json").read_bytes()
    whole = damaged.read_bytes()
    flipped(damaged)
    assert main(command(place, kind, run, resume=True, force=True, weight_decay=0.5)) == 2
    assert (run / "settings.json").read_bytes() == before
    damaged.write_bytes(whole)
    assert main(command(place, kind, run, resume=True)) == 0
    assert same_end(run, place.runs / kind)
    assert json.loads((run / "run.json").read_text())["forced"] == []


def test_the_scale_of_half_precision_gradients_travels_with_a_policy(place, tmp_path):
    def trainer_with(scale):
        trainer, _ = build_policy_trainer(*parse_train(PolicyConfig, command(place, "policy", tmp_path / "run")[2:]))
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        trainer.accelerator.scaler.scale(torch.ones(()))
        return trainer

    trainer_with(512.0).save()
    resumed = trainer_with(4.0)
    resumed.load(tmp_path / "run" / "checkpoint-0")
    assert resumed.accelerator.scaler.get_scale() == 512.0


@pytest.mark.slow("two processes train, and start again")
@pytest.mark.parametrize("kind", [pytest.param("sft", marks=pytest.mark.exhaustive), "policy"])
def test_the_manifest_waits_for_every_rank_and_all_refuse_together(kind, place, tmp_path):
    run = tmp_path / "run"
    more = {} if kind == "policy" else {"dataloader_drop_last": True}
    argv = command(place, kind, run, ddp_timeout=60, **more)
    finished(start_ranks(main_with_a_slow_rank, argv))
    listed = json.loads((run / "checkpoint-2" / MANIFEST).read_text())["files"]
    last = "rng_state_1.json" if kind == "policy" else "rng_state_1.pth"
    assert last in listed
    (run / SEAL).unlink()  # as if it had not come to its end
    shutil.rmtree(run / "checkpoint-3")
    flipped(run / "checkpoint-2" / last)
    ranks = start_ranks(main, [*argv, "--resume", "true"])
    said = [process.communicate(200)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [2, 2]
    assert "".join(said).count("robust-rlhf: ") == 1
    assert f"checkpoint-2/{last} was altered" in "".join(said)
