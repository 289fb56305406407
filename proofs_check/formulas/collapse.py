"""Formulas of the claims about the collapse radius (theory.md section 3)."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from proofs_check.claim import Formula
from proofs_check.exact.simplex import solution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proofs_check.claims.collapse.samples import Unlabelled

# The least set around p with E_q x = 0, on a scale from 0 to 1 (none): rho (tv), 1 - alpha (cvar), 1 - 1/(1 + 2 rho)
# (chi2), 1 - e^-rho (kl, burg). Weights q that balance bound it from above, a direction w with margins m from below.
_SIZES = {
    "inside": "lambda q: sum(q) == 1 and min(q) >= 0",
    "balances": "lambda rows, q: inside(q) and all(dot(q, x) == 0 for x in columns(rows))",
    "from_above": """lambda kind, p, q: min(sum(max(y - x, 0) for x, y in zip(p, q)), 1) if kind == 'tv'
        else 1 - min(x / y for x, y in zip(p, q) if y > 0) if kind == 'cvar'
        else 1 - 1 / sum(y * y / x for x, y in zip(p, q)) if kind == 'chi2'
        else 1 - exp(-sum(y * log(y / x) for x, y in zip(p, q) if y > 0)) if kind == 'kl'
        else 1 - exp(-sum(x * log(x / y) for x, y in zip(p, q)))""",
    "down": "lambda m: max(-min(m), 0)",
    "from_below": """lambda kind, p, m: dot(p, [min(x + down(m), 1) for x in m]) - down(m) if kind == 'tv'
        else 1 - dot(p, [max(1 - x, 0) for x in m]) if kind == 'cvar'
        else 1 - dot(p, [max(1 - x, 0)**2 for x in m]) if kind == 'chi2'
        else 1 - dot(p, [exp(-x) for x in m]) if kind == 'kl'
        else 1 - exp(-dot(p, [log(1 + x) for x in m]))""",
    "separates": "lambda kind, m: min(m) > 0 or kind == 'burg' and min(m) == 0 and max(m) > 0",
    "size": """lambda kind, rows, p, q, m: proved(separates(kind, m), 1) if len(q) == 0
        else bounded(from_below(kind, p, m), proved(balances(rows, q), from_above(kind, p, q)))""",
    "with_proofs": """lambda kind, rows, p, found:
        size(kind, rows, p, item(found, 0), [dot(x, item(found, 1)) for x in rows])""",
    "around": "lambda rows, p, kind: with_proofs(kind, rows, p, witness('balance', rows, p, kind))",
    "balance": "lambda rows, masses, kind: around(rows, [m / sum(masses) for m in masses], kind)",
}
_RADIUS = "width(balance(rows, masses, kind)) <= 1 / 10**9"
_EXACT = "width(balance(rows, masses, kind)) == 0"
_ADMITTED = ("1 <= min(masses) and max(masses) <= 64",)
_NEAR = "max(abs(x) for row in rows for x in row) <= 8"
_SIGNS = {**_SIZES, "a": "right / (right + wrong)", "r": "lambda kind: balance([[1], [-1]], [right, wrong], kind)"}
_MEANS = {
    **_SIZES,
    "names": """[item(groups, k) for k in range(len(groups))
        if all(item(groups, j) != item(groups, k) for j in range(k))]""",
    "mass": "lambda g: sum(m for m, h in zip(masses, groups) if h == g)",
    "mean": "lambda g, x: sum(m * e for m, e, h in zip(masses, x, groups) if h == g) / mass(g)",
    "means": "[[mean(g, x) for x in columns(rows)] for g in names]",
    "over_groups": "balance(means, [mass(g) for g in names], kind)",
}
_SAMPLED = {
    **_SIZES,
    "p": "[m / sum(masses) for m in masses]",
    "seen": "lambda s: balance([x for x, k in zip(rows, s) if k > 0], [k for k in s if k > 0], kind)",
    "mean": "lambda n: sum(c * seen(s) for c, s in samples(n, p))",
}


def _factors(x: Unlabelled) -> Mapping[str, Any]:
    """Independent rows, and how the others are made of them: proves that the rank is no larger."""
    basis: list[list[Fraction]] = []
    rows = [[Fraction(entry) for entry in row] for row in x.rows]
    for row in rows:
        if any(row) and (not basis or solution(list(map(list, zip(*basis, strict=True))), row) is None):
            basis.append(row)
    parts = [solution(list(map(list, zip(*basis, strict=True))), row) if basis else [] for row in rows]
    return {"basis": basis, "parts": parts}


COLLAPSE = {
    "collapse-criterion": Formula(_EXACT, _SIZES),
    "collapse-radius": Formula(_EXACT, _SIZES),
    "collapse-radius-entropies": Formula(_RADIUS, _SIZES),
    "collapse-signs": Formula(
        """r('tv') == a - 1 / 2 and r('cvar') == 1 - 2 * (1 - a)
        and r('chi2') == 1 - 1 / (1 + 2 * ((2 * a - 1)**2 / (8 * a * (1 - a))))
        and near(r('kl'), 1 - exp(log(4 * a * (1 - a)) / 2))
        and near(r('burg'), 1 - exp(-log(2) - a * log(a) - (1 - a) * log(1 - a)))""",
        {**_SIGNS, "near": "lambda one, two: -1 <= 10**9 * (one - two) <= 1"},
    ),
    "collapse-accuracy": Formula(
        "0 <= radius <= sum(m for x, m in zip(values, masses) if x > 0) / sum(masses)",
        {**_SIZES, "radius": "balance([[x] for x in values], masses, 'tv') if dot(values, masses) > 0 else 0"},
    ),
    "collapse-accuracy-floor": Formula(
        """balance([[x] for x in values], masses, 'tv')
        >= sum(m for x, m in zip(values, masses) if x > 0) / sum(masses) - 1 / 2""",
        _SIZES,
        admits=_ADMITTED,
    ),
    "collapse-sample": Formula("mean(n) >= mean(n + 1) >= balance(rows, masses, kind)", _SAMPLED),
    "collapse-sample-null": Formula(
        """[[sum(part * item(row, k) for part, row in zip(made, basis)) for k in range(len(item(rows, 0)))]
        for made in parts] == rows and len(basis) / len(rows) <= expected""",
        {
            **_SIZES,
            "signed": """lambda signs:
                balance([[s * e for e in x] for s, x in zip(signs, rows)], [1 for x in rows], 'chi2')""",
            "expected": "sum(signed([1] + signs) for signs in products([1, -1], len(rows) - 1)) / 2**(len(rows) - 1)",
        },
        found=_factors,
    ),
    "collapse-sample-estimates": Formula(
        "mean(n) <= balance(rows, masses, kind)", _SAMPLED, admits=(*_ADMITTED, _NEAR, "n >= 1")
    ),
    "collapse-minibatch": Formula(
        """all(h(value, n, given) >= h(value, n + 1, given) and r(kind, n) >= r(kind, n + 1) >= r(kind, len(values))
        and useless_from(value, n, r(kind, n)) and useless_from(value, n + 1, r(kind, n + 1))
        for kind, value, given in [['tv', ball, parts / 16], ['cvar', tail, 1 - parts / 16]])""",
        {
            **_SIZES,
            "all_of": "lambda n: subsets(values, n)",
            "even": "lambda n: [1 / n for k in range(n)]",
            # sizes on the scale from 0 to 1
            "ball": "lambda l, size: tv(l, even(len(l)), size)",
            "tail": "lambda l, size: cvar(l, even(len(l)), 1 - size) if size < 1 else max(l)",
            "h": "lambda value, n, size: -sum(value([-m for m in b], size) for b in all_of(n)) / comb(len(values), n)",
            "ordered": """lambda n:
                [sum(item(sorted(b), k) for b in all_of(n)) / comb(len(values), n) for k in range(n)]""",
            "of_means": "lambda kind, m: balance([[x] for x in m], [1 for x in m], kind) if sum(m) > 0 else 0",
            "r": "lambda kind, n: of_means(kind, ordered(n))",
            "useless_from": """lambda value, n, size: sum(values) <= 0 if size == 0
                else sum(min(b) for b in all_of(n)) >= 0 if size == 1 else h(value, n, size) == 0""",
        },
    ),
    "collapse-groups": Formula("balance(rows, masses, kind) <= over_groups", _MEANS),
    "collapse-groups-vacuous": Formula("over_groups == 1", _MEANS),
    "collapse-groups-noise": Formula(
        "balance(flipped, [mass(g) for g in names], kind) == over_groups",
        {
            **_MEANS,
            "flipped": "[[((16 - flips) * mean(g, x) + flips * mean(g, [-e for e in x])) / 16 for x in columns(rows)] "
            "for g in names]",
        },
    ),
    "collapse-groups-longer": Formula(
        "c * e / (c * e + (1 - c) * (1 - e)) <= e and (1 - c) * e / (c * (1 - e) + (1 - c) * e) <= e",
        {"c": "longer / parts", "e": "flips / parts"},
        admits=("parts < 2 * longer < 2 * parts", "0 < 2 * flips < parts"),
    ),
    "collapse-labels": Formula(
        "balance(rows + turned, right + wrong, kind) <= even < 1 and balance(mean_rows, masses, kind) == 1",
        {
            **_SIZES,
            "preferred": "[2**k / (1 + 2**k) for k in exponents]",
            "turned": "[[-e for e in x] for x in rows]",
            "right": "[m * p for m, p in zip(masses, preferred)]",
            "wrong": "[m * (1 - p) for m, p in zip(masses, preferred)]",
            "mean_rows": "[[(2 * p - 1) * e for e in x] for x, p in zip(rows, preferred)]",
            "mean": "lambda sizes: dot(masses, sizes) / sum(masses)",
            "even": """mean([abs(p - 1 / 2) for p in preferred]) if kind == 'tv'
                else 1 - mean([2 * min(p, 1 - p) for p in preferred]) if kind == 'cvar'
                else 1 - 1 / (1 + 2 * mean([(2 * p - 1)**2 / (8 * p * (1 - p)) for p in preferred]))""",
        },
    ),
}
