"""The results folder: types, and damage that is reported instead of raised."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from llm.data.corpus.corpus import generate
from llm.results.store import (
    COLUMNS,
    PAIR_COLUMNS,
    ResultsError,
    read_margins,
    read_results,
    read_suite,
    read_training_pairs,
    read_weights,
    write_pairs_table,
    write_results,
    write_table,
)
from llm.results.training_records import write_arrays, write_training

RUN = {
    "model": "m", "regime": "all", "batch_size": 32, "learning_rate": 0.1, "train_pairs": 10, "label_noise": 0.0,
    "final": "last", "steps": 5, "seconds": 1.0, "version": "0.1", "revision": "a", "status": "done", "error": "",
    "category": "", "pairs": 3, "clusters": 3, "accuracy": 0.5, "ties": 0, "mean_loss": 0.6, "cvar_loss": 0.7,
    "longer_wins": 0.5, "effective_sample_size": 3.0,
}  # fmt: skip


def rows():
    return [
        {**RUN, "run": f"{ambiguity}-{seed}", "ambiguity": ambiguity, "seed": seed, "suite": suite}
        for ambiguity in ("erm", "tv:0.2")
        for seed in (0, 1)
        for suite in ("id", "ood")
    ]


def kinds(results):
    return [finding.kind for finding in results.findings]


def test_a_sound_table_comes_back_with_its_types_and_nothing_to_say(tmp_path):
    write_results(tmp_path, rows())
    assert pq.read_schema(tmp_path / "results.parquet").types == list(COLUMNS.values())
    results = read_results(tmp_path)
    assert results.findings == ()
    assert list(results.table.columns) == list(COLUMNS)
    assert results.table["accuracy"].tolist() == [0.5] * 8
    assert read_results(tmp_path / "results.parquet").table.equals(results.table)


def test_a_half_written_table_is_restored_from_the_trainings(tmp_path):
    write_results(tmp_path, rows())
    write_training(tmp_path, "erm-0", rows()[:2])
    write_training(tmp_path, "erm-1", rows()[2:4])
    whole = (tmp_path / "results.parquet").read_bytes()
    (tmp_path / "results.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "results.parquet.partial").write_bytes(whole[:10])
    (tmp_path / "runs" / "tv-0.json").write_text('{"common": {"mod')
    results = read_results(tmp_path)
    assert kinds(results) == ["unfinished write", "unreadable table", "damaged files"]
    assert set(results.table["run"]) == {"erm-0", "erm-1"}
    assert results.table["seed"].tolist() == [0, 0, 1, 1]


def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path):
    with pytest.raises(ResultsError, match=r"results\.parquet does not exist, and there are no finished runs"):
        read_results(tmp_path)
    write_table(tmp_path / "results.parquet", [{"id": "x"}], PAIR_COLUMNS)
    with pytest.raises(ResultsError, match="no results table: it lacks the columns run"):
        read_results(tmp_path)


def test_missing_cells_are_reported(tmp_path):
    write_results(
        tmp_path, [row for row in rows() if row["run"] != "tv:0.2-1" and (row["seed"], row["suite"]) != (0, "ood")]
    )
    results = read_results(tmp_path)
    assert kinds(results) == ["missing suites", "missing seeds"]
    assert results.findings[0].runs == ("erm-0", "tv:0.2-0")
    assert "tv:0.2 all 32 last" in results.findings[1].text


def test_a_suite_of_one_regime_is_not_missed_in_another(tmp_path):
    own = [{**row, "run": row["run"] + "b", "regime": "part"} for row in rows()]
    write_results(
        tmp_path, [*rows(), *own, *({**row, "suite": "left-out-part"} for row in own if row["suite"] == "id")]
    )
    assert read_results(tmp_path).findings == ()


def test_duplicates_are_dropped_and_reported(tmp_path):
    later = {**rows()[0], "accuracy": 0.9}
    twin = [{**row, "run": "twin"} for row in rows()[2:4]]
    write_results(tmp_path, [*rows(), later, *twin])
    results = read_results(tmp_path)
    assert kinds(results) == ["duplicate rows", "duplicate runs"]
    assert results.findings[1].runs == ("erm-1",)
    kept = results.table.set_index(["run", "suite"])["accuracy"]
    assert kept.loc[("erm-0", "id")] == 0.9
    assert "twin" in set(results.table["run"])
    assert "erm-1" not in set(results.table["run"])


def test_mixed_versions_and_failures_are_reported(tmp_path):
    mixed = [{**row, "version": "0.2"} if row["seed"] else row for row in rows()]
    failed = {
        "run": "x",
        "ambiguity": "kl:1",
        "seed": 0,
        "status": "failed",
        "error": "boom",
        "suite": "",
        "category": "",
    }
    write_results(tmp_path, [*mixed, failed])
    results = read_results(tmp_path)
    assert kinds(results) == ["mixed versions", "failed runs"]
    assert "0.1 a (2 runs), 0.2 a (2 runs)" in results.findings[0].text
    assert "boom" in results.findings[1].text
    assert len(results.done) == 8


def test_a_missing_column_is_left_empty(tmp_path):
    columns = {name: kind for name, kind in COLUMNS.items() if name != "cvar_loss"}
    write_table(
        tmp_path / "results.parquet", [{k: v for k, v in row.items() if k in columns} for row in rows()], columns
    )
    results = read_results(tmp_path)
    assert kinds(results) == ["missing columns"]
    assert results.table["cvar_loss"].isna().all()


def test_arrays_that_are_damaged_or_missing_are_none(tmp_path):
    write_arrays(tmp_path / "margins" / "r-last.npz", id=np.arange(3, dtype=np.float32))
    assert read_margins(tmp_path, "r-last")["id"].tolist() == [0, 1, 2]
    file = tmp_path / "margins" / "r-last.npz"
    file.write_bytes(file.read_bytes()[:40])
    assert read_margins(tmp_path, "r-last") is None
    assert read_weights(tmp_path, "r-last") is None
    assert read_suite(tmp_path, "id") is None
    assert read_training_pairs(tmp_path) is None


def test_pairs_with_one_prompt_share_a_question_and_texts_are_cut(tmp_path):
    first, second, third = generate(3, seed=0)
    twin = replace(second, prompt=first.prompt, chosen="x" * 5000 + "\ud800")
    named = replace(third, question_id="q7")
    (tmp_path / "suites").mkdir()
    write_pairs_table(tmp_path / "suites" / "s.parquet", [first, twin, named])
    table = read_suite(tmp_path, "s")
    assert table["question_id"][0] == table["question_id"][1] != ""
    assert table["question_id"][2] == "q7"
    assert table["chosen_chars"][1] == 5001
    assert len(table["chosen"][1]) == 600
