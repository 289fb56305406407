"""Formulas of the claims about groups of answers, whose outcomes are enumerated (theory.md section 3)."""

from __future__ import annotations

from proofs_check.claim import Formula

# E 1/G sum_j A_j (r_j - p)/(p (1 - p)) over all outcomes r
_EXPECTED = {
    "p": "part / whole",
    "chance": "lambda r: p**sum(r) * (1 - p)**(size - sum(r))",
    "score": "lambda r, a: chance(r) * dot(a, [x - p for x in r]) / (size * p * (1 - p))",
    "mixed": "lambda r: 0 < sum(r) < size",
    "mean": "lambda r: sum(r) / size",
    "scaled": "lambda r, f: [f * (x - mean(r)) for x in r]",
    "outcomes": "[r for r in products([0, 1], size)]",
}
# (G - 1)/G E f((1 + B)/G), B binomial with G - 2 draws
_MEANS = {
    "weight_of": "lambda G, p, k: (G - 1) / G * comb(G - 2, k - 1) * p**(k - 1) * (1 - p)**(G - 1 - k)",
}
_SAMPLED = {
    **_MEANS,
    "p": "hard / whole",
    "r": "easy / whole",
    "f": """lambda m: 1 / (m + 4 / knob) if kind == 'rs' else 1 / m if kind == 'maxrl'
        else (1 - m)**knob if kind == 'pass_at_k' else 1 / m**2 if kind == 'steep' else 2 if m <= 1 / 2 else 1""",
    "w": "lambda rate: sum(f(k / size) * weight_of(size, rate, k) for k in range(1, size))",
}

GROUPS = {
    # With A = f(m) (r - m) the outcomes of k right answers weigh what they should, whatever f(k/G).
    "group-weights": Formula(
        """all(sum(score(r, scaled(r, 1)) for r in outcomes if sum(r) == k) == weight_of(size, p, k)
        for k in range(1, size)) if kind == 'grpo' else sum(score(r, advantage(r)) for r in outcomes) == formula""",
        {
            **_EXPECTED,
            **_MEANS,
            "none": "lambda r: [0 for x in r]",
            "ways": "lambda r: knob * comb(size - sum(r), knob - 1) / comb(size - 1, knob - 1)",
            "deviation": "lambda r: sum(abs(x - mean(r)) for x in r) / size",
            "advantage": """lambda r: [ways(r) * x for x in r] if kind == 'pass_at_k'
                else ([x / mean(r) for x in r] if sum(r) > 0 else none(r)) if kind == 'maxrl_plain'
                else none(r) if not mixed(r)
                else [(1 + knob * x) / (1 + knob * mean(r)) - 1 for x in r] if kind == 'rs'
                else scaled(r, size / (size - 1)) if kind == 'rloo' else scaled(r, 1) if kind == 'mean'
                else scaled(r, 1 / deviation(r)) if kind == 'dgpo' else scaled(r, 1 / mean(r))""",
            "average": "lambda f: sum(f(k / size) * weight_of(size, p, k) for k in range(1, size))",
            "formula": """1 if kind == 'rloo' else (size - 1) / size if kind == 'mean'
                else (1 - (1 - p)**(size - 1)) / p if kind == 'maxrl'
                else (1 - (1 - p)**size) / p if kind == 'maxrl_plain'
                else knob * (1 - p)**(knob - 1) if kind == 'pass_at_k'
                else average(lambda m: 1 / (2 * m * (1 - m))) if kind == 'dgpo'
                else average(lambda m: knob / (1 + knob * m))""",
        },
    ),
    "group-weights-underestimate": Formula(
        "weight(size) <= weight(size + 1) <= limit",
        {
            **_MEANS,
            "p": "part / whole",
            "seeking": "lambda G: sum(knob / (1 + knob * k / G) * weight_of(G, p, k) for k in range(1, G))",
            "weight": """lambda G: seeking(G) if kind == 'rs'
                else (1 - (1 - p)**(G - (1 if kind == 'maxrl' else 0))) / p""",
            "limit": "knob / (1 + knob * p) if kind == 'rs' else 1 / p",
        },
    ),
    "maxrl-groups": Formula(
        """sum(score(r, [x / mean(r) - (0 if kind == 'maxrl_plain' else 1) for x in r])
        for r in outcomes if sum(r) > 0) == 1 / p""",
        _EXPECTED,
        admits=("2 <= size <= 10 and 1 <= knob <= 64", "0 < p < 1", "kind in ['maxrl_plain', 'maxrl']"),
    ),
    "sampled-rates-flatten": Formula(
        """w(r) <= w(p) and w(p) * f(1 - 1 / size) <= w(r) * f(1 / size)
        and (w(p) * f(r) <= w(r) * f(p) or kind in ['steep', 'worst'])""",
        _SAMPLED,
    ),
    "sampled-rates-flatten-any": Formula(
        "w(p) * f(r) <= w(r) * f(p)",
        _SAMPLED,
        admits=("2 <= size <= 12 and whole <= 64", "0 < p <= r < 1", "kind in ['steep', 'worst']"),
    ),
    "split-rates": Formula(
        "mean(p, size) >= mean(p, size + 1) >= f(p) and mean(p, size) >= mean(r, size)",
        {
            **_SAMPLED,
            "mean": "lambda s, G: sum(comb(G, k) * s**k * (1 - s)**(G - k) * f(k / G) for k in range(G + 1))",
        },
    ),
}
