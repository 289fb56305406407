"""Do the answers of a policy tell anything? Prompts all right or all wrong, and what the adversary makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import kendalltau

from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord, Values

_ROWS = 16  # logged steps that a trend needs
_LEVEL = 0.025  # of each test for a trend
_MOST_SILENT, _MOST_WEIGHT, _MOST_SKIPPED = 0.5, 0.5, 0.1
_VISITS = 3  # of a prompt that was never solved
_CHECKED = 0.05  # of the groups all right or all wrong: less, and rewards are not those of checked answers
_NO_POLICY = Unchecked("it is no policy trained on a reward")
_VALUES = Unchecked("answers are held against a value function, to which equal scores tell something, too")
_OLDER = Unchecked("the log does not say which prompts had answers of different scores, as that of a policy now does")


def silent_prompts(run: RunRecord) -> Verdict:
    """Most groups of answers have one score, so that most of what was drawn teaches nothing; or steps were skipped."""
    if run.kind != "policy":
        return _NO_POLICY
    keeps = run.config.get("silent_groups", "keep") == "keep"
    if keeps and run.config.get("estimator") == "ppo":
        return _VALUES
    silent = _silent(run)
    if not len(silent):
        return _OLDER
    late, skipped = silent[len(silent) // 2 :].mean(), np.nan_to_num(run.column("skipped")).mean()
    if late <= _MOST_SILENT and skipped <= _MOST_SKIPPED:
        return None
    right, wrong = (np.nanmean(run.column(name)[len(silent) // 2 :]) for name in ("all_right", "all_wrong"))
    remedy = "ask prompts of other difficulty, or draw more answers (samples)"
    return Finding(
        Severity.PROBLEM if skipped > 0.5 else Severity.WARNING,
        "most prompts tell nothing",
        f"in the second half of the log all answers to a prompt have one score in {late:.0%} of the cases "
        f"({right:.0%} all right, {wrong:.0%} all wrong); {skipped:.0%} of the steps were skipped",
        f"{remedy}, or others in their place (silent_groups=draw_again)" if keeps else remedy,
    )


def weight_on_silent(run: RunRecord) -> Verdict:
    """The adversary weighs prompts that cannot move the policy, more than their share."""
    if run.kind != "policy":
        return _NO_POLICY
    if not run.robust:
        return Unchecked("plain training has no adversary")
    if run.config.get("estimator") == "ppo":
        return _VALUES
    weight, silent = run.column("weight_without_signal", full_strength=True), _silent(run, full_strength=True)
    if not len(weight) or np.isnan(weight).all():
        return _OLDER
    held, share = float(np.nanmean(weight)), float(silent.mean())
    if held <= _MOST_WEIGHT or held <= 1.2 * share:
        return None
    return Finding(
        Severity.WARNING,
        "weight goes to prompts that tell nothing",
        f"at full strength {held:.0%} of the weight is on prompts whose answers all have one score, which are "
        f"{share:.0%} of them: the step is worth {1 - held:.0%} of one without them",
        "leave them out (silent_groups=leave_out), ask others (draw_again), draw more answers (samples), or lower the "
        "radius",
    )


def coverage_lost(run: RunRecord) -> Verdict:
    """Fewer prompts have any right answer while more answers are right: the policy sharpens what it knew."""
    if run.kind != "policy":
        return _NO_POLICY
    covered, reward = 1 - run.column("all_wrong"), run.column("reward")
    seen = np.isfinite(covered) & np.isfinite(reward)
    if not _checked(run):
        return Unchecked("rewards are not those of answers that are right or wrong")
    if seen.sum() < _ROWS:
        return Unchecked(f"fewer than {_ROWS} steps were logged: log more often")
    if not (_trend(covered[seen], "less") and _trend(reward[seen], "greater")):
        return None
    quarter = int(seen.sum()) // 4
    first, last = covered[seen][:quarter].mean(), covered[seen][-quarter:].mean()
    return Finding(
        Severity.WARNING,
        "the policy loses coverage",
        f"the share of prompts with any right answer among {run.config.get('samples', 'their')} falls from {first:.0%} "
        f"to {last:.0%} while the mean reward rises from {reward[seen][:quarter].mean():.3g} to "
        f"{reward[seen][-quarter:].mean():.3g}",
        "weigh hard prompts (ambiguity kl_penalty:0.3), reward the best of several answers (estimator=pass_at_k:8), "
        "raise kl_coefficient, or take fewer steps",
    )


def chases_unsolvable(run: RunRecord) -> Verdict:
    """Most of the weight went to prompts that were never shown to be solvable."""
    if run.kind != "policy":
        return _NO_POLICY
    if not run.robust:
        return Unchecked("plain training has no adversary")
    if run.config.get("adversary_sees", "return") == "return" and run.config.get("kl_coefficient", 0):
        return Unchecked("the values of prompts hold the KL charge, so that those without a right answer are not known")
    if run.ledger is None or not _checked(run):
        return Unchecked(
            "it takes a checkpoint with the last value of every prompt, and rewards that are right or wrong"
        )
    often = run.ledger.visits >= _VISITS
    if often.sum() < 20:
        return Unchecked(f"fewer than 20 prompts were asked {_VISITS} times")
    failed, weight = run.ledger.last_loss[often] >= 0, run.ledger.mean_multiplier()[often]
    share, of = float(weight[failed].sum() / weight.sum()), float(failed.mean())
    if share <= _MOST_WEIGHT or share <= 1.2 * of or _trend(run.column("all_wrong"), "less"):
        return None
    return Finding(
        Severity.WARNING,
        "the adversary chases prompts that are not solved",
        f"of the prompts that were asked {_VISITS} times or more, {of:.0%} had no right answer when last asked and "
        f"hold {share:.0%} of the weight, and the share of prompts without any does not fall",
        "leave them out (silent_groups=leave_out), take a smaller radius or bound the weights (tv:0.1,max_ratio=2), or "
        "add easier prompts of their kind",
    )


def _silent(run: RunRecord, *, full_strength: bool = False) -> Values:
    """Share of the groups with one score at every logged step that says so."""
    names = ("all_right", "all_wrong", "all_alike")
    shares = np.array([run.column(name, full_strength=full_strength) for name in names]).sum(axis=0)
    return shares[np.isfinite(shares)]


def _checked(run: RunRecord) -> bool:
    """Whether scores look like those of answers that are right or wrong: groups end up all one or all the other."""
    said = [run.column(name) for name in ("all_right", "all_wrong")]
    return bool(len(said[0])) and float(np.nan_to_num(np.array(said)).sum(axis=0).mean()) > _CHECKED


def _trend(values: Values, direction: str) -> bool:
    """Kendall's test against time."""
    known = values[np.isfinite(values)]
    test: Any = kendalltau(np.arange(len(known)), known, alternative=direction)
    return bool(test.pvalue < _LEVEL)
