"""A pipeline by its folder: reward models, policies, and what compared them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...run.files import JsonObject, json_ready
from ...run.finished import RECORD, RunError, read_record
from ...statistics.overoptimisation import training_curve
from .policies import answers_of, apart, score_text

_ABLATION = "ablation.json"
_SHOWN = [1, *(4**power for power in range(1, 10))]  # of the n of best-of-n
_POINTS = 8  # of a curve


class Stages(NamedTuple):
    """The finished stages of a pipeline; ``policies`` by arm, a folder for each seed."""

    rewards: list[Path]
    policies: dict[str, list[Path]]
    others: list[Path]
    notes: list[str]


def stages_of(folder: Path) -> Stages | None:
    """The stages of the pipeline in a folder; None where there is none."""
    notes = sorted([*folder.glob("seed-*/*/*/stage.json"), *folder.glob("sft/stage.json")])
    if not notes:
        return None
    places = [note.parent for note in notes]
    finished = [place for place in places if (place / RECORD).exists()]
    policies: dict[str, list[Path]] = {}
    for place in finished:
        if place.parent.name == "policy":
            policies.setdefault(place.name.replace("-", "/", 1), []).append(place)
    rewards = [place for place in finished if place.parent.name == "reward"]
    open_ones = [str(place.relative_to(folder)) for place in places if place not in finished]
    said = (
        [f"Not finished, so not shown: {', '.join(open_ones)}; the same command continues there."] if open_ones else []
    )
    plain_first = dict(sorted(policies.items(), key=lambda arm: arm[0].count("robust")))
    return Stages(rewards, plain_first, [place for place in finished if place not in rewards], said)


def policies_of(folder: Path, stages: Stages) -> tuple[dict[str, object] | None, list[str]]:
    """What the policies wrote and how they compare, and what cannot be said of that."""
    if not stages.policies:
        return None, []
    notes, found = [], {}
    try:
        found = read_record(folder / _ABLATION, "arms")
    except RunError as error:
        notes.append(
            f"The policies are not compared: {error}."
            if (folder / _ABLATION).exists()
            else "The policies are not compared, as there is no gold reward, or not all of them are finished."
        )
    rows = [_row(row, row["arm"], row["kl"]) for row in found.get("arms", ())]
    best = [row for row in found.get("best_of", ()) if row["n"] in _SHOWN]
    starts = {row["suite"]: _row(row, "start", row["kl_bound"]) for row in best if row["n"] == 1}
    rows += [*starts.values(), *(_row(row, f"best-of-{row['n']} ({row['reward']})", row["kl_bound"]) for row in best
             if row["n"] > 1)]  # fmt: skip
    firsts = {arm: folders[0] for arm, folders in stages.policies.items()}
    judge = "gold" if rows else "reward"
    lines = [*found.get("did_not_act", ()), *(f"Gold of {name} while training: {said}" for name, said in
             {**found.get("gold_while_training", {}), **found.get("gold_of_best_of", {})}.items())]  # fmt: skip
    curves, missing = _curves(stages)
    sentence, shown = _sentence([row for row in rows if row["arm"] in stages.policies])
    return {
        "judge": judge, "rows": rows, "sentence": sentence, "shown": shown, "lines": lines, "curves": curves,
        "answers": answers_of(firsts, _config(next(iter(firsts.values()))), judge),
    }, [*notes, *missing]  # fmt: skip


def _row(row: JsonObject, arm: str, kl: float) -> dict[str, object]:
    return {"suite": row["suite"], "arm": arm, "score": row["gold"], "difference": row["difference"], "kl": kl,
            "prompts": row["prompts"], "seeds": row["seeds"]}  # fmt: skip


def _sentence(rows: Sequence[JsonObject]) -> tuple[str, bool]:
    compared = [row for row in rows if row["difference"]]
    if not compared:
        return "The policies are not compared.", False
    first, shown = next(row["arm"] for row in rows if not row["difference"]), apart(compared)
    correction = f", not corrected for {len(compared)} comparisons" if len(compared) > 1 else ""
    aside = f"(95 % intervals over prompts{correction})"
    if shown and shown[0]["difference"]["mean"] > 0:
        best, last = shown[0], next(row for row in reversed(shown) if row["arm"] == shown[0]["arm"])
        if last["difference"]["mean"] < 0:
            return (
                f"It depends: the policy {best['arm']} has gold {_signed(best)} against {first} on {best['suite']} and "
                f"{_signed(last)} on {last['suite']} {aside}.",
                True,
            )
        return f"Use the policy {best['arm']}: gold {_signed(best)} against {first} on {best['suite']} {aside}.", True
    if shown:
        worst = shown[-1]
        return (
            f"Use the policy {first}: {worst['arm']} is worse on {worst['suite']}, gold {_signed(worst)} {aside}.",
            True,
        )
    return f"Use the policy {first}, the plainest: no other is shown to differ from it in gold {aside}.", False


def _signed(row: JsonObject) -> str:
    text = score_text(row["difference"])
    return text if text.startswith("\N{MINUS SIGN}") else f"+{text}"


def _config(folder: Path) -> JsonObject:
    try:
        return read_record(folder / RECORD, "config")["config"]
    except RunError:
        return {}


def _curves(stages: Stages) -> tuple[list[dict[str, object]], list[str]]:
    """Proxy and gold against KL of each arm, and why an arm has none."""
    found, missing = [], []
    for arm, folders in stages.policies.items():
        try:
            histories = [read_record(folder / RECORD, "history")["history"] for folder in folders]
            curve = training_curve(histories, name=arm, points=_POINTS)
        except ValueError as reason:
            missing.append(str(reason))
        else:
            found.append(json_ready({name: getattr(curve, name) for name in ("name", "kl", "proxy", "gold")}))
    return found, missing
