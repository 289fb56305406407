"""What every run of a sweep shares: pairs, suites, held-out prompts and frozen features, prepared once."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..adversary.geometry import GEOMETRIES
from ..adversary.ledger import AdversaryLedger
from ..data.grouping.columns import rows_of_groups
from ..data.pairs import Pair, length_baseline
from ..data.questions import questions
from ..data.suites import content_of, describe_file, split_by_prompt
from ..features.features import FeatureCache, load_backbone
from ..models.contents import contents
from ..results.audits import Audits, write_audits
from ..results.store import ABOUT, write_about, write_pairs_table
from ..statistics.group_curves import GroupCurves
from ..statistics.intervals import cluster_count
from ..training.config import ConfigError, RewardConfig
from .asked import Asked
from .audits import audits_of
from .head_pairs import Crossed, Of, all_made, features_of
from .plan import FullModel, HeadModel, SweepConfig
from .regimes import SEED, Origins, Selection
from .sources import TRAIN, Sources, find_sources
from .told_apart import told_apart

VALIDATION, LEFT_OUT = "validation", "left-out-"
Margins = dict[str, NDArray[np.float64]]
"""By suite, ``(pairs,)``."""


class TrainedRun(NamedTuple):
    """What a training leaves: margins by iterate, what the adversary did to which pairs, and how it ran.

    ``logistic`` says whether margins can be told from losses; ``measured`` and ``curves`` are those of
    ``llm.sweep.heads.HeadRun``.
    """

    margins: dict[str, Margins]
    selection: Selection
    ledger: AdversaryLedger
    steps: int
    seconds: float
    effective_sample_size: float
    batch_size: int
    learning_rate: float
    logistic: bool = True
    measured: NDArray[np.float64] | None = None
    curves: GroupCurves | None = None


@dataclass(frozen=True)
class SuiteRows:
    """A suite: where its pairs stand, and what is known of each of its groups before any model is judged.

    Attributes:
        origin: The training file, or the suite's own.
        rows: Positions there, ``(pairs,)``.
        groups: Positions in the suite by category; "" is the whole suite.
        clusters: Independent units of each group.
        longer: Accuracy of the rule "the longer answer wins" in each group.
    """

    origin: str
    rows: NDArray[np.int64]
    groups: dict[str, NDArray[np.intp]]
    clusters: dict[str, int]
    longer: dict[str, float]


@dataclass(frozen=True)
class HeadFeatures:
    """Files of frozen features by origin: of answers, and of prompts where they are needed; pairs across prompts."""

    answers: dict[str, Path]
    prompts: dict[str, Path]
    made: dict[Of, Crossed]

    def files(self) -> list[Path]:
        """All of them."""
        made = (file for crossed in self.made.values() for file in (crossed.answers, crossed.prompts) if file)
        return [*self.answers.values(), *self.prompts.values(), *made]


@dataclass(frozen=True)
class SweepContext:
    """What a worker needs to carry out any training of the sweep.

    Attributes:
        folder: Of the results.
        config: The sweep.
        sources: The training file and the suites' files.
        hashes: Their SHA-256; with the mapping they are read by, where there is one.
        starts: Of whole models, what they start from: its content by role, by name of the model.
        groups: Of all pairs of the training file, in its order.
        train: Positions in that file of the pairs in train.parquet.
        validation: Positions of the pairs held out of every run.
        suites: By name.
        features: By name of the model; heads only.
        audits: What each model sees of the pairs, by its name.
        version: Of this package.
        revision: Its commit, "" where it is no checkout.
    """

    folder: Path
    config: SweepConfig
    sources: Sources
    hashes: dict[str, str]
    starts: dict[str, dict[str, str]]
    groups: Origins
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    suites: dict[str, SuiteRows]
    features: dict[str, HeadFeatures]
    audits: Audits
    version: str
    revision: str

    def suites_of(self, regime: str) -> dict[str, SuiteRows]:
        """The suites that runs of this regime are judged on."""
        return {
            name: suite
            for name, suite in self.suites.items()
            if not name.startswith(LEFT_OUT) or name == LEFT_OUT + regime
        }

    def files(self) -> list[Path]:
        """What every worker reads: the data, and the features of heads."""
        features = chain.from_iterable(of.files() for of in self.features.values())
        return [*self.sources.files.values(), *features]


def prepare(config: SweepConfig, folder: Path, *, cache: FeatureCache) -> SweepContext:
    """Read the data, hold validation prompts out, write train.parquet and suites/, have the features ready.

    Raises:
        DataError, ModelError: Files or models that cannot be used.
        ConfigError: A regime that does not fit the data.
    """
    sources = told_apart(config, find_sources(config, folder), folder)
    source = sources.training()
    pairs, groups = source.pairs, Origins.of(source.pairs, sources.copies)
    for name, regime in config.regimes.items():
        regime.check(name, groups)
    train, validation = _held_out(pairs, config.validation_share)
    suites, records = sources.suites(config.eval_pairs)
    if clash := [name for name in suites if name == VALIDATION or name.startswith(LEFT_OUT)]:
        raise ConfigError(f"a suite is called {clash[0]!r}, a name that sweeps give themselves: rename its file")
    rows = {name: suite_rows(name, np.arange(len(judged)), judged) for name, judged in suites.items()}
    rows |= _own_suites(config, pairs, groups, validation)
    (folder / "suites").mkdir(exist_ok=True)
    write_pairs_table(folder / "train.parquet", [pairs[row] for row in train])
    origins = {TRAIN: pairs, **suites}
    hashes = {name: content_of(record) for name, record in {TRAIN: describe_file(source), **records}.items()}
    audits = audits_of(config, sources.once(source), suites, folder, hashes)
    write_audits(folder, audits)
    _note_mixture(folder, sources)
    for name, suite in rows.items():
        write_pairs_table(folder / "suites" / f"{name}.parquet", [origins[suite.origin][row] for row in suite.rows])
    return SweepContext(
        folder=folder,
        config=config,
        sources=sources,
        starts=_starts(config),
        hashes=hashes,
        groups=groups,
        train=train,
        validation=validation,
        suites=rows,
        features=_features(config, origins, all_made(config, pairs, groups, train), cache),
        audits=audits,
        version=metadata.version("robust-rlhf"),
        revision=_revision(),
    )


def _starts(config: SweepConfig) -> dict[str, dict[str, str]]:
    """What the weights are that whole models start from; other weights at the same path are another training."""
    whole = {name: model for name, model in config.models.items() if isinstance(model, FullModel)}
    return {name: contents({"model": model.settings.get("model", RewardConfig.model)}) for name, model in whole.items()}


def suite_rows(origin: str, rows: NDArray[np.int64], pairs: Sequence[Pair]) -> SuiteRows:
    """A suite of the ``pairs`` that stand at ``rows`` of ``origin``."""
    groups = {"": np.arange(len(pairs)), **rows_of_groups(pairs)["category"]}
    shared = np.array(questions(pairs), dtype=object)
    longer = np.array([length_baseline(pair) for pair in pairs])
    return SuiteRows(
        origin,
        rows,
        groups,
        {name: cluster_count(list(shared[members]), len(members)) for name, members in groups.items()},
        {name: float(longer[members].mean()) for name, members in groups.items()},
    )


def _note_mixture(folder: Path, sources: Sources) -> None:
    """Say what the training file was put together from, for the page."""
    if sources.mixture is not None:
        write_about(folder, {"data": {TRAIN: sources.mixture}})
    else:
        (folder / ABOUT).unlink(missing_ok=True)


def _held_out(pairs: Sequence[Pair], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of training and validation pairs, the same for every run: runs are compared on the latter.

    Pairs of weight 0 are not trained on.
    """
    held_out = {pair.id for pair in split_by_prompt(pairs, share=share, seed=SEED)[1]}
    mask = np.array([pair.id in held_out for pair in pairs])
    if mask.all():
        raise ConfigError(f"validation_share {share:g} leaves no training pair: lower it")
    counts = np.array([pair.weight != 0 for pair in pairs])
    if not (counts & ~mask).any():
        raise ConfigError("all training pairs have weight 0: give those that should count a weight above 0")
    return np.flatnonzero(counts & ~mask), np.flatnonzero(mask)


def _own_suites(
    config: SweepConfig, pairs: Sequence[Pair], groups: Origins, validation: NDArray[np.int64]
) -> dict[str, SuiteRows]:
    """The suites taken from the training file: held-out prompts, and what each partial regime leaves out."""
    rows = {VALIDATION: validation} if len(validation) else {}
    used = {cell.regime for cell in config.cells}
    rows |= {
        LEFT_OUT + name: np.flatnonzero(~regime.keeps(groups) & groups.first())
        for name, regime in config.regimes.items()
        if name in used and regime.is_partial
    }
    found = {name: [pairs[row] for row in where] for name, where in rows.items()}
    return {name: suite_rows(TRAIN, rows[name], members) for name, members in found.items() if members}


def _features(
    config: SweepConfig,
    origins: Mapping[str, Sequence[Pair]],
    made: Mapping[Of, Sequence[Pair]],
    cache: FeatureCache,
) -> dict[str, HeadFeatures]:
    """Features of every head model in use; prompts only where a set has their geometry."""
    found: dict[str, HeadFeatures] = {}
    for name in dict.fromkeys(cell.model for cell in config.cells):
        model = config.models[name]
        if isinstance(model, HeadModel):
            backbone = load_backbone(model.model, max_length=model.max_length, train=origins[TRAIN], dtype=model.dtype)
            cells = [cell for cell in config.cells if cell.model == name]
            asked_of = {of for cell in cells for of in Of.all(cell)}
            geometric = any(Asked.of(cell.ambiguity).names() & GEOMETRIES for cell in cells)
            asked = list(origins) if config.shift_budget else [TRAIN] if geometric else []
            found[name] = HeadFeatures(
                {origin: cache.pairs(backbone, pairs, name=origin) for origin, pairs in origins.items()},
                {origin: cache.prompts(backbone, origins[origin], name=origin) for origin in asked},
                features_of(
                    {of: own for of, own in made.items() if of in asked_of}, backbone, cache, geometric=bool(asked)
                ),
            )
            del backbone
            torch.cuda.empty_cache()  # whole models train in another process, which finds what this one holds taken
    return found


def _revision() -> str:
    """The commit this package stands at, with "-changed" where its files are not those; "" without one."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)  # not a copy inside somebody's repository
    return _git("describe", "--always", "--dirty=-changed", "--exclude=*") if tracked else ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
