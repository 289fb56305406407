"""Policy runs as users start them: from a folder and a recipe, over ranks, interrupted, resumed and judged."""

from __future__ import annotations

import json
import shutil
import signal

import command_lines
import numpy as np
import policy_killed_rank
import policy_sharded_ranks
import policy_two_ranks
import pytest
import torch
from checkpoint_runs import same_end, untimed
from forked import Forked, finished, start_ranks
from policy_two_ranks import CASES
from safetensors.torch import load_file
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models.loading import load_policy
from llm.policy.actor_critic import Reference
from llm.policy.config import PolicyConfig
from llm.policy.rollouts import batch_of
from llm.policy.run import build_policy_trainer
from llm.policy.token_draws import Lots, Purpose
from llm.policy.trainer import PolicyTrainer
from llm.run.folder import latest_checkpoint
from llm.training.settings import parse_train
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pairs, a small policy and a small reward model with another vocabulary, as folders."""
    folder = tmp_path_factory.mktemp("policy")
    pairs = generate(48, seed=11)
    write_pairs(pairs, folder / "train.jsonl")
    save_models(folder, pairs, max_length=96)
    return folder


def flags(place, output, **more):
    told = {
        "config": "policy-tiny", "model": place / "start", "train_file": place / "train.jsonl", "output_dir": output,
        "reward_model": place / "rm",
        "max_steps": 3, "prompts_per_step": 4, "samples": 2, "max_new_tokens": 6, "max_length": 96,
        "save_steps": 1, "save_total_limit": 9, "logging_steps": 1, "disable_tqdm": True, "use_cpu": True,
        "plain_share": 0, **more,
    }  # fmt: skip
    return command_lines.flags(told)


def test_a_run_is_logged_exported_judged_and_reused(place, tmp_path, capsys):
    run, suite = tmp_path / "run", place / "train.jsonl"
    argv = flags(place, run, ambiguity="tv:0.3,by=source", gold="builtin", suites=suite, eval_prompts=6, eval_samples=2,
                 estimator="ppo", report_to="tensorboard")  # fmt: skip
    assert main(["train", "policy", *argv]) == 0
    assert "train" in capsys.readouterr().out
    record = json.loads((run / "run.json").read_text())
    assert [row["step"] for row in record["history"]] == [1, 2, 3]
    assert (record["acted"], record["inaction"]) == (True, None)
    logged = {"reward", "gold", "kl", "clip_fraction", "entropy", "value_loss", "explained_variance", "answer_tokens",
              "ended_share", "effective_sample_size", "largest_multiplier",
              "robust_return", "learning_rate"}  # fmt: skip
    assert logged <= record["history"][-1].keys()
    sample = record["history"][-1]["samples"][0]
    assert sample["prompt"] in suite.read_text()
    assert sample.keys() == {"prompt", "answer", "score", "kl"}
    assert abs(record["history"][0]["kl"]) < 1e-6  # the policy is its own reference
    assert {"by_source", "overall"} <= json.loads((run / "metrics.json").read_text())["suites"]["train"].keys()
    stored = np.load(run / "scores.npz")
    assert stored["train/gold"].shape == stored["train/kl"].shape == (6, 2)
    assert "tv:0.3,by=source" in (run / "model" / "README.md").read_text()
    assert list(run.rglob("events.out.tfevents*"))
    assert main(["doctor", str(run)]) in (0, 1)  # other suite records than those of pairs
    assert "length" in capsys.readouterr().out
    model, tokenizer = load_policy(str(run / "model"))
    assert tokenizer.model_max_length == 96
    start = load_policy(str(place / "start"))[0]
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    assert main(["train", "policy", *argv]) == 2  # a finished run is not trained over
    assert "--resume" in capsys.readouterr().err


@pytest.mark.slow("a whole run, a killed one, and its continuation")
@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "ppo"},
        {"ambiguity": "running:0.5:gr_dpo:0.5,by=source", "optim": "adamw_torch", "logging_steps": 3},
        pytest.param({"ambiguity": "shrunk:4:running:0.5:tv:0.3"}, marks=pytest.mark.exhaustive),
        {"estimator": "dr_grpo", "silent_groups": "draw_again", "length_divisor": "batch", "reward_model": "builtin"},
        {"ambiguity": "tv:0.5", "adversary_acts": "draws", "estimator": "grpo", "kl_in": "loss"},
    ],
)
def test_a_run_killed_in_mid_rollout_ends_as_if_it_had_not_been(settings, place, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["train", "policy", *flags(place, whole, **settings)]) == 0
    look, calls = PolicyTrainer.weigh, []

    def killed(self, known, rows):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return look(self, known, rows)

    monkeypatch.setattr(PolicyTrainer, "weigh", killed)
    assert main(["train", "policy", *flags(place, broken, **settings)]) == 130
    monkeypatch.setattr(PolicyTrainer, "weigh", look)
    assert latest_checkpoint(broken).name == "checkpoint-2"
    (broken / "checkpoint-3").mkdir()  # half-written
    assert main(["train", "policy", *flags(place, broken, resume=True, **settings)]) == 0
    assert same_end(whole, broken)
    histories = [untimed(json.loads((run / "run.json").read_text())["history"]) for run in (whole, broken)]
    assert histories[0] == histories[1]


def test_another_setting_is_not_resumed(place, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "policy", *flags(place, run, max_steps=1)]) == 0
    assert main(["train", "policy", *flags(place, run, max_steps=1, resume=True, kl_coefficient=0.3)]) == 2
    assert "another kl_coefficient" in capsys.readouterr().err


def test_a_dry_run_says_what_would_happen_and_writes_nothing(place, tmp_path, capsys):
    argv = flags(place, tmp_path / "none", dry_run=True, max_length=40, estimator="ppo", value_model="shared")
    assert main(["train", "policy", *argv]) == 0
    said = capsys.readouterr().out
    assert "8 answers = 4 prompts x 2" in said
    assert not (tmp_path / "none").exists()


def test_long_prompts_are_left_out_and_counted(place, tmp_path, capsys):
    argv = flags(place, tmp_path / "x", max_length=30)
    subject, data = build_policy_trainer(*parse_train(PolicyConfig, argv))
    assert data["too_long"] > 0
    assert data["trained_on"] == len(subject.prompts) == len(subject.encoded)
    assert max(map(len, subject.encoded)) <= 30 - 6
    assert main(["train", "policy", *argv, "--max_length", "8"]) == 2
    assert "every prompt has more than the 2 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reward_model": "nowhere"}, "cannot load a model from 'nowhere'"),
        ({"reward_model": "start"}, "has no whole reward head"),
        ({"model": "rm"}, "cannot load a model"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps does nothing here"),
        ({"prompts_per_step": 400}, "a step needs 400 prompts"),
        ({"eval_strategy": "steps"}, "eval_strategy does nothing in a policy run"),
        ({"reward_model": ""}, "reward_model is missing"),
    ],
)
def test_wrong_input_ends_in_one_sentence(wrong, said, place, tmp_path, capsys):
    wrong = {name: place / value if value in ("start", "rm") else value for name, value in wrong.items()}
    assert main(["train", "policy", *flags(place, tmp_path / "x", **wrong)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_one_trunk_serves_policy_reference_and_values(place, tmp_path):
    pytest.importorskip("peft")
    shared = flags(place, tmp_path / "x", lora_rank=4, estimator="ppo", value_model="shared")
    subject, _ = build_policy_trainer(*parse_train(PolicyConfig, shared))
    assert subject.reference.model is None
    start = load_policy(str(place / "start"))[0]
    extra = sum(p.numel() for p in subject.core.parameters()) - sum(p.numel() for p in start.parameters())
    adapter = sum(p.numel() for name, p in subject.core.named_parameters() if "lora_" in name)
    assert extra == adapter + 129  # the head of a trunk 128 wide
    subject.take_step()
    answers = subject.pen(subject.core.policy, subject.encoded[:3], Lots(1, Purpose.TRAINING))
    batch = batch_of(answers, subject.update.pad)
    by_adapter = subject.reference.logps(subject.core.policy, batch, temperature=1.0)
    alone = Reference(start).logps(start, batch, temperature=1.0)
    assert torch.allclose(by_adapter, alone, atol=1e-5)
    assert not torch.allclose(subject.core(batch).logps, alone, atol=1e-5)


@pytest.fixture(scope="module")
def both_worlds(once):
    def build(folder):
        finished([Forked(policy_two_ranks.main, folder, 1), *start_ranks(policy_two_ranks.main, folder, 2)])

    folder = once("policy-worlds", build)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")}


@pytest.mark.parametrize("case", range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_move_the_policy_as_one_does(case, both_worlds):
    one, first, second = (np.array(both_worlds[name][case]) for name in ("1-0", "2-0", "2-1"))
    assert np.abs(one).max() > 0.005
    np.testing.assert_allclose(first, one, atol=1e-12)
    np.testing.assert_array_equal(first, second)


def test_two_processes_draw_what_one_draws(both_worlds):
    """Over two steps: the second draws from weights that the first has moved."""
    one, first, second = (both_worlds[name][-1] for name in ("1-0", "2-0", "2-1"))
    assert len(one) == 2 * 4 * 4
    assert len({str(answer) for answer in one}) > 20
    assert sorted(first + second) == sorted(one)
    assert len(first) == len(second)


@pytest.mark.exhaustive(turns=8)
def test_a_rank_killed_within_a_step_ends_the_other_and_the_run_goes_on(place, tmp_path):
    """It dies with its answers scored and its first gradients on the way; resumed, it is the run that was never hit."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    argv = flags(place, broken, ambiguity="tv:0.3,by=source", epochs=2, optim="adamw_torch", ddp_timeout=40)
    survivor, victim = start_ranks(policy_killed_rank.main, [str(whole), *argv])
    assert "dying within step 3" in victim.communicate(timeout=200)[0]
    assert victim.returncode == -signal.SIGKILL
    said = survivor.communicate(timeout=60)[0]
    assert survivor.returncode == 2, said
    assert said.count("robust-rlhf: ") == 1
    assert "another process ended or did not answer within ddp_timeout (40 s)" in said
    assert latest_checkpoint(broken).name == "checkpoint-2"
    assert not (broken / "model").exists()
    finished(start_ranks(main, ["train", "policy", *argv, "--resume", "True"]))
    assert same_end(whole, broken)
    histories = [untimed(json.loads((run / "run.json").read_text())["history"]) for run in (whole, broken)]
    assert histories[0] == histories[1]


@pytest.mark.exhaustive(turns=8)
def test_a_spread_policy_is_exported_whole_and_goes_on_where_it_is_not(place, tmp_path, capsys):
    """Under FSDP2 on two processes with an adapter; then from its second checkpoint on one, with as many prompts."""
    spread, one = tmp_path / "spread", tmp_path / "one"
    told = {"ambiguity": "tv:0.3", "lora_rank": 4, "optim": "adamw_torch", "estimator": "ppo"}
    finished(start_ranks(policy_sharded_ranks.whole_run, flags(place, spread, **told)))
    assert main(["train", "policy", *flags(place, one, **told | {"prompts_per_step": 8})]) == 0
    models = [load_file(run / "model" / "model.safetensors") for run in (spread, one)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.allclose(part, models[1][name], atol=1e-5) for name, part in models[0].items())

    for place_ in ("run.json", "finished.json", "model", "checkpoint-3"):
        gone = spread / place_
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    on_one = ["train", "policy", *flags(place, spread, **told | {"prompts_per_step": 8}), "--resume", "True"]
    assert main(on_one) == 2
    said = capsys.readouterr().err
    assert "started with another" in said
    assert "world_size" in said
    assert main([*on_one, "--force", "True"]) == 0
    again = load_file(spread / "model" / "model.safetensors")
    assert all(torch.allclose(part, models[1][name], atol=1e-5) for name, part in again.items())
