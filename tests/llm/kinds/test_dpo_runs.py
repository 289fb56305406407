"""Whole DPO runs through the command line: adapters, references on disk, interruption, judging, wrong input."""

from __future__ import annotations

import html
import json
import shutil

import pytest
import torch
from checkpoint_runs import same_end
from safetensors.torch import load_file
from whole_runs import broken_off, files_of, margins, train_command, wrong

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.dpo import DPOTask
from llm.models.loading import load_policy
from llm.training.config import DPOConfig
from llm.training.run import train_run
from llm.training.settings import parse_train
from robust_rlhf import main

STEPS, SAVE_EVERY = 12, 4


@pytest.fixture(scope="module")
def files(once):
    return files_of(once)


def command(files, output, *extra):
    rule = "gr_dpo:0.5,by=category"  # with state: it must survive the interruption
    steps = {"max_steps": STEPS, "save_steps": SAVE_EVERY}
    return train_command("dpo", files / "train.jsonl", output, *extra, ambiguity=rule, **steps)


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(files, output, "--lora_rank", "4", "--suites", str(files / "suite.jsonl"))) == 0
    return output


@pytest.mark.slow("three runs")
def test_interrupted_adapter_run_ends_as_uninterrupted(files, finished, tmp_path):
    output = tmp_path / "run"
    flags = ["--lora_rank", "4"]
    config, arguments = parse_train(DPOConfig, command(files, output, *flags)[2:])
    with pytest.raises(RuntimeError, match="power failure"):
        train_run(broken_off(DPOTask, after=10)(config), arguments)
    assert main(command(files, output, *flags, "--resume")) == 0
    assert same_end(output, finished)


def test_judging_again_gives_the_same_margins(files, finished, tmp_path, capsys):
    """The export has the adapter merged in; the policy it started from lies beside it."""
    reference = str(finished / "reference")
    flags = ["--suite", str(files / "suite.jsonl"), "--reference", reference, "--output", str(tmp_path)]
    assert main(["evaluate", str(finished / "model"), *flags]) == 0
    again, before = margins(tmp_path), margins(finished)
    assert len(again) == 24
    assert again == pytest.approx(before, abs=1e-5)
    assert max(map(abs, again)) > 1e-3
    capsys.readouterr()
    own = ["--suite", str(files / "suite.jsonl"), "--output", str(tmp_path / "own")]
    assert main(["evaluate", str(finished / "model"), *own]) == 0  # a run knows its reference and its loss
    assert margins(tmp_path / "own") == pytest.approx(before, abs=1e-5)
    assert main(["evaluate", reference, "--suite", str(files / "suite.jsonl")]) == 2
    assert "give --reference" in capsys.readouterr().err


def test_card_says_what_was_trained_against_what(finished):
    card = (finished / "model" / "README.md").read_text()
    for said in (
        "pipeline_tag: text-generation",
        "`gr_dpo:0.5,by=category`",
        "reference tiny",
        "LoRA of rank 4, merged",
    ):
        assert said in card
    assert not (finished / "model" / "adapter_config.json").exists()


def test_an_adapter_exported_alone_needs_its_base_and_finds_it(files, finished, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(finished / "reference", start)
    output = tmp_path / "run"
    flags = ["--model", str(start), "--lora_rank", "2", "--merge_adapter", "false", "--max_steps", "2"]
    assert main(command(files, output, *flags, "--learning_rate", "1e-2")) == 0
    assert (output / "model" / "adapter_model.safetensors").exists()
    policy, _ = load_policy(str(output / "model"))
    base, _ = load_policy(str(start))
    changed = [n for n, p in policy.named_parameters() if not torch.equal(p, base.get_parameter(n))]
    assert changed
    shutil.rmtree(start)
    with pytest.raises(ValueError, match="start"):
        load_policy(str(output / "model"))


def test_a_reference_cache_is_shared_and_its_absence_of_change_is_checked(files, tmp_path, capsys):
    cache = tmp_path / "shared.npz"
    flags = ["--max_steps", "2", "--reference_cache", str(cache)]
    assert main(command(files, tmp_path / "one", *flags)) == 0
    stamp = cache.stat().st_mtime_ns
    assert main(command(files, tmp_path / "two", *flags, "--ambiguity", "tv:0.4")) == 0
    assert cache.stat().st_mtime_ns == stamp
    message = wrong(capsys, *command(files, tmp_path / "three", *flags, "--max_length", "32"))
    assert "another reference model, other pairs" in message


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--reference", "adapter"], "set lora_rank"),
        (["--loss", "unheard"], "sigmoid, ipo"),
        (["--beta", "0"], "beta must be positive"),
        (["--ambiguity", "dr_dpo:0"], "temperature"),
        (["--lora_rank", "4", "--lora_targets", "nowhere"], "nowhere"),
        (["--lora_rank", "4", "--merge_adapter", "false"], "tiny"),
        (["--patience", "2"], "final=best"),
        (["--adapt_radius", "true"], "held-out"),
        (["--lora_rank", "4", "--lora_dropout", "0.1"], "dropout is active"),
        (["--model", "no/such/policy"], "no/such/policy"),
        (["--push_to_hub", "true"], "--publish"),
        (["--adapt_radius", "true", "--validation_share", "0.3", "--save_strategy", "no"], "follows evaluations"),
    ],
)
def test_wrong_settings_get_one_sentence(files, tmp_path, capsys, extra, said):
    extra = ["--model", "tiny", *extra] if "--model" not in extra else extra
    assert said in wrong(capsys, *command(files, tmp_path / "run", *extra))
    assert not (tmp_path / "run" / "settings.json").exists()


def test_sequences_longer_than_the_context_are_refused(files, finished, tmp_path, capsys):
    flags = ["--model", str(finished / "reference"), "--max_length", "1024"]
    assert "reads at most 512" in wrong(capsys, *command(files, tmp_path / "run", *flags))


def test_an_upload_that_fails_leaves_a_finished_run(files, tmp_path, capsys):
    message = wrong(capsys, *command(files, tmp_path / "run", "--max_steps", "2", "--publish", "someone/policy"))
    assert "the run is finished" in message
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_policies_of_another_vocabulary_are_no_reference(files, finished, tmp_path, capsys):
    flags = ["--reference_model", str(finished / "reference")]  # its tokenizer was learnt from other texts
    other = tmp_path / "other.jsonl"
    write_pairs(generate(16, seed=9), other)
    message = wrong(capsys, *command(files, tmp_path / "run", *flags, "--train_file", str(other)))
    assert "different vocabularies" in message


def test_force_resumes_with_another_set_and_the_card_says_so(files, tmp_path, capsys):
    output = tmp_path / "run"
    assert main(command(files, output, "--max_steps", "4")) == 0
    change = ["--ambiguity", "tv:0.2", "--max_steps", "6", "--resume"]
    assert "--force" in wrong(capsys, *command(files, output, *change))
    assert main(command(files, output, *change, "--force")) == 0
    card = html.unescape((output / "model" / "README.md").read_text())
    assert "ambiguity: gr_dpo:0.5,by=category -> tv:0.2" in card
    assert "max_steps: 4 -> 6" in card
    assert json.loads((output / "run.json").read_text())["steps"] == 6


@pytest.mark.parametrize("change", [["--optim", "sgd"], ["--adam_beta1", "0.1"], ["--data_seed", "9"]])
def test_resuming_with_another_optimizer_is_refused(files, finished, capsys, change):
    flags = ["--lora_rank", "4", "--resume", *change]
    assert f"another {change[0][2:]}" in wrong(capsys, *command(files, finished, *flags))


def test_judging_against_another_vocabulary_is_refused(files, finished, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    write_pairs(generate(16, seed=9), other)
    short = ["--train_file", str(other), "--max_steps", "1", "--plain_share", "0"]
    assert main(command(files, tmp_path / "run", *short)) == 0
    flags = ["--suite", str(files / "suite.jsonl"), "--reference", str(tmp_path / "run" / "reference")]
    assert "different vocabularies" in wrong(capsys, "evaluate", str(finished / "model"), *flags)


def test_an_adapter_of_a_reward_model_is_judged_as_one(files, finished, tmp_path):
    """Its base is a causal model in bfloat16; the new head is kept and trained in float32."""
    flags = ["--model", str(finished / "reference"), "--lora_rank", "2", "--merge_adapter", "false"]
    flags += ["--dtype", "bfloat16", "--max_steps", "2", "--final", "last"]
    assert main(train_command("reward", files / "train.jsonl", tmp_path / "run", *flags, ambiguity="tv:0.2")) == 0
    head = next(t for n, t in load_file(tmp_path / "run/model/adapter_model.safetensors").items() if "score" in n)
    assert head.dtype == torch.float32
    assert main(["evaluate", str(tmp_path / "run/model"), "--suite", str(files / "suite.jsonl")]) == 0


def test_dry_run_prints_the_plan_and_leaves_nothing(files, tmp_path, capsys):
    assert main(command(files, tmp_path / "run", "--dry_run", "true")) == 0
    printed = capsys.readouterr().out
    for said in ("8 = 4 per device x 2 accumulated", "12 (8 per epoch)", "the adversary sees", "GiB"):
        assert said in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive(turns=8)
def test_radius_follows_the_held_out_loss_and_training_stops_early(files, tmp_path):
    """With a learning rate that ruins the policy nothing improves: the radius backs off, patience runs out."""
    flags = ["--adapt_radius", "true", "--validation_share", "0.3", "--final", "best", "--patience", "2"]
    flags += ["--metric_for_best_model", "worst_category_loss", "--learning_rate", "0.5", "--ambiguity", "tv:0.4"]
    flags += ["--plain_share", "0", "--ramp_share", "0", "--max_steps", "40", "--logging_steps", "1"]
    assert main(command(files, tmp_path / "run", *flags)) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    losses = [row["eval_worst_category_loss"] for row in record["history"] if "eval_worst_category_loss" in row]
    level, best, expected = 0.25, float("inf"), []
    for loss in losses:
        level = min(1.0, 1.5 * level) if loss < best else max(0.05, 0.5 * level)
        best = min(best, loss)
        expected.append(level)
    seen = {row["step"]: row["radius_fraction"] for row in record["history"] if "radius_fraction" in row}
    assert record["steps"] < 40
    assert seen[1] == pytest.approx(0.25)
    for number, fraction in enumerate(expected[:-1], start=1):
        assert seen[number * SAVE_EVERY + 1] == pytest.approx(fraction)


def test_tensorboard_gets_the_robust_diagnostics(files, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flags = ["--report_to", "tensorboard", "--max_steps", "2", "--logging_steps", "1"]
    assert main(command(files, tmp_path / "run", *flags)) == 0
    events = next(path for path in tmp_path.rglob("events.out.tfevents*"))
    account = EventAccumulator(str(events)).Reload()
    assert {"train/robust_loss", "train/effective_sample_size", "train/zero_share"} <= set(account.Tags()["scalars"])


@pytest.mark.exhaustive(turns=8)
def test_bf16_and_compiled_training_run(files, tmp_path):
    flags = ["--max_steps", "2", "--bf16", "true", "--torch_compile", "true", "--torch_compile_backend", "eager"]
    assert main(train_command("reward", files / "train.jsonl", tmp_path / "run", *flags, ambiguity="tv:0.2")) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()
