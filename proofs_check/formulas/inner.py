"""Formulas of the claims about the inner problem (theory.md section 3)."""

from __future__ import annotations

from proofs_check.claim import Formula

REFERENCE = {"p": "[m / sum(masses) for m in masses]"}
# The same without the losses of mass zero, which count nowhere.
_SEEN = {
    "seen": "[x for x, m in zip(losses, masses) if m != 0]",
    "p": "[m / sum(masses) for m in masses if m != 0]",
}
_SPREAD = {"spread": "max(seen) - min(seen)", "slack": "spread / 10**9"}
# Balls of a divergence: q lies inside and bounds the value from below, a dual objective bounds it from above.
BALLS = {
    "inside": "lambda q: sum(q) == 1 and min(q) >= 0",
    "chi2_by": """lambda l, p, r, q, a: bounded(
        proved(inside(q) and sum((x - m)**2 / m for x, m in zip(q, p)) / 2 <= r, dot(q, l)),
        a + sqrt((1 + 2 * r) * dot(p, [max(x - a, 0)**2 for x in l])))""",
    "chi2": "lambda l, p, r: chi2_by(l, p, r, item(witness('chi2', l, p, r), 0), item(witness('chi2', l, p, r), 1))",
    "kl_by": """lambda l, p, r, q, t: bounded(
        proved(inside(q) and sum(x * log(x / m) for x, m in zip(q, p) if x > 0) <= r, dot(q, l)),
        max(l) + t * (r + log(dot(p, [exp((x - max(l)) / t) for x in l]))) if t > 0 else max(l))""",
    "kl": "lambda l, p, r: kl_by(l, p, r, item(witness('kl', l, p, r), 0), item(witness('kl', l, p, r), 1))",
}
_EXCESS = {"excess": "lambda a: dot(p, [max(x - a, 0) for x in seen])"}

INNER = {
    "tv-closed-form": Formula(
        "tv(seen, p, radius) == free and tv(seen, p, radius, max_ratio) == capped",
        {
            **_SEEN,
            "tail": "lambda share, alpha: share * cvar(seen, p, alpha) if share > 0 else 0",
            "free": "tail(1 - radius, 1 - radius) + radius * max(seen)",
            "capped": """tail(1 - radius, 1 - radius) + (tail(radius, radius / (max_ratio - 1)) if radius > 0 else 0)
                if max_ratio * (1 - radius) > 1 else cvar(seen, p, 1 / max_ratio)""",
        },
    ),
    "tv-dual": Formula(
        """tv(seen, p, radius) == min(radius * (max(seen) - a) + a + excess(a) for a in seen)
        and tv(seen, p, radius, max_ratio)
        == min(radius * (b - a) + a + excess(a) + (max_ratio - 1) * excess(b) for a in seen for b in seen if b >= a)
        """,
        {**_SEEN, **_EXCESS},
    ),
    "cvar-dual": Formula(
        "cvar(seen, p, alpha) == min(a + excess(a) / alpha for a in seen)",
        {**_SEEN, **_EXCESS},
    ),
    "chi2-dual": Formula("width(chi2(seen, p, radius)) <= slack", {**_SEEN, **_SPREAD, **BALLS}),
    "kl-dual": Formula("width(kl(seen, p, radius)) <= slack", {**_SEEN, **_SPREAD, **BALLS}),
    "tv-gap": Formula("0 <= tv(seen, p, radius) - dot(p, seen) <= radius * spread", {**_SEEN, **_SPREAD}),
    "ball-nesting": Formula(
        "chi2(seen, p, 2 * radius**2) <= outer and kl(seen, p, 2 * radius**2) <= outer",
        {**_SEEN, **_SPREAD, **BALLS, "outer": "tv(seen, p, radius) + slack"},
    ),
    "radius-concave": Formula(
        "concave(tv) and concave(chi2) and concave(kl)",
        {
            **_SEEN,
            **_SPREAD,
            **BALLS,
            "between_radii": "lambda end, far, middle: end <= middle + slack and (end + far) / 2 <= middle + slack",
            "concave": """lambda ball: between_radii(ball(seen, p, radius), ball(seen, p, wider),
                ball(seen, p, (radius + wider) / 2))""",
        },
    ),
    "wasserstein-is-tv": Formula(
        "transport(losses, p, cost, radius) == tv(losses, p, radius)",
        {
            **REFERENCE,
            "cost": "[[0 if i == j else 1 for j in range(len(losses))] for i in range(len(losses))]",
            "transport_by": """lambda l, p, cost, r, plan, t: bounded(
                proved(all(min(row) >= 0 for row in plan) and [sum(row) for row in plan] == p and t >= 0
                and sum(dot(x, c) for x, c in zip(plan, cost)) <= r, sum(dot(row, l) for row in plan)),
                r * t + dot(p, [max(x - t * c for x, c in zip(l, row)) for row in cost]))""",
            "transport": """lambda l, p, cost, r: transport_by(l, p, cost, r,
                item(witness('transport', l, p, cost, r), 0), item(witness('transport', l, p, cost, r), 1))""",
        },
    ),
}
