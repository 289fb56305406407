"""What the doctor says of a source that takes the weight: its share in robust steps, against plain training."""

from __future__ import annotations

import numpy as np
import pytest
from record_runs import unpack
from test_doctor import changed, findings

from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run


@pytest.fixture
def run(tmp_path):
    return lambda name: unpack(name, tmp_path)


def test_share_of_the_weight_is_that_of_the_robust_steps(run):
    """A tenth of the pairs that has all weight in robust steps, by the ledger's means over plain and robust ones."""
    folder = run("healthy tv")
    plain = np.mean([row["radius_fraction"] == 0 for row in read_run(folder).training])

    def change(content):
        content["adversary"]["by_source"] = {
            "rest": {"pairs": 900, "multiplier": plain},
            "small": {"pairs": 100, "multiplier": plain + (1 - plain) * 10},
        }

    found = findings(changed(folder, change))["one source takes the weight"]
    assert "small has 10% of the pairs and 100% of the weight" in found.evidence


def test_weights_of_pairs_count_in_the_share_of_a_source(run):
    """A tenth of the pairs, of three times the weight, is a quarter of plain training; older runs kept no sums."""
    folder = run("healthy tv")
    plain = np.mean([row["radius_fraction"] == 0 for row in read_run(folder).training])
    groups = {
        "rest": {"pairs": 900, "multiplier": plain, "mass": 900.0},
        "small": {"pairs": 100, "multiplier": plain + (1 - plain) * 4, "mass": 300.0},
    }
    found = findings(changed(folder, lambda content: content["adversary"].update(weighted=True, by_source=groups)))
    evidence = found["one source takes the weight"].evidence
    assert "small has 25% of the weight of plain training and 100% of the weight in robust steps" in evidence
    for group in groups.values():
        del group["mass"]
    older = changed(folder, lambda content: content["adversary"].update(by_source=groups))
    assert diagnose(read_run(older)).unchecked["weight by source"].startswith("pairs have weights, and an earlier")
