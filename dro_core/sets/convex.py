"""Any convex set, written as cvxpy constraints: for geometries without a formula, solved by a conic method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from .._solvers.arrays import Array, asarray_like, fetched
from .._solvers.problem import Problem
from .ambiguity import AmbiguitySet, Dual, checked_fraction, checked_number, set_field

_REACH = 10.0  # how much larger auxiliary variables may be than at the solution, for the bound to hold
_GOOD, _REFUSED = 1e-9, 1e-6  # errors, of the range of the losses: end the attempts; may not be
_TOLERANCES = ("tol_gap_abs", "tol_gap_rel", "tol_feas")
_REFINED = {"iterative_refinement_reltol": 1e-15, "iterative_refinement_abstol": 1e-15}  # else it may stop far off


@dataclass(frozen=True, eq=False)
class ConvexSet(AmbiguitySet):
    """Distributions that satisfy convex constraints, written in cvxpy.

        max_q <q, l>   s.t.   constraints(q, p),  q in the simplex.

    Compiled once per n, also for copies ``with_strength``, and solved by Clarabel, an interior-point method, row by
    row and in main memory: a tensor on a GPU is fetched, and ``torch.compile`` needs a graph break. Scenarios of zero
    mass may get mass. Where several q are worst, one amid them is returned: for constant losses it need not be p.

    Dual: that of the conic program cvxpy makes of the set, at the point Clarabel finds. What this point lacks in
    feasibility is charged at the worst q of the simplex, and for auxiliary variables (the bound on a norm, say) at ten
    times their size at the solution plus ten; the bound is never below the value found. It is the threshold;
    ``dual_objective`` finds it anew, from neither threshold nor multiplier (which is 0). Gap and violated constraints
    are about 1e-12 (of the range; of constraints with numbers near 1), up to 1e-8 where the set has hardly an
    interior; weights can be off by the root of that. An error above 1e-6 is refused.

    Args:
        constraints: A function of q, a Variable ``(n,)``, and p, a nonnegative Parameter ``(n,)``. It returns a list of
            constraints, which may hold variables and parameters of its own. If scenarios have places in it, it needs
            a method ``take(rows)`` that returns the function for those rows. To pickle the set, use no lambda.
        strength: Shrinks the set S to p + strength (S - p): the value is mean + strength (value on S - mean).

    Raises:
        TypeError: Not a function, or one that does not return a list of constraints.
        ValueError: A strength outside [0, 1]; when solving, constraints that are not convex or cannot be compiled for
            all p at once, or that no q satisfies.
        RuntimeError, ImportError: When solving, an error above 1e-6; no cvxpy.

    Example:
        >>> import cvxpy as cp
        >>> import numpy as np
        >>> from dro_core import worst_case
        >>> nearby = ConvexSet(lambda q, p: [cp.norm(q - p, "inf") <= 0.125])
        >>> worst_case(np.array([4.0, 0.0, 1.0, 2.0]), nearby).weights.round(9).tolist()
        [0.375, 0.125, 0.125, 0.375]
    """

    constraints: Callable[[Any, Any], list[Any]]
    strength: float = 1.0
    spec: ClassVar[str] = "convex"
    size: ClassVar[str] = "strength"
    from_text: ClassVar[bool] = False
    sees_zero_mass: ClassVar[bool] = True
    _programs: dict[int, _Program] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        given: object = self.constraints
        if not callable(given):
            raise TypeError(f"`ConvexSet.constraints` must be a function of q and p, got {given!r}; use a lambda.")
        meaning, remedy = "how far the set reaches from p", "For the whole set use 1."
        set_field(self, "strength", checked_number("ConvexSet.strength", meaning, "[0, 1]", self.strength, remedy))

    def with_strength(self, fraction: float) -> Self:
        """Return p + fraction (S - p), which shares what is compiled."""
        strength = self.strength * checked_fraction(fraction)
        other = self if strength == self.strength else replace(self, strength=strength)
        set_field(other, "_programs", self._programs)
        return other

    def take(self, rows: Array) -> Self:
        """Return the set for ``rows`` if the constraints have a ``take``; else the set itself."""
        take: Any = getattr(self.constraints, "take", None)
        return self if take is None else replace(self, constraints=take(rows))

    def maximise(self, problem: Problem) -> tuple[Array, Dual]:
        """Solve the conic program of every row."""
        weights, bound = self._solve(problem)
        return weights, Dual(problem.xp.zeros_like(bound), bound)

    def dual_value(self, problem: Problem, dual: Dual) -> Array:
        """Find the bound of the class docstring again."""
        return self._solve(problem)[1]

    def _solve(self, problem: Problem) -> tuple[Array, Array]:
        """Return the worst weights ``(*batch, n)`` and a bound of the value ``(*batch, 1)``."""
        xp, n, share, masses = problem.xp, problem.losses.shape[-1], self.strength, problem.masses()
        if n not in self._programs:
            self._programs[n] = _Program(self.constraints, n)
        rows = [fetched(xp, array).reshape(-1, n) for array in (problem.losses, masses)]
        found, bounds = np.empty_like(rows[0]), np.empty(len(rows[0]))
        for k, (losses, reference) in enumerate(zip(*rows, strict=True)):
            _, found[k], bounds[k] = self._programs[n].solve(losses, reference)
        weights = asarray_like(xp, found.reshape(problem.losses.shape), problem.losses)
        bound = asarray_like(xp, bounds.reshape(problem.shift.shape), problem.losses)
        return (1 - share) * masses + share * weights, (1 - share) * problem.mean(problem.losses) + share * bound

    def __str__(self) -> str:
        return f"{self.spec}:{getattr(self.constraints, '__name__', self.constraints)},strength={self.strength!r}"

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is compiled behind: it is large, holds a lock, and comes back with the next solve."""
        return {**vars(self), "_programs": {}}


class _Answer(NamedTuple):
    """Weights ``(n,)``, an upper bound of the value, and the error: their gap or the largest violation."""

    error: float
    weights: Any
    bound: float


class _Program:
    """The conic program max_q <q, losses> for n scenarios: compiled once, losses and p are its parameters."""

    def __init__(self, constraints: Callable[[Any, Any], list[Any]], n: int) -> None:
        cp = _cvxpy()
        self.q: Any = cp.Variable(n, name="q")
        self.p: Any = cp.Parameter(n, name="p", nonneg=True)
        self.losses: Any = cp.Parameter(n, name="losses")
        try:
            given = constraints(self.q, self.p)
        except ValueError as error:  # of cvxpy: shapes that do not fit
            raise ValueError(
                f"`ConvexSet.constraints` cannot be built for {n} losses: {error}. Arrays in them need one entry "
                "for each loss; for parts of the losses give the function a method `take(rows)`."
            ) from error
        inside = _checked_constraints(cp, given)
        self.problem: Any = cp.Problem(cp.Maximize(self.losses @ self.q), [cp.sum(self.q) == 1, self.q >= 0, *inside])
        self.lock = Lock()  # all who solve share the values of the parameters
        if self.problem.is_mixed_integer():
            raise ValueError("`ConvexSet.constraints` must not use integer variables: they make no convex set.")

    def solve(self, losses: Any, masses: Any) -> _Answer:
        """Return the best of a few attempts; its certificate decides, not the status that Clarabel gives it."""
        with self.lock:
            self.losses.value, self.p.value = losses, masses
            data, chain, _ = self.problem.get_problem_data("CLARABEL", enforce_dpp=True)
            start = data["param_prob"].var_id_to_col[self.q.id]
            best, status = _Answer(np.inf, masses, np.inf), ""
            for tolerance in (1e-14, 1e-12, 1e-10):  # the first asks for all that rounding leaves
                options = {**_REFINED, **dict.fromkeys(_TOLERANCES, tolerance)}
                found = chain.solve_via_data(self.problem, data, solver_opts=options)
                best = min(best, _certified(data, found, start, losses), key=lambda answer: answer.error)
                status = str(found.status)
                if best.error <= _GOOD:
                    break
        if best.error <= _REFUSED:
            return best
        if "PrimalInfeasible" in status:
            raise ValueError("no q satisfies the constraints of the `ConvexSet` for this reference; relax them.")
        raise RuntimeError(
            f"the `ConvexSet` was solved to {best.error:.2g} only ({status}), not to {_REFUSED:g}. Write constraints "
            "with numbers near 1, use == where a <= leaves no room, and leave out scenarios of zero mass."
        )


def _certified(data: Any, found: Any, start: int, losses: Any) -> _Answer:
    """Judge what Clarabel returned for min <c, x> s.t. A x + s = b, s in K, where q = x[start : start + n].

    For z in the dual cone, where an interior-point method stays, and r = A'z + c, every feasible x has

        <q, losses> = -<c, x> = <z, b - s> - <r, x> <= <z, b> - <r, x>.
    """
    x, z, slack = (np.asarray(part) for part in (found.x, found.z, found.s))
    matrix, right, own = data["A"], data["b"], slice(start, start + losses.size)
    residual = matrix.T @ z + data["c"]
    reach = _REACH * (1 + np.abs(np.delete(x, own)))
    bound = right @ z - residual[own].min() + np.abs(np.delete(residual, own)) @ reach
    weights = np.clip(x[own], 0.0, None)
    weights /= max(weights.sum(), 1e-3)  # 1 but for an answer to be refused
    value = weights @ losses
    bound = np.clip(bound, value, max(value, losses.max()))
    violation = np.abs(matrix @ x + slack - right).max()
    return _Answer(float(np.nan_to_num(np.maximum(bound - value, violation), nan=np.inf)), weights, float(bound))


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise ImportError("ConvexSet needs cvxpy: pip install 'robust-rlhf[convex]'.") from error
    return cvxpy


def _checked_constraints(cp: Any, given: Any) -> list[Any]:
    """Return the list if cvxpy can compile it once for all references."""
    kind = cp.constraints.constraint.Constraint
    if not isinstance(given, (list, tuple)) or not all(isinstance(part, kind) for part in given):  # pyright: ignore
        raise TypeError(f"`ConvexSet.constraints` must return a list of cvxpy constraints, got {given!r}.")
    parts: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
    for part in parts:
        if not part.is_dcp(dpp=True):
            convex = "be convex (DCP): write it as a convex expression <= a concave one"
            once = "compile once for all p (DPP): give p to a variable r by r == p and write r in its place"
            rule = once if part.is_dcp() else convex
            raise ValueError(f"`ConvexSet.constraints` must by cvxpy's rules {rule}. This does not: {part}.")
    return parts
