"""A sweep: hundreds of trainings over models, sets, radii, seeds and data regimes, into one table.

A training that finished is never repeated: it is known by a hash of its settings, of the data and of its features.
One that fails, or whose process is killed, is a row with its error. Heads run side by side, whole models one after the
other, each in a process that may die.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dro_core.clusters.pool import Pool
from dro_core.workers import Answer, side_by_side

from ..adversary.matching import effective_share, matched_radius, sampled_batches
from ..adversary.regret import Regret
from ..adversary.spec import parse_reweighting
from ..data.grouping.named import NamedGroups
from ..features.features import FeatureCache
from ..results.audits import AUDITS, Audits
from ..results.store import write_results
from ..results.training_records import read_training
from ..run.files import write_text
from ..run.sealed import read_sealed, write_sealed
from .asked import Asked
from .context import SweepContext, prepare
from .plan import Cell, HeadModel, SweepConfig
from .process import begin, handed_over, train, train_elsewhere
from .runs import Outcome, head_run, identity, is_done, record_failure, run_training
from .shift import write_shifts

Report = Callable[[int, int, int, str], None]
"""Called with trainings done, planned and failed, and what was last."""


class Sweep:
    """A sweep in its results folder.

    Args:
        config: What to run.
        text: The YAML it was read from, kept as sweep.yaml.
        folder: Of the results; what finished there before is used again.
        cache: Where frozen features are kept.
    """

    def __init__(self, config: SweepConfig, text: str, folder: Path, *, cache: FeatureCache) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.context = prepare(config, folder, cache=cache)
        write_text(folder / "sweep.yaml", text)

    def matched(self, report: Report) -> tuple[list[Cell], dict[Cell, Exception]]:
        """The trainings, with a radius where ``?@`` asks for one; and why there is none for the others."""
        cells, matcher = self.context.config.cells, _Matcher(self.context)
        resolved: dict[Cell, None] = {}
        unmatched: dict[Cell, Exception] = {}
        for cell in cells:
            report(0, len(cells), len(unmatched), f"matching {cell.ambiguity}")
            try:
                resolved[matcher.resolve(cell)] = None
            except Exception as error:  # the others do not depend on it
                unmatched[cell] = error
        return list(resolved), unmatched

    def pending(self, cells: Iterable[Cell]) -> list[Cell]:
        """The trainings that are not done yet."""
        return [cell for cell in cells if not is_done(self.folder, identity(cell, self.context))]

    def run(self, *, pool: Pool, report: Report) -> Counter[str]:
        """Carry out what is not done yet, and write the table.

        Args:
            pool: Where; here its jobs are heads at a time, on a cluster trainings of all kinds.
            report: Told what is going on.

        Returns:
            How many trainings are ``done`` and ``failed``, and how many were done ``before``.

        Raises:
            ClusterError: There is no such cluster, it cannot do this, or is gone; what is done is in the table.
        """
        with _one_thread():
            if self.context.config.shift_budget:
                report(0, len(self.context.config.cells), 0, "comparing prompts")
                write_shifts(self.context)
            cells, unmatched = self.matched(report)
        for cell, error in unmatched.items():
            record_failure(cell, self.context, error)
        pending = self.pending(cells)
        counts = Counter(before=len(cells) - len(pending), done=0, failed=len(unmatched))
        cells += unmatched
        try:
            with closing(self._outcomes(pending, pool)) as outcomes:
                for outcome in outcomes:
                    counts["failed" if outcome.error else "done"] += 1
                    report(counts.total(), len(cells), counts["failed"], outcome.error)
        finally:
            self.write_table(cells)
        return counts

    def write_table(self, cells: Sequence[Cell]) -> None:
        """Put the rows of these trainings, as far as there are any, into results.parquet."""
        wanted = set(self.context.config.final)
        parts = (read_training(self.folder, identity(cell, self.context)) or [] for cell in cells)
        kept = (
            row
            for rows, cell in zip(parts, cells, strict=True)
            for row in rows
            if row["final"] in wanted.intersection(cell.final)
        )
        write_results(self.folder, kept)

    def _outcomes(self, cells: Sequence[Cell], pool: Pool) -> Generator[Outcome]:
        heads = [cell for cell in cells if isinstance(self.context.config.models[cell.model], HeadModel)]
        whole = [cell for cell in cells if cell not in set(heads)]
        if not pool.is_here:
            yield from self._elsewhere(heads, whole, pool)
            return
        setup = (begin, (self.context,))
        if pool.jobs == 1 or len(heads) < 2:
            with _one_thread():
                yield from (run_training(cell, self.context) for cell in heads)
        else:
            yield from map(self._outcome, pool.answers(train, heads, setup=setup, threads=1))
        if whole:  # they have the machine for themselves, and time to save a checkpoint
            yield from map(self._outcome, side_by_side(train, whole, jobs=1, setup=setup, patience=None))

    def _elsewhere(self, heads: Sequence[Cell], whole: Sequence[Cell], pool: Pool) -> Generator[Outcome]:
        """On a cluster, where whole models have a worker each."""
        threads = torch.get_num_threads()
        with handed_over(self.context) as setup:
            if heads:
                with closing(pool.answers(train_elsewhere, heads, setup=setup, threads=1)) as answers:
                    yield from map(self._outcome, answers)
            if whole:
                training = partial(train_elsewhere, threads=threads)
                with closing(pool.answers(training, whole, setup=setup, gpu=True)) as answers:
                    yield from map(self._outcome, answers)

    def _outcome(self, answer: Answer[Cell, Outcome]) -> Outcome:
        """What a process said; where it died before it said anything, what it left."""
        if answer.value is not None:
            return answer.value
        training = identity(answer.item, self.context)
        if is_done(self.folder, training):
            return Outcome(training)
        return record_failure(answer.item, self.context, answer.error or RuntimeError("it did not answer"))


class _Matcher:
    """Finds the number of ``chi2:?@tv:0.2``: the effective share of the reference on the losses it trains to."""

    def __init__(self, context: SweepContext) -> None:
        self._context = context
        self._file = context.folder / "matched.json"
        self._found: dict[str, str] = read_sealed(self._file) or {}
        self._losses: dict[Cell, tuple[NDArray[np.float64], NDArray[np.float64], NamedGroups]] = {}

    def resolve(self, cell: Cell) -> Cell:
        """The cell with a set that needs no match; seed 0 decides for all of them."""
        asked = Asked.of(cell.ambiguity)
        if asked.reference is None:
            return cell
        if (key := self._key(cell)) not in self._found:
            self._found[key] = self._matched(_first(cell))
            write_sealed(self._file, self._found)
        return replace(cell, ambiguity=str(replace(asked, text=self._found[key], reference=None)))

    def _key(self, cell: Cell) -> str:
        return identity(_first(cell), self._context)

    def knows(self, cell: Cell) -> bool:
        """Whether resolving it takes no training."""
        return Asked.of(cell.ambiguity).reference is None or self._key(cell) in self._found

    def _matched(self, cell: Cell) -> str:
        asked = Asked.of(cell.ambiguity)
        trained = asked.reference if asked.reference is not None and asked.share is None else "erm"
        key = replace(cell, ambiguity=trained)
        if key not in self._losses:
            run, pairs = head_run(key, self._context)
            losses, _ = pairs.data.losses(pairs.data.differences @ run.iterates["last"])
            self._losses[key] = losses, pairs.data.least, NamedGroups(pairs.data.columns, seed=cell.seed)
        losses, least, columns = self._losses[key]
        batches = sampled_batches(len(losses), cell.batch_size)
        rule = parse_reweighting(trained)
        bound = None if rule is None else rule.bind(columns)
        seen, own = (losses - least * (Regret.spec in Asked(text).names()) for text in (trained, asked.text))
        target = effective_share(bound, seen, batches) if asked.share is None else asked.share
        return matched_radius(asked.text, target, own, batches, columns)


def _first(cell: Cell) -> Cell:
    return replace(cell, seed=0, ambiguity=str(replace(Asked.of(cell.ambiguity), adaptive=False)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """As the workers have it: sums of another number of threads round differently."""
    with threadpool_limits(1):
        yield


class Plan(NamedTuple):
    """What a sweep would do.

    Attributes:
        rows: By model, regime and set: ``trainings`` and how many of them are ``done``.
        audits: What each model sees of the pairs.
    """

    rows: list[dict[str, Any]]
    audits: Audits


def planned(config: SweepConfig, folder: Path, *, cache: FeatureCache) -> Plan:
    """What a sweep would do.

    Writes nothing. A set that is yet to be matched (``chi2:?@tv:0.2``) counts as not done unless its radius is known.
    """
    looking = replace(cache, computes=False)
    with TemporaryDirectory() as scratch:
        for known in (folder / "matched.json", folder / AUDITS):
            if known.exists():
                shutil.copy(known, scratch)
        context = prepare(config, Path(scratch), cache=looking)
        matcher = _Matcher(context)
        cells = [matcher.resolve(cell) if matcher.knows(cell) else cell for cell in config.cells]
        groups: dict[tuple[str, str, str], list[bool]] = {}
        for cell in dict.fromkeys(cells):
            done = is_done(folder, identity(cell, context))
            groups.setdefault((cell.model, cell.regime, cell.ambiguity), []).append(done)
    names = ("model", "regime", "ambiguity")
    rows = [
        dict(zip(names, key, strict=True)) | {"trainings": len(done), "done": sum(done)} for key, done in groups.items()
    ]
    return Plan(rows, context.audits)
