"""Who got the weight as a whole model's ``run.json`` says it: where no account of all training pairs is at hand."""

from __future__ import annotations

from ...run.files import JsonObject
from ..collect import Arm, Collection

MOST = 6  # pairs of either extreme


def recorded_weights(collection: Collection, arm: Arm) -> dict[str, object] | None:
    """``weights``, ``noise_ranking`` and ``examples`` as of the details of an arm; None where nothing was recorded.

    They are of the first seed that has them.
    """
    records = (collection.record(run).get("adversary") for run in arm.runs.values())
    found = next((one for one in records if isinstance(one, dict) and one.get("top") is not None), None)
    if found is None or not _acted(found):
        return None
    weights = {factor: _rows(found.get(f"by_{factor}", {})) for factor in ("source", "category")}
    if not any(weights.values()):
        return None
    return {
        "weights": weights,
        "noise_ranking": None,
        "examples": {side: [_example(pair) for pair in found.get(side, ())[:MOST]] for side in ("top", "bottom")},
    }


def _acted(found: JsonObject) -> bool:
    """Whether a weight of the extreme pairs is another than plain training's."""
    return any(abs(pair["multiplier"] - 1) > 1e-6 for pair in (*found["top"], *found.get("bottom", ())))


def _rows(groups: JsonObject) -> list[dict[str, object]]:
    """As of ``weights.shares``; groups of pairs alone, not of prompts."""
    known = {name: group for name, group in groups.items() if "pairs" in group}
    pairs = sum(group["pairs"] for group in known.values())
    masses = {name: group.get("mass", group["pairs"]) * group["multiplier"] for name, group in known.items()}
    whole = max(sum(masses.values()), 1e-300)
    return [
        {"group": name or "unknown", "pairs": group["pairs"], "share_of_pairs": group["pairs"] / pairs,
         "share_of_weight": masses[name] / whole, "multiplier": group["multiplier"]}
        for name, group in sorted(known.items(), key=lambda entry: -entry[1]["pairs"])
    ]  # fmt: skip


def _example(pair: JsonObject) -> dict[str, object]:
    return {"prompt": "", "chosen": "", "rejected": "", "id": "", "source": "", "category": "", **pair}
