"""Where the pairs of a sweep stand: one training file, whatever it was put together from, and the suites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..data.columns import ColumnMap
from ..data.corpus.corpus import write_corpus
from ..data.corpus.shortcut import write_shortcut
from ..data.grouping.columns import PairColumns, asked_of_file, check_known
from ..data.mixing import Mixture, mixed_pairs, split
from ..data.mixtures import parts_of
from ..data.pairs import Pair, PairSet, find_files, read_pairs, write_pairs
from ..data.suites import load_suites, suite_files
from ..run.files import JsonObject
from ..run.folder import write_folder
from .asked import Asked
from .plan import SweepConfig
from .regimes import SEED

TRAIN = "train"
_MADE: Mapping[str, Callable[..., Path]] = {"builtin": write_corpus, "shortcut": write_shortcut}
MIXTURE = "mixture"  # the folder of the training file that several were put together into


@dataclass(frozen=True)
class Sources:
    """The files of a sweep, and how they are read.

    Attributes:
        files: The training file, called ``TRAIN``, and the suites, by name.
        columns: Which column holds what, in the training file as it was given and in the suites that have it.
        copies: Ids of training pairs that a weight repeats -> id of what they repeat.
        mixture: What the training file was put together from; None where it is as it was given.
        by: Names of groups that some run needs; the columns of the training file that these ask for are kept.
    """

    files: Mapping[str, Path]
    columns: str | ColumnMap | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    mixture: JsonObject | None = None
    by: tuple[str, ...] = ()

    def training(self) -> PairSet:
        """The training pairs, as often as their files' weights say, and those that are held out, once."""
        columns, keep = None if self.mixture else self.columns, asked_of_file(self.by, PairColumns)
        found = read_pairs(self.files[TRAIN], columns=columns, keep=keep)
        check_known(self.by, PairColumns(found.pairs), found.names)
        return found

    def suites(self, eval_pairs: int | None = None) -> tuple[dict[str, list[Pair]], dict[str, dict]]:
        """The pairs of the suites, and what is to be said of their files; as ``llm.data.suites.load_suites``."""
        files = {name: path for name, path in self.files.items() if name != TRAIN}
        return load_suites(files, eval_pairs=eval_pairs, columns=self.columns, used=True)

    def once(self, train: PairSet) -> PairSet:
        """The training pairs without repetitions."""
        return replace(train, pairs=[pair for pair in train.pairs if pair.id not in self.copies])


def find_sources(config: SweepConfig, folder: Path) -> Sources:
    """The files that a sweep names; a mixture is put together into one file in its results folder.

    Raises:
        DataError: One is missing, or cannot be read.
    """
    by = tuple(dict.fromkeys(name for cell in config.cells for name in Asked.of(cell.ambiguity).columns()))
    files: dict[str, Path] = {}
    if config.data:
        place = Path(config.data)
        if (made := _MADE.get(config.data)) is not None:
            place = folder / "data"  # written at every start: it takes a moment, and may have been damaged since
            write_folder(place, lambda partial: made(partial, **config.builtin))
        train, files = find_files(place)
        files = {TRAIN: train, **files}
    if config.suites:
        files = {name: path for name, path in files.items() if name == TRAIN} | suite_files(config.suites)
    parts = parts_of(list(config.train_file))
    if len(parts) == 1 and parts[0].plain:
        files[TRAIN] = Path(parts[0].file)
    elif parts:
        return _put_together(mixed_pairs(parts, columns=config.columns, by=by), files, config, folder, by)
    return Sources(files, config.columns, by=by)


def _put_together(
    mixture: Mixture[Pair], files: Mapping[str, Path], config: SweepConfig, folder: Path, by: tuple[str, ...]
) -> Sources:
    """The pairs in the order of their files, then the repetitions; what is held out is not touched by weights."""
    rest, held_out = split(mixture, share=config.validation_share, seed=SEED)
    drawn = rest.drawn_from(seed=SEED)
    kept = {pair.id for pair, _ in drawn} | {pair.id for pair in held_out}
    copies = {pair.id: origin for pair, origin in drawn if pair.id != origin}
    pairs = [pair for pair in mixture.items if pair.id in kept] + [pair for pair, _ in drawn if pair.id in copies]
    (folder / MIXTURE).mkdir(exist_ok=True)
    path = folder / MIXTURE / f"{TRAIN}.jsonl"
    write_pairs(pairs, path)
    return Sources({**files, TRAIN: path}, config.columns, copies, mixture.describe(), by)
