"""Contestants outside PyPI, by what they publish, written anew in a few lines. Adapters as in ``peers``."""

from __future__ import annotations

from typing import Any

import numpy as np
from peers import Solve

import dro_core as dc


def by_rank(ambiguity: dc.AmbiguitySet, n: int, *, gradient: bool) -> Solve:
    """deshift: weights by rank, prepared for n losses, dealt by sorting positions twice; equal losses do not share.

    Its weights are float32, and are made in main memory from numpy losses; here they have the dtype of the losses.
    """
    del gradient
    spectrum: Any = dc.worst_case(np.arange(float(n)), ambiguity).weights
    prepared = {name: spectrum.astype(name) for name in ("float64", "float32")}

    def weights(losses: Any) -> Any:
        return prepared[str(losses.dtype)][np.argsort(np.argsort(losses))]

    def solve(losses: Any) -> tuple[Any, Any]:
        if isinstance(losses, np.ndarray):
            dealt = weights(losses)
            return np.vecdot(dealt, losses), dealt
        import torch

        dealt = torch.from_numpy(weights(losses.detach().numpy()))
        return (dealt * losses.detach()).sum(-1), dealt

    return solve


def superquantile(ambiguity: dc.CVaR, n: int, *, gradient: bool) -> Solve:
    """Of sqwash, reduce_superquantile: the mean beyond a quantile that lies between two losses, and that quantile."""
    del gradient
    alpha = float(np.max(ambiguity.alpha))

    def solve(losses: Any) -> tuple[Any, Any]:
        import torch

        quantile = torch.quantile(losses, 1 - alpha)
        if alpha < 1 / n or quantile == losses.max():
            return losses.max(), None
        beyond = losses > quantile
        share = beyond.sum() / (n * alpha)
        return share * losses[beyond].mean() + (1 - share) * quantile, None

    return solve
