"""Adapters: each makes ``solve(losses) -> (value, weights)`` for one ambiguity set and one number of scenarios.

Either part of the answer may be None where a peer does not return it. Whatever a peer can prepare once (a
compiled cvxpy problem, a model object) is prepared outside the clock. Torch peers get detached losses, since
the worst-case weights are the gradient already; only where a peer returns a loss that carries a graph, that
graph is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import dro_core as dc

Solve = Callable[[Any], tuple[Any, Any]]
TIME_LIMIT = 5.0  # seconds a solver may take for one problem
_PARAMETRISED = 4096  # beyond this cvxpy's map from parameters to problem data takes gigabytes


def ours(ambiguity: dc.AmbiguitySet, n: int, *, gradient: bool) -> Solve:
    """``worst_case``, or ``robust_loss`` for a gradient, with the input checks on, except on a GPU."""
    del n

    def on_cpu(losses: Any) -> bool:
        return getattr(getattr(losses, "device", None), "type", "cpu") == "cpu"

    def solve(losses: Any) -> tuple[Any, Any]:
        worst = dc.worst_case(losses, ambiguity, check_finite=on_cpu(losses))
        return worst.value, worst.weights

    def differentiable(losses: Any) -> tuple[Any, Any]:
        return dc.robust_loss(losses, ambiguity, check_finite=on_cpu(losses)), None

    return differentiable if gradient else solve


# cvxpy: the sets as constraints on q, as their docstrings state them


def _tv(cp: Any, q: Any, n: int, ball: dc.TotalVariation) -> list[Any]:
    cap = [] if ball.max_ratio is None else [q <= ball.max_ratio / n]
    return [cp.sum(cp.pos(q - 1 / n)) <= ball.radius, *cap]


def _cvar(cp: Any, q: Any, n: int, tail: dc.CVaR) -> list[Any]:
    del cp
    return [q <= 1 / (n * tail.alpha)]


def _chi2(cp: Any, q: Any, n: int, ball: dc.ChiSquare) -> list[Any]:
    return [cp.norm(n * q - 1) <= (2 * n * ball.radius) ** 0.5]


def _kl(cp: Any, q: Any, n: int, ball: dc.KL) -> list[Any]:
    return [cp.sum(cp.rel_entr(n * q, np.ones(n))) <= n * ball.radius]


def _power(cp: Any, q: Any, n: int, ball: dc.CressieRead) -> list[Any]:
    k = ball.order
    return [cp.sum(cp.power(n * q, k)) <= n * (1 + k * (k - 1) * ball.radius)]


def _spectral(cp: Any, q: Any, n: int, mixture: dc.Spectral) -> list[Any]:
    """A spectrum is a mixture of CVaRs at its steps."""
    steps = np.arange(1, len(mixture.spectrum) + 1)
    shares = steps * -np.diff([*mixture.spectrum[::-1], 0.0])
    parts = cp.Variable((len(steps), n), nonneg=True)
    caps = np.repeat((len(steps) / (n * steps))[:, None], n, axis=1)
    return [q == shares @ parts, parts <= caps, cp.sum(parts, axis=1) == 1]


def _wasserstein(cp: Any, q: Any, n: int, ball: dc.Wasserstein) -> list[Any]:
    plan = cp.Variable((n, n), nonneg=True)
    moved = cp.sum(cp.multiply(ball.cost, plan)) <= ball.radius
    return [moved, cp.sum(plan, axis=1) == np.full(n, 1 / n), q == cp.sum(plan, axis=0)]


def _grouped(cp: Any, q: Any, n: int, groups: dc.Grouped) -> list[Any]:
    members = np.eye(groups.count)[groups.groups]
    masses = members.mean(axis=0)
    mixture = cp.Variable(groups.count, nonneg=True)
    inside = cp.sum(cp.pos(mixture - masses)) <= groups.inner.radius
    return [inside, q == (members / (n * masses)) @ mixture]


_CONSTRAINTS: dict[type, Callable[..., list[Any]]] = {
    dc.TotalVariation: _tv,
    dc.CVaR: _cvar,
    dc.ChiSquare: _chi2,
    dc.KL: _kl,
    dc.CressieRead: _power,
    dc.Spectral: _spectral,
    dc.Wasserstein: _wasserstein,
    dc.Grouped: _grouped,
}


def _price(cp: Any, q: Any, n: int, ambiguity: dc.AmbiguitySet) -> Any:
    if isinstance(ambiguity, dc.KLPenalty):
        return ambiguity.temperature / n * cp.sum(cp.rel_entr(n * q, np.ones(n)))
    if isinstance(ambiguity, dc.ChiSquarePenalty):
        return ambiguity.strength / 2 * (n * cp.sum_squares(q) - 1)
    return 0


def _model(ambiguity: dc.AmbiguitySet, n: int, losses: np.ndarray | None = None) -> tuple[Any, Any, Any]:
    """Return the cvxpy problem, its losses (a parameter, unless given) and its variable, the weights."""
    import cvxpy as cp

    given, q = cp.Parameter(n) if losses is None else losses, cp.Variable(n, nonneg=True)
    build = _CONSTRAINTS.get(type(ambiguity))
    inside = build(cp, q, n, ambiguity) if build else []
    goal = cp.Maximize(given @ q - _price(cp, q, n, ambiguity))
    return cp.Problem(goal, [cp.sum(q) == 1, *inside]), given, q


def _solved(problem: Any, q: Any, solver: str) -> tuple[Any, Any]:
    """Solve without a warm start from the answer before, which here is the same."""
    problem.solve(solver=solver, warm_start=False, time_limit=TIME_LIMIT)
    if q.value is None or "optimal" not in problem.status:
        raise RuntimeError(f"{solver} ended with status {problem.status}")
    return problem.value, q.value


def cvxpy(solver: str) -> Callable[..., Solve]:
    """Cvxpy with a parametrised problem, compiled once; a large one takes less time and memory compiled anew."""

    def make(ambiguity: dc.AmbiguitySet, n: int, *, gradient: bool) -> Solve:
        del gradient
        if n > _PARAMETRISED:

            def anew(losses: np.ndarray) -> tuple[Any, Any]:
                problem, _, q = _model(ambiguity, n, losses)
                return _solved(problem, q, solver)

            return anew

        problem, parameter, q = _model(ambiguity, n)

        def solve(losses: np.ndarray) -> tuple[Any, Any]:
            parameter.value = losses
            return _solved(problem, q, solver)

        return solve

    return make


def cvxpylayers(ambiguity: dc.AmbiguitySet, n: int, *, gradient: bool) -> Solve:
    """The same problem as a torch layer, with the layer's own default solver."""
    from cvxpylayers.torch import CvxpyLayer

    del gradient
    problem, parameter, q = _model(ambiguity, n)
    layer = CvxpyLayer(problem, parameters=[parameter], variables=[q])
    return lambda losses: (None, layer(losses.detach(), solver_args={"time_limit_secs": TIME_LIMIT})[0])


# dro


def dro_module(name: str) -> Any:
    """Import ``dro.NAME`` past the package's own start-up.

    Its ``__init__`` imports torchvision, torchattacks, xgboost, lightgbm and ucimlrepo, none of which takes part in the
    solvers raced here; over a gigabyte, and torchvision for CUDA does not load beside torch for the CPU.
    """
    if "dro" not in sys.modules:
        spec = importlib.util.find_spec("dro")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'dro'")
        for package in ("", ".linear_model", ".neural_model"):
            place = importlib.machinery.ModuleSpec(f"dro{package}", None, is_package=True)
            place.submodule_search_locations = [spec.submodule_search_locations[0] + package.replace(".", "/")]
            sys.modules[place.name] = importlib.util.module_from_spec(place)
    return importlib.import_module(f"dro.{name}")


def dro_linear(module: str, model: str, **size: str) -> Callable[..., Solve]:
    """A linear ``dro`` model without features: least absolute deviations of y from 0, so that the losses are y >= 0.

    ``size`` maps the model's parameter to the attribute of the set that it stands for.
    """
    ((argument, attribute),) = size.items()

    def make(ambiguity: Any, n: int, *, gradient: bool) -> Solve:
        del gradient
        kind = getattr(dro_module(f"linear_model.{module}"), model)
        fitted = kind(input_dim=1, model_type="lad", fit_intercept=False)
        # Its chi-square ball has no 1/2.
        strength = getattr(ambiguity, attribute) * (2 if model == "Chi2DRO" else 1)
        fitted.update({argument: strength})
        features = np.zeros((n, 1))

        def solve(losses: np.ndarray) -> tuple[Any, Any]:
            worst = fitted.worst_distribution(features, losses)
            return fitted.robust_obj, worst

        return solve

    return make


def dro_weights(worst: Any, losses: np.ndarray) -> np.ndarray:
    """Spread the weights that ``dro`` gives for some scenarios, named by their loss, over all."""
    order = np.argsort(losses)
    place = order[np.searchsorted(losses[order], worst["sample_pts"][1])]
    weights = np.zeros_like(losses)
    np.add.at(weights, place, worst["weight"])
    return weights


def dro_loss(geometry: str, size: Callable[[Any, int], float], price: Callable[[Any], float]) -> Callable[..., Solve]:
    """``dro``'s RobustLoss, reached through its squared error: the losses are the squares of the outputs."""

    def make(ambiguity: Any, n: int, *, gradient: bool) -> Solve:
        del gradient
        kind = dro_module("neural_model.fdro_utils").RobustLoss
        module = kind(size(ambiguity, n), price(ambiguity), geometry, is_regression=True)

        def solve(losses: Any) -> tuple[Any, Any]:
            return module(losses.sqrt(), losses.new_zeros(n)), None

        return solve

    return make


def dro_trimmed(ambiguity: dc.Trimmed, n: int, *, gradient: bool) -> Solve:
    """``dro``'s trimmed CVaR, reached through its cross-entropy of the logits (0, log(e^l - 1))."""
    import torch

    del gradient
    doro = dro_module("neural_model.fdro_utils").cvar_doro

    def solve(losses: Any) -> tuple[Any, Any]:
        labels = torch.zeros(n, dtype=torch.int64, device=losses.device)
        logits = torch.stack([torch.zeros_like(losses), losses.expm1().log()], dim=-1)
        return doro(logits, labels, ambiguity.fraction, ambiguity.inner.alpha), None

    return solve


# projections


def entmax(function: str, **options: Callable[[int], Any]) -> Callable[..., Solve]:
    """Sparsemax of the losses over n times the strength."""

    def make(ambiguity: dc.ChiSquarePenalty, n: int, *, gradient: bool) -> Solve:
        del gradient
        chosen = {name: value(n) for name, value in options.items()}
        project = functools.partial(getattr(importlib.import_module("entmax"), function), dim=-1, **chosen)
        return lambda losses: (None, project(losses.detach() / (ambiguity.strength * n)))

    return make


def torch_softmax(ambiguity: dc.KLPenalty, n: int, *, gradient: bool) -> Solve:
    """Torch's softmax at the temperature, and its logsumexp for the value."""
    import torch

    del gradient
    price = ambiguity.temperature

    def solve(losses: Any) -> tuple[Any, Any]:
        scaled = losses.detach() / price
        return price * (torch.logsumexp(scaled, -1) - math.log(n)), torch.softmax(scaled, -1)

    return solve


def scipy_softmax(ambiguity: dc.KLPenalty, n: int, *, gradient: bool) -> Solve:
    """Scipy's softmax at the temperature, and its logsumexp for the value."""
    from scipy.special import logsumexp, softmax

    del gradient
    price = ambiguity.temperature

    def solve(losses: Any) -> tuple[Any, Any]:
        scaled = losses / price
        return price * (logsumexp(scaled, axis=-1) - math.log(n)), softmax(scaled, axis=-1)

    return solve
