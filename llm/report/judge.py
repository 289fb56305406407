"""Every arm on every suite, on average and in its worst group, and against plain training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics.arms import (
    LEVEL,
    Array,
    accuracy_record,
    add_holm,
    difference_record,
    limits,
    outcome_of,
    share_right,
)
from ..statistics.intervals import Interval, cluster_count, independent_mean
from ..statistics.worst_group import Difference, Groups, average_difference, worst_accuracy, worst_difference
from . import SMALLEST_GROUP
from .collect import Arm, Collection, label_of, varying_settings

Record = dict[str, Any]


@dataclass(frozen=True)
class Stack:
    """Parts of several suites laid end to end, one group each."""

    suites: Sequence[str]
    rows: Sequence[NDArray[np.intp]]
    groups: Groups

    def values(self, by_suite: Mapping[str, Array]) -> Array:
        """Values by suite, each of the suite's shape, in the order of the stack."""
        return np.concatenate([by_suite[name][rows] for name, rows in zip(self.suites, self.rows, strict=True)])


class Judge:
    """The comparisons of a collection; what all arms share is worked out once.

    Attributes:
        small: Categories with too few questions to count as the worst.
        tests: Number of tests in each of Holm's families: suites, average, worst.
    """

    def __init__(self, collection: Collection, *, smallest: int = SMALLEST_GROUP) -> None:
        self.collection, self.small, self.tests = collection, [], {}
        self._varying = varying_settings(collection.arms)
        self._categories = self._large_categories(max(smallest, 2))
        self._stacks: dict[tuple[str, tuple[str, ...]], Stack | None] = {}

    def records(self) -> list[Record]:
        """One record per arm, with Holm's correction within each family of tests."""
        records = [self._record(arm) for arm in self.collection.arms]
        families = {
            "suites": [entry for record in records for entry in record["suites"].values()],
            "average": [record["average"] for record in records],
            "worst": [record["worst"] for record in records],
        }
        self.tests = {
            kind: add_holm([entry["difference"] for entry in entries if entry and entry["difference"]])
            for kind, entries in families.items()
        }
        return records

    def suite_facts(self) -> dict[str, Record]:
        """Pairs, questions, groups (how many and of what kind) and the rule "the longer answer wins" of every suite."""
        return {name: self._facts(name) for name in self.collection.suite_names}

    def longer_average(self) -> float | None:
        """The rule "the longer answer wins" on average over the out-of-distribution suites."""
        scores = [s.longer.mean() for name in self.collection.outside if (s := self.collection.suites.get(name))]
        return float(np.mean(scores)) if scores else None

    def _facts(self, name: str) -> Record:
        suite = self.collection.suites.get(name)
        collection = self.collection
        role = "inside" if name in collection.inside else "validation" if name in collection.validation else "outside"
        known = {"role": role, "readable": suite is not None}
        if suite is None:
            return {**known, "pairs": None, "questions": None, "categories": None, "kind": None, "longer_wins": None}
        pairs = len(suite.longer)
        return {
            **known,
            "pairs": pairs,
            "questions": cluster_count(suite.questions, pairs),
            "categories": len(np.unique(suite.categories)) if suite.has_categories else 0,
            "kind": suite.kind,
            "longer_wins": float(suite.longer.mean()),
        }

    def _large_categories(self, smallest: int) -> list[tuple[str, str, NDArray[np.intp] | None]]:
        """The categories of all suites with enough questions; a suite without categories is one group."""
        parts = []
        tested = {n: s for n, s in self.collection.suites.items() if n not in self.collection.validation}
        for name, suite in tested.items():
            for category in np.unique(suite.categories):
                rows = np.flatnonzero(suite.categories == category)
                place = f"{name} / {category or 'no category'}" if suite.has_categories else name
                if cluster_count(suite.questions[rows], len(rows)) >= smallest:
                    parts.append((name, place, rows))
                else:
                    self.small.append(place)
        return parts

    def _whole_suites(self, arm: Arm) -> Stack | None:
        names = self.collection.judged_on(arm, self.collection.outside)
        if ("average", names) not in self._stacks:
            self._stacks["average", names] = self._stack([(name, name, None) for name in names])
        return self._stacks["average", names]

    def _groups(self, arm: Arm) -> Stack | None:
        names = self.collection.judged_on(arm, list(self.collection.suites))
        if ("worst", names) not in self._stacks:
            self._stacks["worst", names] = self._stack([part for part in self._categories if part[0] in names])
        return self._stacks["worst", names]

    def _stack(self, parts: Sequence[tuple[str, str, NDArray[np.intp] | None]]) -> Stack | None:
        if not parts or any(name not in self.collection.suites for name, *_ in parts):
            return None
        suites = [self.collection.suites[name] for name, *_ in parts]
        rows = [np.arange(len(s.longer)) if r is None else r for s, (*_, r) in zip(suites, parts, strict=True)]
        first, number = {}, 0  # questions of different suites get different numbers
        for suite in {id(s): s for s in suites}.values():
            first[suite.name], number = number, number + int(suite.questions.max()) + 1
        questions = np.concatenate([s.questions[r] + first[s.name] for s, r in zip(suites, rows, strict=True)])
        if any(cluster_count(s.questions[r], len(r)) < 2 for s, r in zip(suites, rows, strict=True)):
            return None
        codes = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        return Stack([s.name for s in suites], rows, Groups([place for _, place, _ in parts], codes, questions))

    def _record(self, arm: Arm) -> Record:
        baseline = self.collection.baselines.get(arm)
        other = None if baseline is arm else baseline
        suites = {name: self._suite(arm, other, name) for name in self.collection.suite_names}
        runs = self.collection.runs.loc[list(arm.runs.values())]
        return {
            "family": label_of(arm, self._varying),
            "settings": arm.settings,
            "ambiguity": arm.ambiguity,
            "plain": baseline is arm,
            "against": None if other is None else {"family": label_of(other, self._varying), **other.settings},
            "own_baseline": baseline is not None and baseline.family == arm.family,
            "seeds": list(arm.runs),
            "versions": sorted(set(runs["version"].fillna("") + " " + runs["revision"].fillna(""))),
            "effective_sample_size": float(runs["effective_sample_size"].mean()),
            "suites": suites,
            "average": self._average(arm, other, suites),
            "worst": self._worst(arm, other),
        }

    def _suite(self, arm: Arm, other: Arm | None, name: str) -> Record | None:
        margins = self.collection.margins(arm, name)
        if not margins:
            seeds = self.collection.accuracies(arm, name)
            bare = Interval(float(np.mean(list(seeds.values()))), np.nan, np.nan) if seeds else None
            return {**limits("accuracy", bare), "by_seed": seeds, "difference": None} if bare else None
        questions = self.collection.suites[name].questions
        reference = self.collection.margins(other, name) if other else {}
        return {
            **accuracy_record(margins, questions),
            "difference": difference_record(margins, reference, questions) if reference else None,
        }

    def _average(self, arm: Arm, other: Arm | None, suites: Mapping[str, Record | None]) -> Record | None:
        names = self.collection.judged_on(arm, self.collection.outside)
        entries = [entry for name in names if (entry := suites[name])]
        if len(entries) < len(names) or not names:
            return None
        mean = independent_mean([Interval(entry["accuracy"], entry["low"], entry["high"]) for entry in entries])
        seeds = set.intersection(*(set(entry["by_seed"]) for entry in entries))
        return {
            **limits("accuracy", mean),
            "by_seed": {seed: float(np.mean([entry["by_seed"][seed] for entry in entries])) for seed in sorted(seeds)},
            "suites": len(names),
            "difference": self._against(arm, other, self._whole_suites(arm), average_difference),
        }

    def _worst(self, arm: Arm, other: Arm | None) -> Record | None:
        stack = self._groups(arm)
        seeds = self._right(arm, stack)
        if stack is None or not seeds:
            return None
        correct = np.mean(list(seeds.values()), axis=0)
        place = int(np.argmin(stack.groups.means(correct)))
        return {
            "name": stack.groups.names[place],
            **limits("accuracy", worst_accuracy(stack.groups, correct, level=LEVEL)),
            "by_seed": {seed: float(stack.groups.means(values)[place]) for seed, values in seeds.items()},
            "difference": self._against(arm, other, stack, worst_difference),
        }

    def _against(
        self, arm: Arm, other: Arm | None, stack: Stack | None, compare: Callable[..., Difference]
    ) -> Record | None:
        ours, theirs = self._right(arm, stack), self._right(other, stack) if other else {}
        if stack is None or not ours or not theirs:
            return None
        shared = [seed for seed in ours if seed in theirs]
        a, b = (np.mean([side[seed] for seed in shared or side], axis=0) for side in (ours, theirs))
        found: Difference = compare(stack.groups, a, b, level=LEVEL)
        means = {seed: (stack.groups.means(ours[seed]), stack.groups.means(theirs[seed])) for seed in shared}
        summary = np.min if compare is worst_difference else np.mean
        return {
            **limits("difference", found.interval),
            "p": found.p,
            "by_seed": {seed: float(summary(one) - summary(two)) for seed, (one, two) in means.items()},
            "outcome": outcome_of(found.interval),
        }

    def _right(self, arm: Arm, stack: Stack | None) -> dict[int, Array]:
        """Seed -> 1 where right, along the stack; seeds that lack one of its suites are left out."""
        if stack is None:
            return {}
        margins = {name: self.collection.margins(arm, name) for name in dict.fromkeys(stack.suites)}
        seeds = [seed for seed in arm.runs if all(seed in of for of in margins.values())]
        return {
            seed: stack.values({name: share_right({seed: of[seed]}) for name, of in margins.items()}) for seed in seeds
        }
