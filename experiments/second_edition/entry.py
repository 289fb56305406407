"""Whether a backbone can bear a worst case, from the pairs that heads are trained and chosen on; no test set.

``sample`` makes a bench of these pairs alone, as many as there is time for.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llm.data.pairs import read_pairs
from llm.features.ceiling import drawn
from llm.features.features import FeatureCache, load_backbone
from llm.statistics.ties import credit

from .bench import TRAIN, Bench, Sizes, seen
from .data import halves
from .places import ID
from .rules import BATCH, ENTRY_ACCURACY, ENTRY_RADIUS, Cell
from .stored import Row
from .two_way import two_way
from .units import Work, held_out_radius, stored


def entry(work: Work, name: str) -> Row:
    """Accuracy of plain heads on id_test, and the collapse radii of the training pairs.

    Args:
        work: In which ``Cell("real")`` is trained.
        name: Of the backbone.
    """
    bench = Bench(work.bench)
    suite = bench.suite(ID)
    found = two_way(credit(stored(work, Cell("real")).own @ suite.differences.T), suite.suite().prompts)
    for batch in (None, BATCH):
        held_out_radius(work, "real", "tv", batch)
    whole, part = (radius(work.folder / f"radius-real-tv-{batch}.json") for batch in (None, BATCH))
    low, high = found.limits()
    return {
        "name": name, "pairs": len(bench.train.differences), "in_sample": whole["in_sample"],
        "enters": found.mean >= ENTRY_ACCURACY and (whole["held_out"] or 0.0) >= ENTRY_RADIUS,
        "accuracy": short(found.mean), "low": short(low), "high": short(high), "all": whole, "batch": part,
    }  # fmt: skip


def sample(data: Path, folder: Path, model: str, sizes: Sizes, cache: FeatureCache) -> None:
    """Fill the folder of a bench that serves for nothing but ``entry``; what is there stays.

    Args:
        data: Of ``train.jsonl.gz`` and ``id_test.jsonl.gz``.
        folder: Of the bench.
        model: Of the backbone.
        sizes: At most ``sizes.most`` pairs of the heads' half, and of id_test, are kept, by a hash of their ids.
        cache: Of features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    most, one_length = sizes.most or sys.maxsize, replace(sizes, short=sizes.max_length)  # made once, read twice
    heads = drawn(halves(read_pairs(data / TRAIN).pairs).heads, most)
    backbone = load_backbone(model, max_length=sizes.max_length, train=heads, dtype="bfloat16")
    for name, pairs in {"train": heads, ID: drawn(read_pairs(data / f"{ID}.jsonl.gz").pairs, most)}.items():
        if not (folder / f"{name}.npz").exists():
            seen(backbone, pairs, one_length, cache, name=name).keep(folder, name)


def radius(path: Path) -> Row:
    """A stored collapse radius."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {name: list(map(short, value)) if isinstance(value, list) else short(value) for name, value in kept.items()}


def short(value: Any) -> Any:
    """Six digits; JSON has neither nan nor infinity."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.6g}")
