"""First-order methods against their own guarantees, on problems whose minimum another solver knows."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dro_core import ChiSquare, ChiSquarePenalty, KLPenalty, TotalVariation, worst_case
from dro_core.learn.optimise import AcceleratedGradient, ProjectedSubgradient, SubgradientState, robust_smoothness

from . import tolerances as tol

PENALTIES = [KLPenalty(0.3), KLPenalty(2.0), ChiSquarePenalty(0.2), ChiSquarePenalty(3.0)]


def logistic(design: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses (n,) and their gradients (n, d)."""
    margins = design @ w
    return np.logaddexp(0, -margins), -design / (1 + np.exp(margins))[:, None]


def instance(seed: int, n: int = 25, d: int = 3) -> np.ndarray:
    """Feature differences of norm at most 2: pairs of rewards linear in features of norm at most 1."""
    design = np.random.default_rng(seed).standard_normal((n, d)) + 0.3
    return 2 * design / np.linalg.norm(design, axis=1).max()


def run(method: ProjectedSubgradient, slope, start: np.ndarray, steps: int) -> tuple[SubgradientState, list]:
    state, visited = method.init(start), []
    for _ in range(steps):
        visited.append(state.iterate)
        state = method.step(state, slope(state.iterate))
    return state, visited


@pytest.mark.parametrize("steps", [1, 7, 60, 400])
def test_the_average_keeps_the_promise_on_a_robust_reward(steps: int) -> None:
    design, ball, radius = instance(0), TotalVariation(0.3), 3.0
    w = cp.Variable(3)
    losses = cp.logistic(-design @ w)
    threshold, ceiling = cp.Variable(), cp.Variable()
    value = 0.3 * (ceiling - threshold) + cp.sum(cp.maximum(losses, threshold)) / 25  # theory.md, `tv-dual`
    problem = cp.Problem(cp.Minimize(value), [losses <= ceiling, threshold <= ceiling, cp.norm(w) <= radius])
    least = problem.solve(solver=cp.CLARABEL)

    def robust(w: np.ndarray) -> float:
        return float(worst_case(logistic(design, w)[0], ball).value)

    def slope(w: np.ndarray) -> np.ndarray:
        values, gradients = logistic(design, w)
        return worst_case(values, ball).weights @ gradients

    lipschitz = 2.0
    method = ProjectedSubgradient.for_horizon(steps, radius=radius, lipschitz=lipschitz)
    state, visited = run(method, slope, np.zeros(3), steps)
    assert all(np.linalg.norm(slope(w)) <= lipschitz for w in visited)
    assert np.all(np.linalg.norm(visited, axis=1) <= radius * (1 + 1e-12))
    bound = method.bound(steps, distance=radius, lipschitz=lipschitz)
    assert bound == pytest.approx(lipschitz * radius / np.sqrt(steps))
    excess = robust(state.average) - least
    assert -tol.CONIC <= excess <= bound


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_the_promise_is_nearly_attained(steps: int) -> None:
    """Against max_i w_i over T + 1 coordinates any such method still has G R / sqrt(T + 1) to go [DT14]."""
    radius, lipschitz = 2.0, 3.0

    def slope(w: np.ndarray) -> np.ndarray:
        return lipschitz * np.eye(steps + 1)[int(np.argmax(w))]

    method = ProjectedSubgradient.for_horizon(steps, radius=radius, lipschitz=lipschitz)
    state, _ = run(method, slope, np.zeros(steps + 1), steps)
    excess = lipschitz * state.average.max() + lipschitz * radius / np.sqrt(steps + 1)
    assert excess == pytest.approx(lipschitz * radius / np.sqrt(steps + 1))
    assert excess <= method.bound(steps, distance=radius, lipschitz=lipschitz)


@given(st.integers(0, 1000), st.floats(0.1, 3.0), st.integers(1, 20))
def test_steps_are_pure_average_what_was_visited_and_project(seed: int, radius: float, steps: int) -> None:
    rng = np.random.default_rng(seed)
    slopes = rng.standard_normal((steps, 2, 3))
    method = ProjectedSubgradient(step_size=0.7, radius=radius)
    state, expected, visited = method.init(rng.standard_normal((2, 3))), None, []
    for slope in slopes:
        before = SubgradientState(state.steps, state.iterate.copy(), state.average.copy())
        new = method.step(state, slope)
        assert np.array_equal(state.iterate, before.iterate)
        assert np.array_equal(state.average, before.average)
        visited.append(state.iterate)
        # The projection of v is the point z of the ball with <v - z, u - z> <= 0 for all u in it.
        free = state.iterate - 0.7 * slope
        others = rng.standard_normal((50, 2, 3))
        others *= radius / np.linalg.norm(others, axis=(1, 2), keepdims=True)
        assert np.linalg.norm(new.iterate) <= radius * (1 + 1e-12)
        assert np.max(np.sum((free - new.iterate) * (others - new.iterate), axis=(1, 2))) <= 1e-9
        state, expected = new, np.mean(visited, axis=0)
    assert state.steps == steps
    assert np.allclose(state.average, expected, rtol=0, atol=1e-12)


def penalised_minimum(design: np.ndarray, ambiguity, strength: float) -> float:
    n, d = design.shape
    w, eta = cp.Variable(d), cp.Variable()
    losses = cp.logistic(-design @ w)
    if isinstance(ambiguity, KLPenalty):
        t = ambiguity.temperature
        value = t * cp.log_sum_exp(losses / t - np.log(n))
    else:
        lam = ambiguity.strength
        value = cp.sum_squares(cp.pos(losses - eta)) / (2 * lam * n) + lam / 2 + eta
    return float(cp.Problem(cp.Minimize(value + strength / 2 * cp.sum_squares(w))).solve(solver=cp.CLARABEL))


def penalised(design: np.ndarray, ambiguity, strength: float):
    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        losses, gradients = logistic(design, w)
        worst = worst_case(losses, ambiguity)
        return float(worst.value) + strength / 2 * float(w @ w), worst.weights @ gradients + strength * w

    return objective


@pytest.mark.parametrize("ambiguity", PENALTIES, ids=str)
@pytest.mark.parametrize("strength", [0.0, 0.05])
@pytest.mark.parametrize("known", [True, False])
def test_acceleration_keeps_its_promise_on_penalised_losses(ambiguity, strength: float, known: bool) -> None:  # noqa: FBT001
    design = instance(1)
    smoothness = robust_smoothness(ambiguity, lipschitz=2.0, curvature=1.0) + strength
    objective, least = penalised(design, ambiguity, strength), penalised_minimum(design, ambiguity, strength)
    method = AcceleratedGradient(smoothness if known else None, strong_convexity=strength)
    state = method.init(np.zeros(3))
    values = [objective(state.iterate)[0]]
    for _ in range(600):
        state = method.step(state, objective)
        values.append(objective(state.iterate)[0])
    distance = float(np.linalg.norm(state.iterate)) * (1 + 1e-3) + 1e-3
    promise = AcceleratedGradient(smoothness if known else max(2 * smoothness, 1.0), strong_convexity=strength)
    bounds = [promise.bound(t, distance=distance, excess=values[0] - least + tol.CONIC) for t in range(601)]
    if known or strength == 0:
        assert all(value - least <= bound + tol.CONIC for value, bound in zip(values[1:], bounds[1:], strict=True))
    assert values[-1] - least == pytest.approx(0, abs=2e-5 if strength == 0 else tol.CONIC)
    if not known:
        assert state.smoothness <= max(2 * smoothness, 1.0)


def test_acceleration_beats_plain_gradient_steps() -> None:
    """On the worst quadratic for gradient methods: the rates 1/T^2 and 1/T are worlds apart."""
    d, steps = 200, 100
    matrix = (2 * np.eye(d) - np.eye(d, k=1) - np.eye(d, k=-1)) / 4
    push = np.eye(d)[0] / 4
    best = np.linalg.solve(matrix, push)

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        return float(w @ matrix @ w) / 2 - float(push @ w), matrix @ w - push

    method = AcceleratedGradient(smoothness=1.0)
    state, plain = method.init(np.zeros(d)), np.zeros(d)
    for _ in range(steps):
        state, plain = method.step(state, objective), plain - objective(plain)[1]
    least = objective(best)[0]
    excess = objective(state.iterate)[0] - least
    assert excess <= method.bound(steps, distance=float(np.linalg.norm(best)))
    assert excess < (objective(plain)[0] - least) / 3


def test_an_unknown_smoothness_is_found() -> None:
    """f = 500 w^2 has L = 1000; from 1 on, doubling stops at 1024. Steps of length 1 would diverge."""
    method = AcceleratedGradient()
    state, values = method.init(np.array([1.0])), []
    for _ in range(50):
        state = method.step(state, lambda w: (500 * float(w @ w), 1000 * w))
        values.append(500 * float(state.iterate @ state.iterate))
    assert state.smoothness == 1024
    promise = AcceleratedGradient(smoothness=1024.0)
    assert all(value <= promise.bound(t, distance=1.0) for t, value in enumerate(values, start=1))


def test_a_ball_keeps_the_accelerated_iterates() -> None:
    design, ambiguity = instance(2), KLPenalty(0.5)
    smoothness = robust_smoothness(ambiguity, lipschitz=2.0, curvature=1.0)
    method, objective = AcceleratedGradient(smoothness, radius=0.2), penalised(design, ambiguity, 0.0)
    state = method.init(np.ones(3))
    for _ in range(200):
        assert np.linalg.norm(state.iterate) <= 0.2 * (1 + 1e-12)
        state = method.step(state, objective)
    # Optimality on the ball: the gradient points straight out of it.
    gradient = objective(state.iterate)[1]
    assert np.allclose(-gradient / np.linalg.norm(gradient), state.iterate / 0.2, atol=1e-4)


@pytest.mark.parametrize("ambiguity", PENALTIES, ids=str)
@given(st.integers(0, 10**6))
def test_gradients_of_penalised_losses_are_this_smooth(ambiguity, seed: int) -> None:
    rng = np.random.default_rng(seed)
    price = ambiguity.temperature if isinstance(ambiguity, KLPenalty) else ambiguity.strength
    one, two = rng.standard_normal((2, 7)) * rng.choice([0.1, 1, 5])
    moved = np.abs(worst_case(one, ambiguity).weights - worst_case(two, ambiguity).weights).sum()
    assert moved <= np.abs(one - two).max() / price * (1 + 1e-9)
    design, at, to = instance(seed, n=6), rng.standard_normal(3), rng.standard_normal(3)
    objective = penalised(design, ambiguity, 0.0)
    change = np.linalg.norm(objective(at)[1] - objective(to)[1])
    assert change <= robust_smoothness(ambiguity, lipschitz=2.0, curvature=1.0) * np.linalg.norm(at - to) * (1 + 1e-9)


@pytest.mark.parametrize("ambiguity", PENALTIES, ids=str)
def test_these_constants_are_attained(ambiguity) -> None:
    """Two linear losses +gw and -gw: at w = 0 the gradient moves at exactly g^2 / price, and q at 1 / price."""
    price, step, g = ambiguity.temperature if isinstance(ambiguity, KLPenalty) else ambiguity.strength, 1e-5, 3.0
    q = worst_case(np.array([g * step, -g * step]), ambiguity).weights
    assert (q @ [g, -g]) / step == pytest.approx(robust_smoothness(ambiguity, lipschitz=g), rel=1e-6)
    assert np.abs(q - 0.5).sum() / (g * step) == pytest.approx(1 / price, rel=1e-6)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: ProjectedSubgradient(0.0), r"`ProjectedSubgradient\.step_size`.*\(0, inf\), got 0\.0"),
        (lambda: ProjectedSubgradient(0.1, radius=-1.0), r"`ProjectedSubgradient\.radius`.*use radius=None"),
        (lambda: ProjectedSubgradient.for_horizon(0, radius=1.0, lipschitz=1.0), r"`steps`.*\[1, inf\)"),
        (lambda: ProjectedSubgradient(0.1).init(np.array([np.nan])), "start must be finite"),
        (
            lambda: ProjectedSubgradient(0.1).step(ProjectedSubgradient(0.1).init(np.zeros(2)), np.zeros(3)),
            r"subgradient must have the shape of the iterate, \(2,\), got \(3,\)",
        ),
        (lambda: AcceleratedGradient(-1.0), r"`AcceleratedGradient\.smoothness`.*smoothness=None"),
        (lambda: AcceleratedGradient(1.0, strong_convexity=2.0), r"strong_convexity.*\[0, 1\.0\], got 2\.0"),
        (lambda: AcceleratedGradient().bound(3, distance=1.0), "needs a known smoothness"),
        (
            lambda: AcceleratedGradient().step(AcceleratedGradient().init(np.zeros(1)), lambda w: (np.nan, w)),
            "objective must be finite",
        ),
    ],
)
def test_bad_input_is_explained(attempt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()


def test_sets_have_no_smoothness() -> None:
    with pytest.raises(TypeError, match=r"only KLPenalty and ChiSquarePenalty are smooth.*got chi2:0\.5"):
        robust_smoothness(ChiSquare(0.5), lipschitz=1.0)
