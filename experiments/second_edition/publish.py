"""From a finished study to docs/results: python -m experiments.second_edition.publish --folder runs/second-edition.

It writes the summary beside the page, the records that its test counts from, the figure, and
the tables and quoted numbers of the page and of the README. With --whole it adds whole models to what is stored;
without a folder only the pages, from the stored summary.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from llm.run.files import write_text

from ..page_tables import RESULTS
from . import judge, whole
from .bench import Seen
from .entry import entry, radius, short
from .figure import draw
from .hypotheses import cells
from .judged import records
from .places import PLACES, TEST
from .rules import Cell
from .stored import FOLDER, Row, Told
from .tables import write
from .units import Unit, Work, stored

PAGE = RESULTS / "study.md"
README = RESULTS.parents[1] / "README.md"
SUMMARY, RECORDS = FOLDER / "summary.json", FOLDER / "records.npz"
COUNTED: tuple[Cell, ...] = (
    Cell("real"), Cell("real", "tv:0.2"), Cell("real", "tv:0.4"), Cell("cross"), Cell("twin"),
    Cell("twin", "regret:tv:0.2"), Cell("planted"), Cell("planted", "tv:0.4,by=planted"),
    Cell("planted", "balanced:by=planted"),
)  # fmt: skip
"""Cells whose records are kept beside the page, so that anyone can count again."""


def main(arguments: list[str] | None = None) -> None:
    """Publish what is finished."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of the study; without it the pages again from what is stored")
    parser.add_argument("--whole", type=Path, metavar="FOLDER", help="add its whole models to what is stored")
    parser.add_argument("--entries", type=Path, nargs="*", default=[], help="folders of --stage entry, other backbones")
    told = parser.parse_args(arguments)
    if told.folder is not None:
        keep(told.folder, told.entries)
    if (models := told.whole or told.folder) is not None and (models / "whole.json").exists():
        add_whole(models)
    summary = Told.kept()
    draw(summary, FOLDER / "effects.png")
    write(PAGE, summary)
    write(README, summary, whole=False)


def keep(folder: Path, entries: list[Path]) -> None:
    """Write the summary and the records of a study that is judged."""
    work = Work(folder / "bench", folder / "units")
    board = json.loads((folder / "final.json").read_text(encoding="utf-8"))
    there = [cell for cell in cells() if work.done(cell)]
    mine = entry(work, "MiniLM, tuned on one half")
    mine["enters"] = board["enters"]
    found = records(work, there, Seen.kept(folder / "test", TEST))
    others = [json.loads((one / "entry.json").read_text(encoding="utf-8")) for one in entries]
    summary = {
        "board": board,
        "cells": [_told(work, cell, found) for cell in there],
        "radii": _radii(work),
        "entries": [mine, *others],
    }
    _write(summary)
    _copy_records(folder / "records")


def add_whole(folder: Path) -> None:
    """Put the whole models of a folder into the stored summary and records."""
    summary, models = (json.loads(file.read_text(encoding="utf-8")) for file in (SUMMARY, folder / "whole.json"))
    board = summary["board"]
    board["beside"]["whole models"] = models["beside"]
    board["hypotheses"][-1] = models["hypothesis"]
    board["whole"] = models["levels"]
    _write(summary)
    with np.load(RECORDS) as found:
        np.savez_compressed(RECORDS, **{**found, **whole.halved(folder / "whole")})


def _write(summary: Row) -> None:
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(SUMMARY, text.replace("},{", "},\n{") + "\n")


def _radii(work: Work) -> list[Row]:
    found = []
    for path in sorted(work.folder.glob("radius-*.json")):
        data, kind, batch = path.stem.removeprefix("radius-").rsplit("-", 2)
        found.append({"data": data, "set": kind, "batch": None if batch == "None" else int(batch), **radius(path)})
    return found


def _told(work: Work, cell: Cell, found: judge.Records) -> Row:
    unit, plain = stored(work, cell), stored(work, cell.plain)
    kept = None if cell.arm == "erm" else short(float(np.exp(np.log(unit.norms).mean() - np.log(plain.norms).mean())))
    levels = {place: judge.accuracy(found, cell, place) for place in PLACES}
    return {
        **cell._asdict(), "levels": {place: short(one.mean) for place, one in levels.items() if one is not None},
        "set": unit.about["set"], "settings": unit.about["settings"], "ratio": short(unit.about["ratio"]),
        "share": short(float(unit.share.mean())), "kept_norm": kept, "id_test": short(_best(unit)),
    }  # fmt: skip


def _best(unit: Unit) -> float:
    return float(unit.scores.mean(axis=1).max())


def _copy_records(records: Path) -> None:
    """Right or wrong of the counted cells, with what is known of the pairs."""
    about = json.loads((records / "cells.json").read_text(encoding="utf-8"))
    named = {Cell(one["data"], one["arm"], one["batch"]): one["file"] for one in about}
    kept: dict[str, Any] = {}
    for cell in COUNTED:
        with np.load(records / named[cell]) as found:
            kept |= {f"{cell.data}|{cell.arm}|{suite}": found[suite] for suite in found.files}
    for path in sorted(records.glob("suite-*.npz")):
        with np.load(path) as found:
            kept |= {f"{path.stem}|{name}": found[name] for name in found.files}
    np.savez_compressed(RECORDS, **kept)


if __name__ == "__main__":
    main()
