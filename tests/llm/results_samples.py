"""Results folders as a sweep leaves them, from margins that are drawn instead of trained."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llm.data.pairs import Pair, length_baseline
from llm.results.store import write_about, write_pairs_table, write_results
from llm.results.training_records import write_arrays

SUITES = {
    "id_test": (300, ("chat", "code")),
    "ood_maths": (200, ("algebra", "counting", "tiny")),
    "ood_plain": (120, ("",)),
}


def pairs_of(count: int, categories: Sequence[str], *, prefix: str, questions: int | None = None) -> list[Pair]:
    """``count`` pairs; a category called "tiny" gets only every fiftieth."""
    big = [name for name in categories if name != "tiny"]
    return [
        Pair(
            f"{prefix}{n}", ({"role": "user", "content": f"Which one is it in {prefix}, number {n}?"},),
            "yes " * (1 + n % 5), "no " * 4, source=f"source {n % 3}",
            category="tiny" if "tiny" in categories and n % 50 == 7 else big[n % len(big)],
            question_id=f"q{n % questions}" if questions else None,
        )
        for n in range(count)
    ]  # fmt: skip


def write_sample(
    folder: Path,
    *,
    suites: dict[str, tuple[int, Sequence[str]]] = SUITES,
    ambiguities: Sequence[str] = ("erm", "tv:0.1", "tv:0.2", "cvar:0.3"),
    models: Sequence[str] = ("minilm",),
    regimes: Sequence[str] = ("all",),
    label_noise: Sequence[float] = (0.0,),
    seeds: int = 3,
    train: int = 400,
    gain: float = 0.25,
    cost: float = 0.0,
    hard: float = 0.0,
    whole: bool = False,
    change=None,
) -> list[dict]:
    """Write a folder and return the rows of its table.

    Args:
        folder: Created where missing.
        suites: Name -> pairs and categories; "ood_maths" has several pairs a question.
        ambiguities, models, regimes, label_noise: The grid.
        seeds: Of each cell.
        train: Training pairs; each run sees a random four fifths.
        gain: How much the margins of every set but erm gain on pairs whose ids do not begin with "id".
        cost: How much they lose on the others.
        hard: How much every arm loses on pairs whose ids do not begin with "id".
        whole: As of whole models: with a ``run.json`` of each training, and what a demo says of its results.
        change: Called with each row before it is written; may alter it, or return False to drop it.
    """
    (folder / "suites").mkdir(parents=True, exist_ok=True)
    pairs = {
        name: pairs_of(count, categories, prefix=name, questions=60 if name == "ood_maths" else None)
        for name, (count, categories) in suites.items()
    }
    for name, members in pairs.items():
        write_pairs_table(folder / "suites" / f"{name}.parquet", members)
    write_pairs_table(folder / "train.parquet", pairs_of(train, ("chat", "code"), prefix="t"))
    rows = []
    for number, cell in enumerate(itertools.product(models, regimes, label_noise, ambiguities, range(seeds))):
        margins = {
            name: margins_of(members, cell[3], cell[4], gain=gain, cost=cost, hard=hard)
            for name, members in pairs.items()
        }
        rows += _run(folder, pairs, margins, number, cell, train)
        if whole:
            (place := folder / "full" / f"r{number:05d}").mkdir(parents=True)
            (place / "run.json").write_text(json.dumps(run_record(cell[3], cell[4])))
    if whole:
        write_about(folder, {"title": "A demo", "command": "robust-rlhf demo --seeds 3", "settings": {"seeds": seeds},
                             "data": {"suites": {name: {"file": f"{name}.jsonl"} for name in suites}}})  # fmt: skip
    rows = [row for row in rows if change is None or change(row) is not False]
    write_results(folder, rows)
    return rows


def margins_of(
    pairs: list[Pair], ambiguity: str, seed: int, *, gain: float = 0.25, cost: float = 0.0, hard: float = 0.0
) -> np.ndarray:
    """A pair that is hard is hard for every run; the rest is as :func:`write_sample` says."""
    shared = np.random.default_rng(len(pairs)).standard_normal(len(pairs)) + 0.5
    own = np.random.default_rng([seed, len(pairs), *ambiguity.encode()]).standard_normal(len(pairs))
    inside, plain = pairs[0].id.startswith("id"), ambiguity == "erm"
    shift = (0.0 if plain else -cost) if inside else (-hard if plain else gain - hard)
    return (shared + 0.4 * own + shift).astype(np.float32)


def report_of_runs(folder: Path, margins: dict[str, dict[str, np.ndarray]], suites: dict[str, list[Pair]]) -> dict:
    """The report of finished runs, one of seed 0 for each set, with these margins by set and suite."""
    from llm.report import build_content
    from llm.sweep.recorded import Finished, record_runs

    runs = [Finished(folder, run_record(ambiguity, 0), scores) for ambiguity, scores in margins.items()]
    record_runs(folder / "results", runs, suites, about={})
    return build_content(folder / "results")


def run_record(ambiguity: str, seed: int, steps: int = 100) -> dict:
    """What a training of a whole model notes of itself: curves that end at 1 / steps, one of them with gaps."""
    names = ("loss", "mean_loss", "robust_loss", "effective_sample_size", "zero_share")
    log = [{"step": step, **dict.fromkeys(names[: 1 if ambiguity == "erm" else None], (1 + seed) / step)}
           for step in range(1, steps + 1)]  # fmt: skip
    log += [
        {"step": 50, "eval_accuracy": 0.5},
        {"step": 75, "eval_accuracy": None},
        {"step": 100, "eval_accuracy": 0.75},
    ]
    train = {"file": "train.jsonl", "sha256": "0" * 64, "pairs": 400, "dropped": {"empty answer": 7}}
    return {
        "kind": "reward",
        "config": {"ambiguity": ambiguity, "model": "tiny", "max_length": 64},
        "seed": seed,
        "learning_rate": 0.01,
        "effective_batch": 64,
        "inaction": None,
        "steps": steps,
        "seconds": 1.0,
        "history": [*log, {"train_runtime": 3.0}],
        "data": {"train": train, "trained_on": 400},
        "environment": {"python": "3.11", "torch": f"2.13.{seed}"},
    }


def cut(path: Path) -> None:
    """As a write that was broken off leaves a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _run(folder, pairs, margins, number, cell, train):
    model, regime, noise, ambiguity, seed = cell
    run = f"r{number:05d}-last"
    write_arrays(folder / "margins" / f"{run}.npz", **margins)
    rng = np.random.default_rng(number)
    loss = rng.exponential(0.7, train).astype(np.float32)
    kept = np.sort(rng.choice(train, 4 * train // 5, replace=False))
    multiplier = np.ones(train) if ambiguity == "erm" else 0.2 + loss / loss.mean()
    write_arrays(
        folder / "weights" / f"r{number:05d}.npz",
        rows=kept, multiplier=multiplier[kept].astype(np.float32), visits=np.full(len(kept), 3),
        last_loss=loss[kept], flipped=(rng.random(train) < noise)[kept],
    )  # fmt: skip
    settings = {
        "run": run, "model": model, "ambiguity": ambiguity, "regime": regime, "seed": seed, "batch_size": 64,
        "learning_rate": 0.01, "train_pairs": train, "label_noise": noise, "final": "last", "steps": 100,
        "seconds": 1.0, "version": "0.1.0", "revision": "abc", "status": "done", "error": "",
        "effective_sample_size": 64.0 if ambiguity == "erm" else 40.0 - len(ambiguity),
    }  # fmt: skip
    return [
        {**settings, "suite": name, "category": category, **_metrics(pairs[name], margins[name], category)}
        for name in pairs
        for category in ["", *sorted({pair.category for pair in pairs[name]} - {""})]
    ]


def _metrics(pairs, margins, category):
    rows = [n for n, pair in enumerate(pairs) if category in ("", pair.category)]
    losses = np.sort(np.logaddexp(0, -margins[rows].astype(float)))[::-1]
    return {
        "pairs": len(rows),
        "clusters": len({pairs[n].question_id or n for n in rows}),
        "accuracy": float(np.mean(margins[rows] > 0)),  # drawn margins never tie
        "ties": 0,
        "mean_loss": float(losses.mean()),
        "cvar_loss": float(losses[: max(1, len(rows) // 10)].mean()),
        "longer_wins": float(np.mean([length_baseline(pairs[n]) for n in rows])),
    }
