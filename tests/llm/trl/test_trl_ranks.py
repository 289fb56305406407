"""TRL's trainers made robust on two processes."""

from __future__ import annotations

import json

import pytest
import trl_two_ranks
from forked import finished, start_ranks
from robust_trl import ROUNDING

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")


def test_gradients_on_two_processes_are_those_of_the_full_batch(tmp_path):
    finished(start_ranks(trl_two_ranks.main, tmp_path))
    found = json.loads((tmp_path / "errors.json").read_text())
    assert found["ranks"] == 2
    assert len(found["errors"]) == 5
    for name, visited, expected, error in found["errors"]:
        assert visited == expected, name  # what both ranks hold stands in the ledger
        assert error <= ROUNDING[name.split()[0]], name
