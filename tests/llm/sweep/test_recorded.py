"""Finished runs as results: what is taken from them, and what is refused."""

import json

import numpy as np
import pytest
from results_samples import pairs_of, run_record

from llm.report import build_content
from llm.results.store import read_results, read_weights
from llm.sweep.recorded import Finished, record_runs

TRAIN = pairs_of(4, ("chat", "code"), prefix="t")
SUITE = pairs_of(40, ("a", "b"), prefix="id")


def finished(folder, ambiguity, kind="reward", *, size=4, margins=None):
    """A run whose last checkpoint has visited three of four pairs."""
    for step, weight in ((2, 9.0), (3, 6.0)):
        (checkpoint := folder / f"checkpoint-{step}").mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text("{}")
        np.savez(
            checkpoint / "ledger.npz", multiplier_sum=np.array([weight, 1.0, 2.0, 0.0, 0.0][:size]),
            visits=np.array([3, 1, 2, 0, 0][:size]), last_loss=np.array([0.2, 0.7, 1.5, np.nan, np.nan][:size]),
        )  # fmt: skip
    scores = np.linspace(-1, 2, 40) if margins is None else margins
    return Finished(folder, run_record(ambiguity, 0) | {"kind": kind}, {"id_test": scores})


def recorded(folder, runs, suites=None, train=TRAIN):
    record_runs(folder / "results", runs, suites or {"id_test": SUITE}, train=train, about={"title": "T"})
    return folder / "results"


@pytest.mark.parametrize("kind", ["reward", "sft"])
def test_weights_are_those_of_the_last_checkpoint_and_losses_count_where_they_tell_a_margin(kind, tmp_path):
    runs = [finished(tmp_path / name, name, kind) for name in ("erm", "tv:0.2")]
    results = recorded(tmp_path, runs)
    weights = read_weights(results, "run1-last")
    assert weights.multiplier[:3].tolist() == [2.0, 1.0, 1.0]
    assert weights.visits.tolist() == [3, 1, 2, 0]
    known = [0.2, 0.7, 1.5, np.nan] if kind == "reward" else [np.nan] * 4
    assert weights.last_loss == pytest.approx(known, nan_ok=True)
    shown = build_content(results)["details"][0]["arms"][1]["weights"]
    assert {row["group"]: row["multiplier"] for row in shown["category"]} == {"chat": 1.5, "code": 1.0}
    assert bool(shown["margin"]) == (kind == "reward")


@pytest.mark.parametrize("case", ["another size", "damaged", "no training pairs"])
def test_an_account_that_does_not_fit_is_left_out(case, tmp_path):
    runs = [finished(tmp_path / name, name, size=5 if case == "another size" else 4) for name in ("erm", "tv:0.2")]
    if case == "damaged":
        (tmp_path / "tv:0.2" / "checkpoint-3" / "ledger.npz").write_bytes(b"PK")
    results = recorded(tmp_path, runs, train=() if case == "no training pairs" else TRAIN)
    assert read_weights(results, "run1-last") is None
    assert "weights" not in build_content(results)["details"][0]["arms"][1]


def test_what_is_recorded_is_whole_and_damage_shows(tmp_path):
    results = recorded(tmp_path, [finished(tmp_path / "erm", "erm")])
    assert read_results(results).findings == ()
    record = results / "full" / "run0" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"steps": 7}))
    assert [finding.kind for finding in read_results(results).findings] == ["damaged files"]


def test_suites_that_are_called_by_their_path_stay_in_the_folder(tmp_path):
    name = str(tmp_path / "elsewhere" / "test.jsonl")
    run = finished(tmp_path / "erm", "erm")
    results = recorded(tmp_path, [run._replace(margins={name: run.margins["id_test"]})], {name: SUITE})
    assert len(list((results / "suites").iterdir())) == 1
    [fact] = build_content(results)["suites"].values()
    assert fact["pairs"] == 40


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones(3), r"got shape \(3,\) for 40 pairs"),
        (np.array([1.0] * 39 + [np.inf]), r"\(pairs id39\)"),
        (np.full(40, np.nan), "no pair of the suite id_test was judged by every run"),
    ],
)
def test_margins_that_do_not_fit_are_refused(scores, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        recorded(tmp_path, [finished(tmp_path / "erm", "erm", margins=scores)])


def test_pairs_that_one_run_did_not_judge_are_left_out_for_all(tmp_path):
    margins = np.linspace(-1, 1, 40)
    gaps = [margins.copy(), margins.copy()]
    gaps[0][3] = gaps[1][7] = gaps[1][3] = np.nan
    specs = zip(("erm", "tv:0.2"), gaps, strict=True)
    runs = [finished(tmp_path / spec[:2], spec, margins=own) for spec, own in specs]
    [fact] = build_content(recorded(tmp_path, runs))["suites"].values()
    assert fact["pairs"] == 38


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run to report"):
        recorded(tmp_path, [])
