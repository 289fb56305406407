"""The claim that robust policy gradient is slower where the worst prompt teaches nothing (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from dro_core import KL, TotalVariation, worst_case
from proofs_check.claim import Array, Claim, Curve, Instances, mutant, shrunk, stated, swapped
from synthetic.bandits.mdp import prompts
from synthetic.bandits.natural_gradient import natural_policy_gradient
from synthetic.bandits.policies import LogLinearPolicy

if TYPE_CHECKING:
    from dro_core import AmbiguitySet

Row = tuple[int, ...]


@dataclass(frozen=True)
class OneSlope:
    """Two answers to each prompt, of feature 1 and 0; rewards in eighths of the second, and what the first adds.

    The first prompt is the worst one and the first answer adds nothing there. A radius in 32nds, step in eighths.
    """

    base: Row
    gains: Row
    parts: int
    pace: int
    steps: int

    def run(self, ambiguity: AmbiguitySet | None) -> Array:
        """The values of all prompts along the run, ``(T + 1, x)``."""
        rewards = [[(b + g) / 8, b / 8] for b, g in zip(self.base, self.gains, strict=True)]
        policy = LogLinearPolicy(np.array([[[1.0], [0.0]]] * len(self.base)))
        run = natural_policy_gradient(
            prompts(rewards), policy, steps=self.steps, step_size=self.pace / 8, ambiguity=ambiguity
        )
        return run.prompt_values

    @property
    def ball(self) -> TotalVariation:
        """Around equally likely prompts."""
        return TotalVariation(self.parts / 32)


@stated
def npg_slower() -> Claim[OneSlope]:
    """Where nothing can be learnt at the worst prompt, robust natural policy gradient is behind the plain one for ever.

    Problem: prompts that share one parameter, two answers of features 1 and 0; at the prompt of the lowest value both
        answers are worth the same, at the others the first is worth no less than the second.
    Algorithm: theta <- theta + eta F_q^+ g_q from 0, q the worst case of total variation (robust), or equal (plain).
    Guarantee (tight: radius 0): at every T, every prompt has at most the value of the plain run, so the worst case too.
    Source: theory.md section 3. All prompts have one Fisher information, so a step is eta sum q_x gain_x; q takes mass
        from others and gives it to the prompt without gain. Not so for KL balls, which raise other bad prompts too.
    Example: gains 0 and 1, radius 1/4: plain steps eta/2, robust ones eta/4.
    """

    def values(x: OneSlope, ambiguity: AmbiguitySet | None) -> Array:
        rows = x.run(ambiguity)[1:]
        worst = -np.asarray(worst_case(-rows, x.ball).value)
        every = np.pad(rows, ((0, 0), (0, 5 - len(x.base))), mode="edge")  # up to five prompts
        return np.hstack([every.ravel(), worst]) - (min(x.base) - 1) / 8

    claim = Claim[OneSlope](
        label="npg-slower",
        statement="robust NPG (TV) is behind plain NPG at every prompt and every T if the worst prompt has no gradient",
        reference="theory.md section 3",
        assumptions={
            "the first prompt is the worst, without a gain": lambda x: x.gains[0] == 0 and x.base[0] < min(x.base[1:]),
            "gains in [0, 8]": lambda x: 0 <= min(x.gains) <= max(x.gains) <= 8 and max(x.gains) > 0,
            "0 <= radius < 1, eta > 0, T >= 1": lambda x: 0 <= x.parts < 32 and x.pace > 0 and x.steps >= 1,
        },
        instances=_slopes(),
        lhs=lambda x: values(x, x.ball),
        rhs=lambda x: values(x, None),
        scale=lambda x: 1.0,
        tight=True,
        effort=0.3,
        curve=Curve("steps", tuple(OneSlope((0, 1), (0, 8), 8, 8, t) for t in range(1, 17))),
    )
    divergence = mutant(
        claim,
        "KL balls",
        lhs=lambda x: values(x, KL(x.parts / 32)),
        instances=Instances(OneSlope, (OneSlope((0, 1, 40), (0, 8, 0), 8, 8, 2),)),
    )
    return claim.with_mutants(shrunk(claim), swapped(claim), divergence)


def _slopes() -> Instances[OneSlope]:
    corners = (
        OneSlope((0, 1), (0, 8), 8, 8, 6),
        OneSlope((0, 1), (0, 8), 0, 8, 6),
        OneSlope((-4, 0, 2, 8), (0, 8, 1, 4), 12, 16, 6),
    )
    others = st.lists(st.tuples(st.integers(1, 16), st.integers(0, 8)), min_size=1, max_size=4)

    def built(d: tuple[list[tuple[int, int]], int, int]) -> OneSlope:
        base, gains = zip(*d[0], strict=True)
        return OneSlope((0, *base), (0, *gains), d[1], d[2], 6)

    return Instances(OneSlope, corners, st.tuples(others, st.integers(0, 31), st.integers(1, 64)).map(built))
