"""Formulas of the claims about decision processes and policies (theory.md section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proofs_check.claim import Formula
from proofs_check.claims.convergence.robust_mdp import Model, plain_values
from proofs_check.formulas.inner import BALLS

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODEL = {
    "n": "len(values)",
    "gamma": "discount / 16",
    "size": "parts / 16",
    "cut": "[[item(masses, n * i + j) for j in range(n)] for i in range(2 * n)]",
    "rows": "[[m / sum(row) for m in row] for row in cut]",
}


def _plain(x: Model) -> Mapping[str, Any]:
    return {"plain": plain_values(x)}


_CLIPPED = {
    "near": "lambda r: min(max(r, 1 - clip / 16), 1 + clip / 16)",
    "loss": "lambda r, a: -min(r * a, near(r) * a)",
    "slope": "lambda r, a: -a if r * a <= near(r) * a else 0",
}
# The worst prompts share what is taken from the best ones; t has been taken before
_SHARES = {
    "n": "len(rates)",
    "p": "[r / 16 for r in rates]",
    "radius": "parts / 16",
    "above": "lambda v, x: sum(1 / n for y in v if y > x)",
    "equals": "lambda v, x: sum(1 / n for y in v if y == x)",
    "taken": "lambda v, x: 0 if x == min(v) else max(min(radius - above(v, x), equals(v, x)), 0)",
    "moved": "lambda v: min(radius, 1 - equals(v, min(v)))",
    "share": """lambda v, x: 1 / n - taken(v, x) / equals(v, x) / n
        + (moved(v) / equals(v, x) / n if x == min(v) else 0)""",
    "worst": "lambda v: [share(v, x) for x in v]",
    "is_worst": """lambda v, q: sum(q) == 1 and min(q) >= 0 and sum(abs(w - 1 / n) for w in q) <= 2 * radius
        and dot(q, v) == -tv([-x for x in v], [1 / n for x in v], radius)""",
}
_LOCATED = {
    "p": "part / 64",
    "rho": "parts / 16",
    "c": "cap / 16",
    "nearer": "lambda s: min(1 / 2, s + rho, c * s)",
    "mean": "lambda s: nearer(s) if s <= 1 / 2 else 1 - nearer(1 - s)",
    "loss": "lambda t, q: (1 - q) * t**2 + q * (1 - t)**2",
    "best": "lambda s, t: proved(tv([t**2, (1 - t)**2], [1 - s, s], rho, c) == loss(t, t), t)",
    "theta": "lambda s: best(s, mean(s))",
    "error": """sum(comb(n, k) * p**k * (1 - p)**(n - k) * (theta(k / n) - theta(p))**2
        for k in range(n + 1))""",
}

CONTROL = {
    # Worst means of losses -v, -u and -max(v, u), state by state and action by action
    "robust-bellman": Formula(
        """all(worst(ball, both, p) <= worst(ball, v, p) + slack
        and worst(ball, v, p) - worst(ball, w, p) <= change + slack
        for ball in [tv, chi2, kl] for p in rows for v, w in [[values, others], [others, values]])""",
        {
            **_MODEL,
            **BALLS,
            "both": "[max(v, u) for v, u in zip(values, others)]",
            "change": "max(abs(v - u) for v, u in zip(values, others))",
            "slack": "16 / 10**9",
            "seen": "lambda v, p: [x for x, m in zip(v, p) if m > 0]",
            "worst": "lambda ball, v, p: ball([-x for x in seen(v, p)], seen(p, p), size)",
        },
    ),
    # plain: values at discount (1 - eps) gamma, a fixed point as the robust ones are
    "contamination-discount": Formula(
        """backed_up(plain, 0) == plain and backed_up(robust, size * gamma * min(robust)) == robust""",
        {
            **_MODEL,
            "robust": "[v + size * gamma / (1 - gamma) * min(plain) for v in plain]",
            "action": "lambda v, i: item(rewards, i) / 8 + (1 - size) * gamma * dot(item(rows, i), v)",
            "backed_up": "lambda v, lost: [max(action(v, 2 * s), action(v, 2 * s + 1)) + lost for s in range(n)]",
        },
        found=_plain,
    ),
    "ppo-a-is-b": Formula(
        """all(loss(r / 16, w * a / 8) == w * loss(r / 16, a / 8)
        and slope(r / 16, w * a / 8) == w * slope(r / 16, a / 8)
        for r, a, w in zip(ratios, advantages, weights))""",
        _CLIPPED,
    ),
    # A standard deviation is a root: squares are compared, with their signs
    "ppo-a-is-b-whitened": Formula(
        """[abs(x) * x for x in white(first)] == [w * w * abs(x) * x * variance(first) / variance(second)
        for w, x in zip(weights, white(second))] if whiten == 1
        else first == [w * x for w, x in zip(weights, second)]""",
        {
            "first": "[w * r - k for w, r, k in zip(weights, rewards, charges)]",
            "second": "[r - k for r, k in zip(rewards, charges)]",
            "white": "lambda a: [x - sum(a) / len(a) for x in a]",
            "variance": "lambda a: sum(x * x for x in white(a)) / len(a)",
        },
        admits=("min(weights) >= 0", "whiten == 0 or variance(first) > 0 and variance(second) > 0"),
    ),
    "plugin-policy-weights": Formula(
        "sampled == sum(w * x * (1 - x) for w, x in zip(worst(p), p))",
        {
            **_SHARES,
            "outcomes": "[[k / answers for k in o] for o in products(range(answers + 1), n)]",
            "chance": """lambda v: prod([comb(answers, answers * s) * x**(answers * s)
                * (1 - x)**(answers - answers * s) for s, x in zip(v, p)])""",
            "sampled": """sum(chance(v) * sum(w * s * (1 - x) for w, s, x in zip(worst(v), v, p)) for v in outcomes)""",
        },
        admits=(
            "0 < min(p) and max(p) < 1 and 0 < radius <= 1 and answers >= 1",
            "all(is_worst(v, worst(v)) for v in outcomes + [p])",
        ),
    ),
    # theta is the mean under weights that are a worst case at theta, and so the minimiser
    "robust-parameter-rate": Formula("error * n <= c**2 * p * (1 - p)", _LOCATED),
    "robust-parameter-rate-quarter": Formula(
        "16 * n * error**2 >= (p * (1 - p))**2",
        _LOCATED,
        admits=("0 < part < 64 and 0 < parts < 8 and 16 <= cap <= 64 and n >= 1",),
    ),
}
