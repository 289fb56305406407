"""What a run says of itself meanwhile: what its steps cost, how far it is off a terminal, and by which process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from dro_core.command_line.pace import paced
from llm.run import progress
from llm.run.progress import MEASURED, Cost


def test_a_row_has_the_seconds_of_each_step_since_the_last_without_what_was_something_else(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    cost = Cost()
    now[0] += 50  # what comes before the first step
    cost.begin(10)
    now[0] += 8
    assert cost.row(14)["seconds_per_step"] == 2
    now[0] += 9
    cost.leave_out(6)
    assert cost.row(15)["seconds_per_step"] == 3
    assert "seconds_per_step" not in cost.row(15)  # of no step


def test_peak_memory_is_the_largest_resident_set_where_no_gpu_is_used():
    found = Cost().row(1)
    assert set(found) == set(MEASURED)
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert found["peak_memory_gib"] == pytest.approx(kib / 2**20, abs=2e-3)


def test_items_are_counted_in_lines_where_no_terminal_shows_a_bar(capsys):
    assert list(paced(range(4), "batches", every=0)) == [0, 1, 2, 3]
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == [f"{done} of 4 batches" for done in (1, 2, 3)]
    assert list(paced("ab", "letters", every=60)) == ["a", "b"]
    assert list(paced("ab", "letters", every=0, shown=False)) == ["a", "b"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("rank", "warned"), [(None, True), ("0", True), ("1", False)])
def test_of_several_processes_the_first_one_warns_and_all_say_errors(rank, warned):
    told = "log = logging.getLogger('llm.x'); log.warning('a warning'); log.error('an error')"
    code = f"import logging; from llm.run.terminal import quiet_libraries; quiet_libraries(); {told}"
    ranks = {} if rank is None else {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | ranks
    )
    assert ("robust-rlhf: a warning" in done.stderr) == warned
    assert "robust-rlhf: an error" in done.stderr
