"""Pairs whose collapse radius is known: features are signs, one of which tells the better answer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import entr, expit
from scipy.stats import binom

from dro_core import margin_collapse

SPREAD = 1.5
"""Standard deviation of the differences of rewards, in nats."""
STRENGTHS = np.array([1.0, 0.5, 0.25])


class Pairs(NamedTuple):
    """Features of chosen less rejected answers ``(n, d)``, masses ``(n,)``, and labels of groups by name."""

    rows: np.ndarray
    masses: np.ndarray
    groups: dict[str, list[Any]]


def closed_forms(accuracy: float) -> dict[str, float]:
    """The radii of margins that are +1 with this probability and else -1, by set; of CVaR alpha."""
    a = accuracy
    return {
        "tv": a - 0.5,
        "cvar": 2 * (1 - a),
        "chi2": (2 * a - 1) ** 2 / (8 * a * (1 - a)),
        "kl": -float(np.log(4 * a * (1 - a))) / 2,
        "burg": float(np.log(2) - entr(a) - entr(1 - a)),
    }


def drawn(n: int, d: int, *, seed: int) -> np.ndarray:
    """N pairs of d features +-1, labelled by a Bradley-Terry model that weighs all of them alike: about 73 % right."""
    rng = np.random.default_rng(seed)
    rows = rng.choice([-1.0, 1.0], size=(n, d))
    labels = np.where(rng.random(n) < expit(_rewards(rows.sum(axis=1), d)), 1.0, -1.0)
    return labels[:, None] * rows


def population_radius(d: int) -> float:
    """The KL radius of all pairs that ``drawn`` draws from, exactly.

    Features may change places, so no direction bears more than the one that weighs all alike, whose margins are sums.
    """
    sums = np.arange(-d, d + 1, 2)
    masses = binom.pmf(np.arange(d + 1), d, 0.5)
    right = expit(_rewards(sums, d))
    masses = np.concatenate([masses * right, masses * (1 - right)])
    return float(margin_collapse(np.concatenate([sums, -sums]), "kl", reference=masses / masses.sum()))


def _rewards(sums: np.ndarray, d: int) -> np.ndarray:
    return SPREAD * sums / np.sqrt(d)


def population() -> Pairs:
    """All eight prompts of three sign features, with labels of a well specified Bradley-Terry model: exact.

    A row is a prompt with a label: the features of the first answer less those of the second are z, its reward is
    higher by <STRENGTHS, z>, and x = z where it is preferred, else -z.
    """
    rows, masses, prompts = [], [], []
    for z in np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T:
        for label in (1.0, -1.0):
            rows.append(label * z)
            masses.append(float(expit(label * (STRENGTHS @ z))) / 8)
            prompts.append(str(z))
    gaps = [f"{abs(STRENGTHS @ x):g}" for x in rows]  # of the prompt, whichever answer is preferred
    return Pairs(np.array(rows), np.array(masses), {"prompt": prompts, "gap": gaps})


def flipped() -> Pairs:
    """The longer answer is right with 80 %, labels are flipped with 20 %; the only feature says which is right."""
    rows, masses, longer, halves = [], [], [], []
    for half in "ab":
        for longer_right, flip in ((True, False), (True, True), (False, False), (False, True)):
            rows.append([-1.0 if flip else 1.0])
            masses.append((0.8 if longer_right else 0.2) * (0.2 if flip else 0.8) / 2)
            longer.append(longer_right != flip)
            halves.append(half)
    return Pairs(np.array(rows), np.array(masses), {"chosen_is_longer": longer, "half of the prompts": halves})
