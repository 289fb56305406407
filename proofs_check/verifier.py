"""Re-check certificates of `robust-rlhf verify --certificates DIR`: python verifier.py DIR [--formulas].

Nothing but Python is needed. A file says of one claim what `holds`, with definitions, `where`, and instances on which
that must come out true, or false if the claim is refuted, in rational numbers. A number that is not rational is an
interval that holds it for certain, and what intervals leave open is refused. Worst cases over sets are found by sorting
or given as `witnesses`, and count only as far as a point of the set (from below) and dual variables (from above) prove
them. Nothing else of a file is believed; whether the formula says what the claim says is for the reader: --formulas.
"""
# pyright: basic, reportAssignmentType=false, reportArgumentType=false

import ast
import hashlib
import json
import re
import sys
from fractions import Fraction
from functools import cache, partial
from itertools import combinations, permutations, product
from math import comb, factorial, floor, isqrt, prod
from pathlib import Path

FORMAT = 1
BITS, ONE = 256, 1 << 256  # of logarithms, exponentials and roots
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
        corners = [one * two for one in _ends(self) for two in _ends(other)]
        return Interval(min(corners), max(corners))

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


def bounded(low, high):
    """A number of which bounds are known: itself where they meet."""
    low, high = _ends(low)[0], _ends(high)[1]
    return low if low == high else Interval(low, high)


def _power(a, k):  # int() refuses an interval, Fraction too
    return Fraction(a) ** int(k) if int(k) == k else _demand(None, "an exponent is not whole")


def _sqrt(x):
    return tuple(Fraction(isqrt((x.numerator << 2 * BITS) // x.denominator) + k, ONE) for k in (0, 1))


def _log(x):
    """2 artanh((r - 1)/(r + 1)) + k 2 artanh(1/3) for x = 2^k r, 1/2 < r < 2: 2 sum z^j/j over odd j, |z| <= 1/3."""
    k = x.numerator.bit_length() - x.denominator.bit_length()
    total, r = 0, x / Fraction(2) ** k
    for z, times in (((r - 1) / (r + 1), 2), (Fraction(1, 3), 2 * k)):
        term = (z.numerator << BITS) // z.denominator
        square = term * term >> BITS
        for j in range(1, BITS, 2):  # what is left is below 2^-BITS, and rounding loses at most three of these a term
            total, term = total + times * (term // j), term * square >> BITS
    slack = 4 * BITS * (1 + abs(k))
    return Fraction(total - slack, ONE), Fraction(total + slack, ONE)


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


def _increasing(bounds, least, at, exactly):
    def function(x):
        low, high = _ends(x)
        _demand(low >= least, "an argument out of range")
        return Fraction(exactly) if low == high == at else Interval(bounds(Fraction(low))[0], bounds(Fraction(high))[1])

    return function


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
    excess = total(m * max(loss - a - t, Fraction(0)) for loss, m in atoms) * (0 if ratio is None else ratio - 1)
    dual = radius * t + total(m * max(loss, a) for loss, m in atoms) + excess
    _demand(dual == total(x * y for x, y in zip(q, losses, strict=True)), "primal and dual do not meet")
    return dual


def samples(n, p):
    """All samples of n draws from p, as (chance, share of each atom)."""
    for ends in combinations(range(int(n) + len(p) - 1), len(p) - 1):
        counts = [b - a - 1 for a, b in zip((-1, *ends), (*ends, int(n) + len(p) - 1), strict=True)]
        ways = factorial(int(n)) // prod(map(factorial, counts))
        yield ways * prod(x**k for x, k in zip(p, counts, strict=True)), [Fraction(k) / n for k in counts]


FUNCTIONS = {
    **{f.__name__: f for f in (abs, all, any, bounded, max, min, prod, samples, sorted, tv)},
    **{"sum": total, "F": Fraction},
    "sqrt": _increasing(_sqrt, 0, 0, 0),
    "log": _increasing(_log, Fraction(1, ONE), 1, 0),
    "exp": _increasing(_exp, -ONE, 0, 1),
    "cvar": lambda losses, p, alpha: tv(losses, p, Fraction(1), 1 / alpha),  # q <= p/alpha and nothing else
    "dot": lambda a, b: total(x * y for x, y in zip(a, b, strict=True)),
    "proved": lambda condition, value: value if condition is True else _demand(None, "a witness proves nothing"),
    "width": lambda x: _ends(x)[1] - _ends(x)[0],
    "len": lambda x: Fraction(len(x)),
    "range": lambda *ends: map(Fraction, range(*map(int, ends))),
    "item": lambda x, k: x[int(k)],
    "zip": lambda *x: [list(one) for one in zip(*x, strict=True)],
    "columns": lambda x: [list(one) for one in zip(*x, strict=True)],
    "floor": lambda x: Fraction(floor(x)),
    "comb": lambda n, k: Fraction(comb(int(n), int(k))),
    "subsets": lambda x, k: map(list, combinations(x, int(k))),
    "orders": lambda x: map(list, permutations(x)),
    "products": lambda x, k: map(list, product(x, repeat=int(k))),
    "_power": _power,
}
_NODES = "Expression Constant Name Load Store BinOp UnaryOp BoolOp Compare Call IfExp List Tuple ListComp GeneratorExp "
_NODES += "comprehension Lambda arguments arg Add Sub Mult Div Pow USub Not And Or Lt LtE Gt GtE Eq NotEq In NotIn"


class _Exact(ast.NodeTransformer):
    def visit(self, node):
        _demand(type(node).__name__ in _NODES.split(), f"a formula must not contain {type(node).__name__}")
        name = node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""
        read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        _demand(not name.startswith("_") and (read or name not in FUNCTIONS), f"a formula must not use the name {name}")
        node = self.generic_visit(node)
        if isinstance(node, ast.Constant) and not isinstance(node.value, str):
            _demand(type(node.value) is int, "a number must be whole, or a quotient of such")
            return ast.Call(ast.Name("F", ast.Load()), [node], [])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return ast.Call(ast.Name("_power", ast.Load()), [node.left, node.right], [])
        return node


@cache
def _compiled(text):
    return compile(ast.fix_missing_locations(_Exact().visit(ast.parse(text, mode="eval"))), text, "eval")


def exact(x):
    """Numbers of a file: whole ones, or text like 3/4; other text stays what it is, and other numbers raise."""
    if isinstance(x, list):
        return [exact(one) for one in x]
    return Fraction(x) if type(x) is int or re.fullmatch(r"-?\d+(/\d+)?", x) else x


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


def digest(certificate):
    """SHA-256 of a certificate without its digest."""
    rest = {key: value for key, value in certificate.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def verify(path):
    """Check one file and return it."""
    certificate = json.loads(path.read_text(encoding="utf-8"))
    _demand((certificate["format"], certificate["claim"]) == (FORMAT, path.stem), "another format, or another claim")
    _demand(certificate["digest"] == digest(certificate), "the file was changed")
    _demand(certificate["instances"] and certificate["verdict"] in ("upheld", "refuted"), "there is nothing to check")
    if certificate["kind"] == "checked":
        witnesses = {repr(tuple(exact(key))): exact(value) for key, value in certificate["witnesses"]}
        for instance in certificate["instances"]:
            said = holds(certificate, instance, lambda *key: witnesses[repr(key)])
            _demand(said is (certificate["verdict"] == "upheld"), f"the formula is {said} of {instance}")
    return certificate


def main(arguments):
    """Check a folder; 0 if it holds certificates and none is refused."""
    kinds, refused = {"checked": 0, "computed": 0}, 0
    for path in sorted(Path(arguments[0]).glob("*.json")):
        try:
            found = verify(path)
            kinds[found["kind"]] += 1
            lines = [f"{path.stem}: {found['verdict']}, {found['kind']}, {len(found['instances'])} instances"]
            if "--formulas" in arguments and found["kind"] == "checked":
                lines += [found["statement"], *map(" = ".join, found["where"]), *found["admits"], found["holds"]]
        except Exception as error:  # whatever is wrong with a file, it proves nothing
            refused, lines = refused + 1, [f"{path.stem}: REFUSED, {type(error).__name__}: {error}"]
        sys.stdout.write("\n    ".join(lines) + "\n")
    sys.stdout.write(f"{kinds['checked']} re-checked, {kinds['computed']} not (computed), {refused} refused.\n")
    return int(refused > 0 or not any(kinds.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
