"""Preference losses, one value per pair: the reduction belongs to the caller."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Negative log-likelihood of each preference under the Bradley-Terry model.

        l_i = -log sigmoid(r(x_i, y_i+) - r(x_i, y_i-))

    Args:
        chosen: Rewards of the preferred answers, shape ``(n,)``.
        rejected: Rewards of the other answers, shape ``(n,)``.

    Returns:
        Losses in nats, shape ``(n,)``, **not reduced**: pass them to ``dro_core.robust_loss``.

    >>> import torch
    >>> bradley_terry_loss(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([0.6931])
    """
    return -logsigmoid(chosen - rejected)
