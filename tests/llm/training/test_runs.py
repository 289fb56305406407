"""Whole runs through the command line: kill, full disk, existing folders, wrong input."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time

import numpy as np
import pytest
from forked import Forked
from safetensors.torch import load_file
from whole_runs import train_command, wrong

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.run.folder import is_complete, latest_checkpoint
from robust_rlhf import main

STEPS, SAVE_EVERY = 30, 10


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_pairs(generate(133, seed=3), path)  # 16 batches of 8, and a rest that is left out of every epoch
    return path


def command(pairs_file, output, *extra):
    settings = {"ambiguity": "tv:0.2", "max_steps": STEPS, "save_steps": SAVE_EVERY, "final": "average"}
    return train_command("reward", pairs_file, output, *extra, **settings)


def start(arguments, **kwargs):
    """A process of its own, to be stopped; what is not stopped runs in this one, with the same threads."""
    return Forked(main, arguments, **kwargs)


def wait_for_first_checkpoint(process, output):
    deadline = time.monotonic() + 240
    while not is_complete(output / f"checkpoint-{SAVE_EVERY}"):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uninterrupted(pairs_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(pairs_file, output)) == 0
    return output


def same_run(one, other):
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
    ledgers = [np.load(folder / f"checkpoint-{STEPS}" / "ledger.npz") for folder in (one, other)]
    assert all(np.array_equal(ledgers[0][name], ledgers[1][name]) for name in ledgers[0].files)
    assert len(ledgers[0]["sources"][ledgers[0]["source"]]) == len(ledgers[0]["visits"])


@pytest.mark.slow("three starts of Python")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_stopped_and_resumed_ends_as_uninterrupted(pairs_file, uninterrupted, tmp_path, number, status):
    output = tmp_path / "run"
    stopped = start(command(pairs_file, output))
    wait_for_first_checkpoint(stopped, output)
    stopped.send_signal(number)
    printed = stopped.communicate()[0]
    assert stopped.returncode == status, printed
    assert not (output / "model").exists()
    if number == signal.SIGKILL:  # and the kill came while a newer checkpoint was being written
        (output / f"checkpoint-{STEPS - 1}").mkdir()
        (output / f"checkpoint-{STEPS - 1}" / "trainer_state.json").write_text('{"epoch": 1.')
    assert main(command(pairs_file, output, "--resume")) == 0
    same_run(output, uninterrupted)


@pytest.mark.exhaustive(turns=8)
def test_full_disk_keeps_the_previous_checkpoint(pairs_file, uninterrupted, tmp_path):
    """No file may grow beyond the limit once the first checkpoint stands: the next save must fail."""
    output = tmp_path / "run"
    limited = start(command(pairs_file, output))
    wait_for_first_checkpoint(limited, output)
    resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    printed = limited.communicate()[0]
    assert limited.returncode == 2, printed
    assert "could not save the checkpoint" in printed
    assert "Traceback" not in printed
    survivor = latest_checkpoint(output)
    assert survivor is not None
    assert load_file(survivor / "model.safetensors")
    assert [path.name for path in output.glob("checkpoint-*")] == [survivor.name]
    assert main(command(pairs_file, output, "--resume")) == 0
    same_run(output, uninterrupted)


def test_resuming_a_finished_run_only_exports_again(pairs_file, uninterrupted):
    """The last checkpoint stands in the middle of an epoch: Trainer alone would take one step too many."""
    weights = (uninterrupted / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(uninterrupted / "model")
    assert main(command(pairs_file, uninterrupted, "--resume")) == 0
    assert (uninterrupted / "model" / "model.safetensors").read_bytes() == weights
    assert json.loads((uninterrupted / "run.json").read_text())["steps"] == STEPS


@pytest.mark.exhaustive(turns=8)
def test_best_is_the_checkpoint_that_judged_best(pairs_file, tmp_path):
    output = tmp_path / "run"
    flags = ["--final", "best", "--validation_share", "0.4", "--save_total_limit", "9", "--learning_rate", "2e-2"]
    assert main(command(pairs_file, output, *flags)) == 0
    history = json.loads((output / "run.json").read_text())["history"]
    accuracy = {row["step"]: row["eval_accuracy"] for row in history if "eval_accuracy" in row}
    assert sorted(accuracy) == [10, 20, 30]
    best = max(accuracy, key=lambda step: (accuracy[step], -step))
    exported = load_file(output / "model" / "model.safetensors")
    checkpoint = load_file(output / f"checkpoint-{best}" / "model.safetensors")
    assert all((exported[name] == checkpoint[name]).all() for name in exported)


def test_diverged_run_keeps_its_last_good_checkpoint(pairs_file, tmp_path, capsys):
    output = tmp_path / "run"
    flags = ["--max_steps", "20", "--save_steps", "1", "--max_grad_norm", "0", "--learning_rate", "1e25"]
    message = wrong(capsys, *command(pairs_file, output, *flags))
    assert "not finite" in message
    assert not (output / "model").exists()
    survivor = latest_checkpoint(output)
    if survivor is not None:
        assert all(tensor.isfinite().all() for tensor in load_file(survivor / "model.safetensors").values())


@pytest.mark.parametrize(
    "change",
    [
        ("--model", "no/such/folder"),
        ("--train_file", "missing.jsonl"),
        ("--average_after", "2"),
        ("--validation_share", "0.99999"),
    ],
)
def test_overwrite_deletes_nothing_before_the_input_is_known_to_work(pairs_file, uninterrupted, capsys, change):
    before = sorted(uninterrupted.rglob("*"))
    wrong(capsys, *command(pairs_file, uninterrupted, "--overwrite", *change))
    assert sorted(uninterrupted.rglob("*")) == before


def test_resume_with_another_adversary_or_other_data_is_refused(pairs_file, uninterrupted, tmp_path, capsys):
    changed = wrong(capsys, *command(pairs_file, uninterrupted, "--resume", "--ambiguity", "cvar:0.5"))
    assert "another ambiguity" in changed
    write_pairs(generate(128, seed=4), tmp_path / "other.jsonl")
    changed = wrong(capsys, *command(tmp_path / "other.jsonl", uninterrupted, "--resume"))
    assert "sha256" in changed


def test_run_folder_tells_the_whole_story(uninterrupted):
    record = json.loads((uninterrupted / "run.json").read_text())
    card = (uninterrupted / "model" / "README.md").read_text()
    assert record["steps"] == STEPS
    assert record["effective_batch"] == 8
    assert {"loss", "mean_loss", "zero_share"} <= record["history"][0].keys()
    assert record["adversary"]["top"][0]["multiplier"] > 1
    for said in (
        "tv:0.2",
        "train.jsonl",
        record["data"]["train"]["sha256"][:16],
        "average",
        "seed",
        "torch 2",
    ):
        assert said in card


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--ambiguity", "tv:1.3"], "[0, 1]"),
        (["--ambiguity", "wobble:1"], "chi2"),
        (["--plain_share", "0.8", "--ramp_share", "0.5"], "exceeds 1"),
        (["--model", "no/such/folder"], "no/such/folder"),
        (["--train_file", "missing.jsonl"], "missing.jsonl"),
        (["--config", "nowhere.yaml"], "reward-minilm"),
        (["--final", "best"], "validation_share"),
        (["--resume", "--overwrite"], "not both"),
        (["--max_pairs", "0"], "at least 1"),
        (["--lerning-rate", "1"], "--learning-rate"),
        (["--max_length", "wide"], "wide"),
        (["--resume_from_checkpoint", "x"], "--resume"),
        (["--save_only_model", "true"], "resumed"),
    ],
)
def test_wrong_settings_get_one_sentence(pairs_file, tmp_path, capsys, extra, said):
    message = wrong(capsys, *command(pairs_file, tmp_path / "run", *extra))
    assert said in message
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_existing_run_is_not_touched(pairs_file, tmp_path, capsys):
    output = tmp_path / "run"
    output.mkdir()
    (output / "precious.txt").write_text("keep me")
    for how in ([], ["--resume"]):
        assert "holds files and no run of ours" in wrong(capsys, *command(pairs_file, output), *how)
    assert "will not delete" in wrong(capsys, *command(pairs_file, output, "--overwrite"))
    assert (output / "precious.txt").read_text() == "keep me"


def test_unknown_setting_in_a_recipe_suggests_the_right_one(pairs_file, tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("ambiguty: tv:0.2\n")
    assert "'ambiguity'" in wrong(capsys, "train", "reward", "--config", str(recipe))
