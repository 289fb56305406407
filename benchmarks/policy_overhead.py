"""What an adversary adds to a policy step: plain against robust, step by step, in one process.

    python benchmarks/policy_overhead.py               # five minutes on two busy cores
    python benchmarks/policy_overhead.py --steps 3     # to see that it works

Contestants take the same steps in turn, in another order every time, with the recipe policy-tiny on the built-in
corpus, from a policy that was fine-tuned on it. The learning rate is 0: updates are computed and change nothing, so all
write the same answers, and differ in what the adversary does alone. Its own work, from returns to weights, is timed
inside the step. Answers without any weight are not run through the model again, so a robust step can be cheaper than a
plain one; kl leaves none out, and a second plain contestant shows the noise.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from machine import cpu, revision
from numpy.typing import ArrayLike
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models.loading import tiny_reward_model
from llm.policy import experience
from llm.policy.config import PolicyConfig
from llm.policy.run import build_policy_trainer
from llm.policy.trainer import PolicyTrainer
from llm.policy.update import SurrogateUpdate
from llm.training.settings import parse_settings, read_recipe
from robust_rlhf import main as robust_rlhf

PLAIN = "erm"
SETS = (PLAIN, PLAIN, "tv:0.2", "tv:0.2,by=source", "kl:0.3")
UNTIMED = 2  # first steps, which allocate


@dataclass
class Contestant:
    """A trainer, and of each of its steps the seconds: whole, of the adversary, of the update."""

    name: str
    trainer: PolicyTrainer
    whole: list[float] = field(default_factory=list)
    adversary: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    left_out: list[float] = field(default_factory=list)

    def step(self) -> float:
        """Take a step; returns the mean score of its answers."""
        solve, update, whole = experience.prompt_multipliers, SurrogateUpdate.__call__, self.trainer.take_step
        with (
            mock.patch.object(experience, "prompt_multipliers", timed(solve, self.adversary)),
            mock.patch.object(SurrogateUpdate, "__call__", timed(update, self.update)),
        ):
            said = timed(whole, self.whole)()
        self.trainer.step += 1
        self.left_out.append(said["zero_share"])
        return said["reward"]


def timed(action: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """``action``, which notes how long it took."""

    def run(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        found = action(*given, **named)
        seconds.append(time.perf_counter() - start)
        return found

    return run


def prepare(folder: Path) -> None:
    """The corpus, a policy fine-tuned on it, a reward model with another tokenizer."""
    pairs = generate(2000, seed=3)
    write_pairs(pairs, folder / "train.jsonl")
    torch.manual_seed(0)
    reward, tokenizer = tiny_reward_model((pair.chosen for pair in pairs), max_length=128)
    reward.save_pretrained(folder / "reward")
    tokenizer.save_pretrained(folder / "reward")
    told = {"config": "sft-tiny", "train_file": folder / "train.jsonl", "output_dir": folder / "sft", "max_steps": 150,
            "logging_steps": 1000, "save_steps": 1000, "disable_tqdm": True, "use_cpu": True}  # fmt: skip
    status = robust_rlhf(["train", "sft", *(text for key, value in told.items() for text in (f"--{key}", str(value)))])
    if status:
        sys.exit(status)


def contestant(ambiguity: str, folder: Path) -> Contestant:
    """A trainer against this set, ready for its first step."""
    changes = {
        "model": folder / "sft" / "model",
        "reward_model": folder / "reward",
        "train_file": folder / "train.jsonl",
    }
    told = {"output_dir": folder / ambiguity, "ambiguity": ambiguity, "learning_rate": 0, "plain_share": 0,
            "use_cpu": True, "disable_tqdm": True}  # fmt: skip
    settings = read_recipe("policy-tiny") | {name: str(value) for name, value in (changes | told).items()}
    return Contestant(ambiguity, build_policy_trainer(*parse_settings(PolicyConfig, settings, where="benchmark"))[0])


def race(contestants: Sequence[Contestant], *, steps: int) -> None:
    """Let all take every step, in an order drawn anew; they must write the same answers."""
    rng = np.random.default_rng(0)
    for _ in range(UNTIMED + steps):
        rewards = {contestants[place].step() for place in rng.permutation(len(contestants))}
        if len(rewards) > 1:
            sys.exit(f"the contestants wrote different answers (mean scores {rewards}), so their times say nothing")


def quartiles(values: ArrayLike, *, form: str = ".3f") -> str:
    """The median and, in brackets, the quartiles.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    '3.000 [2.000, 4.000]'
    """
    low, middle, high = np.percentile(np.asarray(values), [25, 50, 75])
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def table_of(contestants: Sequence[Contestant], *, steps: int) -> Table:
    """A row per contestant; ratios are to the plain one's same step."""
    table = Table(
        title=f"A policy step, {steps} of each: median and quartiles",
        caption=f"{cpu()}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} cores, revision {revision()}",
        box=SIMPLE_HEAD,
    )
    for heading in ("set", "step / plain", "update / plain", "adversary, % of plain step", "prompts left out, %"):
        table.add_column(heading, justify="left" if heading == "set" else "right")
    plain = contestants[0]
    for one in contestants:
        whole, update, adversary, reference, its_update = (
            np.array(seconds[UNTIMED:]) for seconds in (one.whole, one.update, one.adversary, plain.whole, plain.update)
        )
        ratios = [quartiles(whole / reference), quartiles(update / its_update)]
        share = quartiles(100 * adversary / reference)
        table.add_row(one.name, *ratios, share, f"{100 * np.mean(one.left_out[UNTIMED:]):.1f}")
    return table


def main() -> None:
    """Race, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="timed steps of each contestant")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as place:
        prepare(Path(place))
        contestants = [contestant(ambiguity, Path(place)) for ambiguity in SETS]
        race(contestants, steps=steps)
    Console(width=120).print(table_of(contestants, steps=steps))


if __name__ == "__main__":
    main()
