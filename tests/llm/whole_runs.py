"""Whole runs through the command line that the files on every kind of run make, break off and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command_lines import flags
from transformers import TrainerCallback

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from robust_rlhf import main

SHAPE = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_length": 48, "disable_tqdm": "true",
         "use_cpu": "true"}  # fmt: skip


def files_of(once: Any) -> Path:
    """The folder of ``train.jsonl`` and ``suite.jsonl``, of 64 and of 24 pairs."""
    return once("whole-runs", _write_files)


def _write_files(folder: Path) -> None:
    write_pairs(generate(64, seed=3), folder / "train.jsonl")
    write_pairs(generate(24, seed=4), folder / "suite.jsonl")


def train_command(kind: str, train_file: Path, output: Path, *extra: str, **settings: object) -> list[str]:
    """The command line of a run of the tiny recipe of its kind; ``extra`` has the last word."""
    told = {"config": f"{kind}-tiny", "train_file": train_file, "output_dir": output, **SHAPE, **settings}
    return ["train", kind, *flags(told), *extra]


def broken_off(task: type, *, after: int) -> type:
    """The task, with a power failure after that step."""

    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == after:
                raise RuntimeError("power failure")

    class BrokenOff(task):
        def trainer(self, **common):
            trainer = super().trainer(**common)
            trainer.add_callback(Break())
            return trainer

    return BrokenOff


def margins(folder: Path) -> list[float]:
    """Of every pair of the suite, as judging left them."""
    return [json.loads(line)["margin"] for line in (folder / "margins.jsonl").read_text().splitlines()]


def wrong(capsys: Any, *arguments: str) -> str:
    """The one sentence with which a command line is refused."""
    status = main(list(arguments))
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert message.startswith("robust-rlhf: ")
    return message
