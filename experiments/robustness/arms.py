"""Arms of a results folder side by side: the rows of the study's tables, each part corrected by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from llm.report.collect import Arm, Collection
from llm.report.judge import Judge
from llm.results.store import read_suite
from llm.statistics.arms import add_holm, share_right
from llm.statistics.intervals import paired_difference, paired_p

Rows = list[tuple[str, ...]]


def chosen(collection: Collection, keep: Callable[[Arm], bool]) -> Collection:
    """The collection with those arms alone: tests are corrected within it."""
    return replace(collection, arms=[arm for arm in collection.arms if keep(arm)])


def among(*texts: str, regime: str = "all", final: str = "last", **settings: Any) -> Callable[[Arm], bool]:
    """Whether an arm has one of these sets and these settings; of a text that ends with a colon the rest may differ."""
    wanted = {"regime": regime, "final": final, **settings}

    def keep(arm: Arm) -> bool:
        named = any(arm.ambiguity == text or (text[-1] == ":" and arm.ambiguity.startswith(text)) for text in texts)
        return named and all(arm.settings[name] == value for name, value in wanted.items())

    return keep


def comparison(collection: Collection, *, group: str | None = None) -> Rows:
    """One row per arm: effective sample size, then accuracy and difference to plain training in three columns.

    With ``group``, a fourth: that category of all suites together, named before the results were seen.
    """
    records = Judge(collection).records()
    rows: Rows = [("set", "effective share", "in distribution", "average of the suites", "worst category")]
    for record in records:
        share = record["effective_sample_size"] / record["settings"]["batch_size"]
        entries = (record["suites"].get("id_test"), record["average"], record["worst"])
        rows.append((f"`{record['ambiguity']}`", f"{share:.2f}", *map(_cell, entries)))
    return (
        rows if group is None else [(*row, cell) for row, cell in zip(rows, _declared(collection, group), strict=True)]
    )


def _declared(collection: Collection, group: str) -> list[str]:
    plain = only(collection.arms, lambda arm: arm.ambiguity == "erm")
    tests = {arm: against(collection, arm, plain, None, group) for arm in collection.arms}
    add_holm([record for arm, record in tests.items() if arm is not plain])
    cells = (
        f"{100 * record['accuracy']:.1f}" + (f"; {marked(record)}" if arm is not plain else "")
        for arm, record in tests.items()
    )
    return [f"{group}, all suites ({next(iter(tests.values()))['pairs']:,} pairs)", *cells]


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    place = f" ({entry['name'].split(' / ')[-1]})" if "name" in entry else ""
    text = f"{100 * entry['accuracy']:.1f}{place}"
    difference = entry["difference"]
    return text if difference is None else f"{text}; {marked(difference)}"


def marked(difference: Mapping[str, Any]) -> str:
    """A difference in points with its interval; a star where Holm's p is below 0.05."""
    star = " *" if difference.get("p_holm", 1.0) < 0.05 else ""
    return (
        f"{100 * difference['difference']:+.1f} [{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]{star}"
    )


def against(
    collection: Collection, first: Arm, second: Arm, suite: str | None, category: str | None = None
) -> dict[str, Any]:
    """First minus second on the pairs of a suite, or all suites, or one category in them: difference, low, high, p."""
    names = [name for name in collection.suites if name not in collection.validation] if suite is None else [suite]
    right: dict[Arm, list[np.ndarray]] = {first: [], second: []}
    labels: list[str] = []  # questions: a prompt may stand in several suites
    for name in names:
        kept = collection.suites[name]
        rows = np.flatnonzero((kept.categories == category) | (category is None))
        shared = set(collection.margins(first, name)) & set(collection.margins(second, name))
        for arm, parts in right.items():
            parts.append(share_right({seed: collection.margins(arm, name)[seed][rows] for seed in sorted(shared)}))
        asked = read_suite(collection.folder, name)["question_id"].to_numpy()[rows]
        labels += [question or f"{name} {row}" for question, row in zip(asked, rows, strict=True)]
    a, b = (np.concatenate(right[arm]) for arm in (first, second))
    interval = paired_difference(a, b, labels)
    return {
        "accuracy": float(a.mean()), "difference": interval.mean, "low": interval.low, "high": interval.high,
        "p": paired_p(a, b, labels), "pairs": len(a),
    }  # fmt: skip


def only(arms: Iterable[Arm], keep: Callable[[Arm], bool]) -> Arm:
    """The one arm that is asked for."""
    found = [arm for arm in arms if keep(arm)]
    if len(found) != 1:
        raise ValueError(f"there must be one such arm, found {[arm.ambiguity for arm in found]}")
    return found[0]


def mean_accuracy(collection: Collection, arm: Arm, suites: Sequence[str]) -> dict[int, float]:
    """Seed -> accuracy, the mean over the suites."""
    by_suite = [collection.accuracies(arm, suite) for suite in suites]
    return {seed: float(np.mean([values[seed] for values in by_suite])) for seed in by_suite[0]}
