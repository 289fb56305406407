"""Several files of held-out pairs: judged together and each by itself, and known by their content."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
from whole_runs import files_of, train_command, wrong

import llm
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.training.config import ConfigError, RewardConfig
from robust_rlhf import main

KINDS = ("sft", "reward", "dpo")
SIZES = {"near": 14, "far": 9}


@pytest.fixture(scope="module")
def files(once):
    def build(folder):
        for seed, (name, size) in enumerate(SIZES.items()):
            write_pairs(generate(size, seed=10 + seed), folder / f"{name}.jsonl")

    return files_of(once), once("held-out-files", build)


def command(files, kind, output, *names, **more):
    told = {"max_steps": 2, "save_steps": 1, "ambiguity": "tv:0.2", "final": "best", "max_length": 96, **more}
    return [*train_command(kind, files[0] / "train.jsonl", output, **told), "--eval_file", *map(str, names)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_is_judged_by_itself_and_all_of_them_together(kind, files, tmp_path):
    """The means over all pairs are those over the files, weighed by their pairs; by one of them the best is chosen."""
    named = [files[1] / f"{name}.jsonl" for name in SIZES]
    settings = {"metric_for_best_model": "accuracy_far"}
    assert main(command(files, kind, tmp_path / "run", *named, **settings)) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [(file["file"], file["pairs"]) for file in record["data"]["eval"]["files"]] == [
        (f"{name}.jsonl", size) for name, size in SIZES.items()
    ]
    judged = [row for row in record["history"] if "eval_loss" in row]
    assert len(judged) == 2
    for row in judged:
        for what in ("loss", "accuracy"):
            parts = {name: row[f"eval_{what}_{name}"] for name in SIZES}
            mean = sum(SIZES[name] * value for name, value in parts.items()) / sum(SIZES.values())
            assert row[f"eval_{what}"] == pytest.approx(mean, rel=1e-5)
    assert judged[-1]["eval_loss_near"] != judged[-1]["eval_loss_far"]
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["best_metric"] == max(row["eval_accuracy_far"] for row in judged)

    alone = tmp_path / "alone"
    assert main(command(files, kind, alone, named[1])) == 0
    history = json.loads((alone / "run.json").read_text())["history"]
    *_, last = (row for row in history if "eval_loss" in row)
    assert last["eval_loss"] == pytest.approx(judged[-1]["eval_loss_far"], rel=1e-5)
    assert not [name for name in last if name.endswith("_far")]


def test_a_run_is_resumed_with_the_same_held_out_files_only(files, tmp_path, capsys):
    for name in SIZES:
        shutil.copy(files[1] / f"{name}.jsonl", tmp_path)
    named = [tmp_path / f"{name}.jsonl" for name in SIZES]
    argv = command(files, "reward", tmp_path / "run", *named)
    assert main(argv) == 0
    (tmp_path / "run" / "run.json").unlink()
    write_pairs(generate(9, seed=99), named[1])
    assert "held-out file 2" in wrong(capsys, *argv, "--resume")


def test_a_plan_names_them_and_python_takes_them(files, tmp_path, capsys):
    named = [files[1] / f"{name}.jsonl" for name in SIZES]
    assert main([*command(files, "reward", tmp_path / "run", *named), "--dry_run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "held-out files near.jsonl (14 pairs), far.jsonl (9 pairs)" in said
    few = {"max_steps": 1, "max_length": 48, "use_cpu": True, "eval_strategy": "steps", "eval_steps": 1}
    run = llm.train("reward", files[0] / "train.jsonl", model="tiny", output=tmp_path / "py", eval_file=named, **few)
    assert Counter("eval_accuracy_far" in row for row in run.record["history"])[True] == 1


def test_held_out_files_have_no_weight():
    with pytest.raises(ConfigError, match=r"eval_file: a\.jsonl has a weight"):
        RewardConfig(train_file="t.jsonl", eval_file=["a.jsonl:2", "b.jsonl"])
    with pytest.raises(ConfigError, match="eval_file: there is no entry 'times'"):
        RewardConfig(train_file="t.jsonl", eval_file=[{"file": "a.jsonl", "times": 2}])  # pyright: ignore
