"""What the registry proves of losses and weights is true of those that are shipped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dro_core import worst_case
from llm.adversary.spec import parse_reweighting
from llm.training.losses import ConservativeDPO, Sigmoid, UnbiasedDPO
from proofs_check.claims.preferences.noisy_labels import Flipped, Preferred, cdpo_margin, rdpo_robust_unbiased
from proofs_check.claims.preferences.tempered import Tempered, kldpo_hidden_rate

MARGINS = torch.linspace(-6, 6, 25, dtype=torch.float64)


@pytest.mark.parametrize("flip", [0.0, 0.125, 0.25, 0.46875])
def test_the_corrected_loss_is_unbiased(flip):
    loss = UnbiasedDPO(flip)
    mean = (1 - flip) * loss(MARGINS) + flip * loss(-MARGINS)
    torch.testing.assert_close(mean, Sigmoid()(MARGINS), rtol=1e-12, atol=1e-12)


def test_a_worst_case_undoes_the_correction():
    """The formula of the claim is the loss that is shipped, at a margin with the losses that the claim names."""
    x, loss = Flipped(8, 16, 16), UnbiasedDPO(0.25)
    right, wrong = Sigmoid()(MARGINS), Sigmoid()(-MARGINS)
    shipped = loss(MARGINS)
    torch.testing.assert_close(shipped, (0.75 * right - 0.25 * wrong) / 0.5)
    assert rdpo_robust_unbiased().lhs(x) == 1.5 > rdpo_robust_unbiased().rhs(x)


def test_label_smoothing_ends_at_the_margin_of_the_claim():
    x = Preferred(192, 32)
    margin = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        loss = 0.75 * ConservativeDPO(0.125)(margin) + 0.25 * ConservativeDPO(0.125)(-margin)
        (slope,) = torch.autograd.grad(loss, margin)
        margin = (margin - 4 * slope).detach().requires_grad_()
    assert float(margin.detach().sigmoid()) == pytest.approx(cdpo_margin().rhs(x), abs=1e-9)


def test_normalised_weights_do_not_hide_a_rate():
    """The rule of the trainer is KLDPO's up to the factor that the claim bounds."""
    x = Tempered((0, 3, 8, -5), 6)
    weights = worst_case(x.losses, parse_reweighting("kldpo:0.75")).weights * len(x.losses)
    printed = np.exp((x.losses - x.losses.mean()) / 0.75)
    assert weights.mean() == pytest.approx(1.0)
    assert printed / weights == pytest.approx(np.full(4, kldpo_hidden_rate().lhs(x)[1]))
