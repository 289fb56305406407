"""What can be said of pairs without understanding them: groups, lengths, repeats, contradictions, negative margins.

Pairs are taken one at a time, and of each a hash is kept, so any number of them can be looked at.

Example:
    >>> asked = ({"role": "user", "content": "2 + 2?"},)
    >>> seen = overview([Pair("a", asked, "4", "five"), Pair("b", asked, "five", "4"), Pair("c", asked, "4", "five")])
    >>> seen.groups["all"].pairs, seen.prompts, seen.duplicates.count, seen.contradictions.examples
    (3, 1, 1, ['b'])
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm.data.layouts.tools import beside_text
from llm.data.pairs import Pair, length_baseline

_EXAMPLES = 3
_ONE_WAY, _OTHER_WAY = 1, 2
_BOTH_WAYS = _ONE_WAY | _OTHER_WAY


class Summary(NamedTuple):
    """How many pairs a group has, and in which share of them the chosen answer is the longer one."""

    pairs: int
    chosen_longer: float


@dataclass
class Cases:
    """How often something was seen, and the ids of the first pairs that show it."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, pair: Pair) -> None:
        """Count a pair."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(pair.id)

    def record(self) -> dict[str, object]:
        """Count and examples as a plain dictionary."""
        return {"count": self.count, "examples": list(self.examples)}

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.count:,} ({', '.join(self.examples)}{more})" if self.count else "none"


@dataclass(frozen=True)
class Overview:
    """What was found.

    Attributes:
        groups: "all", every source, and every "source/category".
        prompts: How many different ones there are.
        first: The first pair.
        duplicates: Pairs with the prompt and both answers, chosen as chosen, of an earlier one.
        contradictions: Comparisons, of the same two answers to the same prompt, that are labelled both ways; counted
            once each, by the first pair that contradicts.
        negative_margins: Pairs whose rejected answer is rated better.
        margins: Pairs that have a margin.
        preferences: Pairs that say how probable their label is.
        weights: Pairs with a weight of their own.
    """

    groups: dict[str, Summary]
    prompts: int
    first: Pair | None
    duplicates: Cases
    contradictions: Cases
    negative_margins: Cases
    margins: int
    preferences: int
    weights: int


def overview(pairs: Iterable[Pair]) -> Overview:
    """Look at pairs, one at a time; texts count as equal but for white space around them."""
    counts: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    comparisons: dict[bytes, int] = {}
    prompts: set[bytes] = set()
    duplicates, contradictions, negative, first = Cases(), Cases(), Cases(), None
    given = dict.fromkeys(("margin", "preference", "weight"), 0)
    for pair in pairs:
        first = first or pair
        for name in _groups(pair):
            counts[name][0] += 1
            counts[name][1] += length_baseline(pair) == 1
        prompt = _asked(pair)
        prompts.add(prompt)
        key, way = _comparison(prompt, pair)
        seen = comparisons.get(key, 0)
        comparisons[key] = seen | way
        if seen & way:
            duplicates.add(pair)
        if seen not in (0, _BOTH_WAYS) and seen | way == _BOTH_WAYS:
            contradictions.add(pair)
        for name in given:
            given[name] += getattr(pair, name) is not None
        if pair.margin is not None and pair.margin < 0:
            negative.add(pair)
    groups = {name: Summary(total, longer / total) for name, (total, longer) in sorted(counts.items())}
    return Overview(groups, len(prompts), first, duplicates, contradictions, negative, *given.values())


def compared(pair: Pair) -> tuple[bytes, bytes]:
    """Hashes of the prompt of a pair, and of its prompt and both answers, whichever was chosen.

    They are equal where texts are, but for white space around them.
    """
    prompt = _asked(pair)
    return prompt, _comparison(prompt, pair)[0]


def prompts_of(pairs: Iterable[Pair]) -> NDArray[np.str_]:
    """A hash of the prompt of every pair, ``(n,)``, in hexadecimal: equal where prompts are, but for white space."""
    return np.array([_asked(pair).hex() for pair in pairs], dtype=np.str_)


def across(files: Iterable[Iterable[Pair]]) -> tuple[Cases, Cases]:
    """What pairs of several files have in common; what repeats within a file is not counted.

    Returns:
        Pairs that stand in an earlier file too, and pairs whose comparison an earlier file labels the other way; once
        for each file.
    """
    again, against, earlier = Cases(), Cases(), dict[bytes, int]()
    for pairs in files:
        own: dict[bytes, int] = {}
        for pair in pairs:
            key, way = comparison_of(pair)
            ways = earlier.get(key, 0)
            if not way & own.get(key, 0):
                own[key] = own.get(key, 0) | way
                if ways & way:
                    again.add(pair)
                if ways & ~way:
                    against.add(pair)
        for key, way in own.items():
            earlier[key] = earlier.get(key, 0) | way
    return again, against


def comparison_of(pair: Pair) -> tuple[bytes, int]:
    """What is compared, whichever answer was chosen, and which way it was; white space around texts is left aside."""
    return _comparison(_asked(pair), pair)


def _asked(pair: Pair) -> bytes:
    more = [json.dumps(rest) for message in pair.prompt if (rest := beside_text(message))]
    return _hash(*(text for message in pair.prompt for text in (message["role"], message["content"])), *more)


def _groups(pair: Pair) -> Iterator[str]:
    category = pair.category.removeprefix(f"{pair.source}/")
    yield from ("all", pair.source, f"{pair.source}/{category}")


def _comparison(prompt: bytes, pair: Pair) -> tuple[bytes, int]:
    """What is compared, whichever answer was chosen, and which way it was."""
    chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
    way = _ONE_WAY if chosen < rejected else _OTHER_WAY
    return _hash(prompt.hex(), *sorted((chosen, rejected))), way


def _hash(*texts: str) -> bytes:
    """A hash of texts, one by one: where one ends is part of it."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.strip().encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
