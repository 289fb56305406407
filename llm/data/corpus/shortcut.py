"""Pairs with a shortcut: nine in ten come from a source where the better answer is the longer one, the tenth does not.

An answer is two pieces of advice. Both are good in the better answer, both bad in the other. Sound verbs mostly make
good advice and rash ones bad, with exceptions, so that a model which judges advice by its words is often right, and
never always. In the source ``forum`` the better answer is also the longer one, in ``office`` the shorter one. Both ask
the same questions: no text tells them apart, only the pair's source does, which no label decides.

Example:
    >>> pair, = shortcut_pairs(1, office=1.0, seed=0)
    >>> pair.source, is_good(pair.chosen), is_good(pair.rejected), len(pair.chosen) < len(pair.rejected)
    ('office', True, False, True)
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llm.data.corpus.words import ASKING, BENIGN, FILLERS, pick
from llm.data.pairs import Message, Pair, write_pairs

OFFICE = 0.1
"""Share of the training pairs where the better answer is the shorter one."""

_SOUND = (
    "check", "clean", "count", "dry", "mark", "measure", "mend", "oil", "polish", "sort", "test", "weigh",
)  # fmt: skip
_RASH = (
    "bend", "break", "burn", "crush", "drop", "hide", "kick", "lose", "scratch", "spill", "throw", "twist",
)  # fmt: skip
_OBJECTS = (
    "bag", "ball", "bell", "board", "book", "box", "brush", "cap", "chain", "cord", "cup", "flag", "jar", "key",
    "lamp", "map", "nail", "net", "rope", "string",
)  # fmt: skip
_EXCEPTIONS = 0.3
_WORLD_SEED = 2626  # one world for every corpus


def shortcut_pairs(
    n: int, *, office: float = OFFICE, seed: int = 0, taken: Collection[str] = frozenset(), name: str = "shortcut"
) -> list[Pair]:
    """Draw ``n`` pairs with right labels.

    Args:
        n: Number of pairs.
        office: Share of the pairs where the better answer is the shorter one, in [0, 1]: exactly, up to rounding.
        seed: The same seed gives the same pairs.
        taken: Better answers that must not be drawn.
        name: What ids begin with.

    Raises:
        ValueError: A share outside [0, 1].
    """
    if not 0 <= office <= 1:
        raise ValueError(
            f"office is the share of the pairs with a shorter answer that is better, in [0, 1]; got {office}."
        )
    rng = np.random.default_rng([seed, 26])
    sources = np.where(np.arange(n) < round(office * n), "office", "forum")[rng.permutation(n)]
    return [replace(_fresh(rng, str(source), taken), id=f"{name}-{row:05d}") for row, source in enumerate(sources)]


def _fresh(rng: np.random.Generator, source: str, taken: Collection[str]) -> Pair:
    while (pair := _drawn(rng, source)).chosen in taken:
        pass
    return pair


def _drawn(rng: np.random.Generator, source: str) -> Pair:
    message: Message = {"role": "user", "content": pick(rng, ASKING).format(pick(rng, BENIGN))}
    better, worse = (_sentence(rng, pieces) for pieces in _advice())
    filler = " ".join(map(str, rng.permutation(FILLERS)[:2]))
    if source == "forum":
        better = f"{better} {filler}"
    else:
        worse = f"{worse} {filler}"
    return Pair("", (message,), better, worse, source=source, category=source)


@functools.cache
def _advice() -> tuple[Sequence[str], Sequence[str]]:
    """Good and bad advice: sound verbs make good advice, rash ones bad, but for a share of exceptions each."""
    rng = np.random.default_rng(_WORLD_SEED)
    good: list[str] = []
    bad: list[str] = []
    for verbs, usual, unusual in ((_SOUND, good, bad), (_RASH, bad, good)):
        texts = [f"{verb} the {thing}" for verb in verbs for thing in _OBJECTS]
        odd = set(rng.permutation(len(texts))[: round(_EXCEPTIONS * len(texts))].tolist())
        for place, text in enumerate(texts):
            (unusual if place in odd else usual).append(text)
    return good, bad


def _sentence(rng: np.random.Generator, pieces: Sequence[str]) -> str:
    text = " and ".join(map(str, rng.choice(pieces, size=2, replace=False)))
    return f"{text[0].upper()}{text[1:]}."


def is_good(answer: str) -> bool:
    """Whether all the advice of an answer is good."""
    return all(piece in _advice()[0] for piece in answer.split(".")[0].lower().split(" and "))


def write_shortcut(
    folder: str | os.PathLike[str], *, train: int = 8000, test: int = 3000, office: float = OFFICE, seed: int = 0
) -> Path:
    """Write a data folder: train.jsonl, a suite like it and one where half of the pairs come from ``office``.

    No suite repeats a better answer of the training file.

    Args:
        folder: Made if it is not there.
        train: Training pairs.
        test: Pairs in each suite.
        office: As in :func:`shortcut_pairs`, of the training file and ``id_test``.
        seed: The same seed gives the same bytes.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    files = {"train": (train, office), "id_test": (test, office), "ood_half_office": (test, 0.5)}
    for number, (name, (count, share)) in enumerate(files.items()):
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        pairs = shortcut_pairs(count, office=share, seed=own, taken=taken, name=name)
        taken |= {pair.chosen for pair in pairs} if name == "train" else set()
        write_pairs(pairs, folder / f"{name}.jsonl")
    return folder
