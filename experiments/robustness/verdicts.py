"""What becomes of each claim of the first edition on prompts that are whole; fixed before anything was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from llm.report.collect import Collection
from llm.report.judge import Judge
from llm.statistics.arms import add_holm

from .arms import Rows, against, among, chosen, marked, only
from .mechanism import by_category

MARGIN = 0.02  # a difference whose interval lies within it is none
SEEN = 0.6  # plain heads that reach less in distribution can show nothing
TV = ("tv:0.05", "tv:0.1", "tv:0.2", "tv:0.4")
WORST_CASES = (*TV, "cvar:0.4")
TRIMMING, SOFT = "tv:0,trim=0.3", "dr_dpo:1"
NOISE = "noise-20"
NOT_RERUN = (
    "other sets at the effective sample size of total variation, and other batch sizes, gain no more",
    "sets over sources or categories do not gain either",
    "an iterate chosen on held-out pairs loses little",
    "held-out pairs choose the radius better than the distance of unlabelled prompts",
    "whole models lose as much in distribution",
)
STANDS, CHANGES, FALLS = "stands", "changes", "falls"
Difference = Mapping[str, Any]


def verdicts(collection: Collection) -> Rows:
    """One row per claim: what it said, what was measured, and whether it stands."""
    records = _records(collection, regime="all")
    inside = [records[name]["suites"]["id_test"]["difference"] for name in WORST_CASES]
    outside = [records[name]["average"]["difference"] for name in WORST_CASES]
    trimmed = _records(collection, regime=NOISE)[TRIMMING]["average"]["difference"]
    accuracy = records["erm"]["suites"]["id_test"]["accuracy"]
    categories, together = by_category(collection, "tv:0.4", least=100)
    shares = {place: share for share, place, _ in categories}
    reasoning, hard = (f"ood_rewardbench_like / {name}" for name in ("Reasoning", "Chat-Hard"))
    raised = _in_chat_hard(collection)
    at_02 = WORST_CASES.index("tv:0.2")
    return [
        ("claim of the first edition", "measured now", "verdict"),
        (
            "(plain heads in distribution, to be able to show anything)",
            f"{100 * accuracy:.1f}",
            "seen" if accuracy >= SEEN else "the bench is blind",
        ),
        (
            "no worst case gains, in distribution or on average",
            _extremes([*inside, *outside]),
            no_gain([*inside, *outside]),
        ),
        (
            "the larger the set, the larger the loss in distribution",
            _listed(inside[: len(TV)]),
            larger(inside[: len(TV)]),
        ),
        ("`tv:0.2` loses 3.8 points in distribution", marked(inside[at_02]), as_large(inside[at_02], -0.038)),
        ("`tv:0.2` loses 2.7 points on average", marked(outside[at_02]), as_large(outside[at_02], -0.027)),
        (
            "Reasoning is below chance",
            f"{100 * shares[reasoning]:.1f}",
            STANDS if shares[reasoning] < 0.5 - MARGIN else FALLS,
        ),
        (
            "Chat-Hard is the worst category, and sets raise it",
            f"worst: {categories[0][1]}, {100 * categories[0][0]:.1f}; Chat-Hard {_listed(raised)}",
            both(categories[0][1] == hard, any(_gains(found) for found in raised)),
        ),
        ("models are pushed towards a coin", f"correlation at `tv:0.4` {together:+.2f}", pushed(together)),
        (
            "with a fifth of the labels wrong, leaving out large losses helps on average",
            marked(trimmed),
            helps(trimmed),
        ),
        *((claim, "not rerun", "open") for claim in NOT_RERUN),
        ("all on the built-in corpus: its prompts were whole, at 64 tokens, and no pair equal", "not rerun", STANDS),
    ]


def no_gain(differences: Sequence[Difference]) -> str:
    """Falls with one gain that is significant after Holm's correction."""
    return FALLS if any(map(_gains, differences)) else STANDS


def larger(differences: Sequence[Difference]) -> str:
    """Stands if estimates fall with every radius and the largest loses significantly; falls if it does not."""
    means, last = [found["difference"] for found in differences], differences[-1]
    if _loses(last):
        return STANDS if all(a > b for a, b in pairwise(means)) else CHANGES
    return FALLS


def as_large(found: Difference, published: float) -> str:
    """Stands if the interval has the published loss and not 0; falls if it is no loss, or less than the margin."""
    if found["low"] > -MARGIN or found["high"] >= 0:
        return FALLS if found["low"] > -MARGIN else "open: the interval has 0 and the margin"
    return STANDS if found["low"] <= published <= found["high"] else CHANGES


def both(*parts: bool) -> str:
    """Stands if both parts of a claim do, falls if neither does."""
    return (FALLS, CHANGES, STANDS)[sum(parts)]


def pushed(correlation: float) -> str:
    """Of the change with the accuracy of plain training: stands at -0.5 or less, falls where it is positive."""
    if correlation <= -0.5:
        return STANDS
    return CHANGES if correlation <= 0 else FALLS


def helps(found: Difference) -> str:
    """Stands with a significant gain; falls if a gain beyond the margin is excluded."""
    if _gains(found):
        return STANDS
    return FALLS if found["high"] < MARGIN else "open: neither shown nor excluded"


def _records(collection: Collection, *, regime: str) -> dict[str, Any]:
    part = chosen(collection, among("erm", *WORST_CASES, TRIMMING, SOFT, regime=regime))
    return {record["ambiguity"]: record for record in Judge(part).records()}


def _in_chat_hard(collection: Collection) -> list[dict[str, Any]]:
    plain = only(collection.arms, among("erm"))
    arms = [only(collection.arms, among(name)) for name in WORST_CASES]
    found = [against(collection, arm, plain, "ood_rewardbench_like", "Chat-Hard") for arm in arms]
    add_holm(found)
    return found


def _gains(found: Difference) -> bool:
    return found["difference"] > 0 and found["p_holm"] < 0.05


def _loses(found: Difference) -> bool:
    return found["difference"] < 0 and found["p_holm"] < 0.05


def _extremes(differences: Sequence[Difference]) -> str:
    ordered = sorted(differences, key=lambda found: found["difference"])
    return f"from {marked(ordered[0])} to {marked(ordered[-1])}"


def _listed(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{100 * found['difference']:+.1f}" for found in differences)
