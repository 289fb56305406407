"""A resumed run is the run that was started, or stops with one sentence that names what it reads differently."""

from __future__ import annotations

import json
import shutil

import huggingface_hub.constants
import numpy as np
import pytest
from resumed_runs import command, models_of, read_by, touch

from llm.models.contents import contents
from robust_rlhf import main


@pytest.fixture
def place(once, tmp_path):
    return shutil.copytree(models_of(once), tmp_path / "in")


TOUCHED = [  # kind of run, what changes in which folder, what the sentence names
    ("sft", "start/model.safetensors", "content of model"),
    ("reward", "reward-base/model.safetensors", "content of base of model"),
    ("dpo", "reference/model.safetensors", "content of reference_model"),
    ("dpo-lora", "policy-base/model.safetensors", "content of model"),
    ("policy", "judge/model.safetensors", "content of reward_model"),
    pytest.param(
        "reward", "reward-adapter/adapter_model.safetensors", "content of model", marks=pytest.mark.exhaustive
    ),
    pytest.param("dpo", "start/model.safetensors", "content of model", marks=pytest.mark.exhaustive),
    pytest.param("policy", "start/model.safetensors", "content of model", marks=pytest.mark.exhaustive),
    pytest.param("policy", "gold/model.safetensors", "content of gold", marks=pytest.mark.exhaustive),
    pytest.param(
        "policy", "policy-base/model.safetensors", "content of base of reference_model", marks=pytest.mark.exhaustive
    ),
    pytest.param("policy", "gold/tokenizer.json", "content of gold", marks=pytest.mark.exhaustive),
]


@pytest.mark.parametrize(("kind", "touched", "named"), TOUCHED)
def test_other_content_at_the_same_path_stops_a_resumed_run(kind, touched, named, place, tmp_path, capsys):
    run = tmp_path / "run"
    argv = command(kind.partition("-")[0], place, run, **read_by(kind, place))
    assert main(argv) == 0
    assert main([*argv, "--resume"]) == 0  # nothing has changed yet
    touch(place / touched)
    before = (run / "settings.json").read_bytes()
    capsys.readouterr()
    assert main([*argv, "--resume"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("robust-rlhf: ")]
    assert len(said) == 1
    assert f"was started with another {named}: " in said[0]
    assert (run / "settings.json").read_bytes() == before
    assert main([*argv, "--resume", "--force"]) == 0
    card = (run / "model" / "README.md").read_text()
    assert f"changed on the way (--force)** | {named}: " in card
    assert main([*argv, "--resume"]) == 0  # it is the run with these from now on
    assert named in (run / "model" / "README.md").read_text()


def unread(monkeypatch):
    """From now on neither data nor weights can be read by runs on pairs and of policies."""
    for name in ("training.run.load_training_pairs", "policy.run.training_prompts", "kinds.reward.load_reward_model"):
        monkeypatch.setattr(f"llm.{name}", None)


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_other_settings_are_refused_before_anything_is_read(kind, place, tmp_path, monkeypatch, capsys, caplog):
    argv = command(kind, place, tmp_path / "run", **read_by(kind, place))
    assert main(argv) == 0
    (tmp_path / "run" / "model" / "config.json").unlink()
    assert main([*argv, "--resume"]) == 0
    left = {"reward": "no step is left", "policy": "steps after its beginning are taken again (save_steps)"}
    assert caplog.text.count(f"run is finished: {left[kind]}, and its model is exported once more") == 1
    unread(monkeypatch)
    assert main([*argv, "--resume", "--learning_rate", "0.5", "--seed", "9"]) == 2
    assert "was started with another learning_rate, seed: resume with the same" in capsys.readouterr().err


def test_a_finished_run_that_is_forced_to_more_steps_takes_them_and_says_so(place, tmp_path, caplog):
    argv = command("reward", place, tmp_path / "run", **read_by("reward", place))
    assert main(argv) == 0
    assert main([*argv, "--resume", "--force", "--max_steps", "2"]) == 0
    assert "run is finished: what other settings add (--force) is done, and its model is exported" in caplog.text
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 2


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_more_tokens_than_the_model_reads_are_refused_before_anything_is_read(
    kind, dry_run, place, tmp_path, monkeypatch, capsys
):
    unread(monkeypatch)
    told = read_by(kind, place) | {"max_length": 5000, "dry_run": dry_run}
    assert main(command(kind, place, tmp_path / "run", **told)) == 2
    assert "max_length is 5000, but this model reads at most 512 tokens" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def commit_to(hub, source, commit, *, main_is):
    snapshot = hub / "models--me--start" / "snapshots" / commit
    shutil.copytree(source, snapshot)
    refs = hub / "models--me--start" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(main_is)


def test_a_name_of_the_hub_counts_by_its_commit(place, tmp_path, monkeypatch, capsys):
    hub, (one, other) = tmp_path / "hub", (40 * "a", 40 * "b")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    commit_to(hub, place / "start", one, main_is=one)
    argv = command("sft", place, tmp_path / "run", model="me/start")
    assert main(argv) == 0
    notes = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert notes["content of model"] == f"commit {one}"
    touch(place / "start" / "model.safetensors")
    commit_to(hub, place / "start", other, main_is=other)
    assert main([*argv, "--resume"]) == 2
    assert "another content of model: " in capsys.readouterr().err
    assert contents({"model": "nobody/nothing"}) == {"model": "unknown"}


def demo_of(place, output):
    """The command line of a demo that trains the judge for a step."""
    data = place / "data"
    data.mkdir()
    for name in ("train", "test"):
        shutil.copy(place / "train.jsonl", data / f"{name}.jsonl")
    told = ["--data", data, "--model", place / "judge", "--ambiguity", "erm", "--output", output]
    return ["demo", *map(str, told), "--set", "max_steps=1", "use_cpu=true"]


def test_a_demo_is_not_resumed_with_other_weights(place, tmp_path, capsys):
    argv = demo_of(place, tmp_path / "demo")
    assert main(argv) == 0
    touch(place / "judge" / "model.safetensors")
    assert main([*argv, "--resume"]) == 2
    assert "another content of model: " in capsys.readouterr().err


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize("damaged", ["margins.npz", "run.json"])
def test_a_demo_judges_a_run_again_that_is_damaged(damaged, place, tmp_path, caplog):
    demo = tmp_path / "demo"
    argv = demo_of(place, demo)
    assert main(argv) == 0
    file, before = demo / "runs" / "erm" / "seed-0" / damaged, read_margins(demo)
    file.write_bytes(file.read_bytes()[:-9])
    assert main([*argv, "--resume"]) == 0
    assert "is exported and judged again" in caplog.text
    assert json.loads((file.parent / "run.json").read_text())["steps"] == 1
    assert np.array_equal(read_margins(demo), before)


def read_margins(demo):
    with np.load(demo / "runs" / "erm" / "seed-0" / "margins.npz") as stored:
        return stored["test"]
