"""The races of the benchmarks: their references, their contestants and their clock."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dro_core import CVaR, TotalVariation, Wasserstein

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import contestants
import formulas
import judge
import memory
import race
import references

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
    if contestant.name.startswith(("dro", "sqwash")):
        return 0.03
    exact = contestant.kind == "ours" or contestant.name.startswith(("entmax", "torch", "scipy", "deshift"))
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


def test_the_interpolated_quantile_lies_above_the_linear_program():
    """Exactly where the tail is more than one loss, and no whole number of them."""
    rng = np.random.default_rng(0)
    for n, alpha in itertools.product((7, 12, 20, 33), (0.1, 0.25, 0.4)):
        losses = rng.exponential(size=n)
        theirs, _ = formulas.superquantile(CVaR(alpha), n, gradient=False)(torch.tensor(losses))
        above, size = float(theirs) - linear_program(losses, CVaR(alpha)), round(n * alpha, 9)
        assert above > -1e-12
        assert (above > 1e-9) == (size > 1 and size != int(size)), (n, alpha, above)


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
