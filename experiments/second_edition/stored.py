"""What is kept of the study beside its page, and how a sentence asks for a number of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..page_tables import RESULTS
from .rules import BATCH

FOLDER = RESULTS / "second-edition"
SIGN = "study"
"""Of its numbers in pages: ``<!-- study QUESTION -->TEXT<!-- / -->``."""

Row = dict[str, Any]
"""A comparison: its kind, ``cell`` and ``against`` (data, arm, batch), where, margin, mean, low, high, p, outcome."""


@dataclass(frozen=True)
class Told:
    """The stored summary.

    Attributes:
        board: As ``study.summary`` makes it: outcomes, comparisons, plain accuracies.
        cells: Of every cell that was trained: its set with its numbers, settings, effective share, norm, accuracies.
        radii: Collapse radii by data, set and batch.
        entries: By backbone, what lets it take part.
    """

    board: dict[str, Any]
    cells: list[Row]
    radii: list[Row]
    entries: list[Row]

    @classmethod
    def kept(cls) -> Told:
        """What stands beside the page."""
        return cls(**json.loads((FOLDER / "summary.json").read_text(encoding="utf-8")))

    def hypothesis(self, name: str) -> Row:
        """One of H1 to H8."""
        [found] = (one for one in self.board["hypotheses"] if one["name"] == name)
        return found

    def tests(self, name: str = "") -> Iterator[Row]:
        """The comparisons of a hypothesis; without a name all, those that stand beside included."""
        for one in self.board["hypotheses"]:
            if name in ("", one["name"]):
                yield from (test for way in one["ways"] for test in way["tests"])
        for beside, rows in self.board["beside"].items():
            if name in ("", beside):
                yield from rows

    def quoted(self, question: str) -> str:
        """The text of a number that a page quotes.

        Args:
            question: ``gain DATA; ARM; PLACE[; AGAINST[; BATCH]]``, ``norm DATA; ARM``, ``level DATA; ARM; PLACE`` (no
                interval), ``plain PLACE``, ``longer PLACE``, ``radius DATA; SET; BATCH``, ``outcome H``, ``computed
                H``, ``count H; OUTCOME`` (comparisons of H), ``ranks``, ``ratio RATIO; most`` (least, most loss of H1
                at a ratio), or of whole models on the test set ``whole KIND; ARM``, ``; pairs`` or ``; longer``.
        """
        kind, _, rest = question.partition(" ")
        parts = [part.strip() for part in rest.split(";")]
        if kind in ("gain", "norm"):
            row = self._found(kind, *parts)
            return _shown(row) if kind == "norm" else points(row)
        if kind in ("plain", "longer"):
            row = self.board["plain"][parts[0]]
            return level(row) if kind == "plain" else f"{100 * row['longer wins']:.1f}"
        if kind == "radius":
            [row] = (one for one in self.radii if [one["data"], one["set"], str(one["batch"])] == parts)
            return f"{row['held_out']:.3f} [{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]"
        if kind == "level":
            [row] = (one for one in self.cells if [one["data"], one["arm"], one["batch"]] == [*parts[:2], BATCH])
            return f"{100 * row['levels'][parts[2]]:.1f}"
        if kind in ("outcome", "computed"):
            return str(self.hypothesis(parts[0])[kind])
        if kind == "count":
            return str(sum(row["outcome"] == parts[1] for row in self.tests(parts[0])))
        if kind == "ranks":
            [row] = (one for one in self.tests("H1") if one["kind"] == "ranks")
            return _shown(row)
        if kind == "whole":
            return self._whole(*parts)
        if kind == "ratio":
            return points(self.ratios(float(parts[0]))[0 if parts[1] == "most" else -1])
        raise ValueError(f"no answer to {question!r}.")

    def _whole(self, kind: str, of: str) -> str:
        row = self.board["whole"][kind]
        if of == "longer":
            return f"{100 * row['longer wins']:.1f}"
        return f"{row['pairs']:,}" if of == "pairs" else level(row["arms"][of])

    def ratios(self, ratio: float) -> list[Row]:
        """The cells of H1 at a ratio that have a comparison, the largest loss first."""
        found = [one for one in self.tests("H1") if one["kind"] != "ranks" and one["cell"][1].endswith(f":{ratio:g}c")]
        return sorted(found, key=lambda one: one["mean"])

    def _found(
        self, kind: str, data: str, arm: str, where: str = "", against: str = "erm", batch: str = str(BATCH)
    ) -> Row:
        for row in self.tests():
            if row["kind"] == "ranks" or (row["kind"] == "norm") != (kind == "norm"):
                continue
            here = row["cell"] == [data, arm, int(batch)] and row["against"][1] == against
            if here and (kind == "norm" or row["where"] == where):
                return row
        raise ValueError(f"no comparison of {data}, {arm} with {against} at {where or kind}.")


def points(row: Row) -> str:
    """A difference in points with its interval."""
    if row["mean"] is None:
        return "not run"
    return f"{100 * row['mean']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"


def level(row: Row) -> str:
    """An accuracy in percent with its interval."""
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def shown(row: Row) -> str:
    """A comparison in its unit: points, or of norms and ranks the number itself."""
    return _shown(row) if row["kind"] in ("norm", "ranks") else points(row)


def _shown(row: Row) -> str:
    return "not run" if row["mean"] is None else f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
