"""Runs that a signal comes over, what they leave running, and what they said."""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from pathlib import Path

import torch
from command_lines import flags
from transformers import Trainer

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models.loading import tiny_policy
from llm.policy.trainer import PolicyTrainer
from robust_rlhf import main

KINDS = ["sft", "reward", "dpo", "policy"]
STEPS = 6
TRAINING_STEP = "transformers:Trainer:training_step"
SWEEP = {
    "data": "builtin",
    "builtin": {"train": 160, "test": 40},
    "models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 30, "batch_size": 16}},
    "grid": [{"ambiguity": ["erm", "tv:0.2", "tv:0.4"], "seeds": 40}],
}


def place_of(once):
    """Pairs, and a policy to start from."""
    return once("signals", _make_inputs)


def _make_inputs(folder):
    pairs = generate(64, seed=11)
    write_pairs(pairs, folder / "train.jsonl")
    torch.manual_seed(0)
    for part in tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=64):
        part.save_pretrained(folder / "start")


def arguments(kind, place, output, *more):
    told = {"config": f"{kind}-tiny", "train_file": place / "train.jsonl", "output_dir": output, "max_steps": STEPS,
            "max_length": 64, "ambiguity": "tv:0.3", "logging_steps": 3, "save_steps": 50, "plain_share": 0,
            "use_cpu": "true", "disable_tqdm": "true"}  # fmt: skip
    if kind == "policy":
        told |= {
            "model": place / "start",
            "reward_model": "builtin",
            "prompts_per_step": 4,
            "samples": 4,
            "max_new_tokens": 6,
        }
    else:
        told |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    return ["train", kind, *flags(told), *more]


def signalled(monkeypatch, kind, numbers, at):
    """Let the process signal itself within its ``at``-th step."""
    owner, name = (PolicyTrainer, "take_step") if kind == "policy" else (Trainer, "training_step")
    step, per_step, calls = getattr(owner, name), 1 if kind == "policy" else 2, []

    def hit(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == per_step * at:
            for number in numbers:
                os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, hit)


def history(run):
    return json.loads((run / "run.json").read_text())["history"]


def losses(run):
    return [row["train_loss"] for row in history(run) if "train_loss" in row]


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.said()
        assert time.monotonic() < end, process.said()
        time.sleep(0.02)


def running(session):
    """The living processes of a session: their numbers, and their command lines."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, owner = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            said = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has just ended
            continue
        if int(owner) == session and state != "Z":
            found[int(folder.name)] = said
    return found


def terminated(process, seconds=60):
    """Send SIGTERM to that process alone; its status and what it said, when nothing it started is left."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=seconds)[0]
    end = time.monotonic() + 10
    while left := running(process.pid):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    assert "Traceback" not in said
    return process.returncode, said


def hit_in(place, at, argv, event=lambda: os.kill(os.getpid(), signal.SIGTERM)):
    """Run a command that something happens to, SIGTERM if not told otherwise, at the ``at``-th call of a function."""
    module, *names = place.split(":")
    owner = importlib.import_module(module)
    for name in names[:-1]:
        owner = getattr(owner, name)
    function, calls = getattr(owner, names[-1]), []

    def hit(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            event()
        return function(*args, **kwargs)

    setattr(owner, names[-1], hit)
    return main(argv)


def ended(ranks, seconds=60):
    """What all ranks said; none outlives the test."""
    try:
        return [rank.communicate(timeout=seconds)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
