"""Judging a reward model on preference pairs: margins, accuracies with intervals, and the tables of them.

A pair counts as right when r(chosen) - r(rejected) > 0. A tie, a margin of exactly 0, counts as wrong
and is reported beside the accuracy. Every accuracy comes with that of the rule "the longer answer wins"
(equal lengths: one half), because preference data often rewards length and a model that has learned
nothing else should not impress.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from rich.progress import track
from scipy.stats import spearmanr
from torch import nn

from dro_core import CVaR, robust_loss

from .data import Pair, length_baseline
from .encoding import PairCollator, encode_pairs
from .intervals import accuracy_interval, cluster_count, mcnemar_p, paired_difference, paired_p
from .tables import json_ready, render_comparison, render_table, write_metrics

__all__ = [
    "compare",
    "evaluate_model",
    "render_comparison",
    "render_table",
    "score_pairs",
    "summarise",
    "write_metrics",
]

Margins: TypeAlias = NDArray[np.float64]

TAIL = 0.1  # the CVaR loss is the mean loss of this worst share of the pairs


def score_pairs(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    *,
    max_length: int,
    batch_size: int = 32,
    progress: bool = False,
) -> Margins:
    """Reward margins r(chosen) - r(rejected) of every pair.

    Pairs of similar length share a batch, so little is spent on padding; the order of the result is that of
    ``pairs``. Runs in evaluation mode, without gradients, on the device of the model, and leaves the
    model in the mode it was found in.

    Args:
        model: Any sequence classifier of transformers with one output.
        tokenizer: The tokenizer that belongs to it.
        pairs: n preference pairs.
        max_length: Token limit of prompt and answer together.
        batch_size: Pairs per forward pass, so twice as many sequences.
        progress: Show a progress bar on the terminal.

    Returns:
        float64 margins of shape (n,).

    Raises:
        FloatingPointError: If a margin is nan or infinite; names the pairs.
    """
    margins = np.zeros(len(pairs))
    if not len(pairs):
        return margins
    encoded = encode_pairs(pairs, tokenizer, max_length=max_length, progress=progress)
    collate = PairCollator(tokenizer)
    rows = [encoded[row] for row in range(len(pairs))]
    lengths = np.array([max(len(row["chosen"]), len(row["rejected"])) for row in rows])
    order = np.argsort(-lengths, kind="stable")  # longest first: what runs out of memory does so at once
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with _evaluation_mode(model), torch.inference_mode():
        for batch in track(batches, "scoring", transient=True, disable=not progress):
            margins[batch] = _batch_margins(model, collate([rows[row] for row in batch]))
    return checked_margins(pairs, margins, FloatingPointError)


def summarise(pairs: Sequence[Pair], margins: ArrayLike, *, level: float = 0.95) -> dict[str, Any]:
    """One suite in numbers, JSON-ready (None where a number does not exist).

    Args:
        pairs: The pairs of the suite.
        margins: Shape (n,), as from :func:`score_pairs`.
        level: Confidence level of the intervals.

    Returns:
        ``overall``, ``by_category`` and ``by_source`` (name -> record), ``worst_category`` (a record
        with its ``name``) and ``macro_accuracy``, the plain average over categories. A record holds
        ``pairs``, ``clusters`` (questions), ``accuracy``, ``low``, ``high``, ``ties``, ``mean_loss`` and
        ``cvar_loss`` (Bradley-Terry, in nats; CVaR over the worst tenth), ``longer_wins`` and
        ``length_correlation``: Spearman's rank correlation between the margin and the length of chosen
        minus rejected in characters.
    """
    scores = checked_margins(pairs, margins)
    groups = {
        field: {
            name: summarise_rows([pairs[row] for row in rows], scores[rows], level=level)
            for name, rows in rows_by(pairs, field).items()
        }
        for field in ("category", "source")
    }
    categories = groups["category"]
    accuracies = [record["accuracy"] for record in categories.values()]
    return {
        "overall": summarise_rows(pairs, scores, level=level),
        "by_category": categories,
        "by_source": groups["source"],
        "worst_category": worst_category(categories),
        "macro_accuracy": float(np.mean(accuracies)) if accuracies else None,
    }


def compare(
    pairs: Sequence[Pair], margins_a: ArrayLike, margins_b: ArrayLike, *, level: float = 0.95
) -> dict[str, Any]:
    """Accuracy of model a minus that of model b on the same pairs: ``overall`` and ``by_category``.

    A record holds ``pairs``, ``difference``, ``low``, ``high``, ``p`` (clustered by question where known),
    ``mcnemar_p`` (which ignores shared questions), and ``only_a`` and ``only_b``: pairs that one model
    alone ranks right. The p-values of the categories are not adjusted for their number.
    """
    a, b = checked_margins(pairs, margins_a) > 0, checked_margins(pairs, margins_b) > 0
    return {
        "overall": _comparison(pairs, a, b, np.arange(len(pairs)), level),
        "by_category": {
            name: _comparison(pairs, a, b, rows, level) for name, rows in rows_by(pairs, "category").items()
        },
    }


def evaluate_model(
    model: nn.Module,
    tokenizer: Any,
    suites: Mapping[str, Sequence[Pair]],
    *,
    max_length: int,
    batch_size: int = 32,
    progress: bool = False,
) -> dict[str, Any]:
    """Score and summarise every suite: ``{"suites": {name: summary}, "margins": {name: array}}``."""
    margins = {
        name: score_pairs(model, tokenizer, pairs, max_length=max_length, batch_size=batch_size, progress=progress)
        for name, pairs in suites.items()
    }
    return {
        "suites": {name: summarise(pairs, margins[name]) for name, pairs in suites.items()},
        "margins": margins,
    }


def worst_category(categories: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The record with the lowest accuracy, with its ``name``; None without categories.

    >>> worst_category({"a": {"accuracy": 0.7}, "b": {"accuracy": 0.6}})
    {'name': 'b', 'accuracy': 0.6}
    """
    if not categories:
        return None
    name = min(categories, key=lambda key: categories[key]["accuracy"])
    return {"name": name, **categories[name]}


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    # Module by module: a frozen part may be in evaluation mode inside a model in training mode.
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training:
            module.training = was_training


def _batch_margins(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> Margins:
    device = next(model.parameters()).device
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    chosen, rejected = model(**inputs).logits[:, 0].double().cpu().chunk(2)
    return (chosen - rejected).numpy()


def checked_margins(pairs: Sequence[Pair], margins: ArrayLike, error: type[Exception] = ValueError) -> Margins:
    """The margins as float64 of shape (n,); raises ``error`` naming the pairs where they are not finite."""
    scores = np.asarray(margins, dtype=np.float64)
    if scores.shape != (len(pairs),):
        raise ValueError(f"One margin per pair is needed: got shape {scores.shape} for {len(pairs)} pairs.")
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        names = ", ".join(pairs[row].id for row in broken[:5]) + (", ..." if len(broken) > 5 else "")
        raise error(f"{len(broken)} of {len(pairs)} margins are nan or infinite (pairs {names}): check the model.")
    return scores


def rows_by(pairs: Sequence[Pair], field: str) -> dict[str, NDArray[np.intp]]:
    """Row numbers by ``category`` or ``source``, sorted by name; an empty name becomes "unknown"."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, pair in enumerate(pairs):
        rows[getattr(pair, field) or "unknown"].append(row)
    return {name: np.array(rows[name], dtype=np.intp) for name in sorted(rows)}


def summarise_rows(pairs: Sequence[Pair], margins: Margins, *, level: float = 0.95) -> dict[str, Any]:
    """The record of one group of pairs; its entries are listed at :func:`summarise`."""
    questions = [pair.question_id for pair in pairs]
    accuracy = accuracy_interval(margins > 0, questions, level=level)
    losses = np.logaddexp(0.0, -margins)  # -log sigmoid(margin)
    return json_ready(
        {
            "pairs": len(pairs),
            "clusters": cluster_count(questions, len(pairs)),
            "accuracy": accuracy.mean,
            "low": accuracy.low,
            "high": accuracy.high,
            "ties": int(np.sum(margins == 0)),
            "mean_loss": losses.mean() if len(pairs) else None,
            "cvar_loss": robust_loss(losses, CVaR(alpha=TAIL)) if len(pairs) else None,
            "longer_wins": np.mean([length_baseline(pair) for pair in pairs]) if len(pairs) else None,
            "length_correlation": _length_correlation(pairs, margins),
        }
    )


def _length_correlation(pairs: Sequence[Pair], margins: Margins) -> float | None:
    lengths = np.array([len(pair.chosen) - len(pair.rejected) for pair in pairs])
    if len(pairs) < 3 or np.ptp(lengths) == 0 or np.ptp(margins) == 0:
        return None
    rank_correlation: Any = spearmanr(margins, lengths)
    return float(rank_correlation.statistic)


def _comparison(
    pairs: Sequence[Pair], a: NDArray[np.bool_], b: NDArray[np.bool_], rows: NDArray[np.intp], level: float
) -> dict[str, Any]:
    questions = [pairs[row].question_id for row in rows]
    difference = paired_difference(a[rows], b[rows], questions, level=level)
    return json_ready(
        {
            "pairs": len(rows),
            "clusters": cluster_count(questions, len(rows)),
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
            "p": paired_p(a[rows], b[rows], questions),
            "mcnemar_p": mcnemar_p(a[rows], b[rows]),
            "only_a": int(np.sum(a[rows] & ~b[rows])),
            "only_b": int(np.sum(b[rows] & ~a[rows])),
        }
    )
