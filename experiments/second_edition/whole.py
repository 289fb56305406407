"""Whole models, after the heads: MiniLM as released on the pairs of the heads, and SmolLM2 by DPO on the short ones.

Three seeds detect about eight points, so all of it is exploratory. Settings are the shipped recipes' with what KINDS
says; nothing is tuned, and nothing that is read of the test set chooses anything. The stage needs no heads.

Amended twice, before any model of it was finished or judged. DPO on 1,024 pairs of 256 tokens, judged on all suites,
would take some fifteen hours of a core, by the time of its first steps. H8 asks for the test set alone, and short
pairs are seen whole: so pairs of at most 500 characters, in batches of 16. Two models of these ran out of the memory
of the machine while they were judged: so 512 such pairs, judged in small batches on the test set alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dro_core.files import whole
from llm.data.pairs import Pair, read_pairs
from llm.data.suites import subset_of
from llm.statistics.ties import credit

from .bench import TRAIN, Seen
from .data import halves
from .hypotheses import AVERAGE, HYPOTHESES
from .judge import Judged, Records, Verdict, accuracy, family, judged, longer_wins
from .places import TEST
from .rules import WHOLE_SEEDS, Cell, Comparison

Array = NDArray[np.float64]


class Kind(NamedTuple):
    """How a whole model is trained.

    Attributes:
        kind: Of ``llm.train``.
        settings: Of its recipe, with what differs here.
        longest: Characters of a prompt with its longer answer, of pairs it is trained or judged on; None: all.
        trained: Pairs that it is trained on, of those of the heads; None: all.
        judged: Pairs of each suite that it is judged on; None: all.
        suites: What it is judged on; None: all.
    """

    kind: str
    settings: Mapping[str, Any]
    longest: int | None = None
    trained: int | None = None
    judged: int | None = None
    suites: tuple[str, ...] | None = None

    def short(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Those of the pairs that are no longer than ``longest``."""
        return [pair for pair in pairs if self.longest is None or _characters(pair) <= self.longest]


KINDS: Mapping[str, Kind] = {
    "whole": Kind("reward", {"model": "minilm", "max_length": 512, "bf16": True}),
    "dpo": Kind(
        "dpo",
        {
            "model": "smollm2",
            "max_length": 256,
            "dtype": "bfloat16",
            "learning_rate": 3e-4,
            "gradient_accumulation_steps": 4,
        },
        longest=500,
        trained=512,
        suites=(TEST,),
    ),
}
TINY: Mapping[str, Kind] = {
    name: one._replace(settings={"model": "tiny", "max_length": 64, "max_steps": 2}, trained=64, judged=40)
    for name, one in KINDS.items()
}
ARMS = ("erm", "tv:0.4")
BESIDE: tuple[Comparison, ...] = tuple(
    Comparison("same", Cell("whole", "tv:0.4"), Cell("whole"), where) for where in (TEST, AVERAGE, "Reasoning")
)
"""Of whole reward models, with intervals; no hypothesis stands on them."""


class Model(NamedTuple):
    """One to be trained."""

    name: str
    arm: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Where right and wrong of its pairs are kept."""
        return folder / f"{self.name}-{self.arm.replace(':', '-')}-{self.seed}.npz"


def models() -> Iterator[Model]:
    """All, those that H8 stands on first, the arms of a seed beside each other."""
    for name in reversed(list(KINDS)):
        for seed in WHOLE_SEEDS:
            yield from (Model(name, arm, seed) for arm in ARMS)


def suites(data: Path, kind: Kind) -> dict[str, list[Pair]]:
    """What models are judged on: the test set, ``id_test`` and the suites out of distribution."""
    files = sorted(path for path in data.glob("*.jsonl.gz") if not path.name.startswith("train"))
    found = {path.name.removesuffix(".jsonl.gz"): read_pairs(path).pairs for path in files}
    found[TEST] = halves(read_pairs(data / TRAIN).pairs).test
    named = kind.suites or tuple(found)
    return {name: subset_of(kind.short(pairs), kind.judged) for name, pairs in found.items() if name in named}


def _characters(pair: Pair) -> int:
    return sum(len(turn["content"]) for turn in pair.prompt) + max(len(pair.chosen), len(pair.rejected))


def train(data: Path, folder: Path, kinds: Mapping[str, Kind], *, workers: int) -> None:
    """Train and judge what is not there of these kinds; each model in a process of its own, without workers in this."""
    folder.mkdir(parents=True, exist_ok=True)
    left = [model for model in models() if model.name in kinds and not model.path(folder).exists()]
    if not workers:
        for model in left:
            _one(data, folder, kinds[model.name], model)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(_one, data, folder, kinds[model.name], model) for model in left]):
            sys.stderr.write(f"{done.result()}\n")


def _one(data: Path, folder: Path, kind: Kind, model: Model) -> str:
    import llm

    pairs = subset_of(kind.short(halves(read_pairs(data / TRAIN).pairs).heads), kind.trained)
    run = llm.train(kind.kind, pairs, ambiguity=model.arm, seed=model.seed, use_cpu=True, **kind.settings)
    dtype = kind.settings.get("dtype", "float32")
    found = llm.evaluate(run, suites(data, kind), batch_size=8, dtype=dtype).result["margins"]
    right: dict[str, Any] = {name: credit(np.asarray(margins, np.float64)) for name, margins in found.items()}
    with whole(model.path(folder)) as stream:
        np.savez(stream, **right)
    return f"{model.name}, {model.arm}, seed {model.seed} is trained and judged"


def records(data: Path, folder: Path, name: str, kinds: Mapping[str, Kind]) -> Records:
    """Of all models of a kind; none where one is missing."""
    right: dict[Cell, dict[str, Array]] = {}
    for arm in ARMS:
        files = [Model(name, arm, seed).path(folder) for seed in WHOLE_SEEDS]
        if all(file.exists() for file in files):
            kept = [dict(np.load(file)) for file in files]
            right[Cell(name, arm)] = {suite: np.stack([one[suite] for one in kept]) for suite in kept[0]}
    return Records({suite: _suite(pairs) for suite, pairs in suites(data, kinds[name]).items()}, right)


def levels(data: Path, folder: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Of every kind that is trained, on the test set: accuracies of its arms, pairs, and how often the longer wins."""
    told: dict[str, Any] = {}
    for name in kinds:
        kept = records(data, folder, name, kinds)
        if not kept.right:
            continue
        arms = {cell.arm: accuracy(kept, cell, TEST) for cell in kept.right}
        told[name] = {
            "pairs": len(kept.suites[TEST].prompts),
            "longer wins": longer_wins(kept, TEST),
            "arms": {
                arm: {"accuracy": one.mean, **dict(zip(("low", "high"), one.limits(), strict=True))}
                for arm, one in arms.items()
                if one is not None
            },
        }
    return told


def halved(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Right or wrong of DPO on the test set, ``(seeds, pairs)``, counted in halves, by ``dpo|ARM|test``."""
    files = {arm: [Model("dpo", arm, seed).path(folder) for seed in WHOLE_SEEDS] for arm in ARMS}
    return {
        f"dpo|{arm}|{TEST}": np.stack([2 * np.load(one)[TEST] for one in of]).astype(np.uint8)
        for arm, of in files.items()
        if all(one.exists() for one in of)
    }


def _suite(pairs: Sequence[Pair]) -> Any:
    """What is known of the pairs; no features are."""
    return Seen(pairs, *(np.ones((len(pairs), 1)) for _ in range(3))).suite()


def found(data: Path, folder: Path, kinds: Mapping[str, Kind]) -> tuple[Verdict, list[Judged]]:
    """What becomes of H8, and the comparisons of whole reward models."""
    [hypothesis] = (one for one in HYPOTHESES if one.stage == "whole")
    verdict = judged(records(data, folder, "dpo", kinds), hypothesis, entered=True)
    return verdict, family(records(data, folder, "whole", kinds), BESIDE)
