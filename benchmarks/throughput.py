"""A training step beside TRL's and transformers' own, and how soon a command answers; every run a process of its own.

    python benchmarks/throughput.py            # ten minutes of processor time; then a part of docs/training-cost.md
    python benchmarks/throughput.py --rounds 1 --tasks reward --json FILE    # to see that it works; not into the page
    python benchmarks/throughput.py --page     # the tables again from the JSON of an earlier run

Contestants take turns, in another order every round, and ratios are taken within a round: other work on the machine
meets all of them. Seconds are those of the processor (user and system); throughput_steps.py has what is trained.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "throughput.json"
PAGE = HERE.parent / "docs" / "training-cost.md"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "numpy")
MICRO, WINDOW = 4, 2  # pairs of a micro-batch, micro-batches of a step
PROMPT, ANSWER = 32, 31  # tokens; one more ends every answer
RANK = 16
TRAINER = "python -c 'from transformers import Trainer'"
COMMANDS = {
    "python -c 'import torch'": ["-c", "import torch"],
    TRAINER: ["-c", "from transformers import Trainer"],
    "robust-rlhf --help": ["-m", "robust_rlhf", "--help"],
    "robust-rlhf train reward --help": ["-m", "robust_rlhf", "train", "reward", "--help"],
    "trl reward --help": ["-c", "from trl.cli import main; main()", "reward", "--help"],
    "robust-rlhf train reward, the tiny model, one step": [
        "-m", "robust_rlhf", "train", "reward", "--config", "reward-tiny", "--train_file", "pairs.jsonl",
        "--use_cpu", "true", "--max_steps", "1", "--plain_share", "0", "--ramp_share", "0", "--output_dir", "run",
        "--overwrite", "true",
    ],
}  # fmt: skip
Record = dict[str, Any]


class Task(NamedTuple):
    """What is trained, its contestants (the first is what the others are compared with), and how many steps."""

    title: str
    model: str
    steps: int
    ways: tuple[str, ...]


TASKS = {
    "dpo": Task("DPO, SmolLM2-135M with LoRA of rank 16", "smollm2", 2, ("TRL, plain", "erm", "tv:0.2")),
    "reward": Task("Reward model, MiniLM, all weights", "minilm", 8, ("transformers.Trainer", "erm", "tv:0.2")),
}
log = logging.getLogger(__name__)


def surroundings() -> dict[str, str]:
    """One thread, no network."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **single, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "100"}


def said(task: str, way: str, *more: str) -> Record:
    """What a contestant says of itself."""
    words = [sys.executable, str(HERE / "throughput_steps.py"), task, way, *more]
    done = subprocess.run(words, env=surroundings(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task}, {way}: {done.stderr.strip()[-2000:]}")
    return {"task": task, "way": way, **json.loads(done.stdout.splitlines()[-1])}


def started(name: str, words: list[str], folder: Path) -> Record:
    """Seconds and memory of a whole command."""
    begun = time.perf_counter()
    with (folder / "log").open("w") as out:
        process = subprocess.Popen([sys.executable, *words], env=surroundings(), cwd=folder, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{name}: {(folder / 'log').read_text()[-2000:]}")
    return {
        "command": name,
        "cpu": used.ru_utime + used.ru_stime,
        "wall": time.perf_counter() - begun,
        "gib": used.ru_maxrss / 2**20,
    }


def turned(entries: list[Any], number: int) -> list[Any]:
    """The same entries, from another one on."""
    start = number % len(entries)
    return entries[start:] + entries[:start]


def run(target: Path, *, rounds: int, tasks: list[str]) -> None:
    """Measure round by round, and write the JSON after every run, so that one that is stopped keeps what it has."""
    import machine
    from gpu_results import put

    from llm.data.corpus.corpus import generate
    from llm.data.pairs import write_pairs

    shape = {"micro": MICRO, "window": WINDOW, "tokens": PROMPT + ANSWER + 1}
    found: Record = machine.about(PACKAGES) | {"shape": shape, "steps": [], "commands": []}

    def keep(kind: str, row: Record) -> None:
        found[kind].append(row)
        log.info("%s", row)
        put(target, json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        write_pairs(generate(64, seed=0), Path(folder) / "pairs.jsonl")
        for number in range(rounds):
            for task in (name for name in tasks if name in TASKS):
                for way in turned(list(TASKS[task].ways), number):
                    keep("steps", {**said(task, way, *([] if number else ["--flops"])), "round": number})
            for name, words in turned(list(COMMANDS.items()), number) if "commands" in tasks else ():
                keep("commands", {**started(name, words, Path(folder)), "round": number})


def main(given: list[str] | None = None) -> None:
    """Run the benchmark, or write its tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often every contestant runs (default: %(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=[*TASKS, "commands"], default=[*TASKS, "commands"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go (or come from, with --page)")
    parser.add_argument("--page", action="store_true", help="run nothing; write the tables from the JSON")
    options = parser.parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    if not options.page:
        run(options.json or RESULTS, rounds=options.rounds, tasks=options.tasks)
    if options.page or options.json is None:
        import throughput_page

        throughput_page.write(options.json or RESULTS, PAGE)


if __name__ == "__main__":
    main()
