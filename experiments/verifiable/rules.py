"""What was fixed before anything was measured: sizes, choices, margins, tests and the claims that are put to them.

The problem (``problem.py``) was tuned beforehand on problems 20000 to 20005, with the arms plain, ``kl_penalty:0.3``
and ``tv:0.3``, until it showed what a pilot had seen elsewhere: a large gain of ``kl_penalty:0.3`` on the worst fifth.
It is chosen as a place where a worst case can pay, and says nothing of how often there is one. The two relatives where
hard prompts are ``separate`` from or ``aligned`` with easy ones were looked at there, too. To time the program and to
place the step sizes, all arms ran at two of them on problems 20000 to 20003. Statements are the published ones as we
read them, most of them from summaries; none was added or dropped for what was seen.

Every claim is judged twice: with the step size of each arm that TUNING_SEEDS choose (``tuned``), and with COMMON for
all (``common``). A claim *holds* if all its tests come out, is *reversed* if one comes out the other way, and is else
*not shown*. The other way is: of ``more`` and ``less``, the opposite sign with p < LEVEL after Holm; of ``no less``, an
interval below minus the margin; of ``equal``, one outside of it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

STEPS = 600
LONGER = 4
"""Times as many steps, for the arms of ``arms.MAIN``."""
EVERY = 50
"""Steps between measurements."""
SIZES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Step sizes of every arm. Both ends were seen to be worse than the middle for plain training."""
COMMON = 3.0
"""The step size at which arms are also compared as they are: none has converged there."""
TUNING_SEEDS = tuple(range(10_000, 10_020))
"""Problems on which the size of each arm is chosen, by its training pass@1 after STEPS; used for nothing else."""
SEEDS = tuple(range(100))
REPLICATES, PER_TEST = 40, 20
"""Plain training against itself, other answers: 20 pairs of replicates on 5 times 20 problems are 100 comparisons."""
MOST_FALSE = 11
"""Of 100 comparisons of an arm with itself at 5 %: more have probability 0.4 % if the tests are what they say."""
LEVEL = 0.05
PASS_MARGIN, WORST_MARGIN = 0.01, 0.03
"""A difference whose 95 % interval lies within the margin is none; the second is for a fifth or a source."""
WITHIN = 0.0065
"""How near seven recipes are to each other in the table of 2601.20614."""

Kind = Literal["more", "less", "no less", "equal"]


class Test(NamedTuple):
    """One statement about a difference ``measure of arm`` less ``measure of against``, over the 100 problems.

    Attributes:
        arm: Name in ``arms.ARMS``.
        measure: Name in ``measures.NAMES``.
        kind: ``more`` and ``less``: p < 5 % after Holm over all tests of the scoreboard in its column; ``no less``: the
            lower 95 % limit is above minus the margin; ``equal``: the interval lies within it.
        against: The other arm.
        when: ``end``; ``early``: after a quarter of STEPS; ``longer``: after LONGER times STEPS; ``level``: where both
            have the training pass@1 that the lower of them ends with.
        margin: Of ``no less`` and ``equal``.
        times: The other side is multiplied by this after plain training is subtracted from both; None: not.
    """

    arm: str
    measure: str
    kind: Kind = "more"
    against: str = "plain"
    when: str = "end"
    margin: float = PASS_MARGIN
    times: float | None = None


class Claim(NamedTuple):
    """A published statement as we read it, and all tests that must come out for it to hold."""

    source: str
    text: str
    tests: tuple[Test, ...]


KL, WORST, H1, H16 = "kl_penalty:0.3", "train worst fifth", "held-out pass@1", "held-out pass@16"


def _coverage(arm: str, measure: str = H16) -> tuple[Test, ...]:
    return Test(arm, measure), Test(arm, H1, "no less")


CLAIMS = (
    Claim("pilot", "`kl_penalty:0.3` lifts the worst fifth of training prompts", (Test(KL, WORST),)),
    Claim("pilot", "`kl_penalty:0.3` lifts held-out pass@16", (Test(KL, H16),)),
    Claim("pilot", "`kl_penalty:0.3` costs held-out pass@1", (Test(KL, H1, "less"),)),
    Claim("pilot", "after four times the steps the worst fifth still gains", (Test(KL, WORST, when="longer"),)),
    Claim(
        "pilot", "the gain on the worst fifth is more than speed: it is there at equal training pass@1",
        (Test(KL, WORST, when="level"),),
    ),
    Claim(
        "pilot", "`tv:0.3` gains a quarter to a half of that",
        (
            Test("tv:0.3", WORST, against=KL, times=0.25),
            Test("tv:0.3", WORST, "less", against=KL, times=0.5),
        ),
    ),
    Claim("pilot", "GRPO's standard deviation lifts the worst fifth", (Test("grpo_std", WORST),)),
    Claim("2602.02710", "MaxRL gains coverage and loses no pass@1", _coverage("maxrl")),
    Claim("2509.24261", "RS-GRPO gains coverage and loses no pass@1", _coverage("rs_grpo:2")),
    Claim("2505.15201", "optimising pass@4 raises held-out pass@4", (Test("pass_at_k:4", "held-out pass@4"),)),
    Claim(
        "2503.20783", "without the standard deviation no pass@1 is lost",
        (Test("dr_grpo", H1, "no less", "grpo_std"),),
    ),
    Claim("2504.03380", "medium prompts first are faster", (Test("difficulty_filter", "train pass@1", when="early"),)),
    Claim("2504.03380", "medium prompts end higher", (Test("difficulty_filter", H1),)),
    Claim("2602.05548", "easy prompts first end higher", (Test("easy first", H1),)),
    Claim("2601.20614", "DGPO gains over GRPO", (Test("dgpo", H1, against="grpo_std"),)),
    Claim(
        "2601.20614", "seven recipes lie within 0.65 points of GRPO",
        tuple(
            Test(arm, H1, "equal", "grpo_std", margin=WITHIN)
            for arm in ("dr_grpo", "difficulty_filter", "maxrl", "rs_grpo:2", "pass_at_k:4", "curverl", "dgpo")
        ),
    ),
    Claim("2605.24331", "CurveRL gains over GRPO", (Test("curverl", H1, against="grpo_std"),)),
    Claim("2601.19280", "GDRO gains over plain training", (Test("gdro", H1),)),
    Claim("2510.00911", "RiskPO gains coverage and loses no pass@1", _coverage("riskpo")),
    Claim("DAPO, 2503.14476", "groups without signal drawn again help at equal answers", (Test("drawn again", H1),)),
    Claim(
        "theory", "running averages help `kl_penalty:0.3` on the worst fifth",
        (Test(f"{KL}, running", WORST, against=KL),),
    ),
    Claim(
        "theory", "shrunk estimates help `kl_penalty:0.3` on the worst fifth",
        (Test(f"{KL}, shrunk", WORST, against=KL),),
    ),
    Claim(
        "theory", "estimates pooled by source help `kl_penalty:0.3` on the worst fifth",
        (Test(f"{KL}, pooled", WORST, against=KL),),
    ),
    Claim(
        "control", "the gain needs the right prompts: permuted weights gain less",
        (Test(KL, WORST, against="permuted weights"),),
    ),
)  # fmt: skip
