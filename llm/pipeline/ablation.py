"""The 2 x 2 of a pipeline: standard or robust reward, standard or robust policy, judged by what none of them saw.

Each arm's value on a prompt is the mean gold score over its sampled answers and over seeds. Arms answered the same
prompts, so differences to the plainest arm are paired by prompt. Intervals are over prompts: with one or two seeds they
say nothing about seeds that were never run. Best-of-n of the policy that all arms started from stands beside them,
judged by the same gold on the same prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..policy.judging import score_interval, with_limits
from ..report.overoptimisation import write_overoptimisation
from ..run.files import JsonObject, json_ready, write_json
from ..run.finished import RECORD, RunError, read_record
from ..run.run_differences import record_of
from ..run.states import NOTE
from ..run.stored_arrays import read_arrays
from ..run.terminal import shown
from ..statistics.intervals import Interval, mean_interval
from ..statistics.overoptimisation import Curve, fit, training_curve
from .best_of import Drawn
from .plan import Pipeline, Stage

_SHOWN = [4**power for power in range(1, 10)]  # of the n of best-of-n, on the screen
POINTS = 8  # of a curve of training


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


class BestOfRow(NamedTuple):
    """Best-of-n on one suite, chosen by one kind of reward model; n = 1 is the policy that all arms started from.

    Attributes:
        suite: The file of prompts.
        reward: ``standard`` or ``robust``.
        n: Answers to choose from.
        kl_bound: The KL from the start is at most this, in nats.
        proxy: Mean score by the reward model that chose.
        gold: Mean gold score.
        difference: In gold, to the first arm, paired by prompt.
        prompts: How many.
        seeds: Reward models averaged.
    """

    suite: str
    reward: str
    n: int
    kl_bound: float
    proxy: Interval
    gold: Interval
    difference: Interval
    prompts: int
    seeds: int

    def __str__(self) -> str:
        return "start" if self.n == 1 else f"best-of-{self.n} ({self.reward})"


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


def best_of_rows(pipeline: Pipeline, drawn: Mapping[str, Drawn]) -> list[BestOfRow]:
    """Best-of-n for n = 1, 2, 4, ... on all suites.

    Args:
        pipeline: Its policy stages have been judged.
        drawn: Suite -> scored answers of the policy that they started from.

    Raises:
        ValueError: They answer other prompts than the first arm did.
    """
    stages = next(iter(_runs_by_arm(pipeline).values()))
    return [row for suite, found in drawn.items() for row in _best_of_suite(suite, found, stages)]


def gold_curves(pipeline: Pipeline) -> tuple[list[Curve], list[str]]:
    """Proxy and gold reward against KL while each arm was trained, and why an arm has no curve."""
    curves, missing = [], []
    for arm, stages in _runs_by_arm(pipeline).items():
        histories = [read_record(stage.folder / RECORD, "history")["history"] for stage in stages]
        try:
            curves.append(training_curve(histories, name=arm, points=POINTS))
        except ValueError as reason:
            missing.append(str(reason))
    return curves, missing


def write_ablation(
    pipeline: Pipeline, rows: Sequence[Row], *, sampled: Sequence[BestOfRow] = (), curves: Sequence[Curve] = ()
) -> list[str]:
    """Write ``ablation.json`` and, where there is a curve, ``overoptimisation.png``; returns lines on runs and curves.

    Args:
        pipeline: Where to, and the histories of its policies.
        rows: The arms.
        sampled: Best-of-n.
        curves: Of best-of-n.
    """
    folder, (trained, missing) = Path(pipeline.output_dir), gold_curves(pipeline)
    fits, best_fits = ({curve.name: str(fit(curve)) for curve in group} for group in (trained, curves))
    idle, too_far = _said(pipeline, "inaction"), _said(pipeline, "beyond")
    record = {
        "arms": [_record(row) for row in rows],
        "did_not_act": idle,
        "best_of": [_record(row) for row in sampled],
        "gold_while_training": fits,
        "gold_of_best_of": best_fits,
        "no_curve": missing,
    }
    write_json(folder / "ablation.json", json_ready(record))
    if trained or curves:
        write_overoptimisation([*trained, *curves], folder / "overoptimisation.png")
    told = [*(f"{name}: {said}" for name, said in fits.items()), *missing]
    curves_told = [f"gold of {name}: {said}" for name, said in best_fits.items()]
    return [*idle, *too_far, *(f"gold while training, {line}" for line in told), *curves_told]


def _said(pipeline: Pipeline, verdict: str) -> list[str]:
    """What the stages say of their adversaries: that one did not act, or went further than the data bear."""
    records = {stage.name: record_of(stage.folder) for stage in pipeline.stages()}
    return [f"{name}: {record[verdict]}" for name, record in records.items() if record and record.get(verdict)]


def render_ablation(rows: Sequence[Row], sampled: Sequence[BestOfRow] = ()) -> Table:
    """The screen table; of best-of-n the start, n = 4, 16, 64, ... and the largest n."""
    bound = "; KL of best-of-n: at most" if sampled else ""
    table = Table(
        title="Gold score by arm (reward model/policy)",
        caption="brackets: 95 % interval over prompts; means over seeds; difference: to the first arm, by prompt"
        + bound,
        box=SIMPLE_HEAD,
    )
    for name in ("suite", "arm"):
        table.add_column(name, overflow="fold", min_width=6)
    for name in ("gold", "difference", "KL", "prompts"):
        table.add_column(name, justify="right")
    for suite in dict.fromkeys(row.suite for row in rows):
        for row in (row for row in rows if row.suite == suite):
            table.add_row(*_cells(row, row.arm, f"{row.kl:.2f}"))
        for row in _shown(sampled, suite):
            table.add_row(*_cells(row, str(row), f"{row.kl_bound:.2f}"))
    return table


def _cells(row: Row | BestOfRow, name: str, kl: str) -> list[Text | str]:
    difference = "-" if row.difference is None else _limits(row.difference, signed=True)
    return [shown(row.suite), shown(name), _limits(row.gold), difference, kl, str(row.prompts)]


def _shown(sampled: Sequence[BestOfRow], suite: str) -> Iterator[BestOfRow]:
    """The start once, whoever chooses from its one answer, then some n of every kind of reward model."""
    here = [row for row in sampled if row.suite == suite]
    largest = max((row.n for row in here), default=0)
    yield from [row for row in here if row.n == 1][:1]
    yield from (row for row in here if row.n == largest or row.n in _SHOWN)


def _runs_by_arm(pipeline: Pipeline) -> dict[str, list[Stage]]:
    policies = [stage for stage in pipeline.stages() if stage.arm is not None]
    return {str(arm): [stage for stage in policies if stage.arm == arm] for arm in pipeline.cells()}


def _scores(stage: Stage) -> dict[str, NDArray[np.float64]]:
    scores = stage.folder / "scores.npz"
    return read_arrays(scores) if scores.exists() else {}


def _suite_rows(suite: str, scores: dict[str, list[dict[str, NDArray[np.float64]]]]) -> list[Row]:
    """Rows of one suite; the first arm is what the others are compared with."""
    means = {arm: [run[f"{suite}/gold"].mean(axis=1) for run in runs] for arm, runs in scores.items()}
    if len({len(values) for runs in means.values() for values in runs}) > 1:
        raise ValueError(f"{suite}: the arms answered different prompts, so they cannot be compared: judge them again")
    gold = {arm: np.mean(runs, axis=0) for arm, runs in means.items()}
    answers = {arm: np.concatenate([run[f"{suite}/gold"] for run in runs], axis=1) for arm, runs in scores.items()}
    base, asked = next(iter(gold.values())), next(iter(scores.values()))[0].get(f"{suite}/question")
    return [
        Row(
            suite,
            arm,
            score_interval(answers[arm], asked),
            None if values is base else _interval(values - base, asked),
            float(np.mean([run[f"{suite}/kl"].mean() for run in scores[arm]])),
            len(values),
            len(means[arm]),
        )
        for arm, values in gold.items()
    ]


def _best_of_suite(suite: str, found: Drawn, stages: Sequence[Stage]) -> Iterator[BestOfRow]:
    if any(_asked(stage, suite) != found.ids for stage in stages):
        raise ValueError(f"{suite}: best-of-n and the arms answered different prompts: judge the arms again")
    base = np.mean([_scores(stage)[f"{suite}/gold"].mean(axis=1) for stage in stages], axis=0)
    for reward, seeds in found.proxies.items():
        result = found.estimated(reward)
        for n, kl, proxy, gold in zip(result.sizes, result.kl_bound, result.proxy.T, result.gold.T, strict=True):
            chosen, judged, apart = (_interval(values, found.asked) for values in (proxy, gold, gold - base))
            yield BestOfRow(suite, reward, int(n), float(kl), chosen, judged, apart, len(base), len(seeds))


def _asked(stage: Stage, suite: str) -> list[str]:
    """Ids of the prompts that a policy was judged by."""
    path = stage.folder / "answers.json"
    answers = read_record(path, suite)[suite]
    if not isinstance(answers, list) or not all(isinstance(entry, dict) and "id" in entry for entry in answers):
        raise RunError(f"{path} holds no answers to {suite}: delete {NOTE} beside it to have the policy judged again")
    return [entry["id"] for entry in answers]


def _record(row: Row | BestOfRow) -> JsonObject:
    return {name: value._asdict() if isinstance(value, Interval) else value for name, value in row._asdict().items()}


def _interval(values: NDArray[np.float64], asked: NDArray[np.float64] | None) -> Interval:
    """Clustered by prompt; no limits where all agree."""
    return with_limits(mean_interval(values, asked))


def _limits(interval: Interval, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if not np.isfinite(interval.low):
        return f"{interval.mean:{sign}.3f}"
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"
