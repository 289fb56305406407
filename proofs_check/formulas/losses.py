"""Formulas of the claims about losses against noisy labels and about robust fits (theory.md section 3)."""

from __future__ import annotations

from proofs_check.claim import Formula
from proofs_check.formulas.inner import BALLS

_TEMPERED = {
    "heat_at": "heat / 8",
    "losses": "[x / 8 for x in eighths]",
    "n": "len(losses)",
    "mean": "sum(losses) / n",
    "spread": "max(losses) - min(losses)",
}
_FLIPPED = {
    "eps": "flips / 64",
    "corrected": "lambda l, other: ((1 - eps) * l - eps * other) / (8 * (1 - 2 * eps))",
}
_PREFERRED = {"p": "prefer / 256", "eps": "flips / 256", "noisy": "(1 - eps) * p + eps * (1 - p)"}

LOSSES = {
    "kldpo-hidden-rate": Formula(
        "1 <= sum(exp((x - mean) / heat_at) for x in losses) / n <= exp((spread / heat_at)**2 / 8)", _TEMPERED
    ),
    "drdpo-is-optimistic": Formula(
        """sum(w * x for w, x in zip(raw, losses)) / sum(raw) <= loss <= mean
        and mean - spread**2 / (8 * heat_at) <= loss""",
        {
            **_TEMPERED,
            "raw": "[exp((min(losses) - x) / heat_at) for x in losses]",
            "loss": "min(losses) - heat_at * log(sum(raw) / n)",
        },
    ),
    "rdpo-unbiased": Formula(
        "(1 - eps) * corrected(right, wrong) + eps * corrected(wrong, right) == right / 8", _FLIPPED
    ),
    "rdpo-robust-unbiased": Formula(
        "tv([corrected(right, wrong), corrected(wrong, right)], [1 - eps, eps], parts / 16) <= right / 8",
        _FLIPPED,
        admits=("0 <= eps < 1 / 2 and 0 < parts <= 16 and max(abs(right), abs(wrong)) <= 64",),
    ),
    # up is the sigmoid of the margin, so the slopes of -log sigmoid(h) and -log sigmoid(-h) are up - 1 and up
    "cdpo-margin": Formula(
        """0 < up < 1 and p * ((1 - eps) * (up - 1) + eps * up) + (1 - p) * ((1 - eps) * up + eps * (up - 1)) == 0""",
        {**_PREFERRED, "up": "noisy"},
    ),
    "noise-eats-radius": Formula(
        """abs(up - noisy) <= rho and up * (up - 1) + (1 - up) * up == 0
        and (up == 1 / 2 or up > 1 / 2 and tv([0, 1], [noisy, 1 - noisy], rho) == 1 - up)""",
        {**_PREFERRED, "rho": "parts / 256", "up": "max(1 / 2, noisy - rho)"},
    ),
    "zero-one-invariance": Formula(
        """error(first) <= error(second)
        and all(tv(w, p, size) == (min(1, error(w) + size) if error(w) > 0 else 0)
        and cvar(w, p, size) == min(1, error(w) / size) for w in [first, second])
        and chi2(first, p, size) <= chi2(second, p, size) + slack
        and kl(first, p, size) <= kl(second, p, size) + slack""",
        {
            "p": "[m / sum(masses) for m in masses]",
            "size": "parts / 16",
            "slack": "1 / 10**9",
            "error": "lambda w: dot(p, w)",
            **BALLS,
        },
    ),
    "zero-one-invariance-groups": Formula(
        "over_groups(first) <= over_groups(second)",
        {"over_groups": "lambda w: tv([k / size for k in w], [1 / len(w) for k in w], parts / 16)"},
        admits=("sum(first) <= sum(second) and 0 <= min(first + second) and max(first + second) <= size",),
    ),
    # squares: (v'x)^2/|v|^2, whose mean no eigenvalue exceeds; hidden: p, given that v'x = 0
    "coverage-caps-the-radius": Formula(
        """-tv([-s for s in squares], p, radius) <= max(seen - radius, 0) * largest
        and dot(hidden, squares) == 0
        and sum((a - b)**2 / b for a, b in zip(hidden, p)) / 2 == (1 / (1 - seen) - 1) / 2""",
        {
            "p": "[m / sum(masses) for m in masses]",
            "radius": "parts / 16",
            "d": "len(direction)",
            "rows": "[[item(features, d * i + j) for j in range(d)] for i in range(len(masses))]",
            "squares": "[dot(direction, x)**2 / dot(direction, direction) for x in rows]",
            "largest": "max(dot(x, x) for x in rows)",
            "seen": "sum(m for m, s in zip(p, squares) if s > 0)",
            "hidden": "[0 if s > 0 else m / (1 - seen) for m, s in zip(p, squares)]",
        },
    ),
}
