"""The failures of peers that are known: every row one number, prepared here, called by ``failures.reproduce``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import peers
import references
from failures import Failure
from race import draw_losses

import dro_core as dc


def _losses(n: int = 64) -> np.ndarray:
    return draw_losses(1, n, "float64")[0]


def _value(losses: np.ndarray, ambiguity: dc.AmbiguitySet, less: float = 0.0) -> float:
    return float(dc.worst_case(losses, ambiguity).value) - less


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
    return float(model.worst_distribution(np.zeros((64, 1)), _losses())["weight"].sum())


def _dro_loss_rows() -> list[Failure]:
    half, small, far = dc.ChiSquare(0.5), dc.ChiSquare(0.005), _losses() + 1e6
    loss = partial(Failure, "dro RobustLoss", "dro")
    return [
        loss(
            "chi-square radius 0.005: its absolute tolerance of 0.01 accepts the uniform weights",
            lambda: _loss(_losses(), 0.005),
            lambda: _value(_losses(), small),
            references.power(_losses(), small),
        ),
        loss(
            "chi-square, 56 of 64 losses share the maximum",
            lambda: _loss(SATURATED, 0.5),
            lambda: _value(SATURATED, half),
            1.0,
        ),
        loss(
            "chi-square, all losses zero",
            lambda: _loss(np.zeros(8), 0.5),
            lambda: _value(np.zeros(8), half),
            0.0,
        ),
        loss(
            "chi-square, losses + 1e6 (value less 1e6): a range below 1e-5 of the maximum counts as constant",
            lambda: _loss(far, 0.5) - 1e6,
            lambda: _value(far, half, 1e6),
            references.power(_losses(), half),
        ),
    ]


def _dro_linear_rows() -> list[Failure]:
    quarter, tenth, tv, kl, many = dc.CVaR(0.25), dc.CVaR(0.1), dc.TotalVariation(0.25), dc.KL(0.3), _losses(2048)
    tvdro, cvardro = (partial(Failure, f"dro {name}", "dro") for name in ("TVDRO", "CVaRDRO"))
    return [
        tvdro(
            "mean loss under its weights, tied losses: no fractional atom at the edge",
            lambda: _weighted(_TVDRO, TIES, tv),
            lambda: _value(TIES, tv),
            references.total_variation(TIES, tv),
        ),
        tvdro(
            "radius 1: sum of the weights",
            lambda: _refused(dc.TotalVariation(1.0)),
            lambda: dc.worst_case(_losses(), dc.TotalVariation(1.0)).weights.sum(),
            1.0,
        ),
        cvardro(
            "mean loss under its weights, tied losses: no fractional atom at the edge",
            lambda: _weighted(_CVARDRO, TIES, quarter),
            lambda: _value(TIES, quarter),
            references.cvar(TIES, quarter),
        ),
        cvardro(
            "mean loss under its weights, losses from 1e-7 to 1e6: above the worst case, so infeasible",
            lambda: _weighted(_CVARDRO, WIDE, tenth),
            lambda: _value(WIDE, tenth),
            references.cvar(WIDE, tenth),
        ),
        Failure(
            "dro KLDRO",
            "dro",
            "n = 2,048",
            lambda: _solved(_KLDRO, many, kl)[0],
            lambda: _value(many, kl),
            references.kl(many, kl),
        ),
    ]


def _cvxpy_rows() -> list[Failure]:
    far, tiny, huge = _losses() + 1e8, _losses() * 1e-8, _losses() * 1e200
    tail, kl = dc.CVaR(0.1), dc.KL(0.3)
    clarabel, highs = peers.cvxpy("CLARABEL"), peers.cvxpy("HIGHS")
    conic = partial(Failure, "cvxpy CLARABEL", "cvxpy")
    return [
        conic(
            "CVaR, losses + 1e8 (value less 1e8), status optimal: above the worst case, so infeasible",
            lambda: _solved(clarabel, far, tail)[0] - 1e8,
            lambda: _value(far, tail, 1e8),
            references.cvar(far, tail) - 1e8,
        ),
        conic(
            "KL, losses + 1e8 (value less 1e8), status optimal",
            lambda: _solved(clarabel, far, kl)[0] - 1e8,
            lambda: _value(far, kl, 1e8),
            references.kl(far, kl) - 1e8,
        ),
        Failure(
            "cvxpy HIGHS",
            "highspy",
            "CVaR, losses times 1e-8 (value times 1e8), status optimal",
            lambda: _solved(highs, tiny, tail)[0] * 1e8,
            lambda: _value(tiny, tail) * 1e8,
            references.cvar(tiny, tail) * 1e8,
        ),
        conic(
            "CVaR, losses times 1e200 (value times 1e-200)",
            lambda: _solved(clarabel, huge, tail)[0] * 1e-200,
            lambda: _value(huge, tail) * 1e-200,
            references.cvar(huge, tail) * 1e-200,
        ),
    ]


def _layer_on_gpu() -> float:
    import torch

    if not torch.cuda.is_available():
        raise NotImplementedError("needs a GPU")
    return float(_solved(peers.cvxpylayers, torch.tensor(_losses(), device="cuda"), dc.CVaR(0.1))[1].max() * 6.4)


def _torch_rows() -> list[Failure]:
    def projected() -> float:
        make = peers.entmax("sparsemax_bisect")
        return float(_solved(make, _bfloat16(100 * _losses()), SHARP)[1].sum())

    return [
        Failure(
            "entmax bisect",
            "entmax",
            "sum of the weights, bfloat16 losses up to 400",
            projected,
            lambda: float(dc.worst_case(_bfloat16(100 * _losses()), SHARP).weights.double().sum()),
            1.0,
        ),
        Failure(
            "cvxpylayers",
            "cvxpylayers",
            "CVaR on a GPU: largest weight over the bound 1/(n alpha)",
            _layer_on_gpu,
            lambda: dc.worst_case(_losses(), dc.CVaR(0.1)).weights.max() * 6.4,
            1.0,
        ),
    ]


# Formulas as published, written out in a line or two.


def _guarded(losses: np.ndarray) -> float:
    """fast-dro: constant losses are told by (max - min) / max <= 1e-5, which every negative maximum meets."""
    uniform = np.ptp(losses) / losses.max() <= 1e-5
    return float(losses.mean()) if uniform else _value(losses, dc.ChiSquare(0.5))


def _halved(losses: np.ndarray, radius: float) -> float:
    """DRO-REBEL: inf_eta eta + sqrt(2 radius) sqrt(E (l - eta)_+^2), on a fine grid below the maximum."""
    eta = np.linspace(losses.min() - 50 * np.ptp(losses), losses.max(), 100_001)[:, None]
    excess = np.clip(losses - eta, 0.0, None)
    return float(np.min(eta[:, 0] + (2 * radius) ** 0.5 * np.sqrt(np.mean(excess**2, axis=1))))


def _superquantile(losses: np.ndarray, alpha: float) -> float:
    """sqwash: the losses beyond a quantile that lies between two of them, and that quantile for the mass missing."""
    quantile = np.quantile(losses, 1 - alpha)
    tail = losses[losses > quantile]
    share = len(tail) / (alpha * len(losses))
    return float(share * tail.mean() + (1 - share) * quantile)


def _log_exp() -> float:
    """OpenRLHF: log(1 + exp(rejected - chosen)) in float32, at a difference of 89."""
    return float(np.log(np.float32(1) + np.exp(np.float32(89))))


def _trained_on() -> float:
    """The loss that reward models are trained on here, at that difference."""
    import torch

    from llm.kinds.reward import RewardTrainer

    return float(RewardTrainer.pair_loss(torch.tensor(-89.0)))


def _formula_rows() -> list[Failure]:
    losses, negative, ball = _losses(), _losses() - 10, dc.ChiSquare(0.5)
    above = (losses + 110).astype(np.float32)
    price = dc.KLPenalty(1.0)
    return [
        Failure(
            "fast-dro",
            None,
            "chi-square, all losses negative: uniform weights",
            lambda: _guarded(negative),
            lambda: _value(negative, ball),
            references.power(negative, ball),
        ),
        Failure(
            "DRO-REBEL",
            None,
            "chi-square with sqrt(2 radius) where sqrt(1 + 2 radius) is due",
            lambda: _halved(losses, 0.5),
            lambda: _value(losses, ball),
            references.power(losses, ball),
        ),
        Failure(
            "KLDPO",
            None,
            "sum of the weights exp((l - mean l) / t) / n, capped at 10",
            lambda: np.exp(losses - losses.mean()).clip(max=10).mean(),
            lambda: dc.worst_case(losses, price).weights.sum(),
            1.0,
        ),
        Failure(
            "deshift",
            None,
            "sum of the weights exp(l - log sum exp l), float32 losses + 110, no shift",
            lambda: np.exp(above - np.log(np.exp(above).sum())).sum(),
            lambda: dc.worst_case(above, price).weights.sum(),
            1.0,
        ),
        Failure(
            "sqwash",
            None,
            "CVaR(0.1) at the interpolated quantile, 12 losses: above the worst case",
            lambda: _superquantile(losses[:12], 0.1),
            lambda: _value(losses[:12], dc.CVaR(0.1)),
            references.cvar(losses[:12], dc.CVaR(0.1)),
        ),
        Failure(
            "Dr.DPO",
            None,
            "-log mean exp(-l), float32 losses + 110",
            lambda: -np.log(np.exp(-above).mean()),
            lambda: -_value(-above, price),
            -references.kl_penalty(-above.astype(np.float64), price),
        ),
        Failure(
            "OpenRLHF LogExpLoss",
            None,
            "log(1 + exp(rejected - chosen)), float32, difference 89 (ours: llm.kinds.reward)",
            _log_exp,
            _trained_on,
            89.0,
        ),
    ]


def rows() -> list[Failure]:
    """Return every known failure; the peers are called later, by ``reproduce``."""
    return [*_dro_loss_rows(), *_dro_linear_rows(), *_cvxpy_rows(), *_torch_rows(), *_formula_rows()]
