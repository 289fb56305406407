"""Does holding graphs buy anything that a larger micro-batch does not? Time and memory of a step, side by side.

    python benchmarks/held.py            # a few minutes; prints the table of docs/training-cost.md
    python benchmarks/held.py --quick    # one row, one round: to see that it works

The same 16 pairs a step: one micro-batch of 16 in a single pass, or micro-batches of 4 or 1 with their graphs held, or
in two passes. *Alike*: all answers of 48 tokens with their prompt; *mixed*: of 6 to 49, so that a larger micro-batch
pads more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import training_contestants as contestants
import training_steps
from training_contestants import ANSWER, MICRO, PAIRS, PROMPT, SHAPE, WINDOW, Way
from transformers import GPT2Config, GPT2ForSequenceClassification, set_seed

from llm.text.encoding import EncodedPairs
from llm.text.truncation import Truncation

RADIUS = 0.2
WAYS = (
    Way("single pass", micro=MICRO * WINDOW),
    Way("held, 4 x 4", trainer="held"),
    Way("held, 16 x 1", trainer="held", micro=1),
    Way("two passes, 4 x 4"),
)


class Case(NamedTuple):
    """A row of the table."""

    model: str
    kind: str
    mode: str
    answers: str

    def __str__(self) -> str:
        return f"{self.model}, {self.kind}" + (", checkpointing" if self.mode == "checkpointing" else "")


CASES = (
    Case("Llama", "reward", "full", "alike"),
    Case("Llama", "reward", "full", "mixed"),
    Case("Llama", "reward", "checkpointing", "alike"),
    Case("Llama", "reward", "checkpointing", "mixed"),
    Case("Llama", "dpo", "full", "mixed"),
    Case("GPT-2", "reward", "full", "alike"),
    Case("GPT-2", "reward", "full", "mixed"),
)


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
    return EncodedPairs([], cut, {}, Truncation())


def gpt2() -> Any:
    """GPT-2 of the shape of the benchmark's Llama."""
    set_seed(0)
    config = GPT2Config(
        vocab_size=contestants.WORDS + 2, n_positions=64, n_embd=SHAPE["hidden_size"],
        n_layer=SHAPE["num_hidden_layers"], n_head=SHAPE["num_attention_heads"], num_labels=1, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def trainer(case: Case, way: Way, folder: Path) -> Any:
    """The contestant of one cell."""
    model = gpt2() if case.model == "GPT-2" else None
    data = mixed(PAIRS) if case.answers == "mixed" else None
    return contestants.trainer_of(case.kind, case.mode, way, RADIUS, folder, model=model, data=data)


def measured(case: Case, rounds: int) -> list[tuple[list[float], int]]:
    """Seconds of each round, ways taking turns, and peak bytes, of every way."""
    with tempfile.TemporaryDirectory() as folder:
        entries = [trainer(case, way, Path(folder)) for way in WAYS]
        seconds: list[list[float]] = [[] for _ in entries]
        for turn in range(rounds + 1):
            for found, entry in zip(seconds, entries, strict=True):
                took = training_steps.step(entry, time.perf_counter)
                if turn:  # the first warms up
                    found.append(took)
        return [(found, training_steps.peak_bytes(entry)) for found, entry in zip(seconds, entries, strict=True)]


def row(case: Case, rounds: int) -> str:
    """A row: times and memory against the single pass, round by round."""
    with contextlib.redirect_stdout(io.StringIO()):  # Trainer prints its logs
        (base, peak), *others = measured(case, rounds)
    cells = [str(case), case.answers]
    for seconds, held in others:
        ratios = sorted(mine / theirs for mine, theirs in zip(seconds, base, strict=True))
        cells += [f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", f"{held / peak:.2f}"]
    return f"| {' | '.join(cells)} |"


def main(given: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one row, one round: a smoke test, no evidence")
    options = parser.parse_args(given)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that measures memory chats
    contestants.quiet()
    names = " | ".join(f"{way.name}: time | memory" for way in WAYS[1:])
    sys.stdout.write(f"| | answers | {names} |\n|{' --- |' * (2 + 2 * len(WAYS[1:]))}\n")
    for case in CASES[:1] if options.quick else CASES:
        sys.stdout.write(row(case, 1 if options.quick else 7) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
