"""Policies on two processes against one forward of all answers without a trainer; what is gathered; checkpoints."""

from __future__ import annotations

import json

import numpy as np
import policy_sharded_ranks
import pytest
from forked import Forked, finished, start_ranks
from policy_sharded_ranks import CELLS, UNITS

pytest.importorskip("peft")

TOGETHER = pytest.mark.slow("whichever test comes first has two processes train a dozen times for all of them")
GATHER = "_allgather_base_"


@pytest.fixture(scope="module")
def place(once):
    """The folder that two processes, and then one, have written."""

    def build(folder):
        finished(start_ranks(policy_sharded_ranks.main, folder))
        finished([Forked(policy_sharded_ranks.alone, folder)])

    return once("policy-ranks", build)


@pytest.fixture(scope="module")
def found(place):
    return [json.loads((place / f"found-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow("two processes load everything")
@TOGETHER
@pytest.mark.parametrize("case", range(len(CELLS)), ids=list(map(str, CELLS)))
def test_the_gradient_of_a_policy_on_two_processes_is_that_of_all_answers(case, found):
    assert found[0]["cells"][case]["error"] <= (1e-6 if CELLS[case].steps == 1 else 2e-4)


@TOGETHER
def test_ranks_with_other_numbers_of_answers_look_equally_often(found):
    """Of the twelve answers of a rank the second has weight on three: under DDP it looks once, else as often."""
    lone, _, spread, _ = ([rank["cells"][case]["passes"] for rank in found] for case in range(len(CELLS)))
    assert lone == [3, 1]
    assert spread == [3, 3]


@TOGETHER
def test_a_rollout_gathers_parameters_once_to_write_and_once_to_look(found):
    for rank in found:
        told = rank["gathering"]
        assert told["long"] == told["short"]  # whatever the number of tokens, on this rank or on the other
        assert told["long"].count(GATHER) >= 2 * UNITS + 1
        assert told["inside"] == []


@TOGETHER
def test_what_was_gathered_is_freed(found):
    for rank in found:
        assert rank["gathering"]["whole"] > 1e6
        assert rank["gathering"]["left"] == 0
    assert found[0]["gathering"]["tokens"] > 1.0  # of both ranks together: a step went on from other lengths


@TOGETHER
def test_log_probabilities_stay_in_single_precision_where_weights_are_not(found):
    assert [rank["rounded"] for rank in found] == [False, False]


@TOGETHER
def test_ranks_that_could_not_write_are_refused(found):
    for rank in found:
        first, empty = rank["refused"]
        assert "policies do not run under FSDP 1: use DDP, FSDP2 or DeepSpeed" in first
        assert "cpu_ram_efficient_loading leaves all models but that of the first rank empty" in empty


@TOGETHER
def test_a_spread_policy_goes_on_to_the_bit_and_elsewhere_to_rounding(found, place):
    ends = found[0]["checkpoints"]
    assert ends["resumed"] == ends["whole"]
    assert len(ends["whole"]) > 1000
    for other in (found[0]["elsewhere"], json.loads((place / "alone.json").read_text())):
        np.testing.assert_allclose(other, ends["whole"], atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.slow("DeepSpeed compiles its gloo at the first start, and two stages of it train")
def test_deepspeed_does_the_same_and_keeps_its_own_checkpoints(tmp_path):
    pytest.importorskip("deepspeed")
    (tmp_path / "ZERO2").mkdir(), (tmp_path / "ZERO3").mkdir()
    finished(start_ranks(policy_sharded_ranks.deepspeed, tmp_path), timeout=600)
    for rank in range(2):
        found = json.loads((tmp_path / f"found-{rank}.json").read_text())
        assert max(cell["error"] for cell in found["cells"]) <= 1e-6
        for told in found["gathering"]:
            assert told["long"] == told["short"]
            assert told["inside"] == []
        second, third = found["gathering"]
        assert third["whole"] > 1e6
        assert third["left"] < second["left"] / 100  # ZeRO-2 never parts with its parameters
        for ends in found["checkpoints"]:
            assert ends["resumed"] == ends["whole"]
        assert "holds the parts of DeepSpeed" in found["elsewhere"]
