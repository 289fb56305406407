"""Failures of formulas as they are published, each written out in a line or two; those of packages stand elsewhere."""

from __future__ import annotations

import formulas
import numpy as np
import references
from failures import Failure
from race import draw_losses

import dro_core as dc


def drawn(n: int = 64) -> np.ndarray:
    """The losses that all failures are shown on."""
    return draw_losses(1, n, "float64")[0]


def value_of(losses: np.ndarray, ambiguity: dc.AmbiguitySet, less: float = 0.0) -> float:
    """Ours."""
    return float(dc.worst_case(losses, ambiguity).value) - less


def _guarded(losses: np.ndarray) -> float:
    """fast-dro: constant losses are told by (max - min) / max <= 1e-5, which every negative maximum meets."""
    uniform = np.ptp(losses) / losses.max() <= 1e-5
    return float(losses.mean()) if uniform else value_of(losses, dc.ChiSquare(0.5))


def _halved(losses: np.ndarray, radius: float) -> float:
    """DRO-REBEL: inf_eta eta + sqrt(2 radius) sqrt(E (l - eta)_+^2), on a fine grid below the maximum."""
    eta = np.linspace(losses.min() - 50 * np.ptp(losses), losses.max(), 100_001)[:, None]
    excess = np.clip(losses - eta, 0.0, None)
    return float(np.min(eta[:, 0] + (2 * radius) ** 0.5 * np.sqrt(np.mean(excess**2, axis=1))))


def _superquantile(losses: np.ndarray, tail: dc.CVaR) -> float:
    """sqwash: the losses beyond a quantile that lies between two of them, and that quantile for the mass missing."""
    import torch

    return float(formulas.superquantile(tail, len(losses), gradient=False)(torch.tensor(losses))[0])


def _log_exp() -> float:
    """OpenRLHF: log(1 + exp(rejected - chosen)) in float32, at a difference of 89."""
    return float(np.log(np.float32(1) + np.exp(np.float32(89))))


def _trained_on() -> float:
    """The loss that reward models are trained on here, at that difference."""
    import torch

    from llm.kinds.reward import RewardTrainer

    return float(RewardTrainer.pair_loss(torch.tensor(-89.0)))


def _balls() -> list[Failure]:
    losses, negative, ball = drawn(), drawn() - 10, dc.ChiSquare(0.5)
    return [
        Failure(
            "fast-dro",
            None,
            "chi-square, all losses negative: uniform weights",
            lambda: _guarded(negative),
            lambda: value_of(negative, ball),
            references.power(negative, ball),
        ),
        Failure(
            "DRO-REBEL",
            None,
            "chi-square with sqrt(2 radius) where sqrt(1 + 2 radius) is due",
            lambda: _halved(losses, 0.5),
            lambda: value_of(losses, ball),
            references.power(losses, ball),
        ),
        Failure(
            "sqwash",
            None,
            "CVaR(0.1) at the interpolated quantile, 12 losses: above the worst case",
            lambda: _superquantile(losses[:12], dc.CVaR(0.1)),
            lambda: value_of(losses[:12], dc.CVaR(0.1)),
            references.cvar(losses[:12], dc.CVaR(0.1)),
        ),
    ]


def _exponentials() -> list[Failure]:
    losses, price = drawn(), dc.KLPenalty(1.0)
    above = (losses + 110).astype(np.float32)
    return [
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
            "Dr.DPO",
            None,
            "-log mean exp(-l), float32 losses + 110",
            lambda: -np.log(np.exp(-above).mean()),
            lambda: -value_of(-above, price),
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


def formula_rows() -> list[Failure]:
    """One row for each of them."""
    return [*_balls(), *_exponentials()]
