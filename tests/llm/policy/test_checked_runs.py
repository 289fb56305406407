"""Policies trained on rewards that are checked: runs that are logged, resumed, refused and judged."""

from __future__ import annotations

import json

import command_lines
import numpy as np
import pytest
from checkpoint_runs import same_end
from forked import start_ranks
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.policy.trainer import PolicyTrainer
from llm.rewards import bench
from llm.run.run_differences import remarks
from robust_rlhf import main

GOOD = "def length(completions, **columns):\n    return [min(len(str(c)), 100) / 100 for c in completions]\n"
FAULTS = {
    "raises": ("    raise ValueError('no')", "checks.py:f raised ValueError: no (checks.py, line 3)"),
    "hangs": ("    while True: pass", "did not answer within 2 s (reward_seconds)"),
    "nan": ("    return [float('nan')] * len(completions)", "gave nan"),
    "too few": ("    return [1.0]", "gave 1 scores for 8 answers"),
    "text": ("    return 'good'", "gave str ('good')"),
    "ends": ("    import os; os._exit(1)", "ended its process, with status 1,"),
    "scores nothing": ("    return [None] * len(completions)", "f: no answer to prompt"),
}


@pytest.fixture(scope="module")
def place(once):
    def build(folder):
        save_models(folder, generate(48, seed=11), max_length=96)

    return once("checked-runs", build)


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    bench.close_all()


def flags(place, output, **more):
    told = {
        "config": "policy-tiny", "model": place / "start", "train_file": "task:addition?n=24&seed=1",
        "output_dir": output, "reward_model": "number", "max_steps": 2, "prompts_per_step": 4, "samples": 2,
        "max_new_tokens": 6, "max_length": 96, "save_steps": 1, "logging_steps": 1, "disable_tqdm": True,
        "use_cpu": True, "plain_share": 0, **more,
    }  # fmt: skip
    return command_lines.flags(told)


def file_of(tmp_path, code, name="checks.py"):
    file = tmp_path / name
    file.write_text(code)
    return file


def test_a_mixture_is_logged_by_part_judged_and_on_the_card(place, tmp_path):
    file, run = file_of(tmp_path, GOOD), tmp_path / "run"
    rewards = ["number", f"{file}:length:0.5", f"{place / 'rm'}:0.1"]
    suite = "task:addition?n=6&seed=2&split=test"
    argv = flags(
        place, run, reward_model=rewards, gold="exact", suites=suite, eval_samples=2, ambiguity="tv:0.3,by=source"
    )
    assert main(["train", "policy", *argv]) == 0
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["reward_model"] == rewards
    for row in record["history"]:
        parts = 1.0 * row["reward/number"] + 0.5 * row["reward/length"] + 0.1 * row["reward/rm"]
        assert row["reward"] == pytest.approx(parts, rel=1e-5)
        assert row["unscored/length"] == 0
        assert row["gold"] == 0
    (judged,) = json.loads((run / "metrics.json").read_text())["suites"].values()
    assert judged["overall"]["prompts"] == 6
    assert judged["overall"]["gold"]["mean"] == 0
    assert judged["overall"]["reward"]["mean"] != 0
    card = (run / "model" / "README.md").read_text()
    assert "number + checks.py:length:0.5 + rm:0.1" in card.replace("\\", "")
    assert str(tmp_path) not in card
    other = record | {"config": record["config"] | {"reward_model": "number"}}
    (said,) = remarks(["a", "b"], [record, other])
    assert f"reward model {' + '.join(rewards)} against number" in said


def test_a_run_that_is_checked_goes_on_as_if_it_had_not_stopped(place, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    told = {"reward_model": ["number", f"{file_of(tmp_path, GOOD)}:length"], "max_steps": 3}
    assert main(["train", "policy", *flags(place, whole, **told)]) == 0
    look, calls = PolicyTrainer.weigh, []

    def killed(self, known, rows):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return look(self, known, rows)

    monkeypatch.setattr(PolicyTrainer, "weigh", killed)
    assert main(["train", "policy", *flags(place, broken, **told)]) == 130
    monkeypatch.setattr(PolicyTrainer, "weigh", look)
    assert main(["train", "policy", *flags(place, broken, resume=True, reward_seconds=17, **told)]) == 0
    assert same_end(whole, broken)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"file": GOOD + "# another\n"}, "another content of reward_model"),
        ({}, {"gold": "exact"}, "another gold"),
        ({}, {"reward_model": "number"}, "another"),
        ({}, {"train_file": "task:addition?n=24&seed=2"}, "another"),
        ({"reward_model": "number"}, {"reward_model": "number?tolerance=1"}, "another reward_model"),
    ],
    ids=["the function's file", "a gold", "another checker", "another seed", "another option"],
)  # fmt: skip
def test_what_scores_is_part_of_the_run(before, after, said, place, tmp_path, capsys):
    file = file_of(tmp_path, GOOD)
    told = {"reward_model": f"{file}:length", "max_steps": 1} | before
    assert main(["train", "policy", *flags(place, tmp_path / "run", **told)]) == 0
    if code := after.pop("file", None):
        file.write_text(code)
    assert main(["train", "policy", *flags(place, tmp_path / "run", **told | after, resume=True)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("robust-rlhf: ") == 1


def test_a_module_and_a_schema_are_part_of_the_run_too(place, tmp_path, monkeypatch):
    from llm.policy.config import PolicyConfig

    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack").mkdir()
    file_of(tmp_path / "pack", GOOD, "checks.py")
    config = PolicyConfig(
        train_file="x", reward_model=["pack.checks:length", "json_schema:s.json", "exact"], gold="a/b:2"
    )
    assert {name: read for name, read in config.reads().items() if read} == {
        "model": "smollm2",
        "reward_model length": str(tmp_path / "pack" / "checks.py"),
        "reward_model json_schema": "s.json",
        "gold": "a/b",
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_the_run_in_one_sentence_before_the_update(fault, place, tmp_path, capsys):
    body, said = FAULTS[fault]
    file = file_of(tmp_path, f"# a check\ndef f(completions, **columns):\n{body}\n")
    run = tmp_path / "run"
    assert main(["train", "policy", *flags(place, run, reward_model=f"{file}:f", reward_seconds=2)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "and the policy was not updated" in error
    assert error.count("\n") == error.count("robust-rlhf: ") == 1
    assert not list(run.glob("checkpoint-*"))


@pytest.mark.parametrize("where", ["train_file", "suites"])
def test_prompts_without_answers_are_refused_before_the_run(where, place, tmp_path, capsys):
    rows = [{"prompt": f"What is {n} + 1?", **({"answer": n + 1} if n % 3 else {})} for n in range(9)]
    file = tmp_path / "some.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["train", "policy", *flags(place, tmp_path / "run", **{where: file})]) == 2
    error = capsys.readouterr().err
    assert "3 of 9 have no `answer`, 'some-00000' first" in error
    assert not (tmp_path / "run" / "run.json").exists()
    assert not list((tmp_path / "run").glob("checkpoint-*"))


@pytest.mark.exhaustive(turns=8)
def test_a_rank_whose_checker_fails_ends_all_ranks_with_its_sentence(place, tmp_path):
    """It fails on one of the two: the other one waits for nothing."""
    code = "import os\n\ndef f(completions, source, **columns):\n    return [1 / (s != '1 digits') for s in source]\n"
    file = file_of(tmp_path, code)
    argv = flags(place, tmp_path / "run", reward_model=f"{file}:f", train_file="task:addition?n=24&seed=1&digits=2",
                 prompts_per_step=1, max_steps=12, ddp_timeout=60)  # fmt: skip
    ranks = start_ranks(main, ["train", "policy", *argv])
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert sum(text.count("raised ZeroDivisionError") for text in said) == 1
    assert "ddp_timeout" not in "".join(said)


@pytest.mark.slow("it trains until it has learned")
def test_a_checked_policy_learns(place, tmp_path):
    """Answers of one length are right: their share grows."""
    code = "def f(prompts, completions):\n    return [len(text.split()) < 3 for text in completions]\n"
    file = file_of(tmp_path, code)
    argv = flags(
        place,
        tmp_path / "run",
        reward_model=f"{file}:f",
        max_steps=30,
        samples=8,
        learning_rate=3e-3,
        kl_coefficient=0,
        save_steps=100,
    )
    assert main(["train", "policy", *argv]) == 0
    rewards = [row["reward"] for row in json.loads((tmp_path / "run" / "run.json").read_text())["history"]]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.2


@pytest.mark.parametrize("groups", ["keep", "leave_out", "draw_again"])
def test_a_step_without_signal_is_told_by_its_parts_too(groups, place, tmp_path):
    """All answers score alike: whether prompts are asked again or the step is skipped, the log has every part."""
    code = "def half(completions):\n    return [0.5] * len(completions)\n"
    rewards = [f"{file_of(tmp_path, code)}:half", "exact:2"]
    argv = flags(place, tmp_path / "run", reward_model=rewards, gold="exact", silent_groups=groups, draw_rounds=2)
    assert main(["train", "policy", *argv]) == 0
    history = json.loads((tmp_path / "run" / "run.json").read_text())["history"]
    told = dict.fromkeys(("reward/exact", "unscored/half", "gold"), 0.0) | {"reward/half": 0.5, "reward": 0.5}
    assert [{name: row[name] for name in told} for row in history] == [told] * 2
    assert {row["skipped"] for row in history} == {float(groups != "keep")}
