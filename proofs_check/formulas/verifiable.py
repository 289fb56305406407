"""Formulas of the claims about prompts whose answers are right or wrong: whole rates (theory.md section 3)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from proofs_check.claim import Formula
from proofs_check.claims.verifiable.offsets import Rewarded, old_weights
from proofs_check.claims.verifiable.rates import Weighted, shares
from proofs_check.claims.verifiable.waste import Step, drained
from proofs_check.exact.divergences import divergence_ball

if TYPE_CHECKING:
    from collections.abc import Mapping

_RATES = {"rates": "[k / whole for k in parts]", "losses": "[1 - p for p in rates]", "n": "len(rates)"}
_SHARES = {**_RATES, "q": "[w / sum(weights) for w in weights]"}
_RISES = {
    "rises": "lambda rates, w: any(p < r and u < v for p, u in zip(rates, w) for r, v in zip(rates, w))",
}
_ORDERS = {**_SHARES, **_RISES, "largest": "max(dot(order, losses) for order in orders(q))"}
_NORMALISED = {"q": "[w / sum(raw) for w in raw]"}
_SEEKING = {**_RATES, "eta": "4 / quarters", "raw": "[1 / (p + eta) for p in rates]", **_NORMALISED}


def _ball(x: Weighted) -> Mapping[str, Any]:
    """The convex function with slopes at places, and by what the losses exceed the slopes."""
    ball = divergence_ball(shares(x.weights), [1 - p for p in x.exact])
    if ball is None:
        raise ArithmeticError("no divergence ball has these weights as its worst case")
    return {"lines": ball.points, "threshold": ball.threshold}


def _drained(x: Step) -> Mapping[str, Any]:
    return {"q": drained(x)}


def _before(x: Rewarded) -> Mapping[str, Any]:
    return {"q": [Fraction(weight) for weight in old_weights(x)]}


VERIFIABLE = {
    # phi, the largest of the lines, is least at phi(1) = 0 and has the slope loss - threshold at n q
    "antitone-is-worst-case": Formula(
        """largest == dot(q, losses) and phi(1) == 0 and all(phi(t) >= 0 for t, value, slope in lines)
        and any(t == 1 and value == 0 and slope == 0 for t, value, slope in lines)
        and all(any(t == n * weight and value == phi(t) and slope == loss - threshold for t, value, slope in lines)
        for weight, loss in zip(q, losses))""",
        {**_ORDERS, "phi": "lambda s: max(value + slope * (s - t) for t, value, slope in lines)"},
        found=_ball,
    ),
    "worst-case-is-antitone": Formula(
        """all(largest - dot(q, losses) >= (u - w) * (p - r) for p, u in zip(rates, q) for r, w in zip(rates, q))
        and (largest == dot(q, losses)) == (not rises(rates, q))""",
        _ORDERS,
    ),
    "risk-seeking-is-robust": Formula(
        """prod([n * w * (p + eta) for w, p in zip(q, rates)]) == least**n
        and sum(q) == 1 and dot(q, losses) == 1 + eta - least""",
        {**_SEEKING, "least": "n / sum(raw)"},
    ),
    "maxrl-limit": Formula(
        "all(u / factor <= w <= u * factor for u, w in zip(limit, q))",
        {
            **_SEEKING,
            "limit": "[1 / p / sum(1 / r for r in rates) for p in rates]",
            "factor": "(1 + eta / min(rates)) / (1 + eta / max(rates))",
        },
    ),
    # Hoelder's inequality with equality: (n q)^(k/(k-1)) is proportional to l^k
    "pass-at-k-is-robust": Formula(
        """sum(q) == 1 and all((n * w)**k == scale**k * (l**k)**(k - 1) for w, l in zip(q, losses))
        and dot(q, losses) == scale * sum(l**k for l in losses) / n""",
        {
            **_RATES,
            "raw": "[k * (1 - p)**(k - 1) for p in rates]",
            **_NORMALISED,
            "scale": "n / sum(l**(k - 1) for l in losses)",
        },
    ),
    "utility-is-a-penalty": Formula(
        """(1 - a)**knob - (1 - b)**knob <= knob * (1 - a)**(knob - 1) * (b - a) if kind == 'pass_at_k'
        else log(b / a) <= 1 / a * (b - a) if kind == 'maxrl'
        else log((1 + knob * b) / (1 + knob * a)) <= knob / (1 + knob * a) * (b - a)""",
        {"a": "made / whole", "b": "used / whole"},
    ),
    "grpo-std-is-no-worst-case": Formula(
        """rises(rates, [1 / (p * (1 - p)) for p in rates])
        == (not all(p + r <= 1 for p in rates for r in rates if p != r))""",
        {**_RATES, **_RISES},
    ),
    "difficulty-filter-is-no-worst-case": Formula(
        "rises(rates, [p * (1 - p) for p in rates]) == (not all(p + r >= 1 for p in rates for r in rates if p != r))",
        {**_RATES, **_RISES},
    ),
    "curverl-log-concave": Formula(
        """rises([k for k in range(len(counts))], [c / f for c, f in zip(counts, totals)])
        == (not all(item(padded, k)**2 >= item(padded, k - 1) * item(padded, k + 1) for k in range(1, len(counts))))""",
        {
            **_RISES,
            "totals": "[sum(c for c, j in zip(counts, range(len(counts))) if j <= k) for k in range(len(counts))]",
            "padded": "[0] + totals",
        },
    ),
    "riskpo-is-spectral": Formula(
        "rises([k for k in range(len(slopes))], slopes) == (quarters * between < 4 * below)",
        {
            **_RISES,
            "slopes": "[quarters / 4 / below for k in range(below)] + [1 / between for k in range(between)] "
            "+ [0 for k in range(above)]",
        },
    ),
    "published-weights-are-robust": Formula(
        "not rises(rates, weights)",
        {
            **_RATES,
            **_RISES,
            "up_to": "lambda p: sum(c for r, c in zip(rates, counts) if r <= p)",
            "weights": """[sqrt(1 / (p * (1 - p))) for p in rates] if rule == 'grpo_std'
                else [p * (1 - p) for p in rates] if rule == 'difficulty_filter'
                else [exp(-p / 2) / (2 * p * (1 - p)) for p in rates] if rule == 'dgpo'
                else [c / up_to(p) for p, c in zip(rates, counts)] if rule == 'curverl'
                else [exp((1 - p) * sum(counts) / c) for p, c in zip(rates, counts)]""",
        },
        admits=("0 < min(rates) and max(rates) < 1",),
    ),
    "tv-drains-from-the-top": Formula(
        """sum(q) == 1 and min(q) >= 0 and sum(abs(w - 1 / n) for w in q) <= 2 * rho
        and dot(q, losses) == tv(losses, [1 / n for r in right], rho)
        and gained(0) == (min(rho, 1 - share(0)) if share(0) > 0 else 0)
        and gained(size) == -min(rho, share(size))""",
        {
            "n": "len(right)",
            "rho": "parts / 32",
            "losses": "[1 - r / size for r in right]",
            "share": "lambda count: sum(1 / n for r in right if r == count)",
            "gained": "lambda count: sum(w for w, r in zip(q, right) if r == count) - share(count)",
        },
        found=_drained,
    ),
    # other: weights of total variation at the distance of the weights kl of the penalty
    "smooth-sets-waste-less": Formula(
        "item(kl, 1) >= item(other, 1)",
        {
            "p": "[m / (failed + mixed + solved) for m in [failed, mixed, solved]]",
            "raw": "[failed * base**2, mixed * base, solved]",
            "kl": "[w / sum(raw) for w in raw]",
            "distance": "sum(abs(x - y) for x, y in zip(kl, p)) / 2",
            "taken": "min(distance, item(p, 2))",
            "other": "[item(p, 0) + distance, item(p, 1) - distance + taken, item(p, 2) - taken]",
        },
        admits=(
            "min(p) > 0 and base > 1",
            "sum(other) == 1 and min(other) >= 0 and sum(abs(x - y) for x, y in zip(other, p)) == 2 * distance",
            "dot(other, [1, 1 / 2, 0]) == tv([1, 1 / 2, 0], p, distance)",
        ),
    ),
    "easy-prompts-compare": Formula(
        "dot(q, values(1)) == -tv([-v for v in values(1)], even, radius)",
        {
            "n": "len(offsets)",
            "even": "[1 / n for c in offsets]",
            "radius": "parts / 8",
            "value": "lambda r, w, c: (dot(r, w) / sum(w) + c) / 8",
            "values": "lambda moved: [value(r, w, moved * c) for r, w, c in zip(rewards, likely, offsets)]",
        },
        admits=(
            "min(min(row) for row in likely) > 0 and 0 <= parts <= 8",
            "max(abs(x) for row in rewards + [offsets] for x in row) <= 64",
            "sum(q) == 1 and min(q) >= 0 and sum(abs(w - 1 / n) for w in q) <= 2 * radius",
            "dot(q, values(0)) == -tv([-v for v in values(0)], even, radius)",
        ),
        found=_before,
    ),
    "regrets-compare": Formula(
        """regrets(0) == regrets(1) and min(regrets(1)) >= 0
        and tv(regrets(0), even, parts / 8) == tv(regrets(1), even, parts / 8)""",
        {
            "even": "[1 / len(offsets) for c in offsets]",
            "regret": "lambda r, w, c: (max(r) + c) / 8 - dot([x + c for x in r], w) / sum(w) / 8",
            "regrets": "lambda moved: [regret(r, w, moved * c) for r, w, c in zip(rewards, likely, offsets)]",
        },
    ),
}
