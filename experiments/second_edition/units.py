"""The work in units, one a cell: tuned, trained with all seeds, kept in a folder and not trained again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dro_core import collapse_radius
from dro_core.files import whole
from llm.adversary.matching import effective_share, matched_radius, sampled_batches
from llm.adversary.spec import parse_reweighting
from llm.data.grouping.named import NamedGroups
from llm.run.files import write_text
from llm.statistics.ties import credit
from llm.sweep import head_settings, heads
from llm.sweep.asked import Asked
from llm.sweep.head_settings import HeadTraining
from llm.sweep.heads import train_head

from .bench import Bench
from .places import ID
from .rules import (
    AGAIN,
    BUDGET,
    LEAST_RADIUS,
    MOST_RADIUS,
    RADII,
    SEEDS,
    STRONG,
    TUNING_SEEDS,
    Cell,
    Settings,
)  # fmt: skip
from .variants import Made, judged_on, made

Array = NDArray[np.float64]

_HERE = Path(__file__).parent
_TRAINERS = (Path(str(heads.__file__)), Path(str(head_settings.__file__)))
CODE = (*(_HERE / f"{name}.py" for name in ("bench", "data", "units", "variants")), *_TRAINERS)
EARLY = 0.25
"""Of the passes over the data: what plain training had seen by then."""


@dataclass(frozen=True)
class Work:
    """A bench, where units are kept, and how many seeds each has."""

    bench: Path
    folder: Path
    seeds: tuple[int, ...] = SEEDS
    again: tuple[int, ...] = AGAIN
    tuning: tuple[int, ...] = TUNING_SEEDS
    budget: tuple[Settings, ...] = BUDGET
    strong: tuple[Settings, ...] = STRONG

    def path(self, cell: Cell) -> Path:
        """Where a unit stands: the name holds all that it depends on, but for the features, which have the folder."""
        told = repr((cell, self.seeds, self.again, self.tuning, self.budget, self.strong)).encode()
        told += b"".join(path.read_bytes() for path in CODE)
        name = "".join(sign if sign.isalnum() else "-" for sign in f"{cell.data}-{cell.arm}-{cell.batch}")
        return self.folder / f"{name}-{hashlib.sha256(told).hexdigest()[:12]}.npz"

    def done(self, cell: Cell) -> bool:
        """Whether it is there."""
        return self.path(cell).exists()

    def failure(self, cell: Cell) -> Path:
        """Where it says why a unit is not there."""
        return self.path(cell).with_suffix(".txt")

    def settings(self, cell: Cell) -> tuple[Settings, ...]:
        """What the cell is tuned over."""
        if cell.arm == "erm, early":
            return tuple(one._replace(epochs=EARLY * one.epochs) for one in self.budget)
        return self.strong if cell.data == "planted" else self.budget

    def heads(self, cell: Cell) -> int:
        """How many are trained for a cell, for the time that it takes."""
        if cell.arm == "tv:chosen":
            return 0
        return len(self.settings(cell)) * len(self.tuning) + len(self.seeds) * (1 if cell.arm == "erm" else 2)


class Unit(NamedTuple):
    """What is kept of a cell.

    Attributes:
        own: ``(seeds, width)``, heads at the settings that id_test chose, for features that are not scaled.
        norms: ``(seeds,)``, of heads at the settings of plain training, for scaled features.
        scores: ``(settings, tuning seeds)``, accuracies on id_test.
        share: Mean effective sample size of the steps, as a share of the batch, ``(seeds,)``.
        about: The set with its numbers, the settings, the ratio to the collapse radius or None.
    """

    own: Array
    norms: Array
    scores: Array
    share: Array
    about: dict[str, Any]


def stored(work: Work, cell: Cell) -> Unit:
    """A unit that is there."""
    with np.load(work.path(cell)) as kept:
        about = json.loads(str(kept["about"]))
        return Unit(kept["own"], kept["norms"], kept["scores"], kept["share"], about)


def run(work: Work, cell: Cell) -> tuple[Cell, str]:
    """Train a cell unless it is there; returns what went wrong, which is kept and tried again by the next start."""
    if work.done(cell):
        return cell, ""
    try:
        unit = _chosen(work, cell) if cell.arm == "tv:chosen" else _trained(work, cell)
    except (ValueError, ArithmeticError, FileNotFoundError) as error:
        write_text(work.failure(cell), f"{type(error).__name__}: {error}\n")
        return cell, f": not trained, {error}"
    with whole(work.path(cell)) as stream:
        np.savez(stream, **{**unit._asdict(), "about": json.dumps(unit.about)})
    work.failure(cell).unlink(missing_ok=True)
    return cell, ""


def needs(cell: Cell) -> tuple[Cell, ...]:
    """The cells that must be there before."""
    found = () if cell.arm == "erm" else (cell.plain,)
    if cell.arm == "tv:chosen":
        return (*found, *(cell._replace(arm=f"tv:{radius}") for radius in RADII))
    reference = None if "," in cell.arm and cell.arm.startswith("erm") else Asked.of(cell.arm).reference
    return found if reference is None or cell.multiple else (*found, cell._replace(arm=reference))


@cache
def _bench(folder: Path) -> Bench:
    return Bench(folder)


def _chosen(work: Work, cell: Cell) -> Unit:
    """The unit of the radius that id_test chooses."""
    units = [stored(work, cell._replace(arm=f"tv:{radius}")) for radius in RADII]
    return max(units, key=lambda unit: float(unit.scores.mean(axis=1).max()))


def _trained(work: Work, cell: Cell) -> Unit:
    bench = _bench(work.bench)
    spec, ratio = _resolved(work, cell)
    suite = judged_on(bench, cell.data, bench.suite(ID))
    settings = work.settings(cell)
    tried = [[_head(bench, cell, spec, one, seed)[0] for seed in work.tuning] for one in settings]
    scores = np.array([[float(credit(suite @ head).mean()) for head in row] for row in tried])
    best = settings[int(np.argmax(scores.mean(axis=1)))]
    seeds = work.again if cell.arm == "erm, again" else work.seeds
    own = [_head(bench, cell, spec, best, seed) for seed in seeds]
    common = best if cell.arm == "erm" else Settings(*stored(work, cell.plain).about["settings"])
    same = own if common == best else [_head(bench, cell, spec, common, seed) for seed in seeds]
    about = {"set": spec, "settings": list(best), "common": list(common), "ratio": ratio}
    weights, shares = (np.array([one[place] for one in own]) for place in (0, 2))
    return Unit(weights, np.array([one[1] for one in same]), scores, shares, about)


def _head(bench: Bench, cell: Cell, spec: str, settings: Settings, seed: int) -> tuple[Array, float, float]:
    """Weights for features that are not scaled, the norm for scaled ones, and the effective share of the batch."""
    rule = parse_reweighting(spec)
    pairs = _pairs(bench.folder, cell.data, seed if cell.data == "noise" else 0, spec)
    training = HeadTraining(weight_decay=settings.weight_decay, checks=1)
    size = min(cell.batch, len(pairs.data.differences))
    found = train_head(
        pairs.data, rule, training, batch_size=size, learning_rate=settings.learning_rate, epochs=settings.epochs,
        seed=seed,
    )  # fmt: skip
    weights = found.iterates["last"]
    return weights / pairs.scale, float(np.linalg.norm(weights)), found.effective_sample_size / size


def _pairs(folder: Path, variant: str, seed: int = 0, spec: str = "erm") -> Made:
    return _made(folder, variant, seed, "apart" if Asked.of(spec).measures else "")


@cache
def _made(folder: Path, variant: str, seed: int, apart: str) -> Made:
    return made(_bench(folder), variant, seed=seed, measures=bool(apart))


def _resolved(work: Work, cell: Cell) -> tuple[str, float | None]:
    """The set of a cell with its numbers, and the ratio of its radius to the collapse radius where that is asked."""
    if cell.arm.startswith("erm"):
        return "erm", None
    if cell.multiple is not None:
        kind, times = cell.multiple
        size, ratio = at_ratio(kind, times, held_out_radius(work, cell.data, kind, cell.batch))
        return f"{kind}:{size:.6g}", ratio
    asked = Asked.of(cell.arm)
    if asked.reference is None:
        return cell.arm, None
    pairs = _pairs(work.bench, cell.data)
    reference = cell._replace(arm=asked.reference)
    losses = np.logaddexp(0.0, -pairs.data.differences @ (pairs.scale * stored(work, reference).own[0]))
    batches = sampled_batches(len(losses), min(cell.batch, len(losses)))
    rule = parse_reweighting(asked.reference)
    target = effective_share(None if rule is None else rule.bind(NamedGroups.of(pairs.data.columns)), losses, batches)
    return matched_radius(asked.text, target, losses, batches, pairs.data.columns), None


def at_ratio(kind: str, times: float, collapse: float) -> tuple[float, float]:
    """The size of a set at so many times the collapse radius, and the ratio that it really has.

    Args:
        kind: ``tv``, or ``cvar``, of which 1 / alpha - 1 is taken for the radius.
        times: The ratio.
        collapse: The collapse radius, or alpha.
    """
    if kind == "cvar":
        return 1 / (1 + times * max(1 / max(collapse, 1e-3) - 1, LEAST_RADIUS)), times
    least = max(collapse, LEAST_RADIUS)
    size = min(times * least, MOST_RADIUS)
    return size, size / least


def held_out_radius(work: Work, variant: str, kind: str, batch: int | None) -> float:
    """The collapse radius of training pairs on prompts that did not choose the direction; kept beside the units."""
    path = work.folder / f"radius-{variant}-{kind}-{batch}.json"
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8"))["held_out"])
    pairs, clusters = _pairs(work.bench, variant), _bench(work.bench).clusters
    most = None if batch is None else min(batch, len(pairs.data.differences) // 8)
    found = collapse_radius(pairs.data.differences, kind, clusters=clusters, seeds=(0,), batch=most)
    told = {"held_out": found.held_out, "interval": list(found.interval), "in_sample": found.radius}
    write_text(path, json.dumps(told))
    return float(found.held_out)
