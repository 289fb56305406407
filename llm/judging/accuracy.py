"""Judging a reward model on preference pairs: margins, accuracies with intervals, and the tables of them.

A pair counts as right when r(chosen) - r(rejected) > 0; a tie, a margin of exactly 0, counts one half and
is reported beside the accuracy (``llm.statistics.ties``). Every accuracy comes with that of the rule "longer wins"
(equal lengths: one half), because preference data often rewards length and a model that has learned
nothing else should not impress.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from dro_core import CVaR, robust_loss

from ..data.grouping.columns import ALWAYS, rows_of_groups
from ..data.pairs import Pair, length_baseline
from ..data.questions import questions
from ..run.files import JsonObject, json_ready
from ..statistics.arms import length_correlation
from ..statistics.intervals import accuracy_interval, cluster_count, mcnemar_p, paired_difference, paired_p
from ..statistics.ties import credit, ties
from .margins import MarginOf, Margins, checked_margins, reward_margins, score_pairs
from .tables import render_comparison, render_table, write_metrics

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "compare",
    "evaluate_model",
    "render_comparison",
    "render_table",
    "score_pairs",
    "summarise",
    "write_metrics",
]

TAIL = 0.1  # the CVaR loss is the mean loss of this worst share of the pairs


def summarise(
    pairs: Sequence[Pair], margins: ArrayLike, *, by: Iterable[str] = (), level: float = 0.95
) -> dict[str, object]:
    """One suite in numbers, JSON-ready (None where a number does not exist).

    Args:
        pairs: The pairs of the suite.
        margins: Shape (n,), as from :func:`score_pairs`.
        by: Names of further groups, as a set has them behind ``by=``; those that the pairs lack are left out.
        level: Confidence level of the intervals.

    Returns:
        ``overall``, ``by_category`` and ``by_source`` (name -> record), ``by_group`` (asked name -> name -> record),
        ``worst_category`` (a record with its ``name``) and ``macro_accuracy``, the plain average over categories. A
        record holds
        ``pairs``, ``clusters`` (``llm.data.questions.questions``), ``accuracy``, ``low``, ``high``, ``ties``,
        ``mean_loss`` and ``cvar_loss`` (Bradley-Terry, in nats; CVaR over the worst tenth), ``longer_wins`` and
        ``length_correlation``: Spearman's rank correlation between the margin and the length of chosen
        minus rejected in characters. Pairs that were not judged (nan) count nowhere but in ``left_out``.
    """
    scores = checked_margins(pairs, margins)
    asked = tuple(by)
    groups = {
        kind: {
            name: summarise_rows([pairs[row] for row in rows], scores[rows], level=level)
            for name, rows in found.items()
        }
        for kind, found in rows_of_groups(pairs, asked).items()
    }
    categories = groups["category"]
    accuracies = [record["accuracy"] for record in categories.values() if record["pairs"]]
    return {
        "overall": summarise_rows(pairs, scores, level=level),
        **by_kind(groups, asked),
        "worst_category": worst_category(categories),
        "macro_accuracy": float(np.mean(accuracies)) if accuracies else None,
    }


def compare(
    pairs: Sequence[Pair], margins_a: ArrayLike, margins_b: ArrayLike, *, by: Iterable[str] = (), level: float = 0.95
) -> JsonObject:
    """Accuracy of model a minus that of model b on the same pairs: ``overall`` and by group, as of ``summarise``.

    A record holds ``pairs``, ``difference``, ``low``, ``high``, ``p`` (clustered by question),
    ``mcnemar_p`` (which ignores shared questions), and ``only_a`` and ``only_b``: pairs on which one model
    does better than the other, right against tied included. Pairs that one of them did not judge are left out. The
    p-values of the groups are not adjusted for their number.
    """
    scores = checked_margins(pairs, margins_a), checked_margins(pairs, margins_b)
    judged = np.flatnonzero(~np.isnan(scores[0] + scores[1])).tolist()
    a, b = (credit(margins[judged]) for margins in scores)
    pairs = [pairs[row] for row in judged]
    asked = tuple(by)
    groups = {
        kind: {name: _comparison(pairs, a, b, rows, level) for name, rows in found.items()}
        for kind, found in rows_of_groups(pairs, asked).items()
    }
    return {"overall": _comparison(pairs, a, b, np.arange(len(pairs)), level), **by_kind(groups, asked)}


def by_kind(groups: Mapping[str, JsonObject], asked: Iterable[str]) -> JsonObject:
    """Records by kind of group, as summaries and comparisons hold them."""
    named = {f"by_{kind}": groups[kind] for kind in ALWAYS}
    return {**named, "by_group": {kind: groups[kind] for kind in asked if kind in groups}}


def evaluate_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    suites: Mapping[str, Sequence[Pair]],
    *,
    max_length: int,
    batch_size: int = 32,
    margin_of: MarginOf = reward_margins,
    by: Iterable[str] = (),
    progress: bool = False,
) -> JsonObject:
    """Score and summarise every suite: ``{"suites": {name: summary}, "margins": {name: array}}``."""
    asked = tuple(by)
    score = partial(score_pairs, max_length=max_length, batch_size=batch_size, margin_of=margin_of, progress=progress)
    margins = {name: score(model, tokenizer, pairs) for name, pairs in suites.items()}
    return {
        "suites": {name: summarise(pairs, margins[name], by=asked) for name, pairs in suites.items()},
        "margins": margins,
    }


def worst_category(categories: Mapping[str, JsonObject]) -> JsonObject | None:
    """The record with the lowest accuracy, with its ``name``; None without categories.

    >>> worst_category({"a": {"accuracy": 0.7}, "b": {"accuracy": 0.6}})
    {'name': 'b', 'accuracy': 0.6}
    """
    judged = [name for name, record in categories.items() if record["accuracy"] is not None]
    if not judged:
        return None
    name = min(judged, key=lambda key: categories[key]["accuracy"])
    return {"name": name, **categories[name]}


def summarise_rows(pairs: Sequence[Pair], margins: Margins, *, level: float = 0.95) -> JsonObject:
    """The record of one group of pairs; its entries are listed at :func:`summarise`."""
    judged = np.flatnonzero(~np.isnan(margins)).tolist()
    left_out, margins = len(pairs) - len(judged), margins[judged]
    pairs = [pairs[row] for row in judged]
    shared = questions(pairs)
    accuracy = accuracy_interval(credit(margins), shared, level=level)
    losses = np.logaddexp(0.0, -margins)  # -log sigmoid(margin)
    lengths = [len(pair.chosen) - len(pair.rejected) for pair in pairs]
    return json_ready(
        {
            "pairs": len(pairs),
            "clusters": cluster_count(shared, len(pairs)),
            "accuracy": accuracy.mean,
            "low": accuracy.low,
            "high": accuracy.high,
            "ties": ties(margins),
            "mean_loss": losses.mean() if len(pairs) else None,
            "cvar_loss": robust_loss(losses, CVaR(alpha=TAIL)) if len(pairs) else None,
            "longer_wins": np.mean([length_baseline(pair) for pair in pairs]) if len(pairs) else None,
            "length_correlation": length_correlation(margins, lengths),
            "left_out": left_out,
        }
    )


def _comparison(
    pairs: Sequence[Pair], a: Margins, b: Margins, rows: NDArray[np.intp], level: float
) -> dict[str, object]:
    shared = questions([pairs[row] for row in rows])
    difference = paired_difference(a[rows], b[rows], shared, level=level)
    return json_ready(
        {
            "pairs": len(rows),
            "clusters": cluster_count(shared, len(rows)),
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p": paired_p(a[rows], b[rows], shared),
            "mcnemar_p": mcnemar_p(a[rows], b[rows]),
            "only_a": int(np.sum(a[rows] > b[rows])),
            "only_b": int(np.sum(b[rows] > a[rows])),
        }
    )
