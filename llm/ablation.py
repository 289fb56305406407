"""The 2 x 2 of a pipeline: standard or robust reward, standard or robust policy, judged by what none of them saw.

Each arm's value on a prompt is the mean gold score over its sampled answers and over seeds. Arms answered the same
prompts, so differences to the plainest arm are paired by prompt. Intervals are over prompts: with one or two seeds they
say nothing about seeds that were never run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .checkpoints import write_json
from .intervals import Interval, mean_interval
from .overoptimisation import Curve, fit, training_curve
from .overoptimisation_figure import write_overoptimisation
from .pipeline import Pipeline, Stage
from .tables import json_ready


class Row(NamedTuple):
    """One arm on one suite.

    Attributes:
        suite: The file of prompts.
        arm: ``reward/policy``.
        gold: Mean gold score.
        difference: To the first arm, paired by prompt; None for the first arm.
        kl: From the policy that all arms started from, in nats.
        prompts: How many.
        seeds: Runs averaged.
    """

    suite: str
    arm: str
    gold: Interval
    difference: Interval | None
    kl: float
    prompts: int
    seeds: int


def ablation(pipeline: Pipeline) -> list[Row]:
    """All arms on all suites, from the scores that the policy stages left; none where there is no gold reward.

    Raises:
        ValueError: Two arms answered different prompts.
    """
    arms = _runs_by_arm(pipeline)
    scores = {arm: [_scores(stage) for stage in stages] for arm, stages in arms.items()}
    suites = sorted(
        {key.removesuffix("/gold") for runs in scores.values() for run in runs for key in run if "/gold" in key}
    )
    return [row for suite in suites for row in _suite_rows(suite, scores)]


def gold_curves(pipeline: Pipeline) -> tuple[list[Curve], list[str]]:
    """Proxy and gold reward against KL while each arm was trained, and why an arm has no curve."""
    curves, missing = [], []
    for arm, stages in _runs_by_arm(pipeline).items():
        histories = [json.loads((stage.folder / "run.json").read_text(encoding="utf-8"))["history"] for stage in stages]
        try:
            curves.append(training_curve(histories, name=arm))
        except ValueError as reason:
            missing.append(str(reason))
    return curves, missing


def write_ablation(pipeline: Pipeline, rows: Sequence[Row]) -> list[str]:
    """Write ``ablation.json`` and, where gold was logged, ``overoptimisation.png``; returns lines about the curves."""
    folder, (curves, missing) = Path(pipeline.output_dir), gold_curves(pipeline)
    fits = {curve.name: str(fit(curve)) for curve in curves}
    record: Any = [
        row._asdict() | {"gold": row.gold._asdict(), "difference": row.difference and row.difference._asdict()}
        for row in rows
    ]
    write_json(folder / "ablation.json", json_ready({"arms": record, "gold_while_training": fits, "no_curve": missing}))
    if curves:
        write_overoptimisation(curves, folder / "overoptimisation.png")
    return [f"{name}: {said}" for name, said in fits.items()] + missing


def render_ablation(rows: Sequence[Row]) -> Table:
    """The screen table."""
    table = Table(
        title="Gold score by arm (reward model/policy)",
        caption="brackets: 95 % interval over prompts; means over seeds; difference: to the first arm, by prompt",
        box=SIMPLE_HEAD,
    )
    for name in ("suite", "arm"):
        table.add_column(name, overflow="fold", min_width=6)
    for name in ("gold", "difference", "KL", "prompts"):
        table.add_column(name, justify="right")
    for row in rows:
        difference = "-" if row.difference is None else _limits(row.difference, signed=True)
        table.add_row(row.suite, row.arm, _limits(row.gold), difference, f"{row.kl:.2f}", str(row.prompts))
    return table


def _runs_by_arm(pipeline: Pipeline) -> dict[str, list[Stage]]:
    policies = [stage for stage in pipeline.stages() if stage.arm is not None]
    return {str(arm): [stage for stage in policies if stage.arm == arm] for arm in pipeline.cells()}


def _scores(stage: Stage) -> dict[str, NDArray[np.float64]]:
    if not (stage.folder / "scores.npz").exists():
        return {}
    with np.load(stage.folder / "scores.npz") as stored:
        return {name: stored[name] for name in stored.files}


def _suite_rows(suite: str, scores: dict[str, list[dict[str, NDArray[np.float64]]]]) -> list[Row]:
    """Rows of one suite; the first arm is what the others are compared with."""
    means = {arm: [run[f"{suite}/gold"].mean(axis=1) for run in runs] for arm, runs in scores.items()}
    if len({len(values) for runs in means.values() for values in runs}) > 1:
        raise ValueError(f"{suite}: the arms answered different prompts, so they cannot be compared: judge them again")
    gold = {arm: np.mean(runs, axis=0) for arm, runs in means.items()}
    base = next(iter(gold.values()))
    return [
        Row(
            suite,
            arm,
            _interval(values),
            None if values is base else _interval(values - base),
            float(np.mean([run[f"{suite}/kl"].mean() for run in scores[arm]])),
            len(values),
            len(means[arm]),
        )
        for arm, values in gold.items()
    ]


def _interval(values: NDArray[np.float64]) -> Interval:
    """No limits where all prompts agree: that they would for every other prompt too is not shown."""
    found = mean_interval(values)
    return found if found.low < found.high else Interval(found.mean, np.nan, np.nan)


def _limits(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if not np.isfinite(interval.low):
        return f"{interval.mean:{sign}.3f}"
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
