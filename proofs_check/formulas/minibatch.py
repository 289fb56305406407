"""Formulas of the claims about minibatches: every sample of n draws is enumerated (theory.md section 3)."""

from __future__ import annotations

from proofs_check.claim import Formula
from proofs_check.formulas.inner import REFERENCE

_SPREAD = {**REFERENCE, "spread": "max(losses) - min(losses)"}
_BIAS = {
    **_SPREAD,
    "plugin": "lambda value, l, q, n: sum(c * value(l, s) for c, s in samples(n, q))",
    "bias": "lambda value, l, q, n: value(l, q) - plugin(value, l, q, n)",
    "ball": "lambda l, q: tv(l, q, level)",
    "tail": "lambda l, q: cvar(l, q, level)",
    "missing": """lambda alpha: sum(comb(n, k) * alpha**k * (1 - alpha)**(n - k) * max(1 - k / (alpha * n), 0)
        for k in range(n + 1))""",
}
CAPPED = {**_BIAS, "capped": "lambda l, q: tv(l, q, level, max_ratio)"}

MINIBATCH = {
    "plugin-underestimates": Formula(
        """all(plugin(value, losses, p, n) <= plugin(value, losses, p, n + 1) <= value(losses, p)
        for value in [ball, tail])""",
        _BIAS,
    ),
    "cvar-bias": Formula("level * n * bias(tail, losses, p, n)**2 <= 9 * spread**2", _BIAS),
    "cvar-bias-sharp": Formula(
        "bias(tail, losses, p, n) <= spread * missing(level) and 4 * level * n * missing(level)**2 <= 1 - level", _BIAS
    ),
    "tv-bias-split": Formula(
        "bias(ball, losses, p, n) == (1 - level) * bias(rest, losses, p, n) + level * bias(top, losses, p, n)",
        {
            **_BIAS,
            "rest": "lambda l, q: cvar(l, q, 1 - level)",
            "top": "lambda l, q: max(x for x, m in zip(l, q) if m > 0)",
        },
    ),
    "tv-bias-root-n": Formula(
        "bias(ball, losses, p, n) <= 0 or n * bias(ball, losses, p, n)**2 <= 9 * spread**2",
        _BIAS,
        admits=("min(masses) > 0", "max(abs(x) for x in losses) <= 8 and 64 * spread >= 1", "0 < level < 1"),
    ),
    "tv-capped-bias": Formula(
        """found <= spread * ((1 - level) * missing(1 - level) + level * missing(a))
        and (found <= 0 or beyond <= 0 or beyond**2 <= 4 * u * v)""",
        {
            **CAPPED,
            "a": "level / (max_ratio - 1)",
            "found": "bias(capped, losses, p, n)",
            # found <= 3 spread (sqrt(u) + sqrt(v)), squared twice
            "u": "(1 - level) / n",
            "v": "level**2 / (a * n)",
            "beyond": "(found / (3 * spread))**2 - u - v",
        },
    ),
    "tv-floor-bias": Formula(
        "bias(ball, losses, p, n) <= spread * ((1 - level) * missing(1 - level) + level * (1 - rarest)**n)",
        {**_BIAS, "rarest": "sum(m for x, m in zip(losses, p) if x == max(losses))"},
    ),
    "bias-layers": Formula(
        """all(bias(value, losses, p, n) == sum((high - low) * bias(value, [0, 1], [1 - above(high), above(high)], n)
        for low, high in steps if high > low) for value in [ball, capped, tail])""",
        {
            **CAPPED,
            "above": "lambda level: sum(m for x, m in zip(losses, p) if x >= level)",
            "levels": "sorted(losses)",
            "steps": "[[item(levels, k - 1), item(levels, k)] for k in range(1, len(levels))]",
        },
    ),
    "chi2-penalty-bias": Formula(
        """found * level * n <= sharp * spread**2 and sharp**2 <= 2 if level < spread
        else found == variance / (2 * level * n)""",
        {
            **_BIAS,
            # q = p (l - a)_+ / level sums to 1 at the right a, where primal and dual objective are the same.
            "mass": "lambda l, q, u: sum(m for x, m in zip(l, q) if x >= u)",
            "root": """lambda l, q: max((sum(m * x for x, m in zip(l, q) if x >= u) - level) / mass(l, q, u)
                for u, m in zip(l, q) if m > 0)""",
            "excess": "lambda l, q, a, k: dot(q, [max(x - a, 0)**k for x in l])",
            "value_at": """lambda l, q, a: proved(excess(l, q, a, 1) == level,
                a + level / 2 + excess(l, q, a, 2) / (2 * level))""",
            "penalty": "lambda l, q: value_at(l, q, root(l, q))",
            "found": "bias(penalty, losses, p, n)",
            "ratio": "level / spread",
            "sharp": "1 - ratio if 2 * ratio <= 1 else 1 / (4 * ratio)",
            "variance": "dot(p, [(x - dot(p, losses))**2 for x in losses])",
        },
    ),
    "icdf-bias": Formula(
        """(whole - tv(means, uniform, level)) * (n + 1) <= max(slopes)
        and (tail_mean(level) - cvar(means, uniform, level)) * (n + 1) <= max(slopes)""",
        {
            "k": "len(slopes)",
            "at_least": """lambda m, s: sum(comb(n + 1, j) * s**j * (1 - s)**(n + 1 - j) for j in range(m, n + 2))""",
            "gap": """lambda m: sum(slope * (at_least(m + 1, (j + 1) / k) - at_least(m + 1, j / k))
                for slope, j in zip(slopes, range(k))) / (n + 1)""",
            "gaps": "[gap(m) for m in range(n)]",
            "means": "[sum(g for g, j in zip(gaps, range(n)) if j <= i) for i in range(n)]",
            "uniform": "[1 / n for i in range(n)]",
            "filled": "lambda s, alpha: s * s / 2 if s <= alpha else alpha * s - alpha * alpha / 2",
            "tail_mean": """lambda alpha: sum(slope * (filled((k - j) / k, alpha) - filled((k - j - 1) / k, alpha))
                for slope, j in zip(slopes, range(k))) / alpha""",
            "whole": "((1 - level) * tail_mean(1 - level) if level < 1 else 0) + level * sum(slopes) / k",
        },
    ),
    "tv-gradient-variance-floor": Formula(
        """sum(q) == 1 and min(q) >= 0 and dot(q, losses) == tv(losses, [1 / n for i in losses], radius)
        and square == radius**2 + (1 + radius) / n - rest * (1 - rest) / n**2 and square >= radius**2""",
        {
            # The smallest losses are drained one by one, and the largest gets it all.
            "losses": "[i for i in range(n)]",
            "q": "[1 / n + radius if i == n - 1 else max(1 / n - max(radius - i / n, 0), 0) for i in losses]",
            "square": "sum(x * x for x in q)",
            "rest": "-floor(-radius * n) - radius * n",
        },
    ),
}
