"""Runs of every kind, killed with -9 at random moments and continued, end where undisturbed ones end, bit by bit.

    .venv/bin/python tests/kills.py                    # ten kills of each kind: a quarter of an hour on two cores
    .venv/bin/python tests/kills.py policy --kills 30  # kinds whose name contains a word
    .venv/bin/python tests/kills.py --seed 7           # other moments

A run that comes to its end before its kill is compared, and begun anew for the kills that are left.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from command_lines import flags
from forked import Forked

Contents = dict[str, Any]


def inputs(folder: Path) -> Path:
    """Pairs, a policy and a reward model to start from, made once."""
    from llm.data.corpus.corpus import generate
    from llm.data.pairs import write_pairs
    from robust_rlhf import main

    if (folder / "ready").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(generate(96, seed=3), folder / "train.jsonl")
    for kind in ("sft", "reward"):
        assert main(training(kind, folder, folder / kind)) == 0
    (folder / "sweep.yaml").write_text(
        "data: builtin\nbuiltin: {train: 200, test: 60}\n"
        "models: {tiny: {kind: head, model: tiny, max_length: 48, epochs: 3, batch_size: 16}}\n"
        "grid: [{ambiguity: [erm, 'tv:0.2', 'cvar:0.5'], seeds: 3}]\n"
    )
    (folder / "ready").touch()
    return folder


def training(kind: str, folder: Path, output: Path, *, steps: int = 12) -> list[str]:
    """The command line of a small training; a checkpoint after every second step. ``lora``: of an adapter."""
    kind, _, lora = kind.partition(" ")
    own = {
        "sft": {},
        "reward": {
            "ambiguity": "tv:0.2", "final": "average", "adapt_radius": "true", "eval_file": folder / "train.jsonl",
        },
        "dpo": {"ambiguity": "cvar:0.5", "model": folder / "sft" / "model", "lora_rank": 2},
        "policy": {
            "ambiguity": "tv:0.3", "model": folder / "sft" / "model", "reward_model": folder / "reward" / "model",
            "estimator": "ppo", "prompts_per_step": 4, "samples": 2, "max_new_tokens": 6, "max_length": 96,
        },
    }[kind]  # fmt: skip
    settings: dict[str, Any] = {
        "config": f"{kind}-tiny", "train_file": folder / "train.jsonl", "output_dir": output, "max_steps": steps,
        "save_steps": 2, "max_length": 96, "per_device_train_batch_size": 8, "disable_tqdm": "true", "use_cpu": "true",
        **own, **({"lora_rank": 2} if lora else {}),
    }  # fmt: skip
    return ["train", kind, *flags(settings)]


def trained(output: Path) -> Contents:
    """The exported weights, and who was weighed how."""
    from safetensors.numpy import load_file

    newest = max(output.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    weights = {f"{file.name}/{name}": part for file in output.glob("model/*.safetensors")
               for name, part in load_file(file).items()}  # fmt: skip
    with np.load(newest / "ledger.npz") as ledger:
        return weights | {f"ledger/{name}": ledger[name] for name in ledger}


def swept(output: Path) -> Contents:
    """Margins and weights of every run."""
    found: Contents = {}
    for file in sorted([*output.glob("margins/*.npz"), *output.glob("weights/*.npz")]):
        with np.load(file) as arrays:
            found |= {f"{file.parent.name}/{file.name}/{name}": arrays[name] for name in arrays}
    return found


class Kind:
    """A kind of run: the command line into a folder, what continues it, and what is compared."""

    def __init__(self, command: Callable[[Path, Path], list[str]], again: list[str], contents: Any) -> None:
        self.command, self.again, self.contents = command, again, contents


def _training(kind: str) -> Kind:
    return Kind(lambda given, output: training(kind, given, output), ["--resume"], trained)


KINDS = {
    **{kind: _training(kind) for kind in ("sft", "reward", "dpo", "policy", "policy lora")},
    "sweep": Kind(
        lambda given, out: ["sweep", "--config", str(given / "sweep.yaml"), "--output", str(out), "--jobs", "2"],
        [],
        swept,
    ),
}


def _command(argv: list[str]) -> int:
    """The command; what is forked would wait for idle workers of joblib at its end, an interpreter does not."""
    from joblib.externals.loky import get_reusable_executor

    from robust_rlhf import main

    status = main(argv)
    if argv[0] == "sweep":
        get_reusable_executor().shutdown(kill_workers=True)
    return status


def run(argv: list[str], *, kill_after: float | None = None) -> float | None:
    """Run a command in a process of its own; the seconds it took, or None if it was killed.

    Raises:
        RuntimeError: It ended in another way than well.
    """
    begun = time.monotonic()
    process = Forked(_command, argv, new_session=True)
    if kill_after is not None:
        time.sleep(kill_after)
        if process.poll() is None:
            process.kill()
    said = process.communicate(600)[0]
    if process.returncode == -9 and kill_after is not None:
        return None
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(argv[:2])} ended with {process.returncode}: {said[-2000:]}")
    return time.monotonic() - begun


def differences(found: Contents, expected: Contents) -> list[str]:
    """Names of what is missing, too much or not equal in every bit."""
    names = sorted(found.keys() | expected.keys())
    return [
        name for name in names if name not in found or name not in expected or not _same(found[name], expected[name])
    ]


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == other.dtype.kind == "f")


def killed(kind: Kind, given: Path, folder: Path, *, kills: int, moments: random.Random) -> tuple[int, list[str]]:
    """Kill and continue until there were so many kills; how many runs came to their end, and what differs in them."""
    whole, output = folder / "whole", folder / "run"
    run(["--version"])  # the process that others are forked from loads torch now, not on anybody's time
    seconds = run(kind.command(given, whole))
    expected, off, ends, left = kind.contents(whole), [], 0, kills
    assert seconds is not None
    assert expected
    while True:
        argv = kind.command(given, output) + (kind.again if output.exists() else [])
        moment = moments.uniform(0.05, 1.0) * seconds if left else None
        if run(argv, kill_after=moment) is None:
            left -= 1
            continue
        ends += 1
        off += differences(kind.contents(output), expected)
        shutil.rmtree(output)
        if not left:
            return ends, off


def main() -> int:
    """Every chosen kind; returns how many differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only kinds whose name contains one of these")
    parser.add_argument("--kills", type=int, default=10, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        given = inputs(Path(folder, "given"))
        for name, kind in KINDS.items():
            if options.words and not any(word in name for word in options.words):
                continue
            begun, moments = time.monotonic(), random.Random(f"{options.seed} {name}")
            ends, off = killed(kind, given, Path(folder, name), kills=options.kills, moments=moments)
            wrong += bool(off)
            said = f"DIFFERS: {', '.join(off[:4])}" if off else "bit-equal"
            print(
                f"{name:11} {options.kills} kills, {ends} ends, {time.monotonic() - begun:4.0f} s: {said}", flush=True
            )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
