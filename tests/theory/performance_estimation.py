"""The worst case of the subgradient method as a semidefinite program: an oracle that shares no code with ours.

PEPit (extra ``peers``) maximises over all convex functions with subgradients of norm at most 1, in every dimension.
"""

from __future__ import annotations

from importlib import import_module
from math import sqrt
from typing import Any, Literal


def worst_gap(iterates: int, *, output: Literal["average", "best", "last"] = "average", pace: float = 1.0) -> float:
    """Return max f(output) - min f over convex 1-Lipschitz f and starts at distance at most 1 of a minimiser.

    Problem: N = ``iterates`` points x_0 ... x_{N-1} with x_{t+1} = x_t - eta g_t, eta = ``pace`` / sqrt(N).
    Guarantee (exact up to the solver's 1e-5): with pace 1 it is 1/sqrt(N) for the average and for the best point,
        and more for the last.
    Source: [DT14].

    Raises:
        ModuleNotFoundError: PEPit is missing: pip install PEPit.
    """
    # It has no type hints.
    library: Any = import_module("PEPit")
    functions: Any = import_module("PEPit.functions")
    program = library.PEP()
    function = program.declare_function(functions.ConvexLipschitzFunction, M=1.0)
    minimiser = function.stationary_point()
    points = [program.set_initial_point()]
    program.set_initial_condition((points[0] - minimiser) ** 2 <= 1)
    for _ in range(iterates - 1):
        points.append(points[-1] - pace / sqrt(iterates) * function.gradient(points[-1]))
    outputs = {"average": [sum(points[1:], points[0]) / iterates], "best": points, "last": points[-1:]}
    for point in outputs[output]:  # the smallest of several metrics counts
        program.set_performance_metric(function(point) - function(minimiser))
    return float(program.solve(verbose=0))
