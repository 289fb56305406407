"""The weights of an effective batch are those of the set at the strength of the step."""

from __future__ import annotations

import pytest
import torch

from dro_core import parse_ambiguity, worst_case
from llm.adversary.effective_batch import EffectiveBatch
from llm.adversary.equal_losses import Accuracy, sharing_equals

LOSSES = torch.tensor([0.1, 0.9, 0.4, 2.0, 0.3, 0.7])


@pytest.mark.parametrize("spec", ["tv:0.4", "cvar:0.3", "chi2:0.5", "kl:0.3"])
@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_a_weaker_adversary_has_the_weights_of_the_weaker_set(spec, strength):
    ambiguity = parse_ambiguity(spec)
    batch = EffectiveBatch(LOSSES, torch.arange(6), torch.ones(6), slice(0, 6), padded=False)
    expected = worst_case(LOSSES, ambiguity.with_strength(strength)).weights
    assert torch.equal(batch.weights(ambiguity, strength), expected)
    assert torch.equal(batch.weights(ambiguity, 0.0), torch.full((6,), 1 / 6))
    if strength < 1:
        assert not torch.allclose(expected, worst_case(LOSSES, ambiguity).weights)


def test_a_loss_below_zero_is_left_alone():
    """No logistic loss is: it is known to nothing less than rounding, and no search for its equals runs on for ever."""
    losses = torch.tensor([-1.0, 0.5, 0.5, -1.0])
    assert torch.equal(sharing_equals(losses, Accuracy(1e-6, logistic=True)), losses)
