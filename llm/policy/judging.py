"""Judging a policy by what it writes: scores of sampled answers, with intervals over prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from torch import nn

from dro_core.files import whole

from ..data.prompts import Prompt, questions
from ..rewards.checked import checked_scores
from ..rewards.scorer import Scorer
from ..run.files import JsonObject, json_ready, write_json
from ..run.finished import sealing
from ..run.judged import JUDGED_ON, METRICS, judged_on
from ..run.terminal import shown, shown_title
from ..statistics.intervals import Interval, accuracy_interval, mean_interval
from ..statistics.numbers import decimals
from ..text.answers import encode_prompts
from .actor_critic import ActorCritic, Reference
from .observation import observed
from .rollouts import Answers, Sampling
from .token_draws import Lots, Purpose

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredAnswers:
    """Sampled answers to every prompt and what they are worth; arrays have shape ``(prompts, samples)``.

    Attributes:
        texts: The answers.
        scores: Name of the judge (``reward``, ``gold``) -> its scores.
        kl: Estimate of log pi/ref of the answer, in nats; its mean is the KL from the reference.
        tokens: Length of the answer.
        ended: Whether it came to its end.
    """

    texts: list[list[str]]
    scores: dict[str, Scores]
    kl: Scores
    tokens: Scores
    ended: Scores


def judge_policy(
    policy: nn.Module,
    reference: Reference,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    scorers: Mapping[str, Scorer],
    *,
    sampling: Sampling,
    samples: int,
    batch_size: int = 32,
    seed: int = 0,
) -> ScoredAnswers:
    """Draw ``samples`` answers to every prompt, by ``seed`` whatever the batch size, and let every scorer judge them.

    Raises:
        BadScores: A scorer gave nan or infinity.
    """
    pen, core = Answers(tokenizer, sampling, batch_size=batch_size), ActorCritic(policy, critic=None)
    core.temperature = sampling.temperature
    answers = pen(policy, encode_prompts(prompts, tokenizer), Lots(seed, Purpose.EVALUATION), samples=samples)
    seen = observed(core, reference, answers, pad=tokenizer.pad_token_id, size=batch_size)
    asked = [prompt for prompt in prompts for _ in range(samples)]
    texts = [pen.text(answer) for answer in answers]
    shape = (len(prompts), samples)
    return ScoredAnswers(
        [texts[start : start + samples] for start in range(0, len(texts), samples)],
        {name: checked_scores(score(asked, texts), asked, step=0).reshape(shape) for name, score in scorers.items()},
        (seen.logps - seen.reference).sum(dim=1).double().cpu().numpy().reshape(shape),
        seen.lengths.double().cpu().numpy().reshape(shape),
        np.array([answer.ended for answer in answers], dtype=float).reshape(shape),
    )


def summarise_policy(prompts: Sequence[Prompt], judged: ScoredAnswers) -> dict[str, object]:
    """``overall``, ``by_source`` and ``by_category``, JSON-ready.

    A record holds ``prompts``, ``kl``, ``tokens``, ``ended`` and per judge ``mean``, ``low`` and ``high``: the mean
    over prompts of the mean over their samples, with its interval over prompts (``score_interval``). Of a judge that
    says right or wrong, 1 or 0, there is ``JUDGE pass@K`` beside it: the share of prompts with any right answer among
    their K samples.
    """
    groups: dict[str, dict[str, list[int]]] = {"source": defaultdict(list), "category": defaultdict(list)}
    for row, prompt in enumerate(prompts):
        for name, members in groups.items():
            members[getattr(prompt, name)].append(row)
    asked = questions(prompts)
    summary = {f"by_{name}": {key: _record(judged, rows, asked) for key, rows in sorted(members.items())}
               for name, members in groups.items()}  # fmt: skip
    return json_ready({"overall": _record(judged, list(range(len(prompts))), asked), **summary})


def score_interval(scores: Scores, asked: NDArray[Any] | None = None) -> Interval:
    """95 % interval for the mean of ``scores`` ``(prompts, samples)``, over prompts; equal ``asked`` are one prompt.

    A judge that says right or wrong, 1 or 0 for every answer, gives an accuracy, whose answers to one prompt share a
    question: 0 of 29 prompts has an upper limit. Other scores get Student's interval for the means of the prompts, and
    no limits where these agree: that those of other prompts would too is not shown.

    >>> [round(limit, 3) for limit in score_interval(np.zeros((29, 1)))]
    [0.0, 0.0, 0.117]
    """
    prompts, samples = scores.shape
    questions = np.arange(prompts) if asked is None else asked
    if scores.size and np.all(np.isin(scores, (0.0, 1.0))):
        return accuracy_interval(scores.reshape(-1), np.repeat(questions, samples))
    return with_limits(mean_interval(scores.mean(axis=1), questions))


def with_limits(interval: Interval) -> Interval:
    """The interval, without limits where they are the mean itself, which the data cannot show."""
    return interval if interval.low < interval.high else Interval(interval.mean, np.nan, np.nan)


def _record(judged: ScoredAnswers, rows: list[int], asked: NDArray[np.intp]) -> JsonObject:
    judges = {name: score_interval(scores[rows], asked[rows])._asdict() for name, scores in judged.scores.items()}
    means = {name: float(getattr(judged, name)[rows].mean()) for name in ("kl", "tokens", "ended")}
    samples = judged.kl.shape[1]
    solved = {
        f"{name} pass@{samples}": score_interval(scores[rows].max(axis=1, keepdims=True), asked[rows])._asdict()
        for name, scores in judged.scores.items()
        if samples > 1 and np.isin(scores, (0.0, 1.0)).all()
    }
    return {"prompts": len(rows), **means, **judges, **solved}


def render_policy_table(suites: Mapping[str, JsonObject], *, title: str = "Scores of sampled answers") -> Table:
    """The screen table of summaries by suite: one row per suite and source."""
    table = Table(title=shown_title(title), caption="brackets: 95 % interval over prompts; KL in nats", box=SIMPLE_HEAD)
    records = [suite["overall"] for suite in suites.values()]
    judges = list(dict.fromkeys(name for record in records for name in record if isinstance(record[name], dict)))
    table.add_column("suite / source", overflow="fold", min_width=12)
    for heading in ("prompts", *judges, "KL", "tokens", "ended"):
        table.add_column(shown(heading), justify="right")
    for name, suite in suites.items():
        table.add_row(*_row(name, suite["overall"], judges), style="bold")
        for source, record in suite["by_source"].items():
            table.add_row(*_row(f"  {source}", record, judges))
    return table


def _row(name: str, record: JsonObject, judges: Sequence[str]) -> list[Text | str]:
    scores = (f"{decimals(record[j]['mean'])} {_limits(record[j])}" if j in record else "" for j in judges)
    return [shown(name), str(record["prompts"]), *scores, f"{record['kl']:.2f}", f"{record['tokens']:.1f}",
            f"{100 * record['ended']:.0f} %"]  # fmt: skip


def _limits(record: Mapping[str, float | None]) -> str:
    low, high = record["low"], record["high"]
    return "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def write_judged(
    folder: Path,
    suites: Mapping[str, Sequence[Prompt]],
    judged: Mapping[str, ScoredAnswers],
    summaries: Mapping[str, object],
    *,
    of: Mapping[str, Sequence[Prompt]],
) -> None:
    """Write metrics.json, answers.json, and scores.npz with the scores and which prompts are the same.

    Args:
        folder: Of the run.
        suites: The prompts that were answered.
        judged: Their answers.
        summaries: By suite.
        of: The suites whole: prompts that are too long are left out of ``suites``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for suite, found in judged.items():
        arrays |= {f"{suite}/{name}": scores for name, scores in found.scores.items()} | {f"{suite}/kl": found.kl}
        arrays[f"{suite}/question"] = questions(suites[suite])
    texts = {
        suite: [{"id": p.id, "answers": answers} for p, answers in zip(prompts, judged[suite].texts, strict=True)]
        for suite, prompts in suites.items()
    }
    with sealing(folder, METRICS, "answers.json", "scores.npz"):
        with whole(folder / "scores.npz") as stream:
            np.savez(stream, **arrays)
        write_json(folder / "answers.json", texts)
        write_json(folder / METRICS, {"suites": summaries, JUDGED_ON: judged_on(of)})
