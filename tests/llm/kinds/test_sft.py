"""Supervised fine-tuning: losses, gradients and held-out numbers one sequence at a time, then whole runs."""

from __future__ import annotations

import copy
import json
from functools import partial

import numpy as np
import pytest
import robust_trainers
import torch
from checkpoint_runs import same_end
from robust_trainers import CATEGORIES, PAIRS, Gradients, arguments, relative_error, seen_rows
from test_dpo import plain_logps
from transformers import set_seed
from whole_runs import broken_off, files_of, margins, train_command, wrong

from dro_core import parse_ambiguity, robust_loss
from llm.data.corpus.corpus import generate
from llm.kinds.sft import SFTTask, SFTTrainer
from llm.models.loading import load_policy, tiny_policy
from llm.models.logprobs import answer_tokens
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.config import SFTConfig
from llm.training.run import train_run
from llm.training.settings import parse_train
from robust_rlhf import main

LENGTH = 96


def begin():
    """A tiny policy in float64, far enough from its initialisation that losses differ; tokenizer; data."""
    set_seed(0)
    model, tokenizer = tiny_policy((pair.chosen + pair.rejected for pair in PAIRS), max_length=LENGTH)
    model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, tokenizer, encode_pairs(PAIRS, tokenizer, max_length=LENGTH)


@pytest.fixture(scope="module")
def start():
    return begin()


trainer_for = partial(robust_trainers.trainer_for, kind=SFTTrainer)


def plain_loss(model, item):
    first, end = item["chosen_span"]
    return -plain_logps(model, item["chosen"], (first, end)) / (end - first)


def full_gradient(start, rows, spec):
    """One sequence at a time, unpadded, the whole softmax, then one backward: no trainer involved."""
    model, _, data = start
    model = copy.deepcopy(model)
    losses = torch.stack([plain_loss(model, data[int(row)]) for row in rows])
    ambiguity = parse_ambiguity(spec)
    if ambiguity is not None:
        ambiguity = ambiguity.bind({"category": [CATEGORIES[row] for row in rows]})
    (losses.mean() if ambiguity is None else robust_loss(losses, ambiguity)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("spec", "micro", "steps", "passes"),
    [
        ("erm", 16, 1, "auto"),
        ("erm", 4, 4, "auto"),
        ("tv:0.4", 4, 4, "two"),
        ("kl:0.3", 16, 1, "two"),
        ("cvar:0.3", 16, 1, "auto"),
        ("tv:0.3,by=category", 8, 2, "two"),
    ],
)
def test_gradient_is_that_of_one_sequence_after_the_other(start, tmp_path, spec, micro, steps, passes):
    gradients = Gradients()
    trainer = trainer_for(
        start, arguments(tmp_path, micro=micro, steps=steps), spec, callbacks=[gradients], passes=passes
    )
    trainer.train()
    rows = seen_rows(trainer)
    assert len(rows) == 16
    # Weights are float32 where examples are reweighted; equal ones are exact.
    assert relative_error(gradients.first, full_gradient(start, rows, spec)) <= (1e-12 if spec == "erm" else 1e-6)


def test_loss_of_an_example_is_that_of_transformers(start, tmp_path):
    """Its causal-LM loss with every label but the answer's ignored, which it takes in float32."""
    model, tokenizer, data = start
    trainer = trainer_for(start, arguments(tmp_path), "erm")
    batch = PairCollator(tokenizer).of("chosen")([data[row] for row in range(8)])
    found = trainer.example_losses(trainer.model, batch)
    for row in range(8):
        ids, (first, end) = torch.tensor([data[row]["chosen"]]), data[row]["chosen_span"]
        labels = torch.full_like(ids, -100)
        labels[0, first:end] = ids[0, first:end]
        torch.testing.assert_close(found[row], model(input_ids=ids, labels=labels).loss.double(), rtol=1e-6, atol=0)
    assert np.ptp(found.tolist()) > 0.1


def test_a_first_token_is_no_token_to_predict():
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert answer_tokens({"answer_mask": mask}).tolist() == [1, 3, 1, 1]


def test_training_reads_the_chosen_answers_alone_and_pads_to_them(start, tmp_path):
    _, tokenizer, data = start
    trainer = trainer_for(start, arguments(tmp_path), "tv:0.2", passes="two")
    seen = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    trainer.train()
    chosen = {tuple(data[row]["chosen"]) for row in range(len(data))}
    read = [
        [tuple(token for token in row if token != tokenizer.pad_token_id) for row in sequences] for sequences in seen
    ]
    assert {row for rows in read for row in rows} <= chosen
    assert sum(map(len, read[:4])) == 16
    assert all(len(batch[0]) - max(map(len, rows)) < 8 for batch, rows in zip(seen[:4], read[:4], strict=True))
    assert sum(map(len, seen[4:])) < 16  # those without weight are not read again


def test_held_out_numbers_are_those_of_one_pair_after_the_other(start, tmp_path):
    model, _, data = start
    trainer = trainer_for(start, arguments(tmp_path, per_device_eval_batch_size=5), "erm", eval_dataset=data)
    trainer.compute_metrics = trainer.held_out_metrics(PAIRS)
    found = trainer.evaluate()
    items = [data[row] for row in range(len(data))]
    with torch.no_grad():
        chosen, rejected = (
            np.array([float(plain_logps(model, item[side], item[f"{side}_span"])) for item in items])
            for side in ("chosen", "rejected")
        )
    tokens = np.array([end - first for first, end in (item["chosen_span"] for item in items)])
    losses, right = -chosen / tokens, chosen > rejected
    groups = [np.array(CATEGORIES) == name for name in set(CATEGORIES)]
    expected = {
        "loss": losses.mean(),
        "token_loss": -chosen.sum() / tokens.sum(),
        "accuracy": right.mean(),
        "worst_category_loss": max(losses[group].mean() for group in groups),
        "worst_category_accuracy": min(right[group].mean() for group in groups),
    }
    assert {name: found[f"eval_{name}"] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert abs(expected["loss"] - expected["token_loss"]) > 1e-3
    assert 0 < expected["accuracy"] < 1
    assert not trainer.logistic


# whole runs


@pytest.fixture(scope="module")
def files(once):
    return files_of(once)


def command(files, output, *extra):
    settings = {"ambiguity": "tv:0.3,by=category", "max_steps": 9, "save_steps": 3, "lora_rank": 4}
    settings |= {"validation_share": 0.2, "final": "best"}
    return train_command("sft", files / "train.jsonl", output, *extra, **settings)


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(files, output, "--suites", str(files / "suite.jsonl"))) == 0
    return output


@pytest.mark.slow("three runs")
def test_an_interrupted_run_ends_as_an_uninterrupted_one(files, finished, tmp_path):
    output = tmp_path / "run"
    config, arguments = parse_train(SFTConfig, command(files, output)[2:])
    with pytest.raises(RuntimeError, match="power failure"):
        train_run(broken_off(SFTTask, after=8)(config), arguments)
    assert main(command(files, output, "--resume")) == 0
    assert same_end(output, finished)


def test_a_run_learns_and_exports_its_iterate_of_least_loss(finished):
    record = json.loads((finished / "run.json").read_text())
    losses = [row["eval_loss"] for row in record["history"] if "eval_loss" in row]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 0.01
    state = json.loads((finished / "checkpoint-9" / "trainer_state.json").read_text())
    assert state["best_metric"] == min(losses)
    assert all(example["margin"] is None for example in record["adversary"]["top"])
    card = (finished / "model" / "README.md").read_text()
    for said in (
        "- sft\n",
        "# Imitating policy",
        "LoRA of rank 4, merged",
        "summed over tokens",
        "tv:0.3,by=category",
    ):
        assert said in card
    assert "beta" not in card


def test_judging_again_needs_no_reference_and_gives_the_same_margins(files, finished, tmp_path, capsys):
    flags = ["--suite", str(files / "suite.jsonl"), "--output", str(tmp_path)]
    assert "--reference none to rank by log pi" in wrong(capsys, "evaluate", str(finished / "model"), *flags)
    assert main(["evaluate", str(finished / "model"), *flags, "--reference", "none"]) == 0
    again, before = margins(tmp_path), margins(finished)
    assert again == pytest.approx(before, abs=1e-4)
    model, tokenizer = load_policy(str(finished / "model"))
    item = encode_pairs(generate(24, seed=4), tokenizer, max_length=48)[0]
    with torch.no_grad():
        logps = [float(plain_logps(model, item[s], item[f"{s}_span"])) for s in ("chosen", "rejected")]
    assert again[0] == pytest.approx(logps[0] - logps[1], rel=1e-4)


def test_dry_run_counts_the_chosen_answers_alone(files, tmp_path, capsys):
    assert main(command(files, tmp_path / "run", "--dry_run", "true")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    pairs = parse_train(SFTConfig, command(files, tmp_path / "run")[2:])[0]
    assert "Plan: imitating policy against tv:0.3,by=category" in printed
    assert "tokens a sequence (chosen)" in printed
    assert pairs.best_metric == "loss"
    assert not (tmp_path / "run").exists()
