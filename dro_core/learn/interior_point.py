"""Primal-dual interior point for robust logistic losses, with a certified gap.

    min_w max_q <q, l(w)> - charge(q) + 1/2 sum_j penalty_j w_j^2,    l_i(w) = log(1 + exp(-(A w)_i)).

Newton's method on the optimality conditions of w and of the adversary's blocks together, with the complementary
products of the latter relaxed to mu -> 0 (Mehrotra's predictor and corrector). The adversary is eliminated, so a
step costs one weighted Gram matrix of A, about n k^2 operations; ten to thirty steps give nine digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg as _linalg  # pyright: ignore[reportMissingTypeStubs]
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array
from .._solvers.normal import factor, gram
from .blocks import Linearised, Point, inside, products, second_order, solve, start
from .set_blocks import Adversary

linalg: Any = _linalg  # scipy ships no type hints
special: Any = _special

_TO_BOUNDARY = 0.99
_ROUNDING = 1e-12  # nats: a gap this small holds nothing but rounding errors
_LEAST_CENTRING = 1e-4
_HALVINGS = 12


class Solution(NamedTuple):
    """Parameters ``(k,)``, their objective, a proven lower bound of the minimum, the weights ``(n,)`` behind it."""

    parameters: Array
    value: float
    bound: float
    weights: Array
    iterations: int


class Losses(NamedTuple):
    """Losses at some parameters, -l' and l'' in the margin, ``(n,)``."""

    values: Array
    slopes: Array
    bends: Array


class Problem(NamedTuple):
    """The design A ``(n, k)``, features times labels; penalties ``(k,)``, nonnegative; and the adversary."""

    design: Array
    penalty: Array
    adversary: Adversary

    def losses(self, parameters: Array) -> Losses:
        """Evaluate the logistic loss."""
        margins = self.design @ parameters
        slopes = special.expit(-margins)
        return Losses(np.logaddexp(0, -margins), slopes, slopes * special.expit(margins))

    def gradient(self, parameters: Array, losses: Losses, weights: Array) -> Array:
        """Return the gradient in w at fixed weights."""
        return self.penalty * parameters - self.design.T @ (weights * losses.slopes)

    def lower_bound(self, losses: Losses, weights: Array) -> float:
        """Bound min_w <weights, l(w)> + 1/2 sum penalty w^2 from below by its Fenchel dual.

        For slopes a in [0, 1] with v = A' (weights a) zero where the penalty is, that is sum weights H(a) -
        1/2 sum v^2 / penalty with the binary entropy H. The slopes are those at w, moved by one Newton step in
        the parameters without a penalty, which makes v zero there up to rounding.
        """
        slopes, free = losses.slopes, self.penalty == 0
        if np.any(free):
            columns = self.design[:, free]
            curvature = columns.T @ ((weights * losses.bends)[:, None] * columns)
            move = linalg.lstsq(curvature, columns.T @ (weights * slopes))[0]
            slopes = slopes - losses.bends * (columns @ move)
            if slopes.min() < 0 or slopes.max() > 1:
                return 0.0  # the losses are nonnegative
        pull = (self.design.T @ (weights * slopes))[~free]
        entropy = special.entr(slopes) + special.entr(1 - slopes)
        return float(weights @ entropy - np.sum(pull**2 / self.penalty[~free]) / 2)


class _Iterate(NamedTuple):
    """Parameters ``(k,)`` and one point per block, or a step of them."""

    parameters: Array
    points: list[Point]

    def moved(self, step: _Iterate, length: float) -> _Iterate:
        points = [at.moved(change, length) for at, change in zip(self.points, step.points, strict=True)]
        return _Iterate(self.parameters + length * step.parameters, points)

    def weights(self, adversary: Adversary) -> Array:
        ratio = sum((at.ratio for at in self.points), np.full(adversary.base.size, adversary.fixed))
        return adversary.scenario_weights(adversary.base * ratio)

    def products(self, adversary: Adversary) -> tuple[float, int]:
        """Return the sum of all complementary products, averaged over the atoms, and how many kinds there are."""
        found = [products(*pair, adversary.base) for pair in zip(adversary.blocks, self.points, strict=True)]
        return sum(total for total, _ in found), sum(kinds for _, kinds in found)


class _System:
    """The Newton system in w once every block is eliminated."""

    def __init__(self, problem: Problem, at: _Iterate, losses: Losses) -> None:
        design, penalty, adversary = problem
        atom_losses = adversary.atom_losses(losses.values)
        self._blocks = [
            Linearised(*pair, adversary.base, atom_losses) for pair in zip(adversary.blocks, at.points, strict=True)
        ]
        weights = at.weights(adversary)
        # Minus the Jacobian of the atoms' losses is diag(scale) @ rows; diag(slopes) A is not formed for scenarios.
        self._rows, self._scale = design, losses.slopes
        if adversary.link is not None:
            self._rows = adversary.link @ (losses.slopes[:, None] * design)
            self._scale = np.ones(adversary.base.size)
        stiff = sum((block.weight for block in self._blocks), np.zeros(self._scale.size))
        bends = weights * losses.bends
        if adversary.link is None:
            matrix = gram(design, bends + self._scale**2 * stiff)
        else:
            matrix = gram(design, bends) + gram(self._rows, stiff)
        for block in self._blocks:
            edge = self._rows.T @ (self._scale[:, None] * block.coupled)
            matrix -= edge @ solve(block.matrix, edge.T)
        matrix[np.diag_indices_from(matrix)] += penalty
        self._solve = factor(matrix)
        self._gradient = problem.gradient(at.parameters, losses, weights)

    def step(self, mu: float, second: list[Point] | None = None) -> _Iterate:
        """Return the step toward complementary products of size ``mu``, less their second-order terms."""
        shift = np.zeros(self._scale.size)
        for place, block in enumerate(self._blocks):
            shift += block.aim(mu, None if second is None else second[place])
        move = self._solve(self._rows.T @ (self._scale * shift) - self._gradient)
        change = -self._scale * (self._rows @ move)
        return _Iterate(move, [block.step(change) for block in self._blocks])

    def error(self, gradient: Array | None = None) -> float:
        """Return what a gradient (the one here by default) is worth in the objective: half its Newton decrement."""
        gradient = self._gradient if gradient is None else gradient
        return float(gradient @ self._solve(gradient)) / 2

    def longest(self, step: _Iterate) -> float:
        """Return the longest step that stays inside all bounds, at most 1."""
        room = [block.longest(change) for block, change in zip(self._blocks, step.points, strict=True)]
        return min([1.0, *room])


def _advance(problem: Problem, at: _Iterate, losses: Losses) -> _Iterate:
    """Take one step: predict, choose mu, correct, and halve while the gradient in w grows."""
    adversary = problem.adversary
    system = _System(problem, at, losses)
    error, (total, kinds) = system.error(), at.products(adversary)
    step, length = system.step(0.0), 1.0
    if kinds:
        reach = system.longest(step)
        predicted = at.moved(step, reach).products(adversary)[0] / total
        # mu must not run ahead of the gradient in w, or the iterates get stuck at the boundary far from a solution.
        centring = min(max(predicted**3, error / total, _LEAST_CENTRING), 1.0)
        second = second_order(step.points) if reach > 0.1 else None
        step = system.step(centring * total / kinds, second)
        length = min(1.0, _TO_BOUNDARY * system.longest(step))
    for _ in range(_HALVINGS):
        new = at.moved(step, length)
        gradient = problem.gradient(new.parameters, problem.losses(new.parameters), new.weights(adversary))
        if system.error(gradient) <= max((1 - length / 10) ** 2 * error, total / 10, _ROUNDING):
            break
        length /= 2
    return at.moved(step, length)


def minimise(problem: Problem, value: Callable[[Array], float], *, tolerance: float, limit: int = 100) -> Solution:
    """Minimise until value - bound <= tolerance * value, or for ``limit`` steps.

    Args:
        problem: What to minimise.
        value: The robust value of losses ``(n,)``: at least what the adversary's own weights reach.
        tolerance: Relative gap.
        limit: Most steps.
    """
    adversary, penalty = problem.adversary, problem.penalty
    at = _Iterate(np.zeros(penalty.size), [start(block, adversary.base.size) for block in adversary.blocks])
    best = Solution(at.parameters, math.inf, 0.0, adversary.scenario_weights(adversary.base), 0)
    for iteration in range(limit + 1):
        losses = problem.losses(at.parameters)
        objective = value(losses.values) + float(penalty @ at.parameters**2) / 2
        if objective < best.value:
            best = best._replace(parameters=at.parameters, value=objective)
        atoms, charge = inside(adversary, at.points)
        weights = adversary.scenario_weights(atoms)
        bound = problem.lower_bound(losses, weights) - charge
        if bound > best.bound:
            best = best._replace(weights=weights, bound=bound)
        best = best._replace(iterations=iteration)
        if best.value - best.bound <= max(tolerance * best.value, _ROUNDING):
            break
        at = _advance(problem, at, losses)
    return best
