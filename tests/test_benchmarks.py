"""The benchmark harness: its verdicts, the failures it knows, and its pages."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import collapse
import contestants
import failures
import figures
import held
import known_failures
import lengths
import page
import race
import session
import solvers
import stage_solver
import targets
import throughput
import throughput_page
import training
import training_contestants
import training_page
from transformers import TrainerCallback

from llm.models.loading import tiny_reward_model

TINY = race.Effort(rounds=2, seconds=0.0, limit=5.0)


@pytest.fixture(autouse=True)
def uncollected(monkeypatch):
    """Every race starts with a garbage collection; among all that a test suite has loaded it takes half a second."""
    monkeypatch.setattr(race.gc, "collect", lambda: 0)


def record(who, seconds, error=0.0, **place):
    kind = "ours" if who == "ours" else "peer"
    told = {"set": "tv", "batch": 1, "n": 512, "mode": "forward", "device": "cpu", "library": "numpy"}
    return told | {"dtype": "float64", "who": who, "kind": kind, "seconds": seconds, "error": error} | place


def test_every_contestant_has_a_line_in_the_plots():
    who = {one.name for _, one in contestants.PEERS} | {one.name for one in contestants.OURS}
    assert len(who) > 10
    for name in who:
        assert figures._colour(name).startswith("#")


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
    found = [row for row in failures.reproduce(known_failures.rows()) if "skipped" not in row]
    if not found:
        pytest.skip("no package that is known to fail is installed")
    for row in found:
        assert row["reproduced"], row
        assert row["ours_right"], row


# lengths


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for part in tiny_reward_model(["red green dog cat house"], max_length=512):
        part.save_pretrained(folder)
    return folder


def test_what_sequences_cost_is_counted_for_any_pairs(small_model, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ROBUST_RLHF_CACHE", str(tmp_path))
    lengths.main(["padding", "--pairs", "80", "--model", str(small_model), "--max-length", "512"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    counted = {row[0].strip("| "): [float(x.strip(" |%")) for x in row[1:4]] for row in rows if row[1][0].isdigit()}
    assert list(counted) == ["4 x 4", "4 x 16", "8 x 8", "16 x 4", "8", "32"]
    for plain, sparing, spared in counted.values():
        assert 1 <= sparing < plain
        assert spared == pytest.approx(100 * (1 - sparing / plain), abs=0.2)


def test_tokens_that_are_kept_are_timed_beside_tokenising(small_model, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ROBUST_RLHF_CACHE", str(tmp_path))
    lengths.main(["tokens", "--pairs", "30", "--model", str(small_model), "--max-length", "512", "--rounds", "1"])
    said = capsys.readouterr().out
    assert said.startswith("30 pairs, ")
    assert "tokenised " in said
    assert "read back " in said


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


def test_part_of_the_throughput_is_that_of_its_results(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(throughput.PAGE.read_text())
    throughput_page.write(throughput.RESULTS, page)
    assert page.read_text() == throughput.PAGE.read_text()


def test_ratios_are_taken_within_a_round():
    """A machine that is twice as slow in the second round changes none."""
    base = [{"round": number, "cpu": seconds} for number, seconds in enumerate((1.0, 2.0))]
    mine = [{"round": number, "cpu": 1.5 * row["cpu"]} for number, row in enumerate(base)]
    assert throughput_page._ratios(mine, base, "cpu") == [1.5, 1.5]


def test_every_contestant_begins_a_round():
    orders = [throughput.turned(["a", "b", "c"], number) for number in range(3)]
    assert {order[0] for order in orders} == {"a", "b", "c"}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


class Gradient(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.found = torch.cat([part.grad.flatten() for part in model.parameters() if part.grad is not None])


@pytest.mark.exhaustive(turns=8)
@pytest.mark.parametrize(
    "case", [case for case in held.CASES if case.mode == "full" and case.answers == "mixed"], ids=str
)
def test_held_graphs_are_raced_at_the_gradient_of_the_ways_that_are_left(case, tmp_path):
    """And weights per micro-batch are not, by far: the comparison would see a wrong weight."""

    def gradient(way):
        trainer, kept = held.trainer(case, way, tmp_path), Gradient()
        trainer.add_callback(kept)
        trainer.train()
        return kept.found

    single, *others = map(gradient, held.WAYS)
    assert all((other - single).norm() <= 1e-5 * single.norm() for other in others)
    wrong = training_contestants.Way("wrong", trainer="per micro-batch")
    assert (gradient(wrong) - single).norm() > 0.05 * single.norm()


def test_a_row_of_held_graphs_is_each_way_against_the_single_pass(monkeypatch):
    found = [([2.0, 4.0, 1.0], 100), ([1.0, 4.0, 2.0], 97), ([4.0, 4.0, 1.0], 80), ([2.0, 6.0, 3.0], 30)]
    monkeypatch.setattr(held, "measured", lambda case, rounds: found)
    line = held.row(held.Case("Llama", "dpo", "checkpointing", "mixed"), 3)
    cells = ["1.00 (0.50 to 2.00)", "0.97", "1.00 (1.00 to 2.00)", "0.80", "1.50 (1.00 to 3.00)", "0.30"]
    assert line == "| " + " | ".join(["Llama, dpo, checkpointing", "mixed", *cells]) + " |"


def test_collapse_radii_are_timed_for_every_set(capsys):
    collapse.main(["--pairs", "120", "--features", "3", "--batch", "8"])
    *lines, where = capsys.readouterr().out.splitlines()
    kinds = [line.split("in all: ")[1].split(":")[0] for line in lines]
    assert kinds[: len(collapse.SETS)] == list(collapse.SETS)
    assert where.startswith("120 pairs, 3 features, ")
