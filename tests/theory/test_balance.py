"""Exact collapse radii against linear and conic programs, by hand, and against solvers that are wrong on purpose."""

from fractions import Fraction
from math import log

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import linprog

from proofs_check.exact import balance, entropies
from proofs_check.exact.balance import EXACT, Balance, balances, dot, exact_balance, face, rebalanced, size_of
from proofs_check.exact.entropies import enclosed_balance
from proofs_check.exact.simplex import maximum, solution

SEEDS = range(12)


def drawn(seed: int):
    """Features on a lattice, masses; every third time with features whose face is no vertex and not all there is."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 8)), int(rng.integers(1, 4))
    rows = rng.integers(-3, 4, (n, d))
    if seed % 3 == 0:
        rows[:, 0] = np.abs(rows[:, 0])
    return rows, rng.integers(1, 9, n)


def program(rows, masses, kind) -> float | None:
    """The least size by a solver, from the definitions of the sets; None if no distribution balances."""
    n, p = len(rows), masses / masses.sum()
    equal = np.vstack([rows.T, np.ones(n)])
    target = np.append(np.zeros(rows.shape[1]), 1.0)
    if linprog(np.zeros(n), A_eq=equal, b_eq=target).status == 2:
        return None
    q = cp.Variable(n, nonneg=True)
    size = {
        "tv": cp.norm1(q - p) / 2,
        "cvar": cp.max(cp.multiply(q, 1 / p)),
        "chi2": cp.sum_squares(cp.multiply(q - p, p**-0.5)) / 2,
        "kl": cp.sum(cp.kl_div(q, p)),
        "burg": cp.sum(cp.kl_div(p, q)),
    }[kind]
    value = cp.Problem(cp.Minimize(size), [equal @ q == target]).solve(solver=cp.CLARABEL)
    return 1 / value if kind == "cvar" else value


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes_are_those_of_the_programs(seed):
    rows, masses = drawn(seed)
    for kind in EXACT:
        found, right = exact_balance(rows.tolist(), masses.tolist(), kind), program(rows, masses, kind)
        assert (found.size is None) == (right is None)
        margins = rows @ np.array([float(entry) for entry in found.reward])
        if right is None:
            assert margins.min() > 0
        else:
            assert float(found.size) == pytest.approx(right, abs=1e-5)
            assert isinstance(found.size, Fraction)


@pytest.mark.parametrize("seed", SEEDS)
def test_entropies_enclose_the_value_of_a_conic_solver(seed):
    rows, masses = drawn(seed)
    for kind in ("kl", "burg"):
        found = enclosed_balance(rows.tolist(), masses.tolist(), kind)
        if found.low is None:
            margins = [dot(row, found.reward) for row in rows.tolist()]
            assert min(margins) >= (0 if kind == "burg" else 1)
            assert max(margins) >= 1
        else:
            assert 0 <= found.high - found.low < Fraction(1, 10**15)
            assert balances(rows.tolist(), found.weights)
            assert float(found.low) == pytest.approx(program(rows, masses, kind), abs=2e-5)


def test_sizes_by_hand():
    signs = [(1,), (1,), (1,), (-1,)], [1, 1, 1, 1]
    sizes = {kind: exact_balance(*signs, kind).size for kind in EXACT}
    assert sizes == {"tv": Fraction(1, 4), "cvar": Fraction(1, 2), "chi2": Fraction(1, 6)}
    assert float(enclosed_balance(*signs, "kl").low) == pytest.approx(-log(3 / 4) / 2)
    assert float(enclosed_balance(*signs, "burg").low) == pytest.approx(log(3) * 3 / 4 - log(2))
    # Of 3/4 on a margin of 1 a twentieth of the rest's 9 remains: q = 9/10, 1/10.
    assert exact_balance([(1,), (-9,)], [3, 1], "tv").size == Fraction(3, 20)
    assert exact_balance([(1, 0), (-1, 0), (0, 2)], [1, 1, 2], "tv").size == Fraction(
        1, 2
    )  # the third loses all it has
    assert exact_balance([(Fraction(1, 3),), (Fraction(-2, 7),)], [1, 1], "tv").size == Fraction(1, 26)
    assert exact_balance([(0, 0)], [1], "cvar").size == 1
    assert exact_balance([(0, 1), (1, 1)], [1, 1], "chi2").size is None


def test_the_face_and_the_reward_beyond_it():
    kept, reward = face([(1, 0), (-1, 0), (0, 2), (3, 5)])
    assert kept == [0, 1]
    assert reward[0] == 0 < reward[1]
    assert face([(1, 1), (1, -1)])[0] == []
    assert face([(Fraction(1, 2),), (Fraction(-1, 3),)]) == ([0, 1], (0,))


def test_programs_and_equations():
    rows = [[1, 2, 1], [3, 0, 1], [0, 1, 4]]
    found = maximum([2, 3, 1], rows, [10, 12, 9])
    assert float(found.value) == pytest.approx(-linprog([-2, -3, -1], rows, [10, 12, 9]).fun)
    assert sum(map(lambda a, b: a * b, [10, 12, 9], found.prices)) == found.value
    assert maximum([1, 1], [[1, 1], [1, 1], [1, 1]], [0, 0, 0]).value == 0  # ties, which Bland's rule leaves
    with pytest.raises(ArithmeticError, match="unbounded"):
        maximum([1], [[-1]], [1])
    with pytest.raises(ValueError, match="`limits` must be nonnegative"):
        maximum([1], [[1]], [-1])
    one, two = Fraction(1), Fraction(2)
    assert solution([[one, two], [two, 4 * one]], [one, two]) == [1, 0]
    assert solution([[one, two], [two, 4 * one]], [one, one]) is None


def test_nearly_balanced_weights_become_balanced():
    rows = [(1, 0), (-1, 1), (0, -1), (2, 1)]
    near = [Fraction(33, 100), Fraction(1, 3), Fraction(1, 3), Fraction(0)]
    assert balances(rows, rebalanced(rows, near))
    assert max(abs(a - b) for a, b in zip(rebalanced(rows, near), near, strict=True)) < Fraction(1, 50)
    assert rebalanced([(1,), (2,)], [Fraction(1, 2)] * 2) is None
    assert not balances([(1,), (-1,)], [Fraction(1, 2), Fraction(501, 1000)])
    assert not balances([(1,), (2,)], [Fraction(2), Fraction(-1)])


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("part", ["weights", "reward"])
def test_a_solver_that_is_wrong_proves_nothing(kind, part, monkeypatch):
    name = {"tv": "_total_variation", "cvar": "_cvar", "chi2": "_chi_square"}[kind]
    right = getattr(balance, name)
    rows, masses = ((2, 1), (-1, 1), (1, -1), (-1, -2)), (5, 1, 1, 1)

    def wrong(*given):
        weights, reward = right(*given)
        if part == "weights":
            return [(weight + Fraction(1, 4)) / 2 for weight in weights], reward
        return weights, [entry + Fraction(1, 7) for entry in reward]

    assert isinstance(exact_balance(rows, masses, kind), Balance)
    balance._exact.cache_clear()
    monkeypatch.setattr(balance, name, wrong)
    with pytest.raises(ArithmeticError, match="do not meet"):
        exact_balance(rows, masses, kind)
    balance._exact.cache_clear()


@pytest.mark.parametrize("kind", ["kl", "burg"])
def test_a_newton_method_that_is_wrong_still_encloses(kind, monkeypatch):
    right = entropies._newton
    rows, masses = ((2, 1), (-1, 1), (1, -1), (-1, -2)), (5, 1, 1, 1)
    low, high, _, _ = enclosed_balance(rows, masses, kind)
    entropies._enclosed.cache_clear()
    monkeypatch.setattr(entropies, "_newton", lambda *given: (right(*given)[0] / 2, right(*given)[1] + 0.01))
    wide = enclosed_balance(rows, masses, kind)
    assert wide.low < low <= high < wide.high
    entropies._enclosed.cache_clear()


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: exact_balance([(1,)], [1], "kl"), "kind"),
        (lambda: exact_balance([(1,)], [0], "tv"), "masses"),
        (lambda: exact_balance([(1,)], [1, 1], "tv"), "masses"),
        (lambda: enclosed_balance([(1,)], [1], "tv"), "kind"),
    ],
)
def test_errors_name_the_argument(call, field):
    with pytest.raises(ValueError, match=f"`{field}` must"):
        call()


def test_sizes_are_those_of_the_smallest_set():
    p, q = [Fraction(1, 2)] * 2, [Fraction(3, 4), Fraction(1, 4)]
    assert [size_of(kind, p, q) for kind in EXACT] == [Fraction(1, 4), Fraction(2, 3), Fraction(1, 8)]
