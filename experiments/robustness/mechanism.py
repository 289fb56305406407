"""Where the adversary puts its weight, what of that moves accuracy, and how much of a worst case a minibatch sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dro_core import TotalVariation, worst_case
from llm.report.collect import Arm, Collection
from llm.results.store import read_training_pairs, read_weights, training_of
from llm.statistics.arms import add_holm
from llm.statistics.intervals import mean_interval

from .arms import Rows, against, among, chosen, comparison, marked, only

DRAWS = 400
PLACES = (
    ("id_test", "Reasoning"), ("ood_rewardbench_like", "Reasoning"), ("ood_mt_bench", "reasoning"),
    ("ood_mt_bench", "math"), ("ood_rewardbench_like", "Chat-Hard"),
)  # fmt: skip


def weight_table(collection: Collection, arms: Sequence[Arm], *, column: str, least: int = 60) -> Rows:
    """Mean multiplier n q of the training pairs of each group, with the interval over seeds."""
    pairs = read_training_pairs(collection.folder)
    groups = [name for name, count in pairs[column].value_counts().items() if count >= least]
    rows: Rows = [(column, "pairs", *(f"`{arm.ambiguity}`" for arm in arms))]
    members = {name: np.flatnonzero(pairs[column] == name) for name in groups}
    found = [_multipliers(collection, arm, len(pairs)) for arm in arms]
    for name, rows_of in members.items():
        means = [[float(np.nanmean(values[rows_of])) for values in by_seed] for by_seed in found]
        rows.append((name, str(len(rows_of)), *(_limits(values) for values in means)))
    return rows


def _multipliers(collection: Collection, arm: Arm, pairs: int) -> list[np.ndarray]:
    """Per seed, the multiplier of every training pair; nan for those it did not train on."""
    per_seed = []
    for run in arm.runs.values():
        kept = read_weights(collection.folder, run)
        if kept is None:
            raise ValueError(f"the weights of {run} cannot be read")
        values = np.full(pairs, np.nan)
        values[kept.rows] = kept.multiplier
        per_seed.append(values)
    return per_seed


def reasoning_table(collection: Collection, radii: Sequence[float]) -> Rows:
    """Does accuracy on a category move with the adversary, and with the same weight dealt inside each category?

    Holm's correction is over the whole table.
    """
    names = ("set - plain", "same weight, random pairs of the category - plain", "set - random pairs of the category")
    rows: Rows = [("suite / category", "pairs", "radius", *names)]
    entries = []
    for suite, category in PLACES:
        for radius in radii:
            plain, robust, within = (
                only(collection.arms, among(text, batch_size=32))
                for text in ("erm", f"tv:{radius}", f"shuffled:tv:{radius},within=category")
            )
            sides = ((robust, plain), (within, plain), (robust, within))
            found = [against(collection, a, b, suite, category) for a, b in sides]
            entries.append((f"{suite} / {category}", radius, found))
    add_holm([record for *_, found in entries for record in found])
    rows += [(place, str(found[0]["pairs"]), f"{r:g}", *map(marked, found)) for place, r, found in entries]
    return rows


def coin_table(collection: Collection, text: str, *, least: int = 30) -> Rows:
    """Categories of at least so many questions: accuracy of plain training, the change, and their correlation."""
    found, together = by_category(collection, text, least=least)
    rows: Rows = [("category", "pairs", "`erm`", f"`{text}` less `erm` (correlation with `erm`: {together:.2f})")]
    return [*rows, *((place, str(c["pairs"]), f"{100 * base:.1f}", marked(c)) for base, place, c in found)]


def by_category(
    collection: Collection, text: str, *, least: int = 30
) -> tuple[list[tuple[float, str, dict[str, Any]]], float]:
    """Accuracy of plain training in every category, its name and the change, the lowest first; their correlation."""
    plain, robust = (only(collection.arms, among(name, batch_size=32)) for name in ("erm", text))
    found = []
    for suite in collection.judged_on(plain, [*collection.inside, *collection.outside]):
        kept = collection.suites[suite]
        for category in np.unique(kept.categories):
            if len(np.unique(kept.questions[kept.categories == category])) >= least:
                change = against(collection, robust, plain, suite, category)
                found.append((change["accuracy"] - change["difference"], f"{suite} / {category}", change))
    found.sort(key=lambda entry: entry[0])
    together = np.corrcoef([entry[0] for entry in found], [entry[2]["difference"] for entry in found])[0, 1]
    return found, float(together)


def length_table(collection: Collection, texts: Sequence[str]) -> Rows:
    """How often an arm ranks the longer answer first, in percent, beside how often that one is right."""
    plain = only(collection.arms, among("erm", batch_size=32))
    suites = collection.judged_on(plain, [*collection.inside, *collection.outside])
    rows: Rows = [("set", *suites)]
    rows.append(("the longer one is right", *(f"{100 * collection.suites[name].longer.mean():.1f}" for name in suites)))
    for text in texts:
        arm = only(collection.arms, among(text, batch_size=32))
        rows.append((f"`{text}`", *(f"{100 * _longer_first(collection, arm, name):.1f}" for name in suites)))
    return rows


def _longer_first(collection: Collection, arm: Arm, suite: str) -> float:
    longer = collection.suites[suite].longer
    told = longer != 0.5  # answers of equal length say nothing
    return float(
        np.mean([(values > 0)[told] == (longer[told] > 0.5) for values in collection.margins(arm, suite).values()])
    )


def batch_table(collection: Collection, sizes: Sequence[int], *, radius: float = 0.2) -> Rows:
    """Per batch size: the bias of the minibatch's worst case at plain training's losses, and accuracy against plain."""
    rows: Rows = [
        (
            "batch",
            "worst case of all pairs - of a minibatch, nats",
            "set",
            "in distribution",
            "average",
            "worst category",
        )
    ]
    for size in sizes:
        plain = only(collection.arms, among("erm", batch_size=size))
        bias = _limits([_bias(collection, run, size, radius) for run in plain.runs.values()], digits=4)
        part = chosen(
            collection, among("erm", "tv:0.2", "tv:0.2,max_ratio=4", "chi2:0.5", "micro:8:tv:0.2", batch_size=size)
        )
        for number, (name, _, *cells) in enumerate(comparison(part)[1:]):
            rows.append((str(size) if not number else "", bias if not number else "", name, *cells))
    return rows


def _bias(collection: Collection, run: str, size: int, radius: float) -> float:
    kept = read_weights(collection.folder, run)
    if kept is None:
        raise ValueError(f"the weights of {training_of(run)} cannot be read")
    losses, rng = kept.last_loss.astype(float), np.random.default_rng(0)
    ambiguity = TotalVariation(radius)
    seen = [worst_case(rng.choice(losses, size, replace=False), ambiguity).value for _ in range(DRAWS)]
    return float(worst_case(losses, ambiguity).value - np.mean(seen))


def _limits(values: Sequence[float], *, digits: int = 2) -> str:
    found = mean_interval(values)
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
