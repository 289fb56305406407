"""Beyond the average: what else the arms with details do on each suite, and whether they beat the longer answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..run.files import JsonObject
from ..statistics.arms import LEVEL, Array, length_correlation, limits, outcome_of, share_right
from ..statistics.intervals import mcnemar_p, paired_difference
from ..statistics.ties import credit
from .collect import Arm, Collection


def beyond_the_average(
    collection: Collection, arms: Sequence[Arm], categories: JsonObject
) -> dict[str, list[JsonObject | None]]:
    """Suite -> a record of every arm, None where it was not judged.

    A record holds ``mean_loss`` and ``cvar_loss`` (of the worst tenth; means over seeds, as in the results),
    ``length_correlation`` (of the margin with the length of chosen minus rejected, mean over seeds), ``mcnemar`` (seed
    -> p-value against the first arm, empty for itself), ``longer`` (accuracy minus that of the rule "the longer answer
    wins") and, where there are ``categories`` (as of ``content``), ``category_average`` and ``worst_category``.
    """
    return {
        name: [_record(collection, arms, number, name, categories.get(name, {})) for number in range(len(arms))]
        for name in collection.suites
    }


def _record(
    collection: Collection, arms: Sequence[Arm], number: int, name: str, categories: JsonObject
) -> JsonObject | None:
    suite, margins = collection.suites[name], collection.margins(arms[number], name)
    if not margins:
        return None
    plain = collection.margins(arms[0], name) if number else {}
    against = paired_difference(share_right(margins), suite.longer, suite.questions, level=LEVEL)
    losses = collection.whole.loc[[(arms[number].runs[seed], name) for seed in margins]]
    shown = {category: entry for category, record in categories.items() if (entry := record["arms"][number])}
    worst = min(shown, key=lambda category: shown[category]["accuracy"], default=None)
    return {
        **{loss: float(losses[loss].mean()) for loss in ("mean_loss", "cvar_loss")},
        "length_correlation": _mean([length_correlation(values, suite.lengths) for values in margins.values()]),
        "mcnemar": {seed: _mcnemar(margins[seed], plain[seed]) for seed in margins if seed in plain},
        "longer": {**limits("difference", against), "outcome": outcome_of(against)},
        "category_average": float(np.mean([entry["accuracy"] for entry in shown.values()])) if shown else None,
        "worst_category": None if worst is None else {"name": worst, **shown[worst]},
    }


def _mcnemar(one: Array, other: Array) -> float:
    """Of two single models: an average over seeds has no such test."""
    return mcnemar_p(credit(one), credit(other))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
