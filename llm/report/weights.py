"""Who gets the weight: the adversary's account of the training pairs, by what is known about them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import rankdata

from ..results.store import RunWeights, read_training_pairs, read_weights
from ..statistics.arms import Array
from .collect import Arm, Collection

Frame: TypeAlias = Any  # a table or column of pandas, which ships no types

MOST_GROUPS = 12
_DIGITS = {"length": 0, "margin": 2}

FACTORS = {
    "source": "Source",
    "category": "Category",
    "length": "Length of the chosen minus the rejected answer, characters",
    "margin": "Margin of plain training",
    "disagreement": "Disagreement between the seeds of plain training",
    "label": "Chance that the label is right, by the other seeds of plain training",
    "flipped": "Labels flipped on purpose",
}


@dataclass(frozen=True)
class Ensemble:
    """What the plain runs of a family think of the training pairs.

    Attributes:
        margins: Seed -> margin towards the answer that the data call chosen, shape (training pairs,), from the last
            loss each pair had in training; nan where the seed did not see it.
    """

    margins: dict[int, Array]

    def others(self, seed: int) -> Array:
        """The mean probability of the seeds but this one; of all, where it is alone. Shape (training pairs,)."""
        chosen = [values for own, values in self.margins.items() if own != seed] or list(self.margins.values())
        return _mean(np.stack([expit(values) for values in chosen]))

    def dissent(self) -> Array:
        """Share of the seeds outvoted on each pair, in [0, 1/2]; nan where fewer than two saw it."""
        votes = np.stack(list(self.margins.values()))
        seen, right = np.sum(~np.isnan(votes), axis=0), np.sum(votes > 0, axis=0)
        return np.where(seen > 1, np.minimum(right, seen - right) / np.maximum(seen, 1), np.nan)


class Training:
    """The training pairs of a results folder and what can be said of each."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self.pairs = read_training_pairs(collection.folder)

    def ensemble(self, plain: Arm) -> Ensemble | None:
        """The plain runs whose account can be read and holds losses that margins can be told from."""
        if self.pairs is None:
            return None
        stored = {seed: account for seed, run in plain.runs.items() if (account := self._read(run))}
        known = {seed: self._margins(account) for seed, account in stored.items()}
        found = {seed: margins for seed, margins in known.items() if not np.isnan(margins).all()}
        return Ensemble(found) if found else None

    def fifths(self, ensemble: Ensemble | None) -> dict[str, list[float]]:
        """The inner edges of the fifths of all training pairs by length and by margin, rounded as they are shown."""
        found = {"length": (self._table["chosen_chars"] - self._table["rejected_chars"]).to_numpy(float)}
        if ensemble is not None:
            found["margin"] = _mean(np.stack(list(ensemble.margins.values())))
        return {
            factor: np.unique(np.round(np.nanquantile(values, (0.2, 0.4, 0.6, 0.8)), _DIGITS[factor])).tolist()
            for factor, values in found.items()
        }

    def account(self, arm: Arm, ensemble: Ensemble | None) -> Frame | None:
        """One row per run and visited pair: its multiplier and the groups it belongs to; None where unreadable."""
        if self.pairs is None:
            return None
        parts = [self._of_run(seed, stored, ensemble) for seed, run in arm.runs.items() if (stored := self._read(run))]
        return pd.concat(parts, ignore_index=True) if parts else None

    def _of_run(self, seed: int, stored: RunWeights, ensemble: Ensemble | None) -> Frame:
        seen = stored.visits > 0
        rows, flipped = stored.rows[seen], stored.flipped[seen]
        pairs = self._table.iloc[rows]
        sign = np.where(flipped, -1.0, 1.0)
        table = pd.DataFrame(
            {
                "seed": seed,
                "row": rows,
                "multiplier": stored.multiplier[seen].astype(float),
                "mass": 1.0 if "weight" not in pairs else pairs["weight"].fillna(1.0).to_numpy(),
                "visits": stored.visits[seen],
                "loss": stored.last_loss[seen].astype(float),
                "source": pairs["source"].to_numpy(),
                "category": pairs["category"].to_numpy(),
                "length": sign * (pairs["chosen_chars"] - pairs["rejected_chars"]).to_numpy(),
                "flipped": flipped,
            }
        )
        if ensemble is not None:
            right = ensemble.others(seed)[rows]
            margins = _mean(np.stack(list(ensemble.margins.values())))[rows]
            table["margin"] = sign * margins
            table["label"] = np.where(flipped, 1.0 - right, right)
            table["disagreement"] = ensemble.dissent()[rows]
        return table

    @property
    def _table(self) -> Frame:
        assert self.pairs is not None
        return self.pairs

    def _read(self, run: str) -> RunWeights | None:
        stored = read_weights(self.collection.folder, run)
        if stored is None or (len(stored.rows) and int(stored.rows.max()) >= len(self._table)):
            self.collection.unread.setdefault(run, "no account of its weights")
            return None
        return stored

    def _margins(self, stored: RunWeights) -> Array:
        """Margins from losses log(1 + exp(-h)), towards the answer that the data call chosen."""
        loss = np.maximum(stored.last_loss.astype(np.float64), 1e-12)
        margins = np.full(len(self._table), np.nan)
        margins[stored.rows] = -(loss + np.log(-np.expm1(-loss))) * np.where(stored.flipped, -1.0, 1.0)
        return margins


def shares(account: Frame, factor: str, fifths: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Pairs, share of pairs, share of all weight and mean weight of every group of a factor, over all seeds.

    A weight is relative to plain training, where pairs may count unequally; shares of the weight are absolute.

    Args:
        account: As from :meth:`Training.account`.
        factor: One of FACTORS.
        fifths: As from :meth:`Training.fifths`, so that all arms have the same groups.
    """
    if factor not in account or account[factor].isna().all():
        return []
    groups = _groups(account, factor, fifths)
    table = account.assign(group=groups, weight=account["multiplier"] * account["mass"])[groups.notna()]
    found = table.groupby("group", observed=True, sort=False)[["weight", "mass"]].sum()
    found["size"] = table["group"].value_counts()
    ordered = found.sort_index() if isinstance(groups.dtype, pd.CategoricalDtype) else found.sort_values("size")[::-1]
    return [
        {
            "group": str(name),
            "pairs": int(row["size"]),
            "share_of_pairs": row["size"] / len(table),
            "share_of_weight": row["weight"] / max(table["weight"].sum(), 1e-300),
            "multiplier": row["weight"] / row["mass"],
        }
        for name, row in ordered.iterrows()
    ]


def examples(account: Frame, pairs: Frame, *, count: int) -> dict[str, list[dict[str, object]]]:
    """The pairs with the most and the least weight on average over seeds, with their texts."""
    fields = [name for name in ("multiplier", "visits", "loss", "margin", "label", "flipped") if name in account]
    mean = account.groupby("row")[fields].mean().sort_values(["multiplier", "loss"], ascending=[False, False])
    return {
        "top": [_example(row, values, pairs) for row, values in mean.head(count).iterrows()],
        "bottom": [_example(row, values, pairs) for row, values in mean.tail(count)[::-1].iterrows()],
    }


def noise_ranking(account: Frame) -> float | None:
    """How well the estimated label noise finds the flipped labels: area under the ROC curve, 1/2 is chance.

    None where no label was flipped, or none was estimated.
    """
    if "label" not in account:
        return None
    known = account[account["label"].notna()]
    flipped = known["flipped"].to_numpy(dtype=bool)
    wrong, sound = int(flipped.sum()), int((~flipped).sum())
    if not wrong or not sound:
        return None
    ranks = rankdata(1.0 - known["label"].to_numpy())
    return float((ranks[flipped].sum() - wrong * (wrong + 1) / 2) / (wrong * sound))


def _example(row: Any, values: Frame, pairs: Frame) -> dict[str, object]:
    known: Mapping[object, object] = pairs.iloc[int(row)].to_dict()
    texts = {name: str(known[name]) for name in ("id", "source", "category", "prompt", "chosen", "rejected")}
    return {**texts, **{name: float(value) for name, value in values.items()}, "visits": round(values["visits"])}


def _groups(account: Frame, factor: str, fifths: Mapping[str, Sequence[float]]) -> Frame:
    """The group of every row, an ordered category where groups have an order; nan where unknown."""
    values = account[factor]
    if factor in ("source", "category"):
        names = values.replace("", "unknown")
        kept = names.value_counts().index[:MOST_GROUPS]
        return names.where(names.isin(kept), "all others")
    if factor == "flipped":
        return pd.Series(pd.Categorical(np.where(values, "flipped", "as in the data"), ["as in the data", "flipped"]))
    if factor == "label":
        edges = (0.2, 0.4, 0.6, 0.8)
        return pd.cut(values, [-np.inf, *edges, np.inf], labels=_spans([str(edge) for edge in edges]))
    if factor == "disagreement":
        edges = np.array([-1.0, 0.0, 0.25, 0.5])
        return pd.cut(values, edges, labels=["all agree", "up to 1/4 dissent", "more dissent"])
    edges = fifths[factor]
    return pd.cut(values, [-np.inf, *edges, np.inf], labels=_spans([f"{edge:+.{_DIGITS[factor]}f}" for edge in edges]))


def _spans(edges: Sequence[str]) -> list[str]:
    signed = [edge.replace("-", "\N{MINUS SIGN}") for edge in edges]
    between = [f"{low} to {high}" for low, high in itertools.pairwise(signed)]
    return [f"up to {signed[0]}", *between, f"above {signed[-1]}"]


def _mean(rows: Array) -> Array:
    """Column means over what is known; nan where nothing is."""
    known = ~np.isnan(rows)
    return np.where(known.any(axis=0), np.nansum(rows, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
