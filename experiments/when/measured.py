"""What the studies measured, read from what they keep: to stand beside what the statements say."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from ..page_tables import RESULTS
from ..verifiable.publish import stored
from ..verifiable.stored import points


@cache
def kept(name: str) -> list[list[str]]:
    """A table of docs/results/collapse/real.json."""
    return json.loads((RESULTS / "collapse" / "real.json").read_text(encoding="utf-8"))[name]


def collapse_radius(weighs: str, kind: str = "tv") -> str:
    """The radius that unseen pairs bear, with its interval."""
    [held_out] = [row[-1] for row in kept("table") if row[:2] == [weighs, f"`{kind}`"]]
    return held_out


def head(labels: str, spec: str) -> str:
    """Points of accuracy to plain training on the same labels, of heads trained by minibatches."""
    [change] = [row[4] for row in kept("trained") if row[:2] == [labels, f"`{spec}`"]]
    return signed(change)


def signed(interval: str) -> str:
    """The same numbers, each with its sign.

    Example:
        >>> signed("0.1 [-0.8, 0.9]"), signed("-0.0 [-0.5, 0.4]")
        ('+0.1 [-0.8, +0.9]', '0.0 [-0.5, +0.4]')
    """
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):+z.1f}".replace("+0.0", "0.0"), interval)


def study(table: str, spec: str, column: int) -> str:
    """A cell of a table of study-1.md, what follows its semicolon, without its star."""
    [cells] = [row for row in _table(RESULTS / "study-1.md", table) if row[0] == f"`{spec}`"]
    return cells[column].split("; ")[-1].removesuffix(" *")


def accuracy(table: str, spec: str, column: int) -> str:
    """What precedes the semicolon of the same cell."""
    [cells] = [row for row in _table(RESULTS / "study-1.md", table) if row[0] == f"`{spec}`"]
    return cells[column].split("; ")[0].split(" (")[0]


def _table(page: Path, name: str) -> list[list[str]]:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", page.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise ValueError(f"{page.name} must have a table between the marks {name!r}: none found.")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def bandit(relation: str, arm: str = "kl_penalty:0.3", measure: str = "train worst fifth") -> str:
    """Points to plain training with tuned step sizes, by how prompts agree."""
    return points(stored().gain(arm, measure, relation=relation))
