"""The heads of the first edition again, on prompts that are whole: python -m experiments.robustness.whole_prompts.

With ``--data FOLDER``, ``train.jsonl.gz`` and suites beside it, it trains what is not trained; then it fills tables of
study-1.md. MiniLM is tuned plainly at 512 tokens on half of the prompts, heads are trained on the other half, and the
test set of ``held_out`` is in neither. What the page says of each claim of the first edition follows from ``verdicts``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold

from dro_core import collapse_radius
from llm.data.pairs import read_pairs
from llm.data.questions import asked
from llm.features.features import FeatureCache, default_cache, load_backbone
from llm.report.collect import Collection, collect
from llm.statistics.intervals import accuracy_interval

from ..page_tables import RESULTS, filled, markdown
from .arms import Rows, among, chosen, comparison
from .held_out import parted
from .mechanism import length_table
from .study import command, half_of, keep_raw, sweep
from .verdicts import NOISE, SOFT, TRIMMING, WORST_CASES, verdicts

OUTPUT = Path("runs/whole-prompts")
NAME = "whole_prompts"
FOLDS = 5


def main() -> None:
    """Train what is not trained, then write the tables and the raw results."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of real preferences; without it nothing is trained")
    data = parser.parse_args().data
    if data is not None:
        train(data, OUTPUT)
    write(OUTPUT)


def train(data: Path, output: Path) -> None:
    """The backbone on one half of the prompts, the heads on the other."""
    split(data, output)
    command("models", "fetch", "minilm")
    command(
        "train", "reward", "--config", "reward-minilm", "--bf16", "true", "--use_cpu", "true", "--resume", "true",
        "--train_file", str(output / "backbone.jsonl"), "--output_dir", str(output / "backbone"),
    )  # fmt: skip
    sweep(NAME, output, "--data", str(output / "heads"))


def split(data: Path, output: Path) -> None:
    """Half of the prompts outside the test set for the backbone, the other half for the heads, by a hash."""
    kept = {pair.id for pair in parted(read_pairs(data / "train.jsonl.gz").pairs)[0]}
    halves: list[list[str]] = [[], []]
    with gzip.open(data / "train.jsonl.gz", "rt") as lines:
        for record, line in ((json.loads(line), line) for line in lines):
            if record["id"] in kept:
                halves[half_of(record)].append(line)
    (output / "heads").mkdir(parents=True, exist_ok=True)
    for name, half in zip(("backbone.jsonl", "heads/train.jsonl"), halves, strict=True):
        (output / name).write_text("".join(half))
    for path in data.glob("*.jsonl.gz"):
        if not path.name.startswith("train"):
            shutil.copy(path, output / "heads")


def write(output: Path) -> None:
    """Fill the page, and copy the results table."""
    collection = collect(output / NAME)
    tables = {**accuracy_tables(collection), "verdicts": verdicts(collection), "ceiling": ceiling_table(output)}
    tables["collapse"] = collapse_table(output)
    page = RESULTS / "study-1.md"
    filled_page = filled(page.read_text(encoding="utf-8"), {name: markdown(rows) for name, rows in tables.items()})
    page.write_text(filled_page, encoding="utf-8")
    keep_raw(collection, RESULTS / "study" / f"{NAME}.parquet")


def accuracy_tables(collection: Collection) -> dict[str, Rows]:
    """All sets with the labels as they are, and with a fifth of them wrong; each corrected by itself."""
    named = ("erm", *WORST_CASES, TRIMMING, SOFT)
    return {
        "whole": comparison(chosen(collection, among(*named))),
        "whole-noise": comparison(chosen(collection, among(*named, regime=NOISE))),
        "whole-length": length_table(collection, ("erm", "tv:0.2", TRIMMING, SOFT)),
    }


def seen(output: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """By file: its name, features of the chosen answers less those of the rejected ones, and numbers of the prompts."""
    backbone = load_backbone(str(output / "backbone/model"), max_length=512, dtype="bfloat16")
    cache = FeatureCache(default_cache(), progress=True)
    for path in sorted((output / NAME / "told-apart").glob("*.jsonl")):
        pairs = read_pairs(path).pairs
        chosen_, rejected = np.load(cache.pairs(backbone, pairs, name=path.stem), mmap_mode="r")
        prompts = np.unique([asked(pair.prompt) for pair in pairs], return_inverse=True)[1]
        yield path.stem, np.asarray(chosen_, float) - np.asarray(rejected, float), prompts


def ceiling_table(output: Path) -> Rows:
    """What a head on these features reaches that is trained on the suite itself: five folds, no question in two."""
    rows: Rows = [("suite", "pairs", "a head trained on the suite's other questions")]
    for name, differences, prompts in seen(output):
        if name != "train":
            share = accuracy_interval(out_of_fold(differences, prompts), prompts)
            shown = f"{100 * share.mean:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
            rows.append((name, f"{len(prompts):,}", shown))
    return rows


def collapse_table(output: Path) -> Rows:
    """From which radius on a head with these features learns nothing from the training pairs."""
    [(differences, prompts)] = [(found, prompts) for name, found, prompts in seen(output) if name == "train"]
    rows: Rows = [("set", "in sample", "labels at random", "held out")]
    for kind in ("tv", "chi2", "kl", "cvar"):
        found = collapse_radius(differences, kind, clusters=prompts)
        low, high = found.interval
        numbers = (f"{value:.3f}" for value in (found.radius, np.median(found.null)))
        rows.append((f"`{kind}`", *numbers, f"{found.held_out:.3f} [{low:.3f}, {high:.3f}]"))
    return rows


def out_of_fold(differences: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Whether a logistic head on the other folds ranks each pair right; half for a tie.

    Strength of the penalty by cross-validation within them; both orders of a pair are trained on, so there is no
    intercept to be learned.
    """
    right = np.empty(len(differences))
    for train, test in GroupKFold(FOLDS).split(differences, groups=prompts):
        seen, within = differences[train] / differences[train].std(), GroupKFold(FOLDS)
        folds = list(within.split(seen, groups=prompts[train]))
        both = [(np.r_[a, a + len(seen)], np.r_[b, b + len(seen)]) for a, b in folds]
        labels = np.repeat([1, 0], len(seen))
        head = GridSearchCV(
            LogisticRegression(fit_intercept=False, max_iter=2000), {"C": np.logspace(-4, 1, 6)}, cv=both
        )
        head.fit(np.concatenate([seen, -seen]), labels)
        margins = head.decision_function(differences[test])
        right[test] = np.where(margins == 0, 0.5, margins > 0)
    return right


if __name__ == "__main__":
    main()
