"""Choosing a radius without labels from elsewhere: what each way of choosing loses to the best radius in hindsight."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from llm.report.collect import Arm, Collection
from llm.statistics.intervals import mean_interval

from .arms import Rows, among, mean_accuracy, only

RADII = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
LEFT_OUT = ("no-rmb-help", "no-rmb-harm", "no-hh-help", "no-hh-harm", "no-qa", "no-ultra", "no-webgpt")


def regret_table(collection: Collection, *, form: str = "tv:{radius}") -> Rows:
    """Per way of choosing: the radii it took, and by how much its accuracy on the suites is below the best radius's.

    The best is the radius with the highest mean accuracy over seeds on that column, erm among the candidates; so a
    regret is never negative on average, and its own optimism is part of it.
    """
    ladder = _ladder(collection, form, "all")
    outside = collection.judged_on(ladder[0.0], collection.outside)
    places = {name: [name] for name in outside} | {"average": list(outside)}
    scores = {
        place: {radius: mean_accuracy(collection, arm, suites) for radius, arm in ladder.items()}
        for place, suites in places.items()
    }
    seeds = sorted(scores["average"][0.0])
    ways = {"always plain": dict.fromkeys(seeds, 0.0)} | {
        f"always {radius:g}": dict.fromkeys(seeds, radius) for radius in RADII
    }
    ways["held-out pairs, mean"] = _by_validation(collection, ladder, seeds)
    ways["leave one source out"] = dict.fromkeys(seeds, _by_left_out(collection, form))
    rows: Rows = [("how the radius is chosen", "radii taken", *places)]
    for way, taken in ways.items():
        cells = (_regret([scores[place][taken[seed]][seed] for seed in seeds], scores[place]) for place in places)
        rows.append((way, _radii(list(taken.values())), *cells))
    rows.append(_by_shift(collection, ladder, scores, seeds, places))
    adaptive = only(collection.arms, among("adaptive:tv:0.6"))
    found = (list(mean_accuracy(collection, adaptive, suites).values()) for suites in places.values())
    cells = (_regret(values, scores[place]) for values, place in zip(found, places, strict=True))
    return [*rows, ("moved by the worst validation category (`adaptive:tv:0.6`)", "", *cells)]


def _ladder(collection: Collection, form: str, regime: str) -> dict[float, Arm]:
    texts = {0.0: "erm"} | {radius: form.format(radius=radius) for radius in RADII}
    return {radius: only(collection.arms, among(text, regime=regime, batch_size=32)) for radius, text in texts.items()}


def _by_validation(collection: Collection, ladder: Mapping[float, Arm], seeds: Sequence[int]) -> dict[int, float]:
    scores = {radius: mean_accuracy(collection, arm, collection.validation) for radius, arm in ladder.items()}
    return {seed: max(scores, key=lambda radius: scores[radius][seed]) for seed in seeds}


def _by_left_out(collection: Collection, form: str) -> float:
    """The radius that does best, over seeds and sources, on held-out pairs of the source left out."""
    means = dict.fromkeys((0.0, *RADII), 0.0)
    for regime in LEFT_OUT:
        for radius, arm in _ladder(collection, form, regime).items():
            means[radius] += float(np.mean(list(collection.accuracies(arm, f"left-out-{regime}").values())))
    return max(means, key=lambda radius: means[radius])


def _by_shift(
    collection: Collection, ladder: Mapping[float, Arm], scores: Mapping[str, Mapping[float, Mapping[int, float]]],
    seeds: Sequence[int], places: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:  # fmt: skip
    """The radius nearest to the confidence bound on the total variation to the suite; a mean for the average."""
    shift = next(iter(json.loads((collection.folder / "shift.json").read_text(encoding="utf-8"))["models"].values()))
    bounds = {place: float(np.mean([shift[suite]["lower"] for suite in suites])) for place, suites in places.items()}
    taken = {place: min(ladder, key=lambda radius: abs(radius - bound)) for place, bound in bounds.items()}
    cells = (_regret([scores[place][taken[place]][seed] for seed in seeds], scores[place]) for place in places)
    return ("shift seen in unlabelled prompts", _radii(list(taken.values())), *cells)


def _regret(values: Sequence[float], scores: Mapping[float, Mapping[int, float]]) -> str:
    """In points, with the interval over seeds of the difference to the best radius."""
    best = max(scores.values(), key=lambda by_seed: float(np.mean(list(by_seed.values()))))
    interval = mean_interval(np.array(list(best.values())) - np.array(values))
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _radii(taken: Sequence[float]) -> str:
    return ", ".join(f"{radius:g}" for radius in sorted(set(taken)))
