"""The work of the bandits in units that one process trains at once, kept in a folder and not trained again."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dro_core.files import whole
from llm.adversary.weightings import formulas
from llm.policy.advantages import groups

from . import rules
from .arms import ARMS, MAIN, PLAIN
from .measures import NAMES
from .problem import RELATIONS
from .training import Run, train

HERE = Path(__file__).parent
CODE = (
    *(HERE / f"{name}.py" for name in ("arms", "bandit", "estimates", "measures", "problem", "training")),
    Path(formulas.__file__), Path(groups.__file__),
)  # fmt: skip
TOGETHER = 10
"""Problems in a unit."""


class Unit(NamedTuple):
    """What one process trains at once; arms by name with their step sizes."""

    stage: str
    relation: str
    seeds: tuple[int, ...]
    runs: tuple[tuple[str, float], ...]
    steps: int = rules.STEPS
    own: bool = False

    def path(self, folder: Path) -> Path:
        """Where its numbers stand: the name holds all that they depend on."""
        told = repr((self[1:], rules.EVERY)).encode() + b"".join(path.read_bytes() for path in CODE)
        mark = hashlib.sha256(told).hexdigest()[:12]
        return folder / f"{self.stage}-{self.relation}-{self.seeds[0]}-{mark}.npz"

    def cost(self) -> float:
        """Steps of a run, for the progress."""
        return len(self.seeds) * len(self.runs) * self.steps


def units(
    stage: str, relation: str, seeds: Sequence[int], runs: Sequence[tuple[str, float]], **told: Any
) -> list[Unit]:
    """All units of a stage."""
    blocks = [tuple(seeds[start : start + TOGETHER]) for start in range(0, len(seeds), TOGETHER)]
    return [Unit(stage, relation, block, tuple(runs), **told) for block in blocks]


def work(unit: Unit, folder: Path) -> Path:
    """Train a unit unless it is there."""
    path = unit.path(folder)
    if not path.exists():
        arms = {arm.name: arm for arm in ARMS}
        runs = [Run(arms[name], size) for name, size in unit.runs]
        told = {"every": rules.EVERY, "relation": unit.relation, "own": unit.own}
        along, rates = train(unit.seeds, runs, unit.steps, **told)
        with whole(path) as stream:
            np.savez(stream, along=along.astype(np.float32), rates=rates[:4].astype(np.float32))
    return path


def finished(jobs: Sequence[Unit], folder: Path, pool: ProcessPoolExecutor) -> None:
    """Train all units and say how it goes."""
    waiting: dict[Future[Path], Unit] = {pool.submit(work, job, folder): job for job in jobs}
    done, total, begun = 0.0, sum(job.cost() for job in jobs), time.monotonic()
    for future in as_completed(waiting):
        future.result()
        job = waiting[future]
        done += job.cost()
        spent = time.monotonic() - begun
        left = spent * (total - done) / done
        place = f"{job.stage} {job.relation} {job.seeds[0]}"
        sys.stderr.write(f"{place}: {100 * done / total:.0f} %, {spent:.0f} s, about {left:.0f} s left\n")


def loaded(jobs: Sequence[Unit], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Measures ``(times, problems, runs, measures)`` and rates ``(some problems, prompts, runs)`` of a stage."""
    parts = [np.load(job.path(folder)) for job in jobs]
    return np.concatenate([part["along"] for part in parts], axis=1), parts[0]["rates"]


def grid(relation: str) -> list[tuple[str, float]]:
    """Arms and step sizes of a relation: all arms where hard prompts are opposed, else those of MAIN."""
    names = [arm.name for arm in ARMS] if relation == "opposed" else MAIN
    return [(name, size) for name in names for size in rules.SIZES]


def chosen(jobs: Sequence[Unit], folder: Path) -> dict[str, float]:
    """The step size of every arm with the highest training pass@1 on the tuning problems."""
    along, _ = loaded(jobs, folder)
    level = along[-1, :, :, NAMES.index("train pass@1")].mean(axis=0)
    best: dict[str, tuple[float, float]] = {}
    for (name, size), value in zip(jobs[0].runs, level, strict=True):
        best[name] = max(best.get(name, (-1.0, 0.0)), (float(value), size))
    return {name: size for name, (_, size) in best.items()}


def stages(sizes: dict[str, dict[str, float]], seeds: Sequence[int]) -> dict[str, list[Unit]]:
    """What is trained once the sizes are chosen."""
    found = {f"end {name}": units("end", name, seeds, grid(name)) for name in RELATIONS}
    mine = sizes["opposed"]
    longer = [(name, mine[name]) for name in MAIN] + [(name, rules.COMMON) for name in MAIN]
    found["longer"] = units("longer", "opposed", seeds, longer, steps=rules.LONGER * rules.STEPS)
    itself = [(PLAIN.name, mine[PLAIN.name])] * rules.REPLICATES
    found["itself"] = units("itself", "opposed", seeds, itself, own=True)
    return found


def bandits(
    folder: Path, seeds: Sequence[int], workers: int
) -> tuple[dict[str, dict[str, float]], dict[str, list[Unit]]]:
    """Choose the sizes, then train all; returns the sizes by relation and the units by stage."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        tuning = {name: units("tuning", name, rules.TUNING_SEEDS, grid(name)) for name in RELATIONS}
        finished([job for jobs in tuning.values() for job in jobs], folder, pool)
        sizes = {name: chosen(jobs, folder) for name, jobs in tuning.items()}
        found = stages(sizes, seeds)
        finished([job for jobs in found.values() for job in jobs], folder, pool)
    return sizes, found
