"""The tables of study-1.md, by the name of their mark, from the results of the three sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.report.collect import Collection

from .arms import Rows, among, chosen, comparison, only
from .mechanism import batch_table, coin_table, length_table, reasoning_table, weight_table
from .radius import LEFT_OUT, regret_table

TRIMMED = ("tv:0.2,trim=0.1", "tv:0.2,trim=0.3", "tv:0,trim=0.1", "tv:0,trim=0.3")
SHIFTED = "safety/comply"  # where the built-in corpus has its shift, known before anything was trained
TV = ("tv:0.1", "tv:0.2", "tv:0.4")


def real_tables(collection: Collection) -> dict[str, Rows]:
    """Parts a to h on real preferences, heads."""

    def part(*texts: str, **settings: Any) -> Rows:
        return comparison(chosen(collection, among("erm", *texts, **settings)))

    base = {"batch_size": 32}
    noisy = {"as they are": base} | {f"{share} % wrong": {"regime": f"noise-{share}", **base} for share in (10, 20, 30)}
    partial = {name: {"regime": name, **base} for name in (*LEFT_OUT, "chat", "hard")}
    iterates = {final: {"final": final, **base} for final in ("last", "average", "best")}
    weighted = [only(collection.arms, among(text, **base)) for text in TV]
    return {
        "main": part(*TV, "tv:0.6", "tv:0.8", *(f"{text},max_ratio=4" for text in TV), **base),
        "adversary": part(*TV, "shuffled:", "random:", "hardest:", "focal:", **base),
        "sets": part("tv:0.2", "tv:0.3715,max_ratio=4", "chi2:", "cvar:", "kl:", "wasserstein:", "mmd:", **base),
        "groups": part(*(f"{text},by={name}" for text in TV for name in ("source", "category")), "gr_dpo:", **base),
        "batch": batch_table(collection, (8, 32, 128, 512)),
        "weights": weight_table(collection, weighted, column="category"),
        "sources": weight_table(collection, weighted, column="source"),
        "reasoning": reasoning_table(collection, (0.1, 0.2, 0.4)),
        "coin": coin_table(collection, "tv:0.4"),
        "length": length_table(collection, ("erm", "tv:0.2", "dr_dpo:1", "tv:0,trim=0.3")),
        "regret": regret_table(collection),
        "regret-capped": regret_table(collection, form="tv:{radius},max_ratio=4"),
        "noise": stacked(collection, "labels", noisy, "dr_dpo:1", *TV, *TRIMMED),
        "transfer": stacked(collection, "regime", partial, *TV),
        "iterates": stacked(collection, "iterate", iterates, *TV, "tv:0.8"),
    }


def builtin_tables(collection: Collection) -> dict[str, Rows]:
    """The same questions where the shift is known."""
    balls, rivals = (
        ("tv", "chi2", "cvar", "kl", "wasserstein", "mmd"),
        ("shuffled", "random", "hardest", "focal", "gr_dpo"),
    )
    kinds = [f"{rule}:" for rule in (*balls, *rivals, "adaptive")]
    base = {"model": "head", "learning_rate": 0.01}
    tuned = {
        "rate 0.003": {"model": "head", "learning_rate": 0.003}, "rate 0.01": base,
        "rate 0.03": {"model": "head", "learning_rate": 0.03},
        "30 epochs": {"model": "head-long", "learning_rate": 0.01},
    }  # fmt: skip
    return {
        "builtin": comparison(chosen(collection, among("erm", *kinds, **base))),
        "builtin-tuning": stacked(
            collection, "plain and robust with", tuned, "cvar:0.4", "cvar:0.3986", "tv:0.6,max_ratio=4"
        ),
        "builtin-converged": comparison(
            chosen(collection, among("erm", *kinds, model="head-long", learning_rate=0.03)), group=SHIFTED
        ),
        "builtin-noise": comparison(chosen(collection, among("erm", "tv:", "dr_dpo:", regime="noise-20"))),
    }


def full_tables(collection: Collection) -> dict[str, Rows]:
    """Whole models."""
    return {"full": comparison(collection)}


def stacked(collection: Collection, title: str, settings: Mapping[str, Mapping[str, Any]], *texts: str) -> Rows:
    """The comparisons under several settings, each corrected by itself, one under the other."""
    rows: Rows = []
    for label, wanted in settings.items():
        head, *body = comparison(chosen(collection, among("erm", *texts, **wanted)))
        rows += [] if rows else [(title, *head)]
        rows += [(label if not number else "", *cells) for number, cells in enumerate(body)]
    return rows
