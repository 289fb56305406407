"""The test set that no model of this project is trained on: 4,000 pairs of the training file, by a hash of the prompt.

The rule is fixed; changing it would put pairs that were trained on into a test set. Every source gives the same share
of its pairs, and a prompt is on one side with all of its pairs, also where several sources ask it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from llm.data.pairs import Pair
from llm.data.questions import asked

SIZE = 4000
_RULE = "robust-rlhf test set, rule 1"


def parted(pairs: Sequence[Pair], *, size: int = SIZE) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on, and those of the test set, both in the order given.

    A prompt belongs to the source of its first pair. Within a source, prompts are taken in the order of their hashes as
    long as the source has not given its share, ``size`` times its part of the pairs, rounded.

    Raises:
        ValueError: There are not more than ``size`` pairs.
    """
    if len(pairs) <= size:
        raise ValueError(f"a test set of {size} pairs needs more than {len(pairs)} pairs to be taken from")
    groups: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        groups[asked(pair.prompt)].append(place)
    total = Counter(pairs[places[0]].source for places in groups.values() for _ in places)
    given, taken = Counter[str](), set[int]()
    for prompt in sorted(groups, key=_hash):
        source = pairs[groups[prompt][0]].source
        if given[source] < round(size * total[source] / len(pairs)):
            given[source] += len(groups[prompt])
            taken |= set(groups[prompt])
    return (
        [pair for place, pair in enumerate(pairs) if place not in taken],
        [pair for place, pair in enumerate(pairs) if place in taken],
    )


def _hash(prompt: str) -> str:
    return hashlib.sha256(f"{_RULE}\n{prompt}".encode()).hexdigest()
