"""Does holding graphs buy anything that a larger micro-batch does not? Time and memory of a step, side by side.

    python benchmarks/held.py    # a few minutes; prints the table of docs/training-cost.md

The same 16 pairs a step: one micro-batch of 16 in a single pass, or micro-batches of 4 or 1 with their graphs held, or
in two passes. *Alike*: all answers of 47 tokens; *mixed*: of 7 to 47, so that a larger micro-batch pads more.
"""

from __future__ import annotations

import contextlib
import io
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import training_contestants as contestants
import training_steps
from training_contestants import ANSWER, MICRO, PAIRS, PROMPT, SHAPE, WINDOW, Way
from transformers import GPT2Config, GPT2ForSequenceClassification, set_seed

from llm.text.encoding import EncodedPairs, Truncation

ROUNDS = 7
WAYS = {
    "single pass": (MICRO * WINDOW, Way("single pass", single=True)),
    "held, 4 x 4": (MICRO, Way("graphs held", passes="held")),
    "held, 16 x 1": (1, Way("graphs held", passes="held")),
    "two passes, 4 x 4": (MICRO, Way("two passes")),
}
CASES = [  # model, kind, mode, radius, lengths
    ("Llama", "reward", "full", 0.2, "alike"),
    ("Llama", "reward", "full", 0.2, "mixed"),
    ("Llama", "reward", "checkpointing", 0.2, "alike"),
    ("Llama", "reward", "checkpointing", 0.2, "mixed"),
    ("Llama", "dpo", "full", 0.2, "mixed"),
    ("GPT-2", "reward", "full", 0.2, "alike"),
    ("GPT-2", "reward", "full", 0.2, "mixed"),
]


def mixed(rows: int) -> EncodedPairs:
    """The texts of the benchmark with answers cut to other lengths."""
    items, rng = contestants.encoded(rows)._items, random.Random(1)
    cut = []
    for item in items:
        changed: dict[str, Any] = dict(item)
        for side in ("chosen", "rejected"):
            keep = rng.randint(PROMPT // 4, PROMPT + ANSWER)
            ids = [*item[side][:keep], 1]
            changed |= {side: ids, f"{side}_span": (min(item[f"{side}_span"][0], keep), len(ids))}
        cut.append(changed)
    return EncodedPairs([], cut, Truncation())


def gpt2() -> Any:
    """GPT-2 of the shape of the benchmark's Llama."""
    set_seed(0)
    config = GPT2Config(
        vocab_size=contestants.WORDS + 2, n_positions=64, n_embd=SHAPE["hidden_size"],
        n_layer=SHAPE["num_hidden_layers"], n_head=SHAPE["num_attention_heads"], num_labels=1, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def trainer(case: tuple, name: str, folder: Path) -> Any:
    """The contestant of one row."""
    model, kind, mode, radius, lengths = case
    micro, way = WAYS[name]
    made = contestants.trainer_of(kind, mode, way, radius, folder)
    if model == "GPT-2" or micro == 1 or lengths == "mixed":
        remade = type(made)
        arguments = made.args
        if micro == 1:
            arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = 1, MICRO * WINDOW
        more = {"beta": 0.1, "pair_loss": made.pair_loss, "reference": made.reference} if kind == "dpo" else {}
        made = remade(
            model=gpt2() if model == "GPT-2" else made.model,
            args=arguments,
            train_dataset=mixed(PAIRS) if lengths == "mixed" else contestants.encoded(PAIRS),
            data_collator=made.data_collator,
            ambiguity=made.ambiguity,
            passes="auto" if way.single else way.passes,
            **more,
        )
    return made


def measured(case: tuple) -> dict[str, tuple[list[float], int]]:
    """Seconds of each round, ways taking turns, and peak bytes, by way."""
    with tempfile.TemporaryDirectory() as folder:
        entries = {name: trainer(case, name, Path(folder)) for name in WAYS}
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for turn in range(ROUNDS + 1):
            for name, entry in entries.items():
                took = training_steps._step(entry, time.perf_counter)
                if turn:  # the first warms up
                    seconds[name].append(took)
        return {name: (seconds[name], training_steps.peak_bytes(entry)) for name, entry in entries.items()}


def main() -> None:
    """Print the table: times and memory against the single pass, round by round."""
    contestants.quiet()
    sys.stdout.write("| | answers | | time | memory |\n| --- | --- | --- | --- | --- |\n")
    for case in CASES:
        with contextlib.redirect_stdout(io.StringIO()):
            found = measured(case)
        base, peak = found["single pass"]
        for name, (seconds, bytes_) in found.items():
            ratios = sorted(mine / theirs for mine, theirs in zip(seconds, base, strict=True))
            model, kind, mode, _, lengths = case
            what = f"{model}, {kind}" + (", checkpointing" if mode == "checkpointing" else "")
            time_ = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            sys.stdout.write(f"| {what} | {lengths} | {name} | {time_} | {bytes_ / peak:.2f} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
