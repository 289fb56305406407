"""How the runs were trained: curves, versions, commands, and runs that say nothing of it."""

import csv
import json

import numpy as np
import pytest
from pages import Page
from results_samples import cut, write_sample
from sample_reports import said, text_of

from llm.report import build_content, plots


def test_runs_that_did_not_act_or_were_trained_otherwise_are_named(tmp_path):
    def change(row):
        row["acted"] = None if row["ambiguity"] == "erm" else row["ambiguity"] != "tv:0.1" or row["seed"] == 2
        row["steps"] = 75 if row["ambiguity"] == "cvar:0.3" else 100

    write_sample(tmp_path / "r", change=change)
    notes = build_content(tmp_path / "r", families=0)["notes"]
    said = [note for note in notes if "did not act" in note]
    assert said == ["tv:0.1: the adversary did not act in 2 of 3 runs, whose weights were equal at every step."]
    said = [note for note in notes if "Not trained like" in note]
    assert said == ["Not trained like the plain runs that they are compared with (steps 75 against 100): cvar:0.3."]


def test_whole_models_that_were_trained_otherwise_are_told_apart_by_their_records(tmp_path):
    write_sample(tmp_path / "r", whole=True, seeds=1)
    for number, (name, value) in {1: ("max_length", 32), 2: ("label_smoothing", 0.1)}.items():
        path = tmp_path / "r" / "full" / f"r{number:05d}" / "run.json"
        record = json.loads(path.read_text())
        record["config"][name] = value
        record["settings"] = {name: value}
        path.write_text(json.dumps(record))
    notes = build_content(tmp_path / "r", families=0)["notes"]
    assert [note for note in notes if "Not trained like" in note] == [
        "Not trained like the plain runs that they are compared with (max_length 32 against 64): tv:0.1."
    ]


def test_curves_are_those_of_the_records(report, written):
    runs = {(run["arm"], run["seed"]): run["curves"] for run in report["training"]}
    assert set(runs) == {(arm, seed) for arm in range(4) for seed in range(3)}
    for (arm, seed), curves in runs.items():
        points = np.array(curves["mean_loss"])  # 100 steps in 30 stretches, of four steps first; plain runs log a loss
        assert points.shape == (30, 2)
        assert points[0] == pytest.approx([2.5, (1 + seed) * np.mean(1 / np.arange(1, 5))])
        assert ("zero_share" in curves) == (arm > 0)
        assert curves["eval_accuracy"] == [[50.0, 0.5], [100.0, 0.75]]
    with (written[1] / "training-0-mean_loss.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["arm"], row["seed"]) for row in rows} == {
        (arm, str(seed)) for arm in ("erm", "tv:0.1", "tv:0.2", "cvar:0.3") for seed in range(3)
    }


def test_the_page_says_what_was_run_on_what_with_what(written):
    page = Page()
    page.feed(written[0])
    text = " ".join(" ".join(page.text).split())
    assert {"training", "data", "again"} <= set(page.ids)
    assert "<h1>A demo</h1>" in written[0]
    for words in ("robust-rlhf demo --seeds 3", "empty answer 7", "2.13.0 | 2.13.1 | 2.13.2", "ood_maths.jsonl"):
        assert words in text, words


def test_a_sweep_over_heads_has_no_section_on_training(small, tmp_path):
    page = Page()
    page.feed(text_of(small, tmp_path))
    assert not {"training", "data", "again"} & set(page.ids)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


@pytest.mark.exhaustive(turns=8)
def test_damage_to_what_only_whole_models_have_costs_nothing_else(tmp_path):
    write_sample(tmp_path / "r", whole=True, ambiguities=("erm", "tv:0.2"), seeds=2)
    whole = build_content(tmp_path / "r")
    cut(tmp_path / "r" / "about.json")
    cut(tmp_path / "r" / "full" / "r00001" / "run.json")
    report = build_content(tmp_path / "r")
    assert said(report, "about.json is damaged")
    assert [(run["arm"], run["seed"]) for run in report["training"]] == [(0, 0), (1, 0), (1, 1)]
    assert report["arms"] == whole["arms"]
    assert "<h1>Results of r</h1>" in text_of(report, tmp_path)


def test_runs_that_logged_nothing_have_a_table_alone(tmp_path):
    write_sample(tmp_path / "r", whole=True, ambiguities=("tv:0.2",), seeds=1)
    path = tmp_path / "r" / "full" / "r00000" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"history": [{"step": 1, "loss": float("nan")}]}))
    report = build_content(tmp_path / "r")
    assert report["training"][0]["curves"] == {}
    assert "Nothing was logged during training" in text_of(report, tmp_path)


def test_long_curves_are_averaged_and_gaps_skipped():
    history = [{"step": s, "x": float(s)} for s in range(300)] + [{"step": 300, "x": float("nan")}, {"x": 1.0}]
    points = plots.curve(history, "x")
    assert len(points) == plots.MAX_POINTS
    assert points[0] == (4.5, 4.5)
    assert all(step == value for step, value in points)


def test_arms_differ_in_colour_marker_and_dash():
    look = plots.styles(["tv:0.2", "erm", "a", "b", "c", "d", "e"], "erm")
    for property_ in zip(*look.values(), strict=True):
        assert len(set(property_)) == 7
