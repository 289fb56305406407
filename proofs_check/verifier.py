"""Re-check certificates of `robust-rlhf verify --certificates DIR`: python verifier.py DIR [--formulas].

A file says of one claim what `holds`, with definitions, and on which instances: true there, or false if it is refuted.
A `proof` says it of ranges, cut until it is true on every part. Numbers are rational, or intervals that hold them; what
these leave open is refused. Worst cases are found by sorting, or proved by `witnesses`: points of a set, and its dual.
"""
# pyright: basic, reportAssignmentType=false, reportArgumentType=false, reportOperatorIssue=false

import ast
import hashlib
import json
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import cache, partial
from itertools import combinations, pairwise, permutations, product
from math import comb, factorial, floor, isqrt, prod
from pathlib import Path

FORMAT, BITS, ONE, _NUMBER = 1, 256, 1 << 256, r"-?\d+(?:/\d+)?"  # bits of logarithms, exponentials and roots
total = partial(sum, start=Fraction(0))  # a fraction, of whole numbers and of none too


class Refused(Exception):
    """The certificate does not prove what it says."""


def _demand(holds, what):
    if not holds:
        raise Refused(what)


class Interval:
    """A number between two rational ones; two of them compare where one lies beyond the other, or not at all."""

    def __init__(self, low, high):
        _demand(low <= high, "a lower bound exceeds an upper bound")
        self.low, self.high = low, high

    def __add__(self, other):
        return Interval(*(one + two for one, two in zip(_ends(self), _ends(other), strict=True)))

    def __mul__(self, other):
        return Interval(*sorted(one * two for one in _ends(self) for two in _ends(other))[::3])

    def __lt__(self, other):
        (a, b), (c, d) = _ends(self), _ends(other)
        _demand(b < c or a >= d, "a comparison is too close to call")
        return b < c

    def __rtruediv__(self, other):
        _demand(self.low > 0 or self.high < 0, "a divisor may be zero")
        return Interval(1 / Fraction(self.high), 1 / Fraction(self.low)) * other

    __radd__, __rmul__, __neg__ = __add__, __mul__, lambda self: Interval(-self.high, -self.low)
    __sub__, __rsub__ = (lambda self, other: self + -other), (lambda self, other: -self + other)
    __gt__, __ge__ = (lambda self, other: -self < -other), (lambda self, other: not self < other)
    __le__, __truediv__ = (lambda self, other: not self > other), (lambda self, other: self * (1 / other))
    __eq__, __bool__ = (lambda self, other: _demand(None, "intervals?")), lambda self: _demand(None, "no condition")


def _ends(x):
    return (x.low, x.high) if isinstance(x, Interval) else (x, x)


def _log(x):
    """2 artanh((r - 1)/(r + 1)) + k 2 artanh(1/3) for x = 2^k r, 1/2 < r < 2: 2 sum z^j/j over odd j, |z| <= 1/3."""
    k = x.numerator.bit_length() - x.denominator.bit_length()
    total, r = 0, x / Fraction(2) ** k
    for z, times in (((r - 1) / (r + 1), 2), (Fraction(1, 3), 2 * k)):
        term = (z.numerator << BITS) // z.denominator
        square = term * term >> BITS
        for j in range(1, BITS, 2):  # what is left is below 2^-BITS, and rounding loses at most three of these a term
            total, term = total + times * (term // j), term * square >> BITS
    return tuple(Fraction(total + sign * 4 * BITS * (1 + abs(k)), ONE) for sign in (-1, 1))


def _exp(x):
    """1/exp(-x) for x > 0; else (exp(x/2^k))^(2^k), |x/2^k| <= 1/2, by a series with less than 2^-BITS left out."""
    if x > 0:
        return tuple(1 / end for end in reversed(_exp(-x)))
    k, term, total = floor(-x).bit_length() + 1, ONE, ONE
    for j in range(1, BITS):  # rounding loses at most two units a term
        term = (term * x.numerator // (x.denominator << k)) // j
        total += term
    low, high = max(total - 2 * BITS, 0), total + 2 * BITS
    for _ in range(k):
        low, high = low * low >> BITS, (high * high >> BITS) + 1
    return Fraction(low, ONE), Fraction(high, ONE)


def _increasing(bounds, least, at, exactly, x):
    low, high = _ends(x)
    _demand(low >= least, "an argument out of range")
    return Fraction(exactly) if low == high == at else Interval(bounds(Fraction(low))[0], bounds(Fraction(high))[1])


def tv(losses, p, radius, ratio=None):
    """Max <q, l>, 1/2 sum|q - p| <= radius, q <= ratio p. Dual: radius t + E max(l, a) + (ratio - 1) E(l - a - t)_+."""
    _demand(total(p) == 1 and min(p) >= 0, "p is no distribution")
    atoms = sorted((loss, mass) for loss, mass in zip(losses, p, strict=True) if mass > 0)  # mass 0 gets nothing
    losses, p = [loss for loss, _ in atoms], [mass for _, mass in atoms]
    q, room, left, low, top = [*p], [radius if ratio is None else (ratio - 1) * m for m in p], radius, 0, len(p) - 1
    while left > 0 and low < top:  # move mass from the smallest loss to the largest
        moved = min(left, q[low], room[top])
        q[low], q[top], room[top], left = q[low] - moved, q[top] + moved, room[top] - moved, left - moved
        low, top = low + (left > 0 and q[low] == 0), top - (left > 0 and room[top] == 0)
    a, t = losses[min(low, len(p) - 1)], max(losses[max(top, 0)] - losses[min(low, len(p) - 1)], Fraction(0))
    _demand(total(q) == 1 and min(q) >= 0 and total(abs(x - y) for x, y in zip(q, p, strict=True)) <= 2 * radius, "q")
    _demand(a + t >= losses[-1] if ratio is None else all(x <= ratio * y for x, y in zip(q, p, strict=True)), "q, t")
    dual = radius * t + total(m * (max(loss, a) + ((ratio or 1) - 1) * max(loss - a - t, 0)) for loss, m in atoms)
    _demand(dual == total(x * y for x, y in zip(q, losses, strict=True)), "primal and dual do not meet")
    return dual


def samples(n, p):
    """All samples of n draws from p, as (chance, share of each atom)."""
    for ends in combinations(range(int(n) + len(p) - 1), len(p) - 1):
        counts = [b - a - 1 for a, b in zip((-1, *ends), (*ends, int(n) + len(p) - 1), strict=True)]
        ways = factorial(int(n)) // prod(map(factorial, counts))
        yield ways * prod(x**k for x, k in zip(p, counts, strict=True)), [Fraction(k) / n for k in counts]


def bernstein(c, ends):
    """At most E c[K], K binomial of len(c) - 1 draws, for all chances in [low, high]: a Bernstein coefficient there."""

    def part(c, x):  # Bernstein coefficients on [0, x] of the polynomial that has c on [0, 1]
        return [c[0], *part([(1 - x) * a + x * b for a, b in pairwise(c)], x)] if c else []

    low, high = ends
    _demand(0 <= low <= high <= 1, "no range of chances")
    return min(part(part([*c][::-1], 1 - low)[::-1], (high - low) / (1 - low) if low < 1 else low))


FUNCTIONS = {
    **{f.__name__: f for f in (abs, all, any, bernstein, max, min, prod, samples, sorted, tv)},
    **{"sum": total, "F": Fraction, "len": lambda x: Fraction(len(x)), "floor": lambda x: Fraction(floor(x))},
    **{"exp": partial(_increasing, _exp, -ONE, 0, 1), "log": partial(_increasing, _log, Fraction(1, ONE), 1, 0)},
    "sqrt": partial(_increasing, lambda x: [Fraction(isqrt(x * ONE**2 // 1) + k, ONE) for k in (0, 1)], 0, 0, 0),
    "bounded": lambda a, b: _ends(a)[0] if _ends(a)[0] == _ends(b)[1] else Interval(_ends(a)[0], _ends(b)[1]),
    "cvar": lambda losses, p, alpha: tv(losses, p, Fraction(1), 1 / alpha),  # q <= p/alpha and nothing else
    "proved": lambda condition, value: value if condition is True else _demand(None, "a witness proves nothing"),
    **{"dot": lambda a, b: total(x * y for x, y in zip(a, b, strict=True)), "item": lambda x, k: x[int(k)]},
    **{"zip": lambda *x: FUNCTIONS["columns"](x), "columns": lambda x: [list(one) for one in zip(*x, strict=True)]},
    **{"range": lambda *x: map(Fraction, range(*map(int, x))), "comb": lambda n, k: Fraction(comb(int(n), int(k)))},
    **{"orders": lambda x: map(list, permutations(x)), "subsets": lambda x, k: map(list, combinations(x, int(k)))},
    **{"products": lambda x, k: map(list, product(x, repeat=int(k))), "width": lambda x: _ends(x)[1] - _ends(x)[0]},
    "_power": lambda a, k: Fraction(a) ** int(k) if int(k) == k else _demand(None, "no whole exponent"),
}
_NODES = "Expression Constant Name Load Store BinOp UnaryOp BoolOp Compare Call IfExp List Tuple ListComp GeneratorExp "
_NODES += "comprehension Lambda arguments arg Add Sub Mult Div Pow USub Not And Or Lt LtE Gt GtE Eq NotEq In NotIn"


class _Exact(ast.NodeTransformer):
    def visit(self, node):
        _demand(type(node).__name__ in _NODES.split(), f"a formula must not contain {type(node).__name__}")
        name, read = getattr(node, "arg", getattr(node, "id", "")), isinstance(getattr(node, "ctx", None), ast.Load)
        _demand(not name.startswith("_") and (read or name not in FUNCTIONS), f"a formula must not use the name {name}")
        node = self.generic_visit(node)
        if isinstance(node, ast.Constant) and not isinstance(node.value, str):
            _demand(type(node.value) is int, "a number must be whole, or a quotient of such")
            return ast.Call(ast.Name("F", ast.Load()), [node], [])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return ast.Call(ast.Name("_power", ast.Load()), [node.left, node.right], [])
        return node


_compiled = cache(lambda x: compile(ast.fix_missing_locations(_Exact().visit(ast.parse(x, mode="eval"))), x, "eval"))


def exact(x):
    """Numbers of a file: whole ones, or text like 3/4; other text stays what it is, and other numbers raise."""
    return [*map(exact, x)] if type(x) is list else Fraction(x) if type(x) is int or re.fullmatch(_NUMBER, x) else x


def holds(certificate, instance, witness):
    """Whether an instance admitted by the claim satisfies it; ``witness`` returns proofs, by name and arguments."""
    names = {name: exact(value) for name, value in instance.items()}
    _demand("witness" not in names and not set(names) & set(FUNCTIONS), "a name is taken")
    names |= FUNCTIONS | {"__builtins__": {}, "witness": witness}
    for name, text in certificate["where"]:
        _demand(name not in names, f"{name} is defined twice")
        names[name] = eval(_compiled(text), names)  # nothing but what _Exact lets through
    _demand(all(eval(_compiled(text), names) is True for text in certificate["admits"]), "no instance of the claim")
    return eval(_compiled(certificate["holds"]), names)


def covered(proof, box, cuts):
    """Whether the formula holds on a whole box, or on its parts: cuts are [range, where, cuts below, cuts above]."""
    if not cuts:
        return holds(proof, box, None) is True
    (low, high), name, at, parts = box[cuts[0]], cuts[0], cuts[1], cuts[2:]
    _demand(exact(low) <= exact(at) <= exact(high), "a cut outside of its box")
    return all(covered(proof, box | {name: x}, y) for x, y in zip(([low, at], [at, high]), parts, strict=True))


def digest(certificate):
    """SHA-256 of a certificate without its digest."""
    return hashlib.sha256(json.dumps(certificate | {"digest": ""}, sort_keys=True).encode()).hexdigest()


def verify(path):
    """Check one file; return what kind of certificate it is, and what is in it."""
    certificate = json.loads(path.read_text(encoding="utf-8"))
    verdict, proof, checked = certificate["verdict"], certificate.get("proof", {"boxes": []}), "holds" in certificate
    _demand((certificate["format"], certificate["claim"]) == (FORMAT, path.stem), "another format, or another claim")
    _demand(certificate["digest"] == digest(certificate), "the file was changed")
    _demand(certificate["instances"] and verdict in ("upheld", "refuted"), "there is nothing to check")
    witnesses = {repr(tuple(exact(key))): exact(value) for key, value in certificate["witnesses"]} if checked else {}
    for instance in certificate["instances"] if checked else ():
        said = holds(certificate, instance, lambda *key: witnesses[repr(key)])
        _demand(said is (verdict == "upheld"), f"the formula is {said} of {instance}")
    for box, cuts in proof["boxes"]:
        _demand(verdict == "upheld" and covered(proof, box, cuts), f"the formula is not proved on {box}")
    return "proved" if proof["boxes"] else "checked" if checked else "computed", certificate


def _span(name, boxes):  # up to three numbers or ranges, else how many there are and between which ends
    shown = [*dict.fromkeys(str(box.get(name)).replace("'", "") for box in boxes)]
    ends = sorted(map(Fraction, re.findall(_NUMBER, " ".join(shown)))) if len(shown) > 3 else []
    return f"{name} " + (f"{len(shown)} values in {ends[0]}..{ends[-1]}" if ends else " or ".join(shown))


def _told(formulas, path):
    try:
        kind, found = verify(path)
        parts = [part for part in (found, found.get("proof", {})) if "holds" in part and formulas]
        told = [y for x in parts for y in (x["statement"], *map(" = ".join, x["where"]), *x["admits"], x["holds"])]
        boxes = [box for part in parts for box, _ in part.get("boxes", ())]
        told += [f"{len(boxes)} boxes: " + ", ".join(_span(name, boxes) for name in boxes[0])] if boxes else []
        first = f"{path.stem}: {found['verdict']}, {kind}, {len(found['instances'])} instances"
        return kind, [first + "; compare with the statement by yourself:" * formulas, *told]
    except Exception as error:  # whatever is wrong with a file, it proves nothing
        return "refused", [f"{path.stem}: REFUSED, {type(error).__name__}: {error}"]


def main(arguments):
    """Check files, and what is in folders, on all processors; 0 if there are some and none is refused."""
    files, kinds = [y for x in arguments if x[:1] != "-" for y in (sorted(Path(x).glob("*.json")) or [Path(x)])], []
    for kind, lines in ProcessPoolExecutor().map(partial(_told, "--formulas" in arguments), files):
        kinds.append(kind)
        print(*lines, sep="\n    ", flush=True)  # noqa: T201 - each as soon as it is checked
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("proved", "checked", "computed", "refused"))
    sys.stdout.write(f"{counts}.\n" if files else __doc__)
    return int("refused" in kinds or not files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
