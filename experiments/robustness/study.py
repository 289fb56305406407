"""Run the study and fill the tables of study-1.md: make study-1 DATA=FOLDER, or with --help.

FOLDER holds ``train.jsonl.gz`` and the suites beside it. Without it only the part on the built-in corpus runs, and the
tables on real preferences stay as they are. Everything is resumable: what is there is not made again.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm.report.collect import Collection, collect

from ..page_tables import RESULTS, filled, markdown
from .figure import draw_radii
from .parts import builtin_tables, full_tables, real_tables

HERE = Path(__file__).parent
PAGE = RESULTS / "study-1.md"


def main() -> None:
    """Train what is not trained, then write the tables, the figure and the raw results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of real preferences: train.jsonl.gz and suites")
    parser.add_argument("--output", type=Path, default=Path("runs/study"), help="folder of the runs (%(default)s)")
    parser.add_argument("--tables", action="store_true", help="train nothing: only write what the runs say")
    options = parser.parse_args()
    if not options.tables:
        train(options.data, options.output)
    write(options.output)


def train(data: Path | None, output: Path) -> None:
    """The sweep on the built-in corpus and, with data, the backbone, the heads and the whole models."""
    command("models", "fetch", "minilm")
    sweep("builtin", output)
    if data is None:
        return
    split(data, output)
    command(
        "train", "reward", "--config", "reward-minilm", "--bf16", "true", "--use_cpu", "true", "--resume", "true",
        "--train_file", str(output / "backbone.jsonl"), "--output_dir", str(output / "backbone"),
    )  # fmt: skip
    for name in ("real", "full"):
        sweep(name, output, "--data", str(output / "heads"))


def split(data: Path, output: Path) -> None:
    """Half of the prompts for the backbone, the other half for the heads, by a hash of the prompt."""
    halves = [output / "backbone.jsonl", output / "heads/train.jsonl"]
    for path in halves:
        path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(data / "train.jsonl.gz", "rt") as lines, halves[0].open("w") as first, halves[1].open("w") as second:
        for line in lines:
            (first, second)[half_of(json.loads(line))].write(line)
    for path in data.glob("*.jsonl.gz"):
        if not path.name.startswith("train"):
            shutil.copy(path, output / "heads")


def sweep(name: str, output: Path, *more: str) -> None:
    """One of the sweeps beside this file; a row that failed is part of the results."""
    command("sweep", "--config", str(HERE / f"{name}.yaml"), "--output", str(output / name), *more, may_fail=True)


def half_of(record: Mapping[str, Any]) -> int:
    """0 for the backbone's half of the prompts, 1 for that of the heads."""
    return int(hashlib.sha256(json.dumps(record["prompt"]).encode()).hexdigest(), 16) % 2


def command(*words: str, may_fail: bool = False) -> None:
    """Run robust-rlhf."""
    subprocess.run([sys.executable, "-m", "robust_rlhf", *words], check=not may_fail)


def write(output: Path) -> None:
    """Fill the page from the sweeps that are there; copy their results tables, without the runs' times."""
    found = {name: collect(output / name) for name in ("real", "full", "builtin") if (output / name).exists()}
    makers = {"real": real_tables, "full": full_tables, "builtin": builtin_tables}
    page = PAGE.read_text(encoding="utf-8")
    for name, collection in found.items():
        page = filled(page, {mark: markdown(rows) for mark, rows in makers[name](collection).items()})
        keep_raw(collection, RESULTS / "study" / f"{name}.parquet")
    PAGE.write_text(page, encoding="utf-8")
    shown = {
        "real": ("real preferences", {"batch_size": 32}),
        "builtin": ("built-in corpus", {"model": "head", "learning_rate": 0.01}),
    }
    curves = {title: (found[name], settings) for name, (title, settings) in shown.items() if name in found}
    draw_radii(curves, RESULTS / "study" / "radii.png")


def keep_raw(collection: Collection, path: Path) -> None:
    """The results table, whole suites and categories, small."""
    table = collection.results.table.drop(columns=["seconds", "run"])
    for name in table.select_dtypes("float").columns:
        table[name] = table[name].astype("float32").round(4)
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, compression="zstd")


if __name__ == "__main__":
    main()
