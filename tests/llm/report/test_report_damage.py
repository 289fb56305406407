"""Results that lack something, are damaged, stand twice or were asked for wrongly: said plainly, and the rest stays."""

import csv

import numpy as np
import pytest
from pages import Page
from results_samples import SUITES, cut, write_sample
from sample_reports import arm_of, correct, said, text_of

import robust_rlhf
from llm.report import build_content
from llm.results.store import ResultsError, write_results
from llm.results.training_records import write_training


def test_a_single_seed_has_no_spread_and_says_so(tmp_path):
    write_sample(tmp_path / "r", seeds=1, ambiguities=("erm", "tv:0.2"))
    report = build_content(tmp_path / "r")
    assert said(report, "A single seed was trained for erm, tv:0.2", "none is invented")
    text = text_of(report, tmp_path)
    assert "one seed" in text
    assert "seeds ±" not in text.replace("“seeds ±”", "")
    assert report["details"][0]["arms"][0]["bounds"]["method"] == "Clopper-Pearson"
    with (tmp_path / "report_files" / "arms.csv").open() as stream:
        assert {row["seed_deviation"] for row in csv.DictReader(stream)} == {""}


def test_missing_cells_and_failed_runs_are_counted(tmp_path):
    def without(row):
        if row["ambiguity"] == "tv:0.1" and row["seed"] == 2:
            return False
        if row["ambiguity"] == "cvar:0.3" and row["seed"] == 1:
            row.update(status="failed", error="loss is nan", suite="", category="")
        return row["ambiguity"] != "tv:0.2" or row["suite"] != "ood_plain"

    write_sample(tmp_path / "r", change=without)
    for run in ("r00006", "r00007", "r00008"):
        (tmp_path / "r" / "margins" / f"{run}-last.npz").unlink()
    report = build_content(tmp_path / "r")
    assert said(report, "runs failed", "loss is nan")
    assert said(report, "fewer than 3 seeds")
    assert said(report, "not judged on all suites", "ood_plain")
    assert said(report, "1 of 12 cells of arm and suite were never measured")
    assert said(report, "Margins or weights of 3 runs", "r00006-last (missing or damaged)")
    lost = arm_of(report, "tv:0.2")
    assert lost["suites"]["ood_plain"] is lost["average"] is lost["worst"] is None
    assert lost["suites"]["id_test"]["low"] is None  # the table knows the accuracy, but not which pairs
    assert lost["suites"]["id_test"]["accuracy"] == pytest.approx(correct("id_test", "tv:0.2").mean())
    assert len(arm_of(report, "cvar:0.3")["seeds"]) == 2
    text = text_of(report, tmp_path)
    assert "missing</span>" in text
    assert "no interval" in text


def test_differences_use_the_seeds_that_both_arms_have(tmp_path):
    write_sample(tmp_path / "r", change=lambda row: row["ambiguity"] != "tv:0.1" or row["seed"] != 0)
    entry = arm_of(build_content(tmp_path / "r", families=0), "tv:0.1")
    expected = (correct("ood_maths", "tv:0.1", (1, 2)) * 1.0 - correct("ood_maths", "erm", (1, 2))).mean()
    assert entry["suites"]["ood_maths"]["difference"]["difference"] == pytest.approx(expected)
    means = [
        (correct(n, "tv:0.1", (1, 2)) * 1.0 - correct(n, "erm", (1, 2))).mean() for n in ("ood_maths", "ood_plain")
    ]
    assert entry["average"]["difference"]["difference"] == pytest.approx(np.mean(means))


def test_a_suite_that_only_one_regime_has_costs_the_other_nothing(tmp_path):
    suites = {**SUITES, "left-out-code": (80, ("",)), "validation": (60, ("",))}
    write_sample(
        tmp_path / "r", suites=suites, regimes=("all", "no code"), ambiguities=("erm", "tv:0.2"),
        change=lambda row: row["suite"] != "left-out-code" or row["regime"] == "no code",
    )  # fmt: skip
    report = build_content(tmp_path / "r", families=0)
    both, lacking = (arm_of(report, "tv:0.2", regime=regime)["average"] for regime in ("no code", "all"))
    means = {name: correct(name, "tv:0.2").mean() for name in ("ood_maths", "ood_plain")}
    assert lacking["suites"] == 2
    assert lacking["accuracy"] == pytest.approx(np.mean(list(means.values())))
    assert both["suites"] == 3
    assert lacking["difference"]["low"] < both["difference"]["difference"]
    assert report["suites"]["validation"]["role"] == "validation"
    assert said(report, "counts in no average and no worst group: validation")
    assert "2 of 3 suites" in text_of(report, tmp_path)
    alone = build_content(tmp_path / "r", families=0, where={"regime": "all"})
    assert "left-out-code" not in alone["suites"]
    assert alone["outside"] == ["ood_maths", "ood_plain"]


def test_mixed_versions_are_flagged_at_the_arms(tmp_path):
    def newer(row):
        row["revision"] = "def" if row["ambiguity"] == "tv:0.2" and row["seed"] == 1 else "abc"

    write_sample(tmp_path / "r", change=newer)
    report = build_content(tmp_path / "r", families=0)
    assert said(report, "2 versions of the code", "0.1.0 def (1 runs)")
    assert said(report, "Seeds of one arm were made by different versions", "tv:0.2")
    assert "code 0.1.0 abc, 0.1.0 def" in text_of(report, tmp_path)


@pytest.mark.exhaustive(turns=8)
def test_duplicates_count_once(clean, tmp_path):
    rows = write_sample(tmp_path / "r")
    again = [row for row in rows if row["run"] == "r00003-last"]
    write_results(tmp_path / "r", [*again, *rows, *({**row, "run": "zzz-last"} for row in again)])
    margins = tmp_path / "r" / "margins"
    (margins / "zzz-last.npz").write_bytes((margins / "r00003-last.npz").read_bytes())
    twice = build_content(tmp_path / "r", families=0)
    assert said(twice, "stand there twice")
    assert said(twice, "runs have the settings of a later one")
    assert twice["runs"] == clean["runs"]
    assert arm_of(twice, "tv:0.1")["average"] == arm_of(clean, "tv:0.1")["average"]


def test_a_half_written_table_is_one_sentence(tmp_path, capsys):
    write_sample(tmp_path / "r")
    cut(tmp_path / "r" / "results.parquet")
    assert robust_rlhf.main(["report", str(tmp_path / "r"), "-o", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert "half-written" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


@pytest.mark.exhaustive(turns=8)
def test_a_half_written_table_is_restored_from_the_runs(clean, tmp_path):
    rows = write_sample(tmp_path / "r")
    for run in {row["run"] for row in rows}:
        write_training(tmp_path / "r", run.removesuffix("-last"), [row for row in rows if row["run"] == run])
    cut(tmp_path / "r" / "results.parquet")
    after = build_content(tmp_path / "r", families=0)
    assert after["arms"] == clean["arms"]
    assert said(after, "results.parquet cannot be read (half-written?)")


@pytest.mark.exhaustive(turns=8)
def test_damaged_pairs_leave_the_table_without_intervals(tmp_path):
    write_sample(tmp_path / "r")
    for path in ("suites/ood_plain.parquet", "train.parquet"):
        cut(tmp_path / "r" / path)
    report = build_content(tmp_path / "r")
    assert said(report, "The pairs of ood_plain are missing or damaged")
    entry = arm_of(report, "tv:0.2")
    assert entry["suites"]["ood_plain"]["accuracy"] == pytest.approx(correct("ood_plain", "tv:0.2").mean())
    assert entry["suites"]["ood_plain"]["low"] is None
    assert entry["average"]["low"] is None
    assert entry["average"]["accuracy"] is not None
    assert said(report, "train.parquet", "nothing is said of who got the weight")
    assert 'id="weight"' not in text_of(report, tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves a damaged file open
def test_damaged_margins_leave_the_other_seeds(tmp_path):
    write_sample(tmp_path / "r")
    cut(tmp_path / "r" / "margins" / "r00006-last.npz")
    np.savez(tmp_path / "r" / "margins" / "r00007-last.npz", id_test=np.ones(5), ood_maths=np.full(200, np.nan))
    report = build_content(tmp_path / "r")
    assert said(report, "r00006-last (missing or damaged)", "r00007-last (no finite numbers")
    for suite in ("id_test", "ood_maths"):
        entry = arm_of(report, "tv:0.2")["suites"][suite]
        assert entry["accuracy"] == pytest.approx(correct(suite, "tv:0.2", [2]).mean())


def test_margins_of_another_model_are_noticed(tmp_path):
    write_sample(tmp_path / "r")
    path = tmp_path / "r" / "margins"
    (path / "r00006-last.npz").write_bytes((path / "r00000-last.npz").read_bytes())
    assert said(build_content(tmp_path / "r", families=0), "1 runs give another accuracy than the table: r00006-last")


def test_without_plain_training_or_a_known_suite_there_is_no_comparison(tmp_path):
    suites = {"first": (60, ("a", "b")), "second": (60, ("",))}
    write_sample(tmp_path / "r", ambiguities=("tv:0.1", "tv:0.2"), suites=suites)
    report = build_content(tmp_path / "r")
    assert "No arm can be compared" in report["claims"][0]["text"]
    assert said(report, "No suite is known to be in distribution", "--inside")
    assert said(report, "No plain training (erm) with the same settings")
    assert report["details"] == []
    assert "Nothing can be compared" in text_of(report, tmp_path)
    assert build_content(tmp_path / "r", inside=["second"])["inside"] == ["second"]


@pytest.mark.exhaustive(turns=8)
def test_without_plain_training_another_set_may_stand_for_it(tmp_path):
    write_sample(tmp_path / "r", ambiguities=("tv:0.1", "tv:0.2"), whole=True)
    report = build_content(tmp_path / "r", baseline="tv:0.2")
    assert [arm["ambiguity"] for arm in report["arms"]] == ["tv:0.2", "tv:0.1"]
    difference = report["arms"][1]["suites"]["ood_maths"]["difference"]
    expected = correct("ood_maths", "tv:0.1").mean() - correct("ood_maths", "tv:0.2").mean()
    assert difference["difference"] == pytest.approx(expected)
    assert said(report, "Compared with tv:0.2, which stands for plain training (erm)")
    text = text_of(report, tmp_path)
    assert "minus tv:0.2" in text
    assert "minus erm" not in text
    with pytest.raises(ResultsError, match=r"No arm was trained with 'tv:0.3'"):
        build_content(tmp_path / "r", baseline="tv:0.3")


def test_a_lone_arm_is_described_for_its_own_sake(tmp_path):
    write_sample(tmp_path / "r", ambiguities=("tv:0.1",), whole=True)
    report = build_content(tmp_path / "r", baseline="tv:0.1")
    [detail] = report["details"]
    assert detail["suites"]["ood_maths"][0]["worst_category"]
    assert "No arm can be compared" in report["claims"][0]["text"]
    page = Page()
    page.feed(text_of(report, tmp_path))
    assert len(page.svgs) > 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inside": ["nowhere"]}, "There is no suite 'nowhere'.*id_test, ood_maths, ood_plain"),
        ({"smallest": 1}, "smallest must be at least 2"),
        ({"families": -1}, "families at least 0"),
    ],
)
def test_wrong_arguments_are_explained(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        build_content(folder, **fields)


def test_only_failed_runs_are_no_results(tmp_path):
    write_sample(tmp_path / "r", change=lambda row: row.update(status="failed", suite="", category=""))
    with pytest.raises(ValueError, match="holds no finished run"):
        build_content(tmp_path / "r")
