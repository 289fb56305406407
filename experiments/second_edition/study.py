"""Train the heads of the second edition, then judge them: make study DATA=FOLDER, or with --help.

``--stage core`` tunes MiniLM plainly on one half of the prompts and trains all heads on the other; it goes on where it
was, says how long it will take and how far it is, and never reads the test set. ``--stage final`` reads it, once, when
all heads are there, and writes what becomes of every hypothesis, with the records. ``--stage whole`` trains whole
models, before or after. ``rules`` has what was fixed before.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from llm.data.pairs import read_pairs, write_pairs
from llm.features.features import FeatureCache, default_cache
from llm.run.files import write_text

from . import judge, whole
from .bench import TRAIN, Sizes, build
from .data import halves
from .entry import entry, sample
from .hypotheses import cells
from .judged import keep, plan_of, read_test, records
from .places import PLACES
from .power import stated
from .rules import BUDGET, STRONG, Cell, Comparison
from .units import Work, needs, run

TINY_SIZES = Sizes(max_length=64, short=24, most=350)


TUNED = "MiniLM, tuned"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of train.jsonl.gz, id_test and other suites")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/second-edition"), help="what is finished is kept here"
    )
    parser.add_argument(
        "--stage",
        choices=("plan", "entry", "core", "final", "whole"),
        default="core",
        help="plan only says what is left, entry whether the backbone can bear a worst case",
    )
    parser.add_argument(
        "--model", help="another backbone than MiniLM tuned on one half, as it is; static:NAME: its embeddings alone"
    )
    parser.add_argument("--name", help="entry: what the backbone is called in the table")
    parser.add_argument("--most", type=int, help="entry: look at no more pairs of a file, for backbones that are slow")
    parser.add_argument("--only", choices=tuple(whole.KINDS), help="whole: train models of this kind alone")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread; 0: this one")
    parser.add_argument("--tiny", action="store_true", help="a sample and an untrained backbone: does everything run?")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what a stage needs, then say what it found."""
    parser = _parser()
    told = parser.parse_args(arguments)
    if told.stage != "entry" and (told.most or told.name):
        parser.error("--most and --name are for --stage entry")
    if told.only and told.stage != "whole":
        parser.error("--only is for --stage whole")
    if told.stage == "whole":
        _whole(told.data, told.folder, told.only, tiny=told.tiny, workers=told.workers)
        return
    _check_backbone(told.folder, told.model or TUNED)
    sizes = TINY_SIZES if told.tiny else Sizes()
    work = work_of(told.folder / f"most-{told.most}" if told.most else told.folder, tiny=told.tiny)
    wanted = cells()
    left = [cell for cell in wanted if not work.done(cell)]
    _say(f"{len(wanted) - len(left)} of {len(wanted)} cells are trained; {sum(map(work.heads, left))} heads are left")
    if told.stage == "plan":
        _say_power()
        return
    model = "tiny" if told.tiny else told.model or tuned(told.data, told.folder)
    cache = FeatureCache(told.folder / "features" if told.tiny else default_cache(), progress=not told.tiny)
    if told.stage == "final":
        if missing := [cell for cell in left if not work.failure(cell).exists()]:
            raise SystemExit(f"the test set is read once, when all is trained: {len(missing)} cells are left, run core")
        test = read_test(told.data, told.folder / "test", model, sizes, cache, plan=plan_of(work, wanted))
        found = records(work, wanted, test)
        keep(found, told.folder / "records")
    else:
        if told.most:
            sample(told.data, work.bench, model, replace(sizes, most=told.most), cache)
        else:
            build(told.data, work.bench, model, sizes, cache)
        if told.stage == "entry":
            trained(work, [cell for cell in left if cell == Cell("real")], workers=told.workers)
            found = entry(work, told.name or Path(model).name)
            write_text(told.folder / "entry.json", json.dumps(found, indent=1) + "\n")
            return
        trained(work, left, workers=told.workers)
        found = records(work, wanted, None)
    board = summary(found)
    write_text(told.folder / f"{told.stage}.json", json.dumps(board, indent=1, allow_nan=False) + "\n")
    for one in board["hypotheses"]:
        _say(f"{one['name']}: {one['outcome']}")
    _say(f"the bench sees: {board['sees']}")


def _say_power() -> None:
    """What comparisons can show."""
    for name, kind, where, pairs, shows in stated():
        points = " / ".join(f"{100 * one:.1f}" for one in shows)
        _say(f"{name}, {kind}, {where}, {pairs} pairs: {points} points at 10 / 20 / 30 % discordance")


def _check_backbone(folder: Path, model: str) -> None:
    """Leave a folder to the backbone whose features it holds; one that is new is of this model."""
    path = folder / "backbone.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, (TUNED if (folder / "bench").exists() else model) + "\n")
    if (kept := path.read_text(encoding="utf-8").strip()) != model:
        raise SystemExit(f"{folder} holds features of {kept}: name another --folder for another backbone")


def _whole(data: Path, folder: Path, only: str | None, *, tiny: bool, workers: int) -> None:
    """Train whole models, of one kind or of all, and write what becomes of H8; what is not trained is not run."""
    kinds = whole.TINY if tiny else whole.KINDS
    whole.train(data, folder / "whole", {only: kinds[only]} if only else kinds, workers=workers)
    verdict, beside = whole.found(data, folder / "whole", kinds)
    levels = whole.levels(data, folder / "whole", kinds)
    board = {"hypothesis": _hypothesis(verdict, verdict.outcome), "beside": list(map(_told, beside)), "levels": levels}
    write_text(folder / "whole.json", json.dumps(board, indent=1, allow_nan=False) + "\n")
    _say(f"{verdict.hypothesis.name}: {verdict.outcome}")


def work_of(folder: Path, *, tiny: bool) -> Work:
    """Where units are kept, and how many seeds and settings they have."""
    (folder / "units").mkdir(parents=True, exist_ok=True)
    if not tiny:
        return Work(folder / "bench", folder / "units")
    few: dict[str, Any] = {
        "seeds": (0, 1),
        "again": (2, 3),
        "tuning": (100,),
        "budget": BUDGET[2:4],
        "strong": STRONG[:1],
    }
    return Work(folder / "bench", folder / "units", **few)


def tuned(data: Path, folder: Path) -> str:
    """MiniLM tuned plainly on the half of the backbone; trained where it is not there."""
    model = folder / "backbone/model"
    if not model.exists():
        parts = halves(read_pairs(data / TRAIN).pairs)
        write_pairs(parts.backbone, folder / "backbone.jsonl")
        _command("models", "fetch", "minilm")
        _command(
            "train", "reward", "--config", "reward-minilm", "--bf16", "true", "--use_cpu", "true", "--resume", "true",
            "--train_file", str(folder / "backbone.jsonl"), "--output_dir", str(folder / "backbone"),
        )  # fmt: skip
    return str(model)


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "robust_rlhf", *words], check=True)


def waves(left: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells that can be trained at once, one after the other."""
    waiting = list(left)
    while waiting:
        ready = [cell for cell in waiting if not set(needs(cell)) & set(waiting)]
        yield ready
        waiting = [cell for cell in waiting if cell not in ready]


def trained(work: Work, left: Sequence[Cell], *, workers: int) -> None:
    """Train all cells, and say how far it is and how long it will take."""
    total, done, begun = sum(map(work.heads, left)), 0, time.monotonic()
    for cell, error in _outcomes(work, left, workers):
        done += work.heads(cell)
        spent = time.monotonic() - begun
        rest = f"about {spent * (total - done) / done:.0f} s left" if done else ""
        name = f"{cell.data}, {cell.arm}, batch {cell.batch}"
        _say(f"{done} of {total} heads, {spent:.0f} s, {rest}: {name}{error}")


def _outcomes(work: Work, left: Sequence[Cell], workers: int) -> Iterator[tuple[Cell, str]]:
    if not workers:
        yield from (run(work, cell) for wave in waves(left) for cell in wave)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for wave in waves(left):
            yield from (future.result() for future in as_completed([pool.submit(run, work, cell) for cell in wave]))


def summary(found: judge.Records) -> dict[str, Any]:
    """All outcomes and what they follow from, for a file."""
    return {
        "radius": _number(found.radius),
        "enters": judge.enters(found),
        "sees": judge.sees(found),
        "plain": {place: _plain(found, place) for place in PLACES},
        "hypotheses": [
            _hypothesis(verdict, judge.judged(found, verdict.hypothesis, entered=True).outcome)
            for verdict in judge.scoreboard(found)
        ],
        "beside": {name: list(map(_told, tests)) for name, tests in judge.told(found)},
    }


def _hypothesis(verdict: judge.Verdict, computed: str) -> dict[str, Any]:
    """What becomes of a hypothesis, and what its comparisons alone would say."""
    ways = [
        {"name": name, "outcome": outcome, "tests": list(map(_told, tests))} for name, outcome, tests in verdict.ways
    ]
    return {"name": verdict.hypothesis.name, "outcome": verdict.outcome, "computed": computed, "ways": ways}


def _plain(found: judge.Records, place: str) -> dict[str, Any] | None:
    """Accuracy of plain training at a place, and beside it how often the longer answer is the right one."""
    cell = Cell({"shifted": "twin", "minority": "planted"}.get(place, "real"))
    if (seen := judge.accuracy(found, cell, place)) is None:
        return None
    low, high = seen.limits()
    numbers = {"accuracy": seen.mean, "low": low, "high": high, "longer wins": judge.longer_wins(found, place)}
    return {name: _number(value) for name, value in numbers.items()}


def _told(one: judge.Judged) -> dict[str, Any]:
    test = one.test
    named: dict[str, Any] = {"kind": "ranks", "cells": len(test.cells)} if not isinstance(test, Comparison) else {
        "kind": test.kind, "cell": list(test.cell), "against": list(test.against), "where": test.where,
    }  # fmt: skip
    numbers = {name: _number(getattr(one, name)) for name in ("mean", "low", "high", "p")}
    return {**named, "margin": test.margin, **numbers, "outcome": one.outcome}


def _number(value: float) -> float | None:
    """JSON has neither nan nor infinity."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
