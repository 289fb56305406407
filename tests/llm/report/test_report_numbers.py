"""The numbers of the report against direct calculation from the margins, and what it claims of them."""

import numpy as np
import pytest
from results_samples import SUITES, write_sample
from sample_reports import arm_of, correct, questions, suite_pairs

from llm.report import build_content
from llm.results.store import ResultsError
from llm.statistics.intervals import accuracy_interval, holm, independent_mean, paired_difference
from llm.statistics.worst_group import Groups, average_difference


@pytest.mark.parametrize("suite", SUITES)
def test_accuracy_and_difference_are_those_of_the_margins(report, suite):
    right, plain = correct(suite, "tv:0.2"), correct(suite, "erm")
    entry = arm_of(report, "tv:0.2")["suites"][suite]
    expected = accuracy_interval(right.mean(axis=0), questions(suite))
    assert (entry["accuracy"], entry["low"], entry["high"]) == pytest.approx(expected)
    assert list(entry["by_seed"].values()) == pytest.approx(right.mean(axis=1))
    difference = entry["difference"]
    expected = paired_difference(right.mean(axis=0), plain.mean(axis=0), questions(suite))
    assert (difference["difference"], difference["low"], difference["high"]) == pytest.approx(expected)
    assert arm_of(report, "erm")["suites"][suite]["difference"] is None


def test_average_is_over_the_suites_out_of_distribution(report):
    outside = ["ood_maths", "ood_plain"]
    entry = arm_of(report, "cvar:0.3")["average"]
    parts = [accuracy_interval(correct(name, "cvar:0.3").mean(axis=0), questions(name)) for name in outside]
    assert (entry["accuracy"], entry["low"], entry["high"]) == pytest.approx(independent_mean(parts))
    # Questions of two suites are different questions, whatever their numbers.
    labels = [f"{name} {question or n}" for name in outside for n, question in enumerate(questions(name))]
    units = np.unique(labels, return_inverse=True)[1]
    codes = np.repeat([0, 1], [SUITES[name][0] for name in outside])
    a, b = (np.concatenate([correct(n, arm).mean(axis=0) for n in outside]) for arm in ("cvar:0.3", "erm"))
    expected = average_difference(Groups(outside, codes, units), a, b)
    found = entry["difference"]
    assert (found["difference"], found["low"], found["high"]) == pytest.approx(expected.interval)
    assert found["p"] == pytest.approx(expected.p)


def test_worst_group_is_the_lowest_category_that_is_large_enough(report):
    means = {}
    for suite in SUITES:
        right, pairs = correct(suite, "tv:0.1").mean(axis=0), suite_pairs(suite)
        for category in {pair.category for pair in pairs} - {"tiny"}:
            rows = [n for n, pair in enumerate(pairs) if pair.category == category]
            means[f"{suite} / {category}" if category else suite] = right[rows].mean()
    entry = arm_of(report, "tv:0.1")["worst"]
    assert entry["name"] == min(means, key=means.get)
    assert entry["accuracy"] == pytest.approx(min(means.values()))
    assert report["small"] == ["ood_maths / tiny"]
    assert any("fewer than 30 questions" in note and "tiny" in note for note in report["notes"])
    assert any("each one of its own: ood_plain." in note for note in report["notes"])


def test_holm_runs_over_one_kind_of_column(report):
    for kind, count in (("suites", 9), ("average", 3), ("worst", 3)):
        entries = [arm["suites"].values() if kind == "suites" else [arm[kind]] for arm in report["arms"]]
        tests = [entry["difference"] for row in entries for entry in row if entry["difference"]]
        assert report["tests"][kind] == len(tests) == count
        assert [t["p_holm"] for t in tests] == pytest.approx(holm([t["p"] for t in tests]))


def test_families_are_compared_with_their_own_baseline(tmp_path):
    write_sample(tmp_path / "r", models=("a", "b"), regimes=("x", "y"), ambiguities=("tv:0.2", "erm"), seeds=2)
    report = build_content(tmp_path / "r")
    assert [family["label"] for family in report["families"]] == ["a · x", "a · y", "b · x", "b · y"]
    for family in report["families"]:
        plain, robust = (report["arms"][number] for number in family["arms"])
        assert plain["plain"]
        assert robust["against"]["family"] == family["label"]
    assert len(report["details"]) == 3


def test_a_lone_baseline_of_another_batch_size_is_borrowed_and_said(tmp_path):
    def bigger(row):
        row["batch_size"] = 512 if row["ambiguity"] != "erm" else 64

    write_sample(tmp_path / "r", ambiguities=("erm", "tv:0.2"), change=bigger)
    report = build_content(tmp_path / "r", families=0)
    assert arm_of(report, "tv:0.2")["average"]["difference"]["difference"] > 0
    assert any("another batch size or learning rate" in note for note in report["notes"])
    assert any("(effective batch 512 against 64): tv:0.2" in note for note in report["notes"])


def test_findings_name_what_arms_are_compared_with(tmp_path):
    write_sample(tmp_path / "r", ambiguities=("tv:0.2", "tv:0.4"))
    told = [claim["text"] for claim in build_content(tmp_path / "r", families=0, baseline="tv:0.2")["claims"]]
    assert any("over tv:0.2" in text for text in told)
    assert any("worse than tv:0.2 after" in text for text in told)
    assert not any("plain training" in text for text in told)


LARGE = {"id_test": (1400, ("",)), "ood": (1600, ("x", "y"))}


@pytest.mark.parametrize(
    ("cost", "text"),
    [
        (
            0.0,
            "1 of 1 arms raise the accuracy of the worst group over plain training after Holm's correction, 1 of them",
        ),
        (
            0.4,
            "1 of 1 arms raise the accuracy of the worst group over plain training after Holm's correction, 0 of them",
        ),
    ],
)
def test_a_gain_of_the_worst_group_is_found_and_its_price_in_distribution_told(tmp_path, cost, text):
    write_sample(tmp_path / "r", suites=LARGE, ambiguities=("erm", "tv:0.2"), hard=1.0, gain=0.8, cost=cost)
    report = build_content(tmp_path / "r", families=0)
    assert report["claims"][0]["text"].startswith(text)
    [item] = report["claims"][0]["items"]
    assert item.endswith("; loses in distribution") == (cost > 0)
    assert arm_of(report, "erm")["worst"]["name"].startswith("ood / ")
    assert arm_of(report, "tv:0.2")["worst"]["difference"]["low"] > 0
    places = {claim["text"].split(" (")[0]: claim["text"] for claim in report["claims"][1:]}
    assert f"0 better and {int(cost > 0)} worse" in places["id_test"]
    assert "1 better and 0 worse" in places["ood"]


def test_without_a_difference_none_is_claimed(tmp_path):
    write_sample(tmp_path / "r", suites=LARGE, ambiguities=("erm", "tv:0.1", "tv:0.2"), gain=0.0)
    report = build_content(tmp_path / "r", families=0)
    assert report["claims"][0]["text"].startswith("No arm of 2 is shown")
    assert all("0 better and 0 worse" in claim["text"] for claim in report["claims"][1:])


@pytest.mark.exhaustive(turns=8)
def test_a_report_of_some_arms_corrects_within_them(tmp_path):
    write_sample(tmp_path / "r", regimes=("plain", "other"), ambiguities=("erm", "tv:0.2"), seeds=2)
    whole, part = build_content(tmp_path / "r", families=0), build_content(tmp_path / "r", where={"regime": "other"})
    assert {arm["settings"]["regime"] for arm in part["arms"]} == {"other"}
    assert 2 * part["tests"]["average"] == whole["tests"]["average"] > 0
    kept = [arm for arm in whole["arms"] if arm["settings"]["regime"] == "other"]
    assert [arm["average"]["accuracy"] for arm in part["arms"]] == [arm["average"]["accuracy"] for arm in kept]
    for where, said in (({"colour": "red"}, "no setting 'colour'"), ({"regime": "none"}, "No arm has")):
        with pytest.raises(ResultsError, match=said):
            build_content(tmp_path / "r", where=where)
