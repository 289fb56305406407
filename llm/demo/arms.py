"""Training runs grouped into arms (one ambiguity set, several seeds) and compared pair by pair.

An arm's accuracy on a pair is the share of its seeds that rank the pair right, so the interval of an arm
or of a difference is over test pairs *given these seeds*. How much seeds differ is shown beside it, one
accuracy per seed; a handful of seeds allows no honest interval for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.pairs import Pair, length_baseline
from ..data.questions import questions
from ..judging.accuracy import rows_by, summarise_rows, worst_category
from ..judging.margins import checked_margins
from ..run.likeness import differences
from ..statistics.arms import LEVEL, accuracy_record, add_holm, difference_record, limits, outcome_of, share_right
from ..statistics.counting import credit
from ..statistics.intervals import Interval, cluster_count, independent_mean, mcnemar_p, paired_difference

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ArmRun:
    """One finished training run and its margins on the suites.

    Attributes:
        ambiguity: The ambiguity set as ``parse_ambiguity`` reads it; runs that share it are one arm.
        seed: Training seed, unique within the arm.
        history: The log of ``transformers.Trainer``.
        adversary: As from ``llm.adversary.ledger.describe_adversary``.
        margins: Suite name -> margins, shape (pairs of the suite,).
        seconds: Training time.
        steps: Optimiser steps.
        record: What ``run.json`` holds; {} where it is not at hand.
    """

    ambiguity: str
    seed: int
    history: list[dict]
    adversary: dict
    margins: dict[str, np.ndarray]
    seconds: float
    steps: int
    record: dict[str, Any] = field(default_factory=dict)


class Arms:
    """The runs of a report by ambiguity set; the baseline is ``erm`` where present, else the first."""

    def __init__(self, runs: Sequence[ArmRun]) -> None:
        if not runs:
            raise ValueError("A report needs at least one finished run, got none.")
        self.runs: dict[str, dict[int, ArmRun]] = {}
        for run in runs:
            seeds = self.runs.setdefault(run.ambiguity, {})
            if run.seed in seeds:
                raise ValueError(f"Two runs of {run.ambiguity} have seed {run.seed}: give every run its own.")
            seeds[run.seed] = run
        self.names = list(self.runs)
        self.baseline = "erm" if "erm" in self.runs else self.names[0]

    def unlike(self) -> list[str]:
        """Whose adversary did not act, and what arms differ in from the baseline beside the set, seed by seed."""
        said: dict[str, None] = {}
        for name, seeds in self.runs.items():
            for seed, run in seeds.items():
                if found := run.record.get("inaction"):
                    said[f"{name}, seed {seed}: {found}."] = None
                like = self.runs[self.baseline].get(seed)
                if like and like.record and run.record and (apart := differences(run.record, like.record)):
                    said[f"{name} and {self.baseline} also differ in: {', '.join(apart)}."] = None
        return list(said)

    def compared(self) -> list[str]:
        """The arms that are compared with the baseline."""
        return [name for name in self.names if name != self.baseline]

    def margins(self, suite: str, pairs: Sequence[Pair]) -> dict[str, dict[int, Array]]:
        """Margins by arm and seed; arms that were never evaluated on the suite are left out."""
        found = {
            name: {
                seed: checked_margins(pairs, run.margins[suite]) for seed, run in seeds.items() if suite in run.margins
            }
            for name, seeds in self.runs.items()
        }
        return {name: seeds for name, seeds in found.items() if seeds}


def suite_report(suite: str, pairs: Sequence[Pair], arms: Arms) -> dict[str, Any]:
    """One suite: the record of all pairs, and the same record per category where there are two or more."""
    margins = arms.margins(suite, pairs)
    everything = np.arange(len(pairs))
    groups = rows_by(pairs, "category")
    categories = {name: _group(pairs, rows, margins, arms.baseline) for name, rows in groups.items() if len(groups) > 1}
    accuracies = {
        arm: {name: record["arms"][arm] for name, record in categories.items() if record["pairs"]} for arm in margins
    }
    return {
        **_group(pairs, everything, margins, arms.baseline),
        "against_longer": {arm: _against_longer(pairs, seeds) for arm, seeds in margins.items()},
        "losses": {arm: _losses(pairs, seeds) for arm, seeds in margins.items()},
        "mcnemar": {arm: _mcnemar(margins, arm, arms.baseline) for arm in arms.compared() if arm in margins},
        "categories": categories,
        "worst_category": {arm: worst_category(records) for arm, records in accuracies.items()},
        "macro_categories": {
            arm: float(np.mean([record["accuracy"] for record in records.values()])) if records else None
            for arm, records in accuracies.items()
        },
    }


def macro_report(suites: Mapping[str, Mapping[str, Any]], arms: Arms) -> dict[str, Any] | None:
    """Plain averages over the suites that every arm was evaluated on; None where there is no such suite."""
    shared = [name for name, suite in suites.items() if suite["pairs"] and len(suite["arms"]) == len(arms.names)]
    if not shared:
        return None
    records = [suites[name] for name in shared]
    return {
        "suites": shared,
        "longer_wins": float(np.mean([record["longer_wins"] for record in records])),
        "arms": {
            arm: limits("accuracy", independent_mean([_interval("accuracy", r["arms"][arm]) for r in records]))
            for arm in arms.names
        },
        "differences": {
            arm: limits(
                "difference",
                independent_mean([_interval("difference", r["differences"][arm]) for r in records]),
            )
            for arm in arms.compared()
        },
    }


def adjust_for_multiplicity(suites: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Add Holm's ``p_holm`` to every difference, in two families: all suites, and all their categories.

    Returns:
        The number of tests in each family.
    """
    families = {
        "suites": [record for suite in suites.values() for record in suite["differences"].values()],
        "categories": [
            record
            for suite in suites.values()
            for category in suite["categories"].values()
            for record in category["differences"].values()
        ],
    }
    return {name: add_holm(records) for name, records in families.items()}


def _group(
    pairs: Sequence[Pair], rows: NDArray[np.intp], margins: Mapping[str, Mapping[int, Array]], baseline: str
) -> dict[str, Any]:
    members = [pairs[row] for row in rows]
    shared = questions(members)
    chosen = {arm: {seed: values[rows] for seed, values in seeds.items()} for arm, seeds in margins.items()}
    return {
        "pairs": len(members),
        "clusters": cluster_count(shared, len(members)),
        "longer_wins": float(np.mean([length_baseline(pair) for pair in members])) if members else None,
        "arms": {arm: accuracy_record(seeds, shared) for arm, seeds in chosen.items()},
        "differences": {
            arm: difference_record(seeds, chosen[baseline], shared)
            for arm, seeds in chosen.items()
            if arm != baseline and baseline in chosen
        },
    }


def _mcnemar(margins: Mapping[str, Mapping[int, Array]], arm: str, baseline: str) -> dict[int, float]:
    """One p-value per seed pair: McNemar's test is about two single models, never about averages."""
    reference = margins.get(baseline, {})
    return {
        seed: mcnemar_p(credit(values), credit(reference[seed]))
        for seed, values in margins[arm].items()
        if seed in reference
    }


def _against_longer(pairs: Sequence[Pair], seeds: Mapping[int, Array]) -> dict[str, Any]:
    longer = [length_baseline(pair) for pair in pairs]
    interval = paired_difference(share_right(seeds), longer, questions(pairs), level=LEVEL)
    return {**limits("difference", interval), "outcome": outcome_of(interval)}


def _losses(pairs: Sequence[Pair], seeds: Mapping[int, Array]) -> dict[str, float | None]:
    """Losses and length correlation of an arm: averages of the seeds' own."""
    records = [summarise_rows(pairs, values) for values in seeds.values()]
    return {
        name: None if any(r[name] is None for r in records) else float(np.mean([r[name] for r in records]))
        for name in ("mean_loss", "cvar_loss", "length_correlation")
    }


def _interval(name: str, record: Mapping[str, Any]) -> Interval:
    return Interval(record[name], record["low"], record["high"])
