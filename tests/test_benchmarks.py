"""The benchmark harness: its references, its adapters, its clock and its verdicts."""

from __future__ import annotations

import itertools
import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dro_core import CVaR, TotalVariation, Wasserstein

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import contestants
import failures
import judge
import known_failures
import memory
import page
import race
import references
import session
import solvers
import stage_solver
import targets
import training
import training_page

RACES = {one.name: one for one in contestants.RACES}
TINY = race.Effort(rounds=2, seconds=0.0, limit=5.0)


@pytest.fixture(autouse=True)
def uncollected(monkeypatch):
    """Every race starts with a garbage collection; among all that a test suite has loaded it takes half a second."""
    monkeypatch.setattr(race.gc, "collect", lambda: 0)


# references


def linear_program(losses, ambiguity):
    """max <q, l> over sets that are polyhedra, by HiGHS; for TV the variables are q and what q takes above p."""
    n = len(losses)
    one, none, eye = np.ones((1, n)), np.zeros((1, n)), np.eye(n)
    if isinstance(ambiguity, CVaR):
        return -linprog(-losses, A_eq=one, b_eq=1, bounds=(0, 1 / (n * ambiguity.alpha))).fun
    if isinstance(ambiguity, TotalVariation):
        cap = None if ambiguity.max_ratio is None else ambiguity.max_ratio / n
        above = np.hstack([eye, -eye])
        bounds = [(0, cap)] * n + [(0, None)] * n
        inside = {"A_ub": np.vstack([above, np.hstack([none, one])]), "b_ub": [*[1 / n] * n, ambiguity.radius]}
        sums = {"A_eq": np.hstack([one, none]), "b_eq": 1}
        return -linprog(np.concatenate([-losses, np.zeros(n)]), **inside, **sums, bounds=bounds).fun
    assert isinstance(ambiguity, Wasserstein)
    leaving = np.kron(eye, one)
    cost = {"A_ub": ambiguity.cost.reshape(1, -1), "b_ub": ambiguity.radius}
    return -linprog(-np.tile(losses, n), **cost, A_eq=leaving, b_eq=np.full(n, 1 / n)).fun


@pytest.mark.parametrize("name", ["tv", "tv_capped", "cvar", "wasserstein"])
@pytest.mark.parametrize("losses", [race.draw_losses(1, 32, "float64")[0], np.arange(32) // 5 - 3.0], ids=["", "ties"])
def test_references_agree_with_linear_programs(name, losses):
    ambiguity = RACES[name].ambiguity(32)
    assert float(RACES[name].truth(losses, ambiguity)) == pytest.approx(linear_program(losses, ambiguity), abs=1e-9)


# adapters


def only(contestant, cell, dtype):
    """One contestant alone, with its answer, and the error of that."""
    losses = race.draw_losses(cell.batch, cell.n, dtype)
    runner = race.lane(contestant, cell, losses)
    runner.answer = runner.call()
    return runner, judge.Judge(cell).error(runner, losses)


def accuracy(contestant, dtype):
    """What a contestant can do on 64 losses, from its tolerances and its rounding of atoms."""
    if contestant.name.startswith("dro"):
        return 0.03
    exact = contestant.kind == "ours" or contestant.name.startswith(("entmax", "torch", "scipy"))
    if exact:
        return 1e-12 if dtype == "float64" else 2e-6
    return 1e-3 if contestant.name == "cvxpylayers" else 1e-6


EVERYBODY = [*contestants.PEERS, *((name, one) for name in RACES for one in contestants.OURS)]


@pytest.mark.parametrize(("name", "contestant"), EVERYBODY, ids=[f"{name}-{one.name}" for name, one in EVERYBODY])
@pytest.mark.filterwarnings("ignore")
def test_every_contestant_solves_a_small_problem(name, contestant):
    if contestant.missing():
        pytest.skip(f"{contestant.package} is not installed")
    for dtype in contestant.dtypes:
        for gradient in (False, True) if contestant.library == "torch" else (False,):
            _, error = only(contestant, race.Cell(RACES[name], 1, 64, gradient), dtype)
            assert error <= accuracy(contestant, dtype)


def answering(answer):
    return contestants.Contestant("peer", "numpy", "numpy", lambda ambiguity, n, gradient: answer)


def test_a_wrong_answer_shows_as_its_error():
    cell = race.Cell(RACES["tv"], 1, 64)
    losses = race.draw_losses(1, 64, "float64")[0]
    truth = float(references.total_variation(losses, TotalVariation(0.1)))
    uniform = np.full(64, 1 / 64)
    off = pytest.approx(1 - losses.mean() / truth)
    assert only(answering(lambda x: (truth, None)), cell, "float64")[1] < 1e-15
    assert only(answering(lambda x: (losses.mean(), None)), cell, "float64")[1] == off
    assert only(answering(lambda x: (truth, uniform)), cell, "float64")[1] == off  # right value, wrong weights
    assert math.isnan(only(answering(lambda x: (truth, uniform * math.nan)), cell, "float64")[1])


# the clock


def scripted(name, log, fails_at=None):
    """A contestant that writes down when it is called and may raise at one call."""

    call = itertools.count(1)

    def make(ambiguity, n, *, gradient):
        def solve(losses):
            log.append(name)
            if next(call) == fails_at:
                raise RuntimeError("stopped\nhere")
            return 0.0, None

        return solve

    return contestants.Contestant(name, "numpy", "numpy", make, batched=False)


def test_contestants_take_turns():
    log = []
    cell = race.Cell(RACES["tv"], 1, 64)
    runners = [race.lane(scripted(name, log), cell, race.draw_losses(1, 64, "float64")) for name in "ab"]
    race.take_turns(runners, "cpu", race.Effort(rounds=3, seconds=1.0))
    turns = [name for name, before in zip(log[1:], log, strict=False) if name != before]
    assert turns == ["b", "a", "b", "a", "b", "a", "b"]  # after the warm-up of a: three rounds
    assert [len(runner.samples) for runner in runners] == [3, 3]
    assert all(runner.repeats > 10 for runner in runners)  # a sample lasts a millisecond


@pytest.mark.parametrize("fails_at", [1, 3, 20])
def test_a_contestant_that_raises_is_out_and_the_race_goes_on(fails_at):
    log = []
    losses = race.draw_losses(1, 64, "float64")
    cell = race.Cell(RACES["tv"], 1, 64)
    runners = [race.lane(one, cell, losses) for one in (scripted("a", log, fails_at), scripted("b", log))]
    race.take_turns(runners, "cpu", race.Effort(rounds=15, seconds=1.0))
    assert runners[0].failure == "RuntimeError: stopped"
    assert len(runners[1].samples) == 15


def test_a_loop_solves_some_problems_and_its_time_is_scaled(monkeypatch):
    log = []
    looped = scripted("peer", log)
    monkeypatch.setattr(judge, "entries", lambda race, batch: [looped])
    cell = race.Cell(RACES["tv"], 640, 8)
    (first, _) = judge.run_cell(cell, TINY, judge.Pace())
    runner = race.lane(looped, cell, race.draw_losses(640, 8, "float64"))
    race.take_turns([runner], "cpu", TINY)
    assert len(runner.answer) == 64
    assert first["seconds"] > 5 * min(runner.samples)


def test_cells_that_would_take_too_long_are_told(monkeypatch):
    one, pace = contestants.CLARABEL, judge.Pace()
    runner = race.Lane(one, "float64", lambda: None, first=0.5, samples=[0.4])
    pace.note(runner, race.Cell(RACES["tv"], 1, 512))
    assert pace.too_slow(one, race.Cell(RACES["tv"], 1, 4096), "float64", 5.0) is None
    assert "0.4 s at 512 losses" in pace.too_slow(one, race.Cell(RACES["tv"], 1, 65536), "float64", 5.0)
    assert pace.too_slow(one, race.Cell(RACES["tv"], 1, 64), "float64", 0.01) is None
    stopped = race.Lane(one, "float64", lambda: None, first=5.0, failure="HIGHS ended with status user_limit")
    pace.note(stopped, race.Cell(RACES["tv"], 1, 4096))
    assert pace.too_slow(one, race.Cell(RACES["tv"], 1, 4096), "float64", 5.0)
    assert pace.too_slow(one, race.Cell(RACES["tv"], 1, 512), "float64", 5.0) is None


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_memory_counts_what_is_held_at_once(monkeypatch, library):
    def make(ambiguity, n, *, gradient):
        def solve(losses):
            first = losses + 1
            second = first + 1  # two at once, then again two
            del first
            return second + 1, None

        return solve

    monkeypatch.setattr(memory, "OURS", [contestants.Contestant("ours", "numpy", library, make)])
    (record,) = memory.measure(race.Cell(RACES["tv"], 1, 65536))
    assert record["times_input"] == pytest.approx(2, abs=0.1)


# verdicts


def record(who, seconds, error=0.0, **place):
    kind = "ours" if who == "ours" else "peer"
    told = {"set": "tv", "batch": 1, "n": 512, "mode": "forward", "device": "cpu", "library": "numpy"}
    return told | {"dtype": "float64", "who": who, "kind": kind, "seconds": seconds, "error": error} | place


def test_ours_meets_the_fastest_peer_that_solves_the_problem():
    wrong, blind = record("wrong", 0.01, 0.5), record("blind", 0.01, "nan")
    elsewhere = record("elsewhere", 0.01, library="torch")
    cells = [record("ours", 2.0), record("slow", 8.0), record("fast", 4.0), wrong, blind, elsewhere]
    (duel,) = targets.duels(cells)
    assert (duel.peer["who"], duel.ratio) == ("fast", 0.5)
    assert targets.against_peers(cells, "tv", small=False).met
    assert targets.against_peers(cells, "tv", small=True).met is None
    worse = [*cells, record("ours", 3.0, n=4096), record("fast", 2.0, n=4096)]
    finding = targets.against_peers(worse, "tv", small=False)
    assert (finding.met, finding.factor) == (False, pytest.approx(2 / 3))
    assert "4,096" in finding.where


def test_accuracy_counts_for_the_dtype():
    found = {"cells": [record("ours", 1.0, 1e-8, dtype="float32"), record("ours", 1.0, 1e-8)]}
    double, single, *rest = targets.general(found)
    assert (double.met, single.met) == (False, True)
    assert all(finding.met is None for finding in rest)


def test_gpu_targets_are_read_off_its_records():
    place = {"library": "torch", "dtype": "float32", "device": "cuda"}
    sort = record("floor: torch.sort", 1.0, n=2**20, **place) | {"kind": "floor", "set": ""}
    cells = [record("ours", 2.0, n=2**20, **place), sort, record("ours", 3e-4, n=1024, **place)]
    waits = [{"set": "tv", "n": 1024, "mode": "forward", "synchronisations": 1}]
    on_gpu = {"stages": {"solver": {"records": cells + waits}}}
    ratio, call, waiting = targets.general({"cells": cells, "on_gpu": on_gpu})[-3:]
    assert (ratio.found, ratio.met) == (2.0, True)
    assert (call.found, call.met) == (pytest.approx(300), False)
    assert (waiting.found, waiting.met) == (1, False)


def test_synchronisations_are_counted(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def waits_twice():
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert stage_solver.synchronisations(waits_twice, "cuda") == 2
    assert modes == ["warn", "default"]


def test_a_failure_row_judges_both_sides():
    def raises():
        raise ValueError("no")

    rows = [
        failures.Failure("peer", None, "wrong", lambda: 1.1, lambda: 1.0, 1.0),
        failures.Failure("peer", None, "raises", raises, lambda: math.nan, 1.0),
        failures.Failure("peer", None, "right", lambda: 1.001, lambda: 1.0, 1.0),
        failures.Failure("peer", "no_such_package", "away", raises, raises, 1.0),
    ]
    wrong, error, right, away = failures.reproduce(rows)
    assert (wrong["reproduced"], wrong["ours_right"]) == (True, True)
    assert (error["theirs"], error["ours"], error["reproduced"], error["ours_right"]) == (
        "ValueError: no",
        "nan",
        True,
        False,
    )
    assert not right["reproduced"]
    assert away["skipped"] == "not installed"


def test_known_failures_are_reproduced_and_are_not_ours():
    for row in failures.reproduce(known_failures.rows()):
        if "skipped" not in row:
            assert row["reproduced"], row
            assert row["ours_right"], row


# the whole


def test_a_run_writes_json_and_page(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
    monkeypatch.setattr(race, "QUICK", TINY)
    monkeypatch.setattr(session, "BATCHES", ((8, 64), (2, 64)))
    monkeypatch.setattr(known_failures, "rows", list)
    solvers.main(["--quick", "--sets", "grouped", "--json", str(tmp_path / "bench.json")])
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"schema", "cpu", "cores", "threads", "versions", "revision", "cells", "memory"} <= set(found)
    shapes = {(one["batch"], one["n"], one["mode"]) for one in found["cells"]}
    assert shapes == {(batch, n, mode) for batch, n in ((1, 64), (1, 512), (8, 64)) for mode in ("forward", "backward")}
    for one in found["cells"]:
        assert "skipped" in one or "failed" in one or one["quartiles"][0] <= one["seconds"] <= one["quartiles"][1]
        if one["kind"] == "ours":
            assert one["error"] <= targets.EXACT[one["dtype"]]
    solvers.main(["--page", "--json", str(tmp_path / "bench.json"), "--docs", str(tmp_path)])
    text = (tmp_path / "benchmarks.md").read_text()
    assert "### Grouped" in text
    assert "smoke test, no evidence" in text
    assert (tmp_path / "benchmarks-time.png").stat().st_size > 10_000


def test_times_are_written_with_three_digits():
    texts = [page.seconds_text(seconds) for seconds in (1.23e-7, 9.996e-4, 0.0123, 4.0, 123.4)]
    assert texts == ["0.123 µs", "1000 µs", "12.3 ms", "4.00 s", "123 s"]


def test_unknown_sets_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="unknown sets: tw; the known ones are: tv"):
        session.run(tmp_path / "bench.json", quick=True, sets=["tw"])


# the cost of training


def test_page_of_the_training_cost_is_that_of_its_results():
    found = json.loads(training.RESULTS.read_text())
    text = training.PAGE.read_text()
    assert training_page.filled(text, found) == text
    with pytest.raises(ValueError, match="put both markers back"):
        training_page.filled(text.replace("<!-- end: errors -->", ""), found)
