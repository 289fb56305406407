"""Real training runs for the tests of the doctor, healthy ones and ones that fail on purpose, as compact records.

``python tests/llm/record_runs.py FOLDER`` trains those that FOLDER lacks (about 25 minutes on one core), and writes
recorded_runs.json.gz: what the doctor reads of every run, numbers rounded, texts left out.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm.data.corpus.corpus import write_corpus
from llm.data.pairs import Pair, read_pairs, write_pairs
from robust_rlhf import main

FILE = Path(__file__).with_name("recorded_runs.json.gz")
SUITES = ("id_test", "ood_shifted_mixture", "ood_reversed_length")
PLAIN = ("finished", "kind", "learning_rate", "effective_batch", "steps")
STUCK, LENGTH = "the loss is stuck at log 2", "length is all the model learned"
FEW, LARGE = "the weights rest on too few examples", "the radius is too large for the batch"
IGNORED = "most of every batch is ignored"


class Recipe(NamedTuple):
    """How a run is made, and what must be found in it."""

    flags: str
    expected: frozenset[str] = frozenset()
    corpus: str = "clean"
    kind: str = "reward"
    ledger: bool = False  # whether the last loss of every pair is recorded, which takes most of the room


def _run(flags: str, *expected: str, **more: Any) -> Recipe:
    return Recipe(flags, frozenset(expected), **more)


RUNS = {
    "healthy erm": _run("", ledger=True),
    "healthy erm, seed 2": _run("--seed 2"),
    "healthy tv": _run("--ambiguity tv:0.2 --seed 1", ledger=True),
    "healthy tv, seed 2": _run("--ambiguity tv:0.2 --seed 2"),
    "healthy tv, seed 3": _run("--ambiguity tv:0.2 --seed 3"),
    "healthy tv 0.1": _run("--ambiguity tv:0.1 --seed 5"),
    "healthy chi2": _run("--ambiguity chi2:0.5 --seed 2", ledger=True),
    "healthy kl": _run("--ambiguity kl:0.2 --seed 3", ledger=True),
    "healthy capped tv": _run("--ambiguity tv:0.2,max_ratio=4 --seed 1"),
    "healthy tv by source": _run("--ambiguity tv:0.2,by=source --seed 1"),
    "healthy hellinger": _run("--ambiguity hellinger:0.1 --seed 6"),
    "healthy cvar, judged": _run(
        "--ambiguity cvar:0.5 --seed 1 --validation_share 0.1 --eval_strategy steps --eval_steps 20"
    ),
    "healthy, three epochs": _run("--ambiguity tv:0.1 --seed 1 --num_train_epochs 3 --plain_share 0.6", ledger=True),
    "healthy dpo": _run("--max_pairs 1600", kind="dpo"),
    "healthy dpo, tv": _run("--ambiguity tv:0.2 --max_pairs 1600", kind="dpo"),
    "fresh erm": _run("--seed 12", corpus="fresh"),
    "fresh tv": _run("--ambiguity tv:0.3 --seed 11", corpus="fresh"),
    "fresh trimmed tv": _run("--ambiguity tv:0.2,trim=0.05 --seed 14", corpus="fresh"),
    "fresh cvar": _run("--ambiguity cvar:0.3 --seed 15", corpus="fresh"),
    "fresh dpo": _run("--ambiguity kl:0.1 --seed 16", corpus="fresh", kind="dpo"),
    "large chi2": _run(
        "--ambiguity chi2:1 --seed 13", "the adversary undoes what plain training learned", corpus="fresh"
    ),
    "large radius": _run("--ambiguity tv:0.9 --seed 1", FEW, LARGE, IGNORED),
    "large radius from the start": _run(
        "--ambiguity tv:0.9 --seed 1 --plain_share 0 --ramp_share 0", STUCK, FEW, LARGE, IGNORED
    ),
    "small tail": _run("--ambiguity cvar:0.1 --seed 1 --max_pairs 1600", STUCK, FEW, IGNORED),
    "learning rate 0": _run("--learning_rate 0 --ambiguity tv:0.2", STUCK),
    "learning rate 0, dpo": _run("--learning_rate 0 --ambiguity tv:0.2 --max_pairs 1600", STUCK, kind="dpo"),
    "learning rate 1e-6": _run("--learning_rate 1e-6 --ambiguity tv:0.2", "the learning rate is too low"),
    "learning rate 1": _run("--learning_rate 1 --ambiguity tv:0.2", STUCK),
    "noise 0.3, tv": _run("--ambiguity tv:0.2 --seed 1", STUCK, LENGTH, corpus="noise 0.3"),
    "noise 0.3, erm": _run("--seed 1", LENGTH, "labels are likely wrong", corpus="noise 0.3", ledger=True),
    "noise 0.15, three epochs": _run(
        "--ambiguity tv:0.1 --seed 1 --num_train_epochs 3 --plain_share 0.6",
        "weight goes to pairs that are likely mislabelled",
        corpus="noise 0.15",
        ledger=True,
    ),
    "one source mislabelled": _run(
        "--ambiguity tv:0.8,by=source --seed 1 --num_train_epochs 2", "one source takes the weight", corpus="one source"
    ),
    "length": _run("--seed 1", LENGTH, corpus="length 0.95"),
    "cut answers": _run("--max_length 16 --max_pairs 1600", "answers were cut"),
    "plain to the end": _run(
        "--ambiguity tv:0.2 --plain_share 1 --ramp_share 0 --max_pairs 1600", "the adversary did not act"
    ),
    "ramp to the end": _run(
        "--ambiguity tv:0.2 --plain_share 0.5 --ramp_share 0.5 --max_pairs 1600",
        "the full ambiguity set was hardly ever reached",
    ),
    "overfitting": _run(
        "--ambiguity tv:0.1 --seed 1 --num_train_epochs 30 --max_pairs 160 --eval_file {clean}/id_test.jsonl "
        "--eval_strategy steps --eval_steps 10 --lr_scheduler_type constant",
        "the worst held-out category gets worse while the training loss falls",
        corpus="noise 0.15",
    ),
}


def corpora(folder: Path) -> dict[str, Path]:
    """The training data, with the suites beside it."""
    made = {
        "clean": write_corpus(folder / "clean", train=3200, test=400),
        "fresh": write_corpus(folder / "fresh", train=3200, test=400, seed=9),
        "noise 0.3": write_corpus(folder / "noise-0.3", train=3200, test=400, label_noise=0.3),
        "noise 0.15": write_corpus(folder / "noise-0.15", train=3200, test=400, label_noise=0.15),
        "length 0.95": write_corpus(folder / "length-0.95", train=3200, test=400, length_bias=0.95),
        "one source": write_corpus(folder / "one-source", train=3200, test=400),
    }
    train = made["one source"] / "train.jsonl"
    pairs = list(_one_source_at_random(read_pairs(train).pairs))
    write_pairs(pairs, train)
    return made


def _one_source_at_random(pairs: Iterable[Pair]) -> Iterable[Pair]:
    """Three easy categories, and a smaller source whose labels say nothing."""
    rng = random.Random(0)
    for pair in pairs:
        if pair.category in ("format/upper", "format/json", "safety/refuse"):
            yield pair
        elif pair.source == "lookup" and rng.random() > 0.6:
            swap = rng.random() < 0.5
            yield replace(pair, chosen=pair.rejected, rejected=pair.chosen) if swap else pair


def train(name: str, folder: Path, data: dict[str, Path]) -> None:
    """One run, with the recipe for the tiny model of its kind."""
    recipe, place = RUNS[name], data[RUNS[name].corpus]
    flags = recipe.flags.format(clean=data["clean"]).split()
    suites = [str(place / f"{suite}.jsonl") for suite in SUITES]
    common = [
        "--train_file",
        str(place / "train.jsonl"),
        "--suites",
        *suites,
        "--disable_tqdm",
        "true",
        "--use_cpu",
        "true",
    ]
    command = ["train", recipe.kind, "--config", f"{recipe.kind}-tiny", *common, *flags]
    if main([*command, "--overwrite", "--output_dir", str(folder)]):
        raise SystemExit(f"{name} was not trained")


def recorded(folder: Path, *, ledger: bool) -> dict[str, Any]:
    """What the doctor reads of a run folder."""
    run = json.loads((folder / "run.json").read_text())
    run["data"] = {"truncation": run["data"]["truncation"]}
    run["adversary"]["top"] = [
        {name: example[name] for name in ("multiplier", "visits", "margin")} for example in run["adversary"]["top"]
    ]
    for unread in ("environment", "seconds"):
        run.pop(unread)
    for unread in ("bottom", "by_category"):
        run["adversary"].pop(unread)
    for unread in ("train_file", "suites", "eval_file"):
        run["config"].pop(unread)
    suites = json.loads((folder / "metrics.json").read_text())["suites"]
    content = {"run": run, "suites": {name: {"overall": suite["overall"]} for name, suite in suites.items()}}
    if ledger:
        newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        with np.load(newest / "ledger.npz") as stored:
            content["ledger"] = {name: stored[name].tolist() for name in ("multiplier_sum", "visits", "last_loss")}
    return _rounded(content)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def unpack(name: str, folder: Path) -> Path:
    """The recorded run ``name`` as a run folder."""
    content = json.loads(gzip.decompress(FILE.read_bytes()))[name]
    (folder / "run.json").write_text(json.dumps(content["run"]))
    (folder / "metrics.json").write_text(json.dumps({"suites": content["suites"]}))
    if "ledger" in content:
        checkpoint = folder / f"checkpoint-{content['run']['steps']}"
        checkpoint.mkdir()
        np.savez(checkpoint / "ledger.npz", **{name: np.array(rows) for name, rows in content["ledger"].items()})
        state = {"global_step": content["run"]["steps"], "log_history": content["run"]["history"]}
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return folder


def _write(root: Path) -> None:
    data = corpora(root / "data")
    records = {}
    for name, recipe in RUNS.items():
        folder = root / name.replace(",", "").replace(" ", "-")
        if not (folder / "metrics.json").exists():
            train(name, folder, data)
        records[name] = recorded(folder, ledger=recipe.ledger)
    packed = gzip.compress(json.dumps(records, separators=(",", ":")).encode(), 9, mtime=0)
    FILE.write_bytes(packed)
    sys.stdout.write(f"{FILE}: {len(packed)} bytes, {len(records)} runs\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
