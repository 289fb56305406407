"""The failures of peers that are known: every row one number, prepared here, called by ``failures.reproduce``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
import references
from failures import Failure
from published_formulas import drawn, formula_rows, value_of

import dro_core as dc


def _solved(make: Callable[..., peers.Solve], losses: np.ndarray, ambiguity: dc.AmbiguitySet) -> tuple[Any, Any]:
    return make(ambiguity, len(losses), gradient=False)(losses)


def _weighted(make: Callable[..., peers.Solve], losses: np.ndarray, ambiguity: dc.AmbiguitySet) -> float:
    """Return <q, l> for the weights that a linear ``dro`` model reports."""
    return float(peers.dro_weights(_solved(make, losses, ambiguity)[1], losses) @ losses)


def _loss(losses: np.ndarray, radius: float) -> float:
    """Return ``dro``'s chi-square RobustLoss."""
    import torch

    make = peers.dro_loss("chi-square", lambda ball, n: ball.radius, lambda ball: 0.0)
    return float(_solved(make, torch.tensor(losses), dc.ChiSquare(radius))[0])


def _bfloat16(losses: np.ndarray) -> Any:
    import torch

    return torch.tensor(losses).to(torch.bfloat16)


TIES = np.repeat([0.0, 1.0, 2.0, 3.0], [10, 10, 10, 2])
SATURATED = np.repeat([0.0, 1.0], [8, 56])
WIDE = np.exp(6 * np.random.default_rng(0).standard_normal(64))
SHARP = dc.ChiSquarePenalty(0.5 / 64)
_TVDRO = peers.dro_linear("tv_dro", "TVDRO", eps="radius")
_CVARDRO = peers.dro_linear("cvar_dro", "CVaRDRO", alpha="alpha")
_KLDRO = peers.dro_linear("kl_dro", "KLDRO", eps="radius")


def _refused(ball: dc.TotalVariation) -> float:
    """Construct ``dro``'s TVDRO directly: its ``update`` refuses still more."""
    kind = peers.dro_module("linear_model.tv_dro").TVDRO
    model = kind(input_dim=1, model_type="lad", fit_intercept=False, eps=ball.radius)
    return float(model.worst_distribution(np.zeros((64, 1)), drawn())["weight"].sum())


def _dro_loss_rows() -> list[Failure]:
    half, small, far = dc.ChiSquare(0.5), dc.ChiSquare(0.005), drawn() + 1e6
    loss = partial(Failure, "dro RobustLoss", "dro")
    return [
        loss(
            "chi-square radius 0.005: its absolute tolerance of 0.01 accepts the uniform weights",
            lambda: _loss(drawn(), 0.005),
            lambda: value_of(drawn(), small),
            references.power(drawn(), small),
        ),
        loss(
            "chi-square, 56 of 64 losses share the maximum",
            lambda: _loss(SATURATED, 0.5),
            lambda: value_of(SATURATED, half),
            1.0,
        ),
        loss(
            "chi-square, all losses zero",
            lambda: _loss(np.zeros(8), 0.5),
            lambda: value_of(np.zeros(8), half),
            0.0,
        ),
        loss(
            "chi-square, losses + 1e6 (value less 1e6): a range below 1e-5 of the maximum counts as constant",
            lambda: _loss(far, 0.5) - 1e6,
            lambda: value_of(far, half, 1e6),
            references.power(drawn(), half),
        ),
    ]


def _dro_linear_rows() -> list[Failure]:
    quarter, tenth, tv, kl, many = dc.CVaR(0.25), dc.CVaR(0.1), dc.TotalVariation(0.25), dc.KL(0.3), drawn(2048)
    tvdro, cvardro = (partial(Failure, f"dro {name}", "dro") for name in ("TVDRO", "CVaRDRO"))
    return [
        tvdro(
            "mean loss under its weights, tied losses: no fractional atom at the edge",
            lambda: _weighted(_TVDRO, TIES, tv),
            lambda: value_of(TIES, tv),
            references.total_variation(TIES, tv),
        ),
        tvdro(
            "radius 1: sum of the weights",
            lambda: _refused(dc.TotalVariation(1.0)),
            lambda: dc.worst_case(drawn(), dc.TotalVariation(1.0)).weights.sum(),
            1.0,
        ),
        cvardro(
            "mean loss under its weights, tied losses: no fractional atom at the edge",
            lambda: _weighted(_CVARDRO, TIES, quarter),
            lambda: value_of(TIES, quarter),
            references.cvar(TIES, quarter),
        ),
        cvardro(
            "mean loss under its weights, losses from 1e-7 to 1e6: above the worst case, so infeasible",
            lambda: _weighted(_CVARDRO, WIDE, tenth),
            lambda: value_of(WIDE, tenth),
            references.cvar(WIDE, tenth),
        ),
        Failure(
            "dro KLDRO",
            "dro",
            "n = 2,048",
            lambda: _solved(_KLDRO, many, kl)[0],
            lambda: value_of(many, kl),
            references.kl(many, kl),
        ),
    ]


def _cvxpy_rows() -> list[Failure]:
    far, tiny, huge = drawn() + 1e8, drawn() * 1e-8, drawn() * 1e200
    tail, kl = dc.CVaR(0.1), dc.KL(0.3)
    clarabel, highs = peers.cvxpy("CLARABEL"), peers.cvxpy("HIGHS")
    conic = partial(Failure, "cvxpy CLARABEL", "cvxpy")
    return [
        conic(
            "CVaR, losses + 1e8 (value less 1e8), status optimal: above the worst case, so infeasible",
            lambda: _solved(clarabel, far, tail)[0] - 1e8,
            lambda: value_of(far, tail, 1e8),
            references.cvar(far, tail) - 1e8,
        ),
        conic(
            "KL, losses + 1e8 (value less 1e8), status optimal",
            lambda: _solved(clarabel, far, kl)[0] - 1e8,
            lambda: value_of(far, kl, 1e8),
            references.kl(far, kl) - 1e8,
        ),
        Failure(
            "cvxpy HIGHS",
            "highspy",
            "CVaR, losses times 1e-8 (value times 1e8), status optimal",
            lambda: _solved(highs, tiny, tail)[0] * 1e8,
            lambda: value_of(tiny, tail) * 1e8,
            references.cvar(tiny, tail) * 1e8,
        ),
        conic(
            "CVaR, losses times 1e200 (value times 1e-200)",
            lambda: _solved(clarabel, huge, tail)[0] * 1e-200,
            lambda: value_of(huge, tail) * 1e-200,
            references.cvar(huge, tail) * 1e-200,
        ),
    ]


def _layer_on_gpu() -> float:
    import torch

    if not torch.cuda.is_available():
        raise NotImplementedError("needs a GPU")
    return float(_solved(peers.cvxpylayers, torch.tensor(drawn(), device="cuda"), dc.CVaR(0.1))[1].max() * 6.4)


def _torch_rows() -> list[Failure]:
    def projected() -> float:
        make = peers.entmax("sparsemax_bisect")
        return float(_solved(make, _bfloat16(100 * drawn()), SHARP)[1].sum())

    return [
        Failure(
            "entmax bisect",
            "entmax",
            "sum of the weights, bfloat16 losses up to 400",
            projected,
            lambda: float(dc.worst_case(_bfloat16(100 * drawn()), SHARP).weights.double().sum()),
            1.0,
        ),
        Failure(
            "cvxpylayers",
            "cvxpylayers",
            "CVaR on a GPU: largest weight over the bound 1/(n alpha)",
            _layer_on_gpu,
            lambda: dc.worst_case(drawn(), dc.CVaR(0.1)).weights.max() * 6.4,
            1.0,
        ),
    ]


def rows() -> list[Failure]:
    """Return every known failure; the peers are called later, by ``reproduce``."""
    return [*_dro_loss_rows(), *_dro_linear_rows(), *_cvxpy_rows(), *_torch_rows(), *formula_rows()]
