"""The test pairs on which an arm and plain training disagree: what a difference in accuracy is made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...results.store import read_suite
from ...statistics.arms import Array
from ..collect import Arm, Collection

SHOWN = 3  # repaired, and as many broken, of each arm


def flips(collection: Collection, arm: Arm, plain: Arm) -> dict[str, object] | None:
    """How many pairs an arm repaired and broke, by suite, and those where the two are furthest apart.

    A pair is right where the mean margin over the seeds that both arms have is above 0.

    Returns:
        ``suites`` (name -> ``repaired``, ``broken``, ``pairs``), ``repaired`` and ``broken``: pairs with their suite,
        texts, and the margins ``before`` (plain) and ``after``; None where no suite has the margins of both.
    """
    counts, moved = {}, []
    for name in collection.suites:
        before, after = _margins(collection, plain, arm, name)
        if before is None or after is None:
            continue
        repaired, broken = (np.flatnonzero(side) for side in ((before < 0) & (after > 0), (before > 0) & (after < 0)))
        counts[name] = {"repaired": len(repaired), "broken": len(broken), "pairs": len(before)}
        moved += [(name, int(row), float(before[row]), float(after[row])) for row in (*repaired, *broken)]
    if not counts:
        return None
    moved.sort(key=lambda pair: pair[3] - pair[2])
    lost = [pair for pair in moved if pair[3] < 0][:SHOWN]
    won = [pair for pair in reversed(moved) if pair[3] > 0][:SHOWN]
    return {
        "suites": counts,
        "repaired": [_with_texts(collection, *pair) for pair in won],
        "broken": [_with_texts(collection, *pair) for pair in lost],
    }


def _margins(collection: Collection, plain: Arm, arm: Arm, suite: str) -> tuple[Array | None, Array | None]:
    """Mean margins of both over the seeds that both have, shape (pairs,)."""
    theirs, ours = collection.margins(plain, suite), collection.margins(arm, suite)
    shared = [seed for seed in ours if seed in theirs]
    if not shared:
        return None, None
    before, after = (np.mean([side[seed] for seed in shared], axis=0) for side in (theirs, ours))
    return before, after


def _with_texts(collection: Collection, suite: str, row: int, before: float, after: float) -> dict[str, object]:
    pairs: Any = read_suite(collection.folder, suite)
    known = pairs.iloc[row]
    texts = {name: str(known[name]) for name in ("id", "category", "prompt", "chosen", "rejected") if name in pairs}
    return {"suite": suite, "before": before, "after": after, **texts}
