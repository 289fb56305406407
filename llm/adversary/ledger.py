"""Who the adversary weighted: a running account per training example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.pairs import Pair, length_baseline
from ..run.files import JsonObject
from ..run.stored_arrays import read_arrays

LEDGER = "ledger.npz"  # its file in a checkpoint
VERDICT = "the adversary did not act"
_ROUNDING = 1e-5  # of a multiplier in float32


class AdversaryLedger:
    """Sum of multipliers q_i / p_i, number of visits and last loss of every training example.

    p is what plain training weighs: 1/n in a batch of n, or as the weights of the examples say. So a multiplier of 1 is
    the weight of plain training, 0 means that the adversary ignored the example.

    Args:
        size: Number of training examples.

    Attributes:
        looks: How often the adversary was asked for weights.
        largest_change: The largest |q / p - 1| it ever answered with.
        sources: Where every example is from; None where that is not known.
        masses: How much every example counts in plain training; None: alike.
    """

    def __init__(self, size: int) -> None:
        self.looks, self.largest_change = 0, 0.0
        self.multiplier_sum = np.zeros(size)
        self.visits = np.zeros(size, dtype=np.int64)
        self.last_loss = np.full(size, np.nan)
        self.sources: Sequence[object] | None = None
        self.masses: np.ndarray | None = None

    def record(
        self, index: np.ndarray, multipliers: np.ndarray, losses: np.ndarray, *, answered: np.ndarray | None = None
    ) -> None:
        """Book one effective batch.

        Args:
            index: Positions in the training set, shape ``(n,)``.
            multipliers: q / p of these examples, shape ``(n,)``.
            losses: Theirs, shape ``(n,)``.
            answered: All q / p that the adversary answered with; None where it was not asked, as in the plain phase.
        """
        if answered is not None:
            self.looks += 1
            self.largest_change = max(self.largest_change, float(np.abs(answered - 1).max(initial=0.0)))
        np.add.at(self.multiplier_sum, index, multipliers)
        np.add.at(self.visits, index, 1)
        self.last_loss[index] = losses

    @property
    def acted(self) -> bool:
        """Whether any example ever had another weight than in plain training."""
        return self.largest_change > _ROUNDING

    def mean_multiplier(self) -> np.ndarray:
        """Mean q_i / p_i over the visits, shape ``(size,)``; nan for examples never visited."""
        return np.divide(self.multiplier_sum, self.visits, out=np.full(len(self.visits), np.nan), where=self.visits > 0)

    def first(self, count: int) -> AdversaryLedger:
        """The account of the first ``count`` examples."""
        found = AdversaryLedger(count)
        found.looks, found.largest_change = self.looks, self.largest_change
        found.multiplier_sum, found.visits = self.multiplier_sum[:count], self.visits[:count]
        found.last_loss = self.last_loss[:count]
        return found

    def save(self, folder: Path) -> None:
        """Write the account to ``folder/ledger.npz``."""
        sources = np.array([*map(str, self.sources or ())], dtype=np.str_)
        names, codes = np.unique(sources, return_inverse=True)
        np.savez(
            folder / LEDGER,
            multiplier_sum=self.multiplier_sum,
            visits=self.visits,
            last_loss=self.last_loss,
            looks=self.looks,
            largest_change=self.largest_change,
            sources=names,
            source=codes,
            masses=np.empty(0) if self.masses is None else self.masses,
        )

    def load(self, folder: Path) -> None:
        """Take the account over from ``folder/ledger.npz``."""
        stored = read_arrays(folder / LEDGER, "multiplier_sum", "visits", "last_loss")
        self.multiplier_sum, self.visits = stored["multiplier_sum"], stored["visits"]
        self.last_loss = stored["last_loss"]
        if len(stored.get("source", ())):
            self.sources = stored["sources"][stored["source"]].tolist()
        if len(stored.get("masses", ())):
            self.masses = stored["masses"]
        if "looks" in stored:
            self.looks, self.largest_change = int(stored["looks"]), float(stored["largest_change"])
            return
        # Of an older version: what the means of the multipliers show.
        self.looks, means = int(self.visits.any()), self.mean_multiplier()
        self.largest_change = float(np.abs(means[self.visits > 0] - 1).max(initial=0.0))


def multipliers_by(
    ledger: AdversaryLedger, column: Sequence[object], *, masses: Sequence[float] | None = None, unit: str = "prompts"
) -> Mapping[str, JsonObject]:
    """What every group of examples weighed against plain training, over the visits.

    Args:
        ledger: The account.
        column: The group of every example.
        masses: How much each counts in plain training; None: alike.
        unit: What an example is called.

    Returns:
        Group -> how many were visited, under the name of the ``unit``, and ``multiplier``: 1 is its share in plain
        training; with masses ``mass``, too: their sum.
    """
    rows, mean = np.flatnonzero(ledger.visits), ledger.mean_multiplier()
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        members[str(column[row])].append(row)
    known = np.ones(len(mean)) if masses is None else np.asarray(masses)
    found: dict[str, dict[str, object]] = {}
    for name, own in sorted(members.items()):
        found[name] = {unit: len(own), "multiplier": float(np.average(mean[own], weights=known[own]))}
        found[name] |= {} if masses is None else {"mass": float(known[own].sum())}
    return found


def describe_adversary(
    ledger: AdversaryLedger,
    pairs: Sequence[Pair],
    *,
    examples: int = 12,
    logistic: bool = True,
    groups: Mapping[str, Sequence[object]] | None = None,
) -> dict:
    """Summary for the report: weight by source, category and length, and the extreme examples.

    Args:
        ledger: The account.
        pairs: The training pairs, in its order.
        examples: How many of each extreme.
        logistic: Whether losses are -log sigmoid(margin), so that margins can be told from them.
        groups: Further groups to sum up over, by name: one label per pair each.

    Returns:
        ``by_source`` and ``by_category`` (as from ``multipliers_by``), ``by_group`` (the same of every name in
        ``groups``; not there without),
        ``longer_share_of_weight`` (share of all weight on pairs whose chosen answer is the longer),
        ``top`` and ``bottom`` (the most and least weighted examples with their text and last margin).
    """
    multiplier, visited = ledger.mean_multiplier(), np.flatnonzero(ledger.visits)
    if len(visited) == 0:
        further = {"by_group": {name: {} for name in groups}} if groups else {}
        return {"by_source": {}, "by_category": {}, **further, "longer_share_of_weight": None, "top": [], "bottom": []}
    # Ties are common (every ignored example has 0): the last loss orders them.
    order = visited[np.lexsort((-ledger.last_loss[visited], -multiplier[visited]))]
    longer = np.array([length_baseline(pairs[int(i)]) == 1 for i in visited])
    masses = None if len({pair.weight for pair in pairs}) <= 1 else [_mass(pair) for pair in pairs]
    weight = (ledger.multiplier_sum * (1.0 if masses is None else np.array(masses)))[visited]

    def by(column: Sequence[object]) -> Mapping[str, JsonObject]:
        return multipliers_by(ledger, column, masses=masses, unit="pairs")

    return {
        "by_source": by([pair.source for pair in pairs]),
        "by_category": by([pair.category for pair in pairs]),
        **({"by_group": {name: by(column) for name, column in groups.items()}} if groups else {}),
        "longer_share_of_weight": float(weight[longer].sum() / weight.sum()),
        "top": [_example(ledger, pairs, multiplier, i, logistic=logistic) for i in order[:examples]],
        "bottom": [_example(ledger, pairs, multiplier, i, logistic=logistic) for i in order[::-1][:examples]],
    }


def _mass(pair: Pair) -> float:
    return 1.0 if pair.weight is None else pair.weight


def _example(ledger: AdversaryLedger, pairs: Sequence[Pair], multiplier: np.ndarray, i: int, *, logistic: bool) -> dict:
    pair = pairs[i]
    return {
        "id": pair.id,
        "source": pair.source,
        "category": pair.category,
        "prompt": "\n".join(f"{message['role']}: {message['content']}" for message in pair.prompt),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "multiplier": float(multiplier[i]),
        "visits": int(ledger.visits[i]),
        "margin": _margin(ledger.last_loss[i]) if logistic else None,
    }


def _margin(loss: float) -> float | None:
    """The h of loss = log(1 + exp(-h)); None where the loss has rounded to zero."""
    return float(-loss - np.log(-np.expm1(-loss))) if loss > 0 else None
