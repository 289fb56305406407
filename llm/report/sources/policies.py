"""Policies by what they write: scores of their sampled answers, and answers of several to one prompt side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.pairs import DataError
from ...data.prompts import read_prompts
from ...results.training_records import read_arrays
from ...run.files import JsonObject
from ...run.finished import RunError, read_record
from ...statistics.numbers import decimals
from .run_folders import RunTold, suite_paths

PROMPTS = 6  # that are shown of a suite
_LONGEST = 600


def of_one_policy(folder: Path, told: RunTold) -> dict[str, object] | None:
    """What a policy alone wrote; None of a run that wrote nothing."""
    suites = {
        name: summary["overall"] for name, summary in told.suites.items() if "prompts" in summary.get("overall", {})
    }
    if not suites:
        return None
    judge = "gold" if any("gold" in record for record in suites.values()) else "reward"
    arm = str(told.record["config"]["ambiguity"])
    rows = [
        {"suite": name, "arm": arm, "score": record[judge], "difference": None, "kl": record["kl"],
         "prompts": record["prompts"], "seeds": 1}
        for name, record in suites.items()
        if judge in record
    ]  # fmt: skip
    first = rows[0] if rows else None
    sentence = (
        f"The {judge} score of its sampled answers is {score_text(first['score'])} on {first['suite']}; alone, it "
        "shows nothing of what its training bought."
        if first
        else "Its answers were not scored."
    )
    return {"judge": judge, "rows": rows, "sentence": sentence, "shown": False, "lines": [], "curves": [],
            "answers": answers_of({arm: folder}, told.record["config"], judge)}  # fmt: skip


def score_text(record: Mapping[str, float | None]) -> str:
    """A score with its limits, where it has them."""
    limits = "" if record["low"] is None else f" [{decimals(record['low'])}, {decimals(record['high'])}]"
    return f"{decimals(record['mean'])}{limits}"


def answers_of(folders: Mapping[str, Path], config: JsonObject, judge: str) -> list[dict[str, object]]:
    """One sampled answer of every arm to the same prompts.

    Args:
        folders: Arm -> run folder.
        config: Of one of them: where the prompts stand.
        judge: Whose scores stand beside the answers.

    Returns:
        Of each suite the prompts where the mean scores of the arms lie furthest apart, else the first ones: ``suite``,
        ``id``, ``prompt`` (None where it cannot be read any more) and ``arms``: ``arm``, ``answer`` and ``score`` each.
    """
    written = {arm: _answers(folder) for arm, folder in folders.items()}
    written = {arm: suites for arm, suites in written.items() if suites}
    scores = {arm: read_arrays(folders[arm] / "scores.npz") or {} for arm in written}
    found = []
    for suite in next(iter(written.values()), {}):
        members = {arm: suites[suite] for arm, suites in written.items() if suite in suites}
        ids = next(iter(members.values())).keys()
        members = {arm: own for arm, own in members.items() if own.keys() == ids}
        values = {arm: _scores(scores[arm], f"{suite}/{judge}", len(ids)) for arm in members}
        prompts = _prompts(next(iter(folders.values())), config, suite)
        for row in _telling(values, len(ids)):
            own = list(ids)[row]
            arms = [
                {"arm": arm, "answer": str(answers[own][0])[:_LONGEST], "score": _first(values[arm], row)}
                for arm, answers in members.items()
                if answers[own]
            ]
            found.append({"suite": suite, "id": own, "prompt": prompts.get(own), "arms": arms})
    return found


def _answers(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Suite -> prompt -> answers, in order; empty where they are missing or damaged."""
    try:
        stored = read_record(folder / "answers.json")
        return {suite: {str(entry["id"]): list(entry["answers"]) for entry in rows} for suite, rows in stored.items()}
    except (RunError, KeyError, TypeError):
        return {}


def _scores(stored: Mapping[str, NDArray[np.floating]], name: str, count: int) -> NDArray[np.floating] | None:
    values = stored.get(name)
    return values if values is not None and values.ndim == 2 and len(values) == count else None


def _first(scores: NDArray[np.floating] | None, row: int) -> float | None:
    return None if scores is None else float(scores[row].flat[0])


def _telling(values: Mapping[str, NDArray[np.floating] | None], count: int) -> list[int]:
    means = [scores.mean(axis=1) for scores in values.values() if scores is not None]
    if len(means) < 2:
        return list(range(min(count, PROMPTS)))
    return np.argsort(-np.ptp(means, axis=0), kind="stable")[:PROMPTS].tolist()


def _prompts(folder: Path, config: JsonObject, suite: str) -> dict[str, str]:
    files = suite_paths(folder, config)
    if suite not in files:
        return {}
    how: Any = {"distinct": config.get("distinct_prompts", True), "columns": config.get("columns"), "shared": True}
    try:
        found = read_prompts(files[suite], **how).prompts
    except (DataError, OSError, ValueError):
        return {}
    return {prompt.id: "\n".join(message["content"] for message in prompt.messages)[:_LONGEST] for prompt in found}


def apart(rows: Sequence[JsonObject]) -> list[JsonObject]:
    """Rows whose difference to the first arm has an interval that leaves out 0, the largest first."""
    shown = [
        row for row in rows if (d := row["difference"]) and d["low"] is not None and (d["low"] > 0 or d["high"] < 0)
    ]
    return sorted(shown, key=lambda row: -row["difference"]["mean"])
