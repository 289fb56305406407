"""What a run folder is: whether a run begins in it, goes on, overwrites it or leaves it alone."""

from __future__ import annotations

import pytest
from checkpoint_runs import KINDS, command, halted, place_of, same_end
from damaged_runs import copy, said_by

from llm.run.folder import check_output
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def outcome(folder, **how):
    try:
        check_output(folder, **{"resume": False, "overwrite": False} | how)
    except FileExistsError as error:
        return str(error).removeprefix(f"{folder} ").split(":")[0]
    return "goes on"


OURS, THEIRS = '{"ambiguity": "erm"}', '{"editor.fontSize": 12}'
FREE = ("goes on",) * 3
A_RUN = ("already holds a run", "goes on", "goes on")
FOREIGN = (
    "holds files and no run of ours",
    "holds files and no run of ours, so there is nothing to resume",
    "does not look like a run of ours, so --overwrite will not delete it",
)
NOT_OURS = (*A_RUN[:2], FOREIGN[2])


@pytest.mark.parametrize(
    ("files", "plainly_resumed_overwritten"),
    [
        ({}, FREE),
        ({"job-7.out": "", "train.log": "", ".DS_Store": "", "in-use.lock": "", "logs/7.txt": ""}, FREE),
        ({"stage.json": "{}"}, FREE),
        ({"settings.json": OURS}, FREE),
        ({"settings.json": '{"ambig'}, FREE),
        ({"settings.json": OURS, "reference.npz": "", "reference/model.safetensors": "", "stage.json": "{}"}, FREE),
        ({"settings.json": OURS, "runs/Nov28/events.out": "", "wandb/x": "", "mine.txt": ""}, FREE),
        ({"settings.json": OURS, "checkpoint-3/trainer_state.json": "{}"}, A_RUN),
        ({"settings.json": OURS, "runs/erm/seed-0/checkpoint-3/x": ""}, A_RUN),  # of a demo
        ({"settings.json": OURS, "model/config.json": "{}"}, A_RUN),
        ({"settings.json": '{"ambig', "checkpoint-3/trainer_state.json": "{}"}, A_RUN),
        ({"run.json": '{"config": {}}'}, A_RUN),
        ({"seal.json": "{}", "run.json": "{"}, A_RUN),
        ({"checkpoint-3/manifest.json": "{}"}, A_RUN),
        ({"checkpoint-500/trainer_state.json": "{}"}, NOT_OURS),  # of transformers' own Trainer
        ({"run.json": '{"name": "npm"}'}, NOT_OURS),
        ({"mine.txt": ""}, FOREIGN),
        ({"settings.json": THEIRS}, FOREIGN),
        ({"settings.json": THEIRS, "model/config.json": "{}"}, FOREIGN),
        ({"x/checkpoint-3/manifest.json": "{}", "x/settings.json": OURS}, FOREIGN),  # a folder of runs
    ],
)
def test_what_a_run_is(files, plainly_resumed_overwritten, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = (outcome(tmp_path), outcome(tmp_path, resume=True), outcome(tmp_path, overwrite=True))
    assert found == plainly_resumed_overwritten


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_overwritten_though_its_settings_are_lost_and_logs_stay(kind, place, tmp_path):
    run = copy(place, kind, tmp_path)
    (run / "settings.json").unlink()
    (run / "job-7.out").write_text("said before")
    (run / "mine.txt").write_text("of the old run")
    assert main(command(place, kind, run, overwrite=True)) == 0
    assert same_end(run, place.runs / kind)
    assert (run / "job-7.out").read_text() == "said before"
    assert not (run / "mine.txt").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_trained_into_what_is_no_run(kind, place, tmp_path, capsys, caplog):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("mine")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert (status, said.count("\n")) == (2, 1)
    assert "so there is nothing to resume" in said
    assert [path.name for path in run.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_cannot_be_saved_gets_the_same_sentence(kind, place, tmp_path, capsys, caplog, monkeypatch):
    def full(folder):
        raise OSError(28, "No space left on device", str(folder / "manifest.json"))

    for module in ("training.checkpointing", "policy.checkpoints"):
        monkeypatch.setattr(f"llm.{module}.write_manifest", full)
    run = halted(place, kind, tmp_path / "run")
    status, said = said_by(capsys, caplog, command(place, kind, run, resume=True))
    assert status == 2
    assert said.splitlines()[-1] == (
        f"robust-rlhf: could not save the checkpoint of step 3 ({run}/checkpoint-3/manifest.json: no space left on "
        f"device); earlier checkpoints in {run} are intact: make room and continue with --resume"
    )
