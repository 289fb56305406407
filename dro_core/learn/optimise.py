"""First-order methods for robust losses, as pure ``init`` and ``step``: the state goes in, the next state comes out.

For any model in numpy: the caller evaluates losses and gradients, ``worst_case`` gives the weights q, and sum_i q_i
grad l_i is a subgradient of the robust loss [danskin]. For linear models ``fit_linear`` is faster and certified.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from .._solvers.arrays import Array
from ..sets.ambiguity import AmbiguitySet, checked_number
from ..sets.penalties import ChiSquarePenalty, KLPenalty

_GROWTH = 2.0  # of the smoothness estimate where it proves too small


class SubgradientState(NamedTuple):
    """After T = ``steps`` steps: the current iterate and the average of the T iterates before it, ``(*shape,)``."""

    steps: int
    iterate: Array
    average: Array


@dataclass(frozen=True)
class ProjectedSubgradient:
    """Subgradient steps, projected on a ball around 0, with a running average.

        w_{t+1} = Proj_{||w|| <= radius} (w_t - step_size g_t),   g_t a subgradient at w_t,   average w_0 ... w_{T-1}.

    Guarantee (upper bound) for a convex function whose subgradients have norm at most G, with a minimiser w* in the
    ball and ||w_0 - w*|| <= R, such as w_0 = 0 and R = radius:

        f(average) - f(w*) <= R^2 / (2 step_size T) + step_size G^2 / 2,   which is G R / sqrt(T) for R / (G sqrt T).

    Unbiased subgradients with E ||g||^2 <= G^2 give the same bound for the expectation; minibatch plug-in weights are
    biased and add that bias [sgd-reward]. The bound is on the average: single iterates may be worse.

    Args:
        step_size: The step, positive.
        radius: Of the ball, in the norm of all entries together; None for no projection.

    Raises:
        ValueError: A parameter that is not positive.

    Example:
        >>> import numpy as np
        >>> method = ProjectedSubgradient.for_horizon(100, radius=2.0, lipschitz=1.0)
        >>> state = method.init(np.zeros(1))
        >>> for _ in range(100):  # f(w) = |w - 1|
        ...     state = method.step(state, np.sign(state.iterate - 1))
        >>> bool(abs(state.average[0] - 1) <= method.bound(100, distance=2.0, lipschitz=1.0)), state.steps
        (True, 100)
    """

    step_size: float
    radius: float | None = None

    def __post_init__(self) -> None:
        remedy = "for_horizon chooses the best one for a number of steps."
        checked_number("ProjectedSubgradient.step_size", "the length of a step", "(0, inf)", self.step_size, remedy)
        _check_radius("ProjectedSubgradient", self.radius)

    @classmethod
    def for_horizon(cls, steps: int, *, radius: float, lipschitz: float) -> Self:
        """Choose step_size = R / (G sqrt T), best for T = ``steps`` steps from w_0 = 0 in the ball of that radius.

        ``lipschitz`` is G: at most 2 X for the pair loss of rewards linear in features of norm X, 2 beta X for DPO.

        Example:
            >>> ProjectedSubgradient.for_horizon(4, radius=1.0, lipschitz=5.0)
            ProjectedSubgradient(step_size=0.1, radius=1.0)
        """
        checked_number("steps", "the number of steps", "[1, inf)", steps, "Take at least one.")
        checked_number("radius", "the radius of the ball", "(0, inf)", radius, "It must hold a minimiser.")
        checked_number("lipschitz", "the largest norm of a subgradient", "(0, inf)", lipschitz, "Bound it from above.")
        return cls(radius / (lipschitz * math.sqrt(steps)), radius)

    def bound(self, steps: int, *, distance: float, lipschitz: float) -> float:
        """Return the guarantee R^2 / (2 step_size T) + step_size G^2 / 2 for R = ``distance``, G = ``lipschitz``.

        Example:
            >>> round(ProjectedSubgradient(step_size=0.1).bound(4, distance=1.0, lipschitz=5.0), 12)
            2.5
        """
        return distance**2 / (2 * self.step_size * steps) + self.step_size * lipschitz**2 / 2

    def init(self, start: Array) -> SubgradientState:
        """Return the state before the first step, at the projection of ``start``.

        Example:
            >>> import numpy as np
            >>> ProjectedSubgradient(0.1, radius=1.0).init(np.array([0.0, 4.0])).iterate.tolist()
            [0.0, 1.0]
        """
        first = _projected(_checked(start, "start"), self.radius)
        return SubgradientState(0, first, first)

    def step(self, state: SubgradientState, subgradient: Array) -> SubgradientState:
        """Take one step along minus a subgradient at ``state.iterate``, of the same shape.

        Example:
            >>> import numpy as np
            >>> method = ProjectedSubgradient(step_size=0.5)
            >>> method.step(method.init(np.array([1.0])), np.array([2.0])).iterate.tolist()
            [0.0]
        """
        slope = _checked(subgradient, "subgradient", state.iterate)
        average = state.average + (state.iterate - state.average) / (state.steps + 1)
        new = _projected(state.iterate - self.step_size * slope, self.radius)
        return SubgradientState(state.steps + 1, new, average)


class AcceleratedState(NamedTuple):
    """After ``steps`` steps: the iterate, where the next gradient is taken, the momentum, the smoothness in use."""

    steps: int
    iterate: Array
    point: Array
    momentum: float
    smoothness: float


Objective = Callable[[Array], tuple[float, Array]]


@dataclass(frozen=True)
class AcceleratedGradient:
    """Nesterov's accelerated gradient method, projected on a ball around 0, for smooth convex functions.

        w_{t+1} = Proj_{||w|| <= radius} (v_t - grad f(v_t) / L),   v_{t+1} = w_{t+1} + beta_t (w_{t+1} - w_t).

    Robust losses with a penalty instead of a set are smooth; ``robust_smoothness`` gives L. Guarantees (upper bounds),
    R = ||w_0 - w*|| and m the strong convexity:

        f(w_T) - f(w*) <= 2 L R^2 / (T + 1)^2                                     for m = 0     [BT09, Theorem 4.4]
        f(w_T) - f(w*) <= (1 - sqrt(m/L))^T (f(w_0) - f(w*) + m R^2 / 2)          for m > 0     [B17, Theorem 10.42]

    With smoothness=None, L starts at 1 (or m) and doubles wherever f exceeds its quadratic model, so that the first
    bound holds with the larger of the start and twice the true L; for the second one L must be known.

    Args:
        smoothness: L, a Lipschitz constant of the gradient; None to find it.
        strong_convexity: m >= 0, for example the strength of a squared norm.
        radius: Of the ball; None for no projection.

    Raises:
        ValueError: A parameter outside its interval, or m > L.

    Example:
        >>> import numpy as np
        >>> method = AcceleratedGradient(smoothness=4.0)
        >>> state = method.init(np.array([1.0, 1.0]))
        >>> for _ in range(50):
        ...     state = method.step(state, lambda w: (float(w @ (w * [2.0, 0.1])), w * [4.0, 0.2]))
        >>> bool(state.iterate @ (state.iterate * [2.0, 0.1]) <= method.bound(50, distance=2**0.5))
        True
    """

    smoothness: float | None = None
    strong_convexity: float = 0.0
    radius: float | None = None

    def __post_init__(self) -> None:
        name, remedy = "AcceleratedGradient", "For one that is not known use smoothness=None."
        if self.smoothness is not None:
            checked_number(
                f"{name}.smoothness", "a Lipschitz constant of the gradient", "(0, inf)", self.smoothness, remedy
            )
        most, remedy = self.smoothness or math.inf, "A function that is not strongly convex has 0."
        interval = f"[0, {most}{')' if math.isinf(most) else ']'}"
        checked_number(f"{name}.strong_convexity", "the strong convexity", interval, self.strong_convexity, remedy)
        _check_radius(name, self.radius)

    def bound(self, steps: int, *, distance: float, excess: float | None = None) -> float:
        """Return the guarantee after T = ``steps`` steps, for a known smoothness and ``distance`` >= ||w_0 - w*||.

        ``excess`` is f(w_0) - f(w*) or more; by default L/2 distance^2, which holds without a ball.

        Example:
            >>> AcceleratedGradient(smoothness=1.0).bound(9, distance=5.0)
            0.5
        """
        if self.smoothness is None:
            raise ValueError("the guarantee needs a known smoothness; give AcceleratedGradient(smoothness=L).")
        if self.strong_convexity == 0:
            return 2 * self.smoothness * distance**2 / (steps + 1) ** 2
        first = self.smoothness / 2 * distance**2 if excess is None else excess
        rate = 1 - math.sqrt(self.strong_convexity / self.smoothness)
        return rate**steps * (first + self.strong_convexity / 2 * distance**2)

    def init(self, start: Array) -> AcceleratedState:
        """Return the state before the first step, at the projection of ``start``.

        Example:
            >>> import numpy as np
            >>> AcceleratedGradient(smoothness=2.0).init(np.zeros(1)).smoothness
            2.0
        """
        first = _projected(_checked(start, "start"), self.radius)
        return AcceleratedState(0, first, first, 1.0, self.smoothness or max(1.0, self.strong_convexity))

    def step(self, state: AcceleratedState, objective: Objective) -> AcceleratedState:
        """Take one step.

        Args:
            state: The state.
            objective: Maps parameters to value and gradient; with smoothness=None also called for every trial of L.

        Example:
            >>> import numpy as np
            >>> method = AcceleratedGradient(smoothness=2.0)
            >>> method.step(method.init(np.array([3.0])), lambda w: (float(w @ w), 2 * w)).iterate.tolist()
            [0.0]
        """
        value, gradient = objective(state.point)
        slope = _checked(gradient, "gradient", state.point)
        smoothness = state.smoothness
        new = _projected(state.point - slope / smoothness, self.radius)
        while self.smoothness is None and not _fits(objective(new)[0], value, slope, new - state.point, smoothness):
            smoothness *= _GROWTH
            new = _projected(state.point - slope / smoothness, self.radius)
        if self.strong_convexity > 0:
            root = math.sqrt(self.strong_convexity / smoothness)
            momentum, push = 1.0, (1 - root) / (1 + root)
        else:
            momentum = (1 + math.sqrt(1 + 4 * state.momentum**2)) / 2
            push = (state.momentum - 1) / momentum
        return AcceleratedState(state.steps + 1, new, new + push * (new - state.iterate), momentum, smoothness)


def robust_smoothness(ambiguity: AmbiguitySet, *, lipschitz: float, curvature: float = 0.0) -> float:
    """Return a Lipschitz constant of the gradient of a penalised robust loss in the parameters.

        f(w) = max_q <q, l(w)> - price D(q, p),   L = lipschitz^2 / price + curvature.

    The Hessian is E_q of the losses' Hessians plus 1/price times a variance of their gradients, under q (KL) or under p
    on the support of q (chi-square) [D]. In the losses the gradient of the value is q itself, and ||q(l) - q(l')||_1 <=
    ||l - l'||_inf / price: both divergences are 1-strongly convex in the 1-norm, KL by Pinsker's inequality,
    chi-square because (E |r|)^2 <= E r^2.

    Args:
        ambiguity: A KLPenalty (price = temperature) or a ChiSquarePenalty (price = strength).
        lipschitz: The largest norm of a loss's gradient; for the logistic loss the largest norm X of a feature row.
        curvature: A Lipschitz constant of every loss's gradient; for the logistic loss X^2 / 4.

    Raises:
        TypeError: Any other set: its value has kinks, so that no such constant exists.

    Example:
        >>> from dro_core.sets.penalties import KLPenalty
        >>> robust_smoothness(KLPenalty(0.5), lipschitz=2.0, curvature=1.0)
        9.0
    """
    if isinstance(ambiguity, KLPenalty):
        price = ambiguity.temperature
    elif isinstance(ambiguity, ChiSquarePenalty):
        price = ambiguity.strength
    else:
        raise TypeError(
            f"only KLPenalty and ChiSquarePenalty are smooth in the losses, got {ambiguity}; "
            "use ProjectedSubgradient for it, or fit_linear for a linear model."
        )
    return lipschitz**2 / price + curvature


def _fits(reached: float, value: float, slope: Array, move: Array, smoothness: float) -> bool:
    """Check f(v + move) <= f(v) + <slope, move> + smoothness/2 ||move||^2, up to rounding."""
    if not math.isfinite(value) or math.isnan(reached):
        raise ValueError(f"the objective must be finite, got {value} and {reached}; start closer or use a ball.")
    model = value + float(np.sum(slope * move)) + smoothness / 2 * float(np.sum(move**2))
    return reached <= model + 1e-14 * abs(value)


def _check_radius(name: str, radius: float | None) -> None:
    if radius is not None:
        remedy = "For no projection use radius=None."
        checked_number(f"{name}.radius", "the radius of the ball around 0", "(0, inf)", radius, remedy)


def _checked(array: Array, name: str, iterate: Array | None = None) -> Array:
    exact = np.asarray(array, dtype=np.float64)
    if iterate is not None and exact.shape != iterate.shape:
        raise ValueError(f"{name} must have the shape of the iterate, {iterate.shape}, got {exact.shape}.")
    if not np.all(np.isfinite(exact)):
        raise ValueError(f"{name} must be finite, got {array}; check the losses and the step size.")
    return exact


def _projected(iterate: Array, radius: float | None) -> Array:
    if radius is None:
        return iterate
    norm = float(np.linalg.norm(iterate))
    return iterate * (radius / norm) if norm > radius else iterate
