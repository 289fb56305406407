"""Did a policy trained on a reward get better by what judges it, or only by that reward?"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import kendalltau

from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord, Values

_ROWS = 16  # logged steps: the second half is looked at alone
_LEVEL = 0.025  # of each of the two tests for a downward trend


def over_optimised(run: RunRecord) -> Verdict:
    """The gold reward falls while the reward that is optimised does not: over the whole run, or since its middle."""
    if run.kind != "policy":
        return Unchecked("it is no policy trained on a reward")
    gold, reward = run.column("gold"), run.column("reward")
    seen = np.isfinite(gold) & np.isfinite(reward)
    if seen.sum() < _ROWS:
        return Unchecked(
            f"a gold reward was logged fewer than {_ROWS} times: name a second judge (gold), log more often"
        )
    whole, late = seen.copy(), seen & (np.arange(len(seen)) >= len(seen) // 2)
    for steps, when in ((whole, "over the run"), (late, "since its middle")):
        if _falls(gold[steps]) and not _falls(reward[steps]):
            return _found(run, gold[seen], reward[seen], when, fell=steps is whole)
    return None


def _found(run: RunRecord, gold: Values, reward: Values, when: str, *, fell: bool) -> Finding:
    quarter = len(gold) // 4
    kl = run.column("kl")
    return Finding(
        Severity.PROBLEM if fell else Severity.WARNING,
        "the policy is over-optimised",
        f"{when} the gold reward falls (first quarter {gold[:quarter].mean():.3g}, last {gold[-quarter:].mean():.3g}) "
        f"while the reward it is trained on does not ({reward[:quarter].mean():.3g}, {reward[-quarter:].mean():.3g}); "
        f"KL to the reference is {np.nanmean(kl[-quarter:]):.2g} nats",
        f"take fewer steps, raise kl_coefficient (now {run.config.get('kl_coefficient', 'unknown')}), or train the "
        "reward model on answers like those in the log",
    )


def _falls(values: Values) -> bool:
    """Kendall's test against time."""
    test: Any = kendalltau(np.arange(len(values)), values, alternative="less")
    return bool(test.pvalue < _LEVEL)
