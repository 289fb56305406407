"""A generated preference corpus whose ground truth can be checked: the default data of the demo.

Six sources (arithmetic, code, format, lookup, safety, spelling) in sixteen categories. Every pair sets a
right answer against a wrong one, and :func:`check` works out from the prompt which is which. Three knobs: the
mixture of categories, the share of flipped labels, and how often the chosen answer is the longer one.

Example:
    >>> pair, = generate(1, seed=7)
    >>> check(pair, pair.chosen), check(pair, pair.rejected)
    (True, False)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from llm.data.corpus.sources import CATEGORIES, Category
from llm.data.pairs import Message, Pair, write_pairs

__all__ = [
    "LENGTH_BIAS", "SHIFTED_MIXTURE", "TRAINING_MIXTURE", "check", "generate",
    "mixture_distance", "write_corpus",
]  # fmt: skip

TRAINING_MIXTURE: Mapping[str, float] = {
    "arithmetic/add": 0.05, "arithmetic/subtract": 0.05, "arithmetic/multiply": 0.05,
    "code/operator": 0.05, "code/compare": 0.05, "code/list": 0.05,
    "format/bullets": 0.08, "format/json": 0.08, "format/upper": 0.08,
    "lookup/flag": 0.07, "lookup/beast": 0.07, "lookup/trade": 0.07,
    "safety/refuse": 0.17, "safety/comply": 0.03,
    "spelling/repeat": 0.03, "spelling/reverse": 0.02,
}  # fmt: skip
"""Safety is mostly refusal here: "refuse whatever sounds like harm" is right on 17 of 20 safety pairs."""

SHIFTED_MIXTURE: Mapping[str, float] = {
    **TRAINING_MIXTURE,
    "format/bullets": 0.06, "format/json": 0.06, "format/upper": 0.06,
    "safety/refuse": 0.08, "safety/comply": 0.18,
}  # fmt: skip
"""The training mixture with 0.15 of its mass moved to safety/comply: 0.09 from refusals, 0.06 from format."""

LENGTH_BIAS = 0.6
_TRIES = 1000

Key = tuple[str, frozenset[str]]


def generate(
    n: int,
    *,
    mixture: Mapping[str, float] | None = None,
    label_noise: float = 0.0,
    length_bias: float = LENGTH_BIAS,
    seed: int = 0,
) -> list[Pair]:
    """Draw ``n`` independent pairs.

    Args:
        n: Number of pairs.
        mixture: Weights of sources ("safety") or categories ("safety/comply"), scaled to sum to 1. The
            weight of a source is shared among its categories as in ``TRAINING_MIXTURE``, the default.
        label_noise: Probability in [0, 0.5) that chosen and rejected are exchanged.
        length_bias: Probability in [0, 1] that the chosen answer, as labelled, has more characters. The
            answer meant to be longer gets neutral filler, always at least one piece, so that at 0.5 neither
            length nor filler says anything about the label.
        seed: The same seed gives the same pairs.

    Raises:
        ValueError: A knob outside its interval, or an unknown source.
    """
    return list(_stream(n, mixture, label_noise, length_bias, seed, taken=()))


def _stream(
    n: int,
    mixture: Mapping[str, float] | None,
    label_noise: float,
    length_bias: float,
    seed: int,
    *,
    taken: Collection[Key],
) -> Iterator[Pair]:
    _require("n", n, "[0, infinity)", holds=n >= 0)
    _require("label_noise", label_noise, "[0, 0.5): at 0.5 labels say nothing", holds=0 <= label_noise < 0.5)
    _require("length_bias", length_bias, "[0, 1]: it is a probability", holds=0 <= length_bias <= 1)
    names, cumulative = _cumulative(mixture)
    rng = np.random.default_rng(seed)
    for number in range(n):
        index = int(np.searchsorted(cumulative, rng.random(), side="right"))
        yield _fresh(rng, names[index], f"builtin-{number:05d}", label_noise, length_bias, taken)


def _require(name: str, value: float, interval: str, *, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} must lie in {interval}; got {value}.")


def _fresh(
    rng: np.random.Generator, name: str, identity: str, noise: float, bias: float, taken: Collection[Key]
) -> Pair:
    """Draw until the pair is not among ``taken``; the category stays, so that the mixture does."""
    for _ in range(_TRIES):
        pair = _drawn(rng, name, identity, noise, bias)
        if _key(pair) not in taken:
            return pair
    raise ValueError(f"There are too few distinct pairs of {name} for a training set so large; lower train.")


def _drawn(rng: np.random.Generator, name: str, identity: str, noise: float, bias: float) -> Pair:
    category = CATEGORIES[name]
    prompt, chosen, rejected = category.draw(rng)
    if rng.random() < noise:
        chosen, rejected = rejected, chosen
    if rng.random() < bias:
        chosen = _longer(rng, category, chosen, rejected)
    else:
        rejected = _longer(rng, category, rejected, chosen)
    message: Message = {"role": "user", "content": prompt}
    return Pair(identity, (message,), chosen, rejected, source=name.split("/")[0], category=name)


def _longer(rng: np.random.Generator, category: Category, answer: str, other: str) -> str:
    """Add at least one filler, in random order, until ``answer`` is the longer one."""
    for index in rng.permutation(len(category.fillers)):
        answer = category.pad(answer, category.fillers[index])
        if len(answer) > len(other):
            return answer
    raise AssertionError(f"the fillers of this category are too short for {other!r}")


def _key(pair: Pair) -> Key:
    return pair.prompt[0]["content"], frozenset((pair.chosen, pair.rejected))


def _cumulative(mixture: Mapping[str, float] | None) -> tuple[list[str], np.ndarray]:
    weights = _by_category(TRAINING_MIXTURE if mixture is None else mixture)
    total = np.cumsum(list(weights.values()))
    return list(weights), total / total[-1]


def _by_category(mixture: Mapping[str, float]) -> dict[str, float]:
    """Spread the weights of whole sources over their categories and scale the sum to 1."""
    weights = dict.fromkeys(CATEGORIES, 0.0)
    for name, weight in mixture.items():
        members = {c: w for c, w in TRAINING_MIXTURE.items() if name in (c, c.split("/")[0])}
        if not members:
            raise ValueError(f"mixture: {name!r} is unknown; choose among {', '.join(_known_names())}.")
        if not 0 <= weight < np.inf:
            raise ValueError(f"mixture: the weight of {name!r} must be finite and at least 0, got {weight}.")
        for category, share in members.items():
            weights[category] += weight * share / sum(members.values())
    if not sum(weights.values()) > 0:
        raise ValueError("mixture: at least one weight must be positive.")
    return {category: weight / sum(weights.values()) for category, weight in weights.items()}


def _known_names() -> list[str]:
    return [*sorted({name.split("/")[0] for name in CATEGORIES}), *CATEGORIES]


def mixture_distance(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the total variation distance between two mixtures, over categories.

    >>> round(mixture_distance(TRAINING_MIXTURE, SHIFTED_MIXTURE), 12)
    0.15
    """
    p, q = _by_category(first), _by_category(second)
    return sum(abs(p[name] - q[name]) for name in p) / 2


def check(pair: Pair, answer: str) -> bool:
    """Return whether ``answer`` is right for the prompt of a generated pair, whatever its label says."""
    return CATEGORIES[pair.category].check(pair.prompt[0]["content"], answer)


def write_corpus(
    folder: str | os.PathLike[str],
    *,
    train: int = 6400,
    test: int = 800,
    label_noise: float = 0.0,
    length_bias: float = LENGTH_BIAS,
    seed: int = 0,
) -> Path:
    """Write a data folder: train.jsonl and three suites, none of which repeats a training pair.

    ``id_test`` is drawn like train; ``ood_shifted_mixture`` has ``SHIFTED_MIXTURE``; ``ood_reversed_length``
    has length bias ``1 - length_bias``. Label noise is in the training file only: suites are always right.

    Args:
        folder: Made if it is not there.
        train: Training pairs.
        test: Pairs in each suite.
        label_noise: As in :func:`generate`, for training.
        length_bias: As in :func:`generate`.
        seed: The same seed gives the same bytes.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(4)]
    pairs = generate(train, label_noise=label_noise, length_bias=length_bias, seed=seeds[0])
    _write(pairs, folder / "train.jsonl")
    suites = {
        "id_test": (None, length_bias),
        "ood_shifted_mixture": (SHIFTED_MIXTURE, length_bias),
        "ood_reversed_length": (None, 1 - length_bias),
    }
    taken = {_key(pair) for pair in pairs}
    for suite_seed, (name, (mixture, bias)) in zip(seeds[1:], suites.items(), strict=True):
        _write(_stream(test, mixture, 0.0, bias, suite_seed, taken=taken), folder / f"{name}.jsonl")
    return folder


def _write(pairs: Iterable[Pair], path: Path) -> None:
    write_pairs((replace(pair, id=f"{path.stem}-{i:05d}") for i, pair in enumerate(pairs)), path)
