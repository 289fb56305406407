"""Checkpoints of versions before the manifest: the run goes on, and what shows of damage is named."""

from __future__ import annotations

import pytest
from checkpoint_runs import DAMAGES, KINDS, command, earlier, halted, place_of, said_by, same_end

from llm.run.folder import is_complete
from llm.run.manifest import MANIFEST
from llm.training.resuming import checkpoint_to_resume


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_an_earlier_version_goes_on(kind, place, tmp_path, capsys, caplog):
    run = earlier(place, kind, tmp_path / "run")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert status == 0, said
    assert f"{run}/checkpoint-2 was written by an earlier version" in said
    assert said.count("cannot be verified") == 1
    assert said.count("drew answers by other random numbers") == (kind == "policy")
    assert same_end(run, place.runs / kind)
    # Who has the model alone must learn it, too, and who reads what the command said cannot.
    noted = "answers up to checkpoint-2 were drawn by other random numbers"
    for file in (run / "run.json", run / "model" / "README.md"):
        assert file.read_text().count(noted) == (kind == "policy")
    # From now on it is a run of this version: what it wrote since needs a manifest, what it found does not.
    (run / "checkpoint-3" / MANIFEST).unlink()
    assert [is_complete(run / f"checkpoint-{step}") for step in (1, 2, 3)] == [True, True, False]


@pytest.mark.parametrize(
    ("kind", "file", "damage"),
    [
        ("sft", "optimizer.pt", "missing"),
        ("sft", "scheduler.pt", "missing"),
        ("sft", "rng_state.pth", "missing"),
        ("reward", "model.safetensors", "cut off"),
        ("dpo", "optimizer.pt", "one bit"),
        ("policy", "optimizer.bin", "cut off"),
        ("policy", "optimizer.bin", "missing"),
        ("reward", "ledger.npz", "one bit"),
    ],
)
def test_what_shows_without_a_manifest_is_named(kind, file, damage, place, tmp_path, capsys, caplog):
    run = earlier(place, kind, tmp_path / "run")
    DAMAGES[damage](run / "checkpoint-2" / file)
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert status == 2
    assert said.count("robust-rlhf: ") == 1
    assert f"{run}/checkpoint-2/{file.replace('.bin', '')}" in said  # where it is gone, by its name today
    assert checkpoint_to_resume(run, skip_damaged=True) == run / "checkpoint-1"


def test_a_checkpoint_of_this_version_without_a_manifest_is_half_written(place, tmp_path):
    run = halted(place, "reward", tmp_path / "run")
    (run / "checkpoint-2" / MANIFEST).unlink()
    assert checkpoint_to_resume(run) == run / "checkpoint-1"
    assert not (run / "checkpoint-2").exists()
