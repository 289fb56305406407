"""Formulas of the claims about subgradient methods and of the refuted ones about shifts (theory.md section 3)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from proofs_check.claim import Formula
from proofs_check.claims.convergence.subgradient import Span, visited
from proofs_check.claims.preferences.shift_counterexamples import root

if TYPE_CHECKING:
    from collections.abc import Mapping


def _points(x: Span) -> Mapping[str, Any]:
    points = visited([Fraction(h) for h in x.coefficients], x.steps, spare=1)
    return {"steps": x.steps, "points": points, "answers": [point.index(max(point)) for point in points]}


def _enclosed_root(_: object) -> Mapping[str, Any]:
    return dict(zip(("below", "beyond"), root(), strict=True))


OTHERS = {
    # answers: which coordinate is a largest entry of x_t, whose unit vector is a subgradient there
    "subgradient-optimal": Formula(
        """2 * len(coefficients) == steps * (steps + 1) and len(points) == steps + 1
        and all(item(points, t) == [-sum(item(coefficients, t * (t - 1) / 2 + s) for s in range(t)
        if item(answers, s) == j) for j in range(steps + 1)] for t in range(steps + 1))
        and all(item(x, j) == max(x) for x, j in zip(points, answers)) and all(max(x) >= 0 for x in points)""",
        found=_points,
    ),
    # L_rho(w_ERM), of which these are labels within rho, exceeds the loss log 2 of w = 0
    "robust-shift-labels": Formula(
        "(wins - moved) / n * log(n / wins) + (losses + moved) / n * log(n / losses) <= log(2)",
        {"n": "wins + losses"},
        admits=("wins > losses > 0", "wins > moved > 0"),
    ),
    # On the two samples on which they differ the plain fit is +-log t, the robust one 0; their chances are far : near
    "robust-shift-sample": Formula(
        """any(far * (log(2) - right) + near * (log(2) - wrong) <= 0
        for right in [near_loss - near / (1 + near) * c, far_loss - 2 * far / (1 + far) * c]
        for wrong in [near_loss - c / (1 + near), far_loss - 2 * c / (1 + far)])""",
        {
            "t": "bounded(below, beyond)",
            "c": "log(t)",
            "near_loss": "log(1 + t)",
            "far_loss": "log(1 + t * t)",
        },
        admits=(
            "far != near**2 and near > 1 and far > 1 and n == 2 and 1 / 2 <= radius <= 1 and bound >= 1",
            "1 < below and below**3 < below + 2 and beyond**3 > beyond + 2",
        ),
        found=_enclosed_root,
    ),
}
