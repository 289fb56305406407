"""Collapse radii in rational arithmetic, each with the two proofs that make it one.

A set of weights around p lets the worst case learn nothing exactly if some q in it has E_q x = 0. Such a q bounds the
size that a set needs for it from above, a reward w from below (``size_against``). A size is returned only if both are
the same rational number. Nothing here shares code with dro_core.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import lcm
from operator import mul
from typing import TYPE_CHECKING, NamedTuple

from proofs_check.exact.simplex import maximum, solution

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = Sequence[int | Fraction]

EXACT = ("tv", "cvar", "chi2")
_MOST_STEPS = 100


class Balance(NamedTuple):
    """The least set that collapses.

    Attributes:
        size: Its radius, for CVaR alpha; None if there is none.
        weights: q in it with E_q x = 0, ``(n,)``; None if there is none.
        reward: w, ``(d,)``, for which no smaller set has one; if none has, all <w, x_i> are positive.
    """

    size: Fraction | None
    weights: tuple[Fraction, ...] | None
    reward: tuple[Fraction, ...]


def exact_balance(rows: Sequence[Row], masses: Sequence[int | Fraction], kind: str) -> Balance:
    """Return the collapse radius of features x under p, with its proofs.

    Args:
        rows: x_i, ``(n, d)``, in rational numbers.
        masses: ``(n,)``, positive, proportional to p.
        kind: "tv", "cvar" or "chi2".

    Raises:
        ValueError: Another kind, or masses that are not positive, one for each row.
        ArithmeticError: The proofs do not meet, which would be a mistake in this module.

    Example:
        >>> exact_balance([(1,), (1,), (1,), (-1,)], [1, 1, 1, 1], "tv").size
        Fraction(1, 4)
        >>> exact_balance([(1,), (2,)], [1, 1], "tv").size is None
        True
    """
    if kind not in EXACT:
        raise ValueError(f"`kind` must be one of {', '.join(EXACT)}, got {kind!r}.")
    if len(rows) != len(masses) or min(masses, default=0) <= 0:
        raise ValueError(f"`masses` must be one positive number per row, got {list(masses)} for {len(rows)} rows.")
    return _exact(tuple(map(tuple, rows)), tuple(masses), kind)


@lru_cache(maxsize=4096)
def _exact(rows: tuple[Row, ...], masses: tuple[int | Fraction, ...], kind: str) -> Balance:
    whole, scale = _whole(rows), lcm(*(Fraction(mass).denominator for mass in masses))
    counts = [int(mass * scale) for mass in masses]
    weights, reward = {"tv": _total_variation, "cvar": _cvar, "chi2": _chi_square}[kind](whole, counts)
    p = [Fraction(count, sum(counts)) for count in counts]
    margins = [dot(row, reward) for row in whole]
    if weights is None:
        if min(margins) <= 0:
            raise ArithmeticError("neither weights that balance nor a reward that separates")
        return Balance(None, None, _rescaled(reward, rows, whole))
    if not balances(whole, weights) or size_of(kind, p, weights) != size_against(kind, p, margins):
        raise ArithmeticError("the weights and the reward do not meet: neither proves the other")
    return Balance(size_of(kind, p, weights), tuple(weights), _rescaled(reward, rows, whole))


def balances(rows: Sequence[Row], weights: Sequence[Fraction]) -> bool:
    """Whether the weights are a distribution under which every feature has mean 0, exactly."""
    means = (sum(map(mul, weights, column)) for column in zip(*rows, strict=True))
    return min(weights) >= 0 and sum(weights) == 1 and not any(means)


def size_of(kind: str, p: Sequence[Fraction], q: Sequence[Fraction]) -> Fraction:
    """Return the size of the smallest set of the kind around p that holds q.

    1/2 sum |q - p| for "tv"; the largest alpha with alpha q <= p for "cvar"; 1/2 sum p (q/p - 1)^2 for "chi2".
    """
    pairs = list(zip(p, q, strict=True))
    if kind == "tv":
        return sum((max(new - old, Fraction(0)) for old, new in pairs), Fraction(0))
    if kind == "cvar":
        return min(old / new for old, new in pairs if new > 0)
    return (sum((new * new / old for old, new in pairs), Fraction(0)) - 1) / 2


def size_against(kind: str, p: Sequence[Fraction], margins: Sequence[Fraction]) -> Fraction:
    """Return a size (CVaR: at least, else at most) of every set that holds a q with E_q m = 0; some margin is <= 0.

    tv: f = min(m + c, 1), c = max(0, -min m), lies in [0, 1], and E_q f <= c: TV >= E_p f - c.
    cvar: 1 = E_q (1 - m) <= E_p (1 - m)_+ / alpha.
    chi2: 1 = E_q (1 - m) <= E_p (q/p) (1 - m)_+, so 1 <= E_p (q/p)^2 E_p (1 - m)_+^2 (Cauchy-Schwarz).
    """
    pairs = list(zip(p, margins, strict=True))
    if kind == "tv":
        shift = max(Fraction(0), -min(margins))
        return sum((mass * min(margin + shift, Fraction(1)) for mass, margin in pairs), Fraction(0)) - shift
    power = 1 if kind == "cvar" else 2
    excess = sum((mass * max(1 - margin, Fraction(0)) ** power for mass, margin in pairs), Fraction(0))
    return excess if kind == "cvar" else (1 / excess - 1) / 2


def face(rows: Sequence[Row]) -> tuple[list[int], tuple[Fraction, ...]]:
    """Return the rows that some balancing distribution weighs, and a w with <w, x> = 0 there and >= 1 elsewhere.

    The linear program max sum u_i over u_i <= <w, x_i>, 0 <= u <= 1 has u = 1 at every other row.

    Example:
        >>> face([(1, 0), (-1, 0), (0, 2)])[0]
        [0, 1]
    """
    whole = _whole(rows)
    n, unit = len(whole), _identity(len(whole))
    below = [[*one, *(-entry for entry in row), *row] for one, row in zip(unit, whole, strict=True)]
    capped = [[*one, *([0] * (2 * len(whole[0])))] for one in unit]
    found = maximum([1] * n + [0] * (2 * len(whole[0])), below + capped, [0] * n + [1] * n)
    reward = _signed(found.point[n:])
    margins = [dot(row, reward) for row in whole]
    if any(0 < margin < 1 for margin in margins) or min(margins) < 0:
        raise ArithmeticError("the linear program did not end at a face")
    return [i for i, margin in enumerate(margins) if margin == 0], _rescaled(reward, rows, whole)


def rebalanced(rows: Sequence[Row], weights: Sequence[Fraction]) -> list[Fraction] | None:
    """Return a distribution with E_q x = 0 exactly, close to weights that balance nearly; None if it has negative ones.

    The largest weights take the correction, as many as there are independent equations.
    """
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    columns = zip(*rows, strict=True)
    equations = [[Fraction(1)] * len(weights), *([Fraction(entry) for entry in column] for column in columns)]
    missing = [-sum(map(mul, line, weights), Fraction(0)) for line in equations]
    missing[0] += 1
    change = solution([[line[i] for i in order] for line in equations], missing)
    if change is None:
        return None
    moved = dict(zip(order, change, strict=True))
    found = [weight + moved[i] for i, weight in enumerate(weights)]
    return found if min(found) >= 0 else None


def dot(row: Row, reward: Sequence[Fraction]) -> Fraction:
    """Return the margin <w, x>."""
    return sum(map(mul, row, reward), Fraction(0))


def _total_variation(rows: list[list[int]], counts: list[int]) -> tuple[list[Fraction] | None, list[Fraction]]:
    """Maximise E_p u - c over u_i <= c + <w, x_i>, 0 <= u <= 1, c >= 0: 1 only if all margins are positive.

    The prices q of the first rows balance, and sum p - q to the value; without any q it costs 1 to leave p.
    """
    n, d, unit = len(rows), len(rows[0]), _identity(len(rows))
    below = [[*one, -1, *(-entry for entry in row), *row] for one, row in zip(unit, rows, strict=True)]
    capped = [[*one, *([0] * (2 * d + 1))] for one in unit]
    objective = [*counts, -sum(counts), *([0] * (2 * d))]
    found = maximum(objective, below + capped, [0] * n + [1] * n)
    weights = _distribution(found.prices[:n]) if found.value < sum(counts) else None
    return weights, _signed(found.point[n + 1 :])


def _cvar(rows: list[list[int]], counts: list[int]) -> tuple[list[Fraction] | None, list[Fraction]]:
    """Maximise sum q over 0 <= q <= p with sum q x = 0; the prices of the means are the w of the least hinge loss."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    means = [*columns, *([-entry for entry in column] for column in columns)]
    limits = [0] * len(means) + counts
    found = maximum([1] * len(rows), means + _identity(len(rows)), limits)
    return (_distribution(found.point) if found.value > 0 else None), _signed(found.prices[: len(means)])


def _chi_square(rows: list[list[int]], counts: list[int]) -> tuple[list[Fraction] | None, list[Fraction]]:
    """Minimise E (1 - <w, x>)_+^2 on the face that can be balanced, by Newton's method; q is p (1 - <w, x>)_+."""
    kept, beyond = face(rows)
    if not kept:
        return None, list(beyond)
    inner, masses = [rows[i] for i in kept], [counts[i] for i in kept]
    w = [Fraction(0)] * len(rows[0])
    for _ in range(_MOST_STEPS):
        step = _newton_step(inner, masses, w)
        if not any(step):
            break
        w = [a + b for a, b in zip(w, step, strict=True)]
    margins = [dot(row, w) for row in rows]
    far = max([Fraction(0), *(1 - margin for i, margin in enumerate(margins) if i not in kept)])
    w = [a + far * b for a, b in zip(w, beyond, strict=True)]
    weights = [count * max(1 - dot(row, w), Fraction(0)) for row, count in zip(rows, counts, strict=True)]
    return _distribution(weights), w


def _newton_step(rows: list[list[int]], counts: list[int], w: list[Fraction]) -> list[Fraction]:
    """Return the step to the least value of sum counts (1 - <w, x>)_+^2 on the way to that of its piece at w."""
    terms = [(count, row, 1 - dot(row, w)) for count, row in zip(counts, rows, strict=True)]
    seen = [term for term in terms if term[2] > 0]
    span = range(len(w))
    moments = [[Fraction(sum(c * row[j] * row[k] for c, row, _ in seen)) for k in span] for j in span]
    slope = [sum((c * row[j] * excess for c, row, excess in seen), Fraction(0)) for j in span]
    way = solution(moments, slope)
    if way is None:
        raise ArithmeticError("the normal equations have no solution")
    gains = [(count, dot(row, way), excess) for count, row, excess in terms]
    bends = sorted({excess / gain for _, gain, excess in gains if gain and excess / gain > 0})

    def fall(share: Fraction) -> Fraction:
        """Minus half the derivative along the way, linear between the bends."""
        return sum((c * gain * max(excess - share * gain, Fraction(0)) for c, gain, excess in gains), Fraction(0))

    places = [Fraction(0), *bends]
    end = next((k for k, bend in enumerate(bends) if fall(bend) <= 0), len(bends))
    low, high = places[end], bends[end] if end < len(bends) else places[end] + 1
    lost = fall(low) - fall(high)
    share = low + (high - low) * fall(low) / lost if lost else Fraction(0)
    return [share * entry for entry in way]


def _distribution(weights: Sequence[Fraction]) -> list[Fraction]:
    return [weight / sum(weights) for weight in weights]


def _whole(rows: Sequence[Row]) -> list[list[int]]:
    """Return the rows times one positive number, as integers: it rescales w and nothing else."""
    scale = lcm(*(Fraction(entry).denominator for entry in chain(*rows)))
    return [[int(entry * scale) for entry in row] for row in rows]


def _rescaled(reward: list[Fraction], rows: Sequence[Row], whole: list[list[int]]) -> tuple[Fraction, ...]:
    """Return a w for ``_whole`` rows as one for the rows themselves."""
    ratios = (Fraction(b) / a for one, two in zip(rows, whole, strict=True) for a, b in zip(one, two, strict=True) if a)
    scale = next(ratios, Fraction(1))
    return tuple(scale * entry for entry in reward)


def _identity(n: int) -> list[list[int]]:
    return [[int(i == j) for j in range(n)] for i in range(n)]


def _signed(parts: Sequence[Fraction]) -> list[Fraction]:
    """Return the difference of the two halves: positive and negative parts."""
    half = len(parts) // 2
    return [up - down for up, down in zip(parts[:half], parts[half:], strict=True)]
