"""Claims about robust natural policy gradient that are false: a misspecified reward breaks them (theory.md section 3).

All policies here share one parameter between the prompts, so a step that helps one prompt can harm another. Rewards
are not linear in the feature: no theta is right for every prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dro_core import TotalVariation
from proofs_check.claim import Array, Assumptions, Claim, Curve, Instances, Verdict, mutant, stated
from proofs_check.exact.interval_npg import robust_supremum, worst_value_intervals
from synthetic.bandits.mdp import prompts
from synthetic.bandits.natural_gradient import PolicyRun, natural_policy_gradient
from synthetic.bandits.policies import LogLinearPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

Table = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class SharedParameter:
    """Equally likely prompts, pi_theta(a|x) proportional to exp(theta feature(x, a)), theta a number, from 0.

    ``rewards`` and ``features`` are ``(x, a)``; ``steps`` steps of length ``step``; a total-variation ``radius``.
    """

    rewards: Table
    features: Table
    radius: float
    step: float
    steps: int

    def run(self, *, robust: bool) -> PolicyRun:
        """Take the steps, weighted by the worst case or not."""
        policy = LogLinearPolicy(np.array(self.features)[..., None])
        ambiguity = self.ball if robust else None
        return natural_policy_gradient(
            prompts(self.rewards), policy, steps=self.steps, step_size=self.step, ambiguity=ambiguity
        )

    @property
    def ball(self) -> TotalVariation:
        """The set both runs are judged by."""
        return TotalVariation(self.radius)


@stated
def npg_last_iterate() -> Claim[SharedParameter]:
    """Robust steps do not make the last iterate better in the worst case.

    Problem: maximise min_q <q, V> over a total-variation ball around the prompts; log-linear policies, misspecified.
    Algorithm: theta <- theta + eta F_q^+ g_q, with q = the worst mixture (robust) or the mixture of the data (plain).
    Guarantee (false): worst-case value of the last robust iterate >= that of the last plain iterate. The worst-case
        value has a kink where the worst prompt changes. The direction does not shrink there, so a constant step
        jumps over the kink for ever, while plain steps may stop at a better point.
    Source: folklore, believed by whoever runs Algorithm 2 of 2503.00539 and keeps the last policy; refuted here. The
        remedy is a smaller or decaying step, or the best iterate; but see `npg-best-iterate`, where neither helps.
    Example: V_1 = s(theta), V_2 = 1/4 + s(-theta), s the logistic function, radius 1/4, eta = 8: plain stays at 0,
        worth 9/16; robust alternates between 0 and 4, worth .446.
    """
    claim = Claim[SharedParameter](
        label="npg-last-iterate",
        statement="last robust NPG iterate >= last NPG iterate in worst-case value, reward misspecified",
        reference="folklore: what robust NPG (2503.00539, Algorithm 2) is run for",
        assumptions=_WELL_POSED,
        instances=Instances(SharedParameter, (_OVERSHOOT,)),
        lhs=_last_plain,
        rhs=lambda x: x.run(robust=True).worst_values(x.ball)[-1],
        scale=_spread,
        expected=Verdict.REFUTED,
        violates=_certainly_worse,
        curve=Curve("steps", tuple(replace(_OVERSHOOT, steps=t) for t in range(12))),
        by_hand=(
            "Both prompts have the variance s(theta) s(-theta) of the feature, so the direction is q_1 - q_2.\n"
            "Plain: 1/2 - 1/2 = 0, it stays at theta = 0: V = (1/2, 3/4), worst case 3/4 * 1/2 + 1/4 * 3/4 = 9/16.\n"
            "Robust: 0 + 8 (3/4 - 1/4) = 4 and back, 4 at odd T: V = (.982, .268), .25 * .982 + .75 * .268 = .446."
        ),
    )
    return claim.with_mutants(*_weaker(claim, slack=0.1))


@stated
def npg_best_iterate() -> Claim[SharedParameter]:
    """Small steps do not repair it, nor does the best iterate of a robust run that never ends.

    Problem and algorithm: as in `npg-last-iterate`, with steps eta <= 1/4; the robust run goes on for ever.
    Guarantee (false): sup over all t of the worst-case value of robust iterates >= that of the plain iterate T. The
        worst-case value is not concave in theta: min(V_1, V_2) has a local maximum where the values cross. There robust
        ascent ends, while the mean still has a slope that leads plain ascent to a better place. Proved by enclosing
        all robust steps from an interval, [-1/2, 0] here, which none of them leaves.
    Source: derived here; the step-size-free version of the refutation of `npg-last-iterate`.
    Example: radius 1/4, V_1 rises from 0 to 1, V_2 dips from 3/4 to .49 and rises to 3/4 again: plain reaches .812,
        the best robust iterate of any number of steps is worth .564.
    """
    claim = Claim[SharedParameter](
        label="npg-best-iterate",
        statement="sup over all t of robust NPG >= plain NPG at T in worst-case value, eta <= 1/4, reward misspecified",
        reference="theory.md section 3",
        assumptions={**_WELL_POSED, "two prompts, eta <= 1/4": lambda x: len(x.rewards) == 2 and x.step <= 1 / 4},
        instances=Instances(SharedParameter, (_TRAP,)),
        lhs=_last_plain,
        rhs=_best_robust,
        scale=_spread,
        expected=Verdict.REFUTED,
        violates=_worse_for_ever,
        curve=Curve("steps", tuple(replace(_TRAP, steps=t) for t in range(0, 65, 4))),
        by_hand=(
            "e = exp(theta): V_1 = 2e/(1 + 2e), V_2 = 3/4 (1 + e^3)/(1 + e^2 + e^3) cross once, at -.435, worth .564.\n"
            "Robust falls from 0 to there: V_1' + 3 V_2' < 0 on (-.435, .027); left of it 3 V_1' + V_2' > 0 turns it.\n"
            "Plain never stops, V_1' + V_2' > 0: theta -> oo, V = (1, 3/4), worst case 1/4 * 1 + 3/4 * 3/4 = .8125."
        ),
    )
    return claim.with_mutants(*_weaker(claim, slack=0.2))


_OVERSHOOT = SharedParameter(((1.0, 0.0), (0.25, 1.25)), ((1.0, 0.0), (1.0, 0.0)), 0.25, 8.0, 9)
_TRAP = SharedParameter(((0.0, 1.0, 1.0), (0.75, 0.0, 0.75)), ((0.0, 1.0, 1.0), (0.0, 2.0, 3.0)), 0.25, 0.25, 64)
_LEAST = -0.5  # robust runs of the trap stay above
_WELL_POSED: Assumptions[SharedParameter] = {
    "0 < radius < 1/2": lambda x: 0 < x.radius < 1 / 2,
    "eta > 0": lambda x: x.step > 0,
}


def _spread(x: SharedParameter) -> float:
    return float(np.ptp(x.rewards))


def _last_plain(x: SharedParameter) -> float:
    return float(x.run(robust=False).worst_values(x.ball)[-1])


def _weaker(claim: Claim[SharedParameter], slack: float) -> tuple[Claim[SharedParameter], ...]:
    """Weaker claims that are false too: the average iterate instead, and a loss of so much allowed."""

    def average(x: SharedParameter) -> Array:
        return -x.run(robust=True).trajectory(x.ball, 0.0).average_values[-1]

    def slackened(side: Callable[[SharedParameter], Any]) -> Callable[[SharedParameter], Any]:
        return lambda x: side(x) + slack

    worse = mutant(claim, f"up to {slack} worse", rhs=slackened(claim.rhs))
    return worse, mutant(claim, "average iterate", rhs=average)


def _best_robust(x: SharedParameter) -> float:
    """The best of eight times as many steps."""
    return float(replace(x, steps=8 * x.steps).run(robust=True).worst_values(x.ball).max())


def _worse_for_ever(x: SharedParameter) -> bool:
    """Whether interval arithmetic puts the last plain iterate above every point that a robust run can reach."""
    plain = worst_value_intervals(x.rewards, x.features, x.radius, x.step, x.steps, robust=False)
    reached = robust_supremum(x.rewards, x.features, x.radius, x.step, _LEAST)
    return plain is not None and reached is not None and plain[-1].low > reached


def _certainly_worse(x: SharedParameter) -> bool:
    """Whether interval arithmetic puts the last plain iterate above the last robust one."""
    plain, robust = (
        worst_value_intervals(x.rewards, x.features, x.radius, x.step, x.steps, robust=robust)
        for robust in (False, True)
    )
    if plain is None or robust is None:
        return False
    return plain[-1].low > robust[-1].high
