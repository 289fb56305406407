"""Falsehoods of somebody who had not read the code of the search: how many, and that nothing gives them away."""

import pytest
from planted_blind import BLIND

from proofs_check.evaluation import evaluate


def test_there_are_twenty_of_many_kinds():
    assert len(BLIND) == 20
    assert len({planted.kind for planted in BLIND.values()}) >= 14


@pytest.mark.parametrize("name", BLIND)
def test_only_the_witness_violates_the_claim_not_the_corners(name):
    claim, _, witness = BLIND[name]
    assert claim.admits(witness)
    assert evaluate(claim, witness).margin > 1e-4
    corners = claim.instances.corners
    assert corners
    assert all(claim.admits(corner) for corner in corners)
    assert max(evaluate(claim, corner).margin for corner in corners) < 1e-9
