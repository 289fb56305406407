"""Formulas of the claims about what minibatches, parts of a batch and groups really optimise (theory.md section 3)."""

from __future__ import annotations

from proofs_check.claim import Formula
from proofs_check.formulas.minibatch import CAPPED

# Weights of n losses in their order, from the values of losses of 0 and 1
_RANKED = {
    "top": "lambda value, k: value([0, 1], [1 - k / n, k / n])",
    "ranked": "lambda value: [top(value, n - i + 1) - top(value, n - i) for i in range(1, n + 1)]",
    "upto": "lambda q, k: sum(w for w, i in zip(q, range(len(q))) if i < k)",
}
_SIZE = {"size": "parts / 16"}
_EVEN = {
    "even": "lambda l: [1 / len(l) for one in l]",
    "by_tv": "lambda l: tv(l, even(l), size)",
    "by_cvar": "lambda l: cvar(l, even(l), size)",
}
_GROUP_MEANS = {
    "own": "lambda l, g, name: [x for x, k in zip(l, g) if k == name]",
    "names": """lambda g: [k for k, i in zip(g, range(len(g)))
        if all(j >= i or h != k for h, j in zip(g, range(len(g))))]""",
    "over_groups": """lambda l, g: tv([sum(own(l, g, k)) / len(own(l, g, k)) for k in names(g)],
        [len(own(l, g, k)) / len(l) for k in names(g)], size)""",
}

_OUTCOMES = {"k": "len(masses)", "p": "[m / sum(masses) for m in masses]"}

OBJECTIVES = {
    "minibatch-is-spectral": Formula(
        """all(sum(q) == 1 and q == sorted(q) and plugin(value, losses, p, n)
        == sum(x * (filled(ahead(q), upto_loss(x, 1)) - filled(ahead(q), upto_loss(x, 0))) for x in levels)
        for value, q in [[ball, ranked(ball)], [capped, ranked(capped)], [tail, ranked(tail)]])""",
        {
            **CAPPED,
            **_RANKED,
            "levels": """[x for x, i in zip(sorted(losses), range(len(losses)))
                if i == 0 or item(sorted(losses), i - 1) != x]""",
            "upto_loss": "lambda x, equal: sum(m for y, m in zip(losses, p) if y < x or equal == 1 and y == x)",
            "ahead": "lambda q: [upto(q, j) for j in range(n + 1)]",
            "filled": "lambda s, u: sum(comb(n, j) * u**j * (1 - u)**(n - j) * item(s, j) for j in range(n + 1))",
        },
    ),
    "minibatch-of-a-batch": Formula(
        """all(sum(sigma(q, j) * item(sorted(losses), j - 1) for j in range(1, N + 1))
        == sum(value(chosen) for chosen in subsets(losses, n)) / comb(N, n)
        for value, q in [[by_tv, ranked(over_tv)], [by_cvar, ranked(over_cvar)]])""",
        {
            **_SIZE,
            **_EVEN,
            **_RANKED,
            "N": "len(losses)",
            "over_tv": "lambda l, q: tv(l, q, size)",
            "over_cvar": "lambda l, q: cvar(l, q, size)",
            "sigma": """lambda q, j: sum(w * comb(j - 1, i) * comb(N - j, n - 1 - i)
                for w, i in zip(q, range(n))) / comb(N, n)""",
        },
    ),
    "batch-size-is-a-radius": Formula(
        "value(more) - value(n) >= rho * (missed(n) - missed(more)) > 0",
        {
            "eps": "part / 64",
            "rho": "parts / 16",
            "missed": "lambda k: (1 - eps)**k",
            "value": "lambda k: sum(c * tv([0, 1], s, rho) for c, s in samples(k, [1 - eps, eps]))",
        },
    ),
    "microbatch-understates-exactly": Formula(
        """all(sum(len(own(losses, part, k)) * value(own(losses, part, k)) for k in names(part))
        <= len(losses) * value(losses) for value in [by_tv, by_cvar])""",
        {**_SIZE, **_EVEN, **{name: _GROUP_MEANS[name] for name in ("own", "names")}},
    ),
    "microbatch-understates-groups": Formula(
        """sum(len(own(losses, part, k)) * over_groups(own(losses, part, k), own(groups, part, k)) for k in names(part))
        <= len(losses) * over_groups(losses, groups)""",
        {**_SIZE, **_GROUP_MEANS},
        admits=("0 < size <= 1", "len(part) == len(losses) and len(groups) == len(losses)"),
    ),
    "grouped-underestimates": Formula(
        """sum(chance(d) * over_groups([item(o, 1) for o in d], [item(o, 0) for o in d]) for d in products(outcomes, n))
        <= tv([c / 16 for c in chances], shares, size)""",
        {
            **_SIZE,
            **_GROUP_MEANS,
            "shares": "[m / sum(masses) for m in masses]",
            "outcomes": "[[g, y] for g in range(len(masses)) for y in [0, 1]]",
            "right": "lambda o: item(chances, item(o, 0)) / 16",
            "chance": """lambda d: prod([item(shares, item(o, 0))
                * (right(o) if item(o, 1) == 1 else 1 - right(o)) for o in d])""",
        },
        admits=("min(masses) > 0 and 0 <= min(chances) and max(chances) <= 16 and 0 < size <= 1",),
    ),
    "radius-covers": Formula(
        """sum(c for c, s in samples(n, p) if sum(abs(a - b) for a, b in zip(s, p)) / 2 <= radius) >= 1 - 1 / misses""",
        {
            **_OUTCOMES,
            "union": "sqrt(log((2**k - 2) * misses) / (2 * n))",
            "mean": "sqrt((k - 1) / n) / 2 + sqrt(log(misses) / (2 * n))",
            "radius": "min(1, union, mean)",
        },
    ),
    # A sample that misses an outcome has the truth in no ball
    "radius-covers-chi-square": Formula(
        "sum(c for c, s in samples(n, p) if min(s) > 0) >= 1 - 1 / misses",
        _OUTCOMES,
        admits=("k >= 2 and n >= 1 and min(masses) > 0 and misses >= 2",),
    ),
}
