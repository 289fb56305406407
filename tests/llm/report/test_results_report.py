"""The report of a sweep: numbers against direct calculation, damage said plainly, and the page itself."""

import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from pages import Page, opened
from results_samples import SUITES, margins_of, pairs_of, write_sample
from scipy.special import expit
from scipy.stats import binomtest, chi2, spearmanr
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

import robust_rlhf
from llm.report import build_content, plots, write_report
from llm.report import page as report_page
from llm.report.curves import calibration_error, reliability, shift_bounds, tail_losses
from llm.report.radii import kind_of, sized
from llm.results.store import ResultsError, read_training_pairs, read_weights, write_about, write_results
from llm.results.training_records import write_training
from llm.statistics.intervals import accuracy_interval, holm, independent_mean, paired_difference
from llm.statistics.shift_bounds import error_limit
from llm.statistics.worst_group import Groups, average_difference

EVIL = "<script src='https://evil.example/x.js'></script> & $x_1$ 50 %"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "noisy"
    write_sample(folder, label_noise=(0.2,), whole=True)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return build_content(folder)


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    page, files = write_report(report, tmp_path_factory.mktemp("page") / "report.html")
    return page.read_text(encoding="utf-8"), files


@pytest.fixture(scope="module")
def clean():
    """The report of an undamaged folder, without details: what the same folder is compared with once it is damaged."""
    with TemporaryDirectory() as place:
        write_sample(Path(place))
        return build_content(place, families=0)


@pytest.fixture(scope="module")
def small():
    """A report of two arms with few figures, for what does not depend on how much there is to draw."""
    with TemporaryDirectory() as place:
        write_sample(Path(place), suites={"id_test": (60, ("",))}, ambiguities=("erm", "tv:0.2"), seeds=1, train=50)
        return build_content(place, families=0)


def arm_of(report, ambiguity, **settings):
    [found] = [
        arm for arm in report["arms"] if arm["ambiguity"] == ambiguity and settings.items() <= arm["settings"].items()
    ]
    return found


def correct(suite, ambiguity, seeds=range(3)):
    pairs = suite_pairs(suite)
    return np.array([margins_of(pairs, ambiguity, seed) > 0 for seed in seeds])


def suite_pairs(suite):
    return pairs_of(*SUITES[suite], prefix=suite, questions=60 if suite == "ood_maths" else None)


def questions(suite):
    return [pair.question_id for pair in suite_pairs(suite)]


# The numbers


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
    assert any("Suites without categories, each one group of its own: ood_plain." in note for note in report["notes"])


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


# Beyond the average


def mcnemar(a, b):
    """Exact below 25 discordant pairs, else chi-square with continuity correction."""
    return binomtest(a, a + b).pvalue if a + b < 25 else chi2.sf((abs(a - b) - 1) ** 2 / (a + b), 1)


def test_what_stands_beyond_the_average_is_that_of_the_margins(folder, report):
    names = [entry["ambiguity"] for entry in report["details"][0]["arms"]]
    pairs, records = suite_pairs("ood_maths"), report["details"][0]["suites"]["ood_maths"]
    lengths = [len(pair.chosen) - len(pair.rejected) for pair in pairs]
    longer = [0.5 if length == 0 else float(length > 0) for length in lengths]
    for name, record in zip(names, records, strict=True):
        margins = {seed: margins_of(pairs, name, seed).astype(float) for seed in range(3)}
        plain = {seed: margins_of(pairs, "erm", seed) > 0 for seed in range(3)}
        only = {seed: (int(np.sum((m > 0) & ~plain[seed])), int(np.sum((m <= 0) & plain[seed])))
                for seed, m in margins.items()}  # fmt: skip
        expected = {str(seed): mcnemar(*counts) for seed, counts in only.items() if name != "erm"}
        assert record["mcnemar"] == pytest.approx(expected)
        assert record["length_correlation"] == pytest.approx(
            np.mean([spearmanr(m, lengths)[0] for m in margins.values()])
        )
        assert record["mean_loss"] == pytest.approx(np.mean([np.logaddexp(0, -m).mean() for m in margins.values()]))
        right = np.mean([m > 0 for m in margins.values()], axis=0)
        assert record["longer"]["difference"] == pytest.approx(np.mean(right - longer))
        accuracies = {
            name: np.mean(right[[n for n, pair in enumerate(pairs) if pair.category == name]])
            for name in ("algebra", "counting", "tiny")
        }
        assert record["category_average"] == pytest.approx(np.mean(list(accuracies.values())))
        assert record["worst_category"]["name"] == min(accuracies, key=accuracies.get)
    assert all(record["category_average"] is None for record in report["details"][0]["suites"]["ood_plain"])


def test_holm_runs_over_all_categories_of_all_suites(report):
    tables = report["details"][0]["categories"]
    found = [entry["difference"] for table in tables["suites"].values() for record in table.values()
             for entry in record["arms"] if entry["difference"]]  # fmt: skip
    assert tables["tests"] == len(found) == 3 * 5
    assert [record["p_holm"] for record in found] == pytest.approx(holm([record["p"] for record in found]))


def test_the_rule_of_the_longer_answer_is_held_against_every_arm(tmp_path):
    suites = {"id_test": (600, ("",)), "ood": (600, ("",))}
    write_sample(tmp_path / "r", suites=suites, ambiguities=("erm", "tv:0.2"), hard=3.0, gain=0.0)
    [claim] = [claim for claim in build_content(tmp_path / "r")["claims"] if "the longer answer wins" in claim["text"]]
    assert "is beaten in 2 of 4 cells" in claim["text"]
    assert claim["items"] == ["erm: better on id_test; worse on ood", "tv:0.2: better on id_test; worse on ood"]


# Training


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


# Curves


def test_reliability_is_scikit_learns_calibration_curve():
    margins = np.random.default_rng(0).standard_normal(500) * 2 + 0.4
    rows = reliability(margins)
    right, confidence = calibration_curve(margins > 0, expit(np.abs(margins)), n_bins=20)
    assert [row["accuracy"] for row in rows] == pytest.approx(right)
    assert [row["confidence"] for row in rows] == pytest.approx(confidence)
    assert sum(row["pairs"] for row in rows) == 500
    assert reliability([]) == []
    assert calibration_error([]) is None


def test_margins_that_are_too_large_are_called_too_sure():
    rng = np.random.default_rng(1)
    size = np.abs(rng.standard_normal(20_000))
    margins = size * np.where(rng.random(20_000) < expit(size), 1, -1)  # right with chance sigmoid(|h|)
    assert calibration_error(reliability(margins)) < 0.02
    assert calibration_error(reliability(3 * margins)) > 0.1
    assert all(row["accuracy"] < row["confidence"] for row in reliability(3 * margins)[3:])


def test_tail_losses_are_means_of_the_worst_share():
    margins = {0: np.random.default_rng(2).standard_normal(200), 4: np.random.default_rng(3).standard_normal(200)}
    losses = np.sort([np.logaddexp(0, -values) for values in margins.values()], axis=1)[:, ::-1]
    found = {row["share"]: row["loss"] for row in tail_losses(margins)}
    for share in (1.0, 0.5, 0.1, 0.01):
        assert found[share] == pytest.approx(losses[:, : round(200 * share)].mean())


def test_shift_bounds_start_at_the_limit_and_never_fall(report):
    margins = {0: margins_of(suite_pairs("ood_maths"), "erm", 0)}
    found = shift_bounds(margins, questions("ood_maths"))
    assert found["method"] == "Hoeffding-Bentkus"  # several pairs a question
    assert found["limit"] == error_limit(margins[0] <= 0, questions("ood_maths")).limit
    for shift in ("total variation", "chi-square"):
        bounds = [row["bound"] for row in found["rows"] if row["shift"] == shift]
        assert bounds[0] == pytest.approx(found["limit"])
        assert all(np.diff(bounds) >= 0)
    detail = report["details"][0]
    assert detail["anchor"] == "id_test"
    assert detail["arms"][0]["bounds"]["units"] == 300


@pytest.mark.parametrize(
    ("text", "kind", "plain"),
    [
        ("tv:0.2", "tv", 0.0), ("tv:0.2,by=source", "tv,by=source", 0.0), ("cvar:0.3,trim=0.05", "cvar,trim=0.05", 1.0),
        ("kl_penalty:1", "kl_penalty", None), ("dr_dpo:1", "dr_dpo", None), ("erm", "erm", None),
        ("shuffled:tv:0.2,within=category", "shuffled:tv,within=category", 0.0),
        ("adaptive:tv:0.4", "adaptive:tv", 0.0), ("chi2:0.5,batch=4", "chi2,batch=4", 0.0),
        ("spectral:0.1/0.9", "spectral:0.1/0.9", None), ("micro:8:tv:0.2", "micro:8:tv:0.2", None),
        (" tv : 0.20 , by = source", "tv,by=source", 0.0), ("kl_penalty:inf", "kl_penalty:inf", None), ("", "", None),
        ("chi2:?@tv:0.2", "chi2:?@tv:0.2", None), ("shuffled:gr_dpo:1,by=source", "shuffled:gr_dpo,by=source", None),
    ],
)  # fmt: skip
def test_sets_are_placed_on_the_scale_of_their_kind(text, kind, plain):
    assert kind_of(text) == kind
    assert (None if sized(text) is None else sized(text).plain) == plain


# Who gets the weight


def account(folder, run):
    stored, pairs = read_weights(folder, run), read_training_pairs(folder)
    return stored, pairs.iloc[stored.rows]


def test_shares_are_sums_over_the_runs(folder, report):
    arm = next(arm for arm in report["details"][0]["arms"] if arm["ambiguity"] == "tv:0.2")
    runs = [account(folder, f"r{number:05d}-last") for number in (6, 7, 8)]
    weight = {
        s: sum(w.multiplier[p["source"] == s].sum() for w, p in runs) for s in ("source 0", "source 1", "source 2")
    }
    for row in arm["weights"]["source"]:
        assert row["share_of_weight"] == pytest.approx(weight[row["group"]] / sum(weight.values()))
        assert row["pairs"] == sum(int((p["source"] == row["group"]).sum()) for _, p in runs)
    flipped = {row["group"]: row["multiplier"] for row in arm["weights"]["flipped"]}
    assert flipped["flipped"] == pytest.approx(np.concatenate([w.multiplier[w.flipped] for w, _ in runs]).mean())


def test_label_noise_is_estimated_by_the_other_seeds_towards_the_label_as_seen(folder, report):
    plain = {seed: account(folder, f"r{seed:05d}-last")[0] for seed in range(3)}
    chance = {}
    for seed, stored in plain.items():
        right = np.full(400, np.nan)
        right[stored.rows] = np.exp(-stored.last_loss.astype(float))  # sigmoid of the margin, by the loss's definition
        chance[seed] = np.where(np.isin(np.arange(400), stored.rows[stored.flipped]), 1 - right, right)
    scores, truth = [], []
    for seed, number in enumerate((6, 7, 8)):
        stored, _ = account(folder, f"r{number:05d}-last")
        others = np.stack([values[stored.rows] for own, values in chance.items() if own != seed])
        known = ~np.isnan(others).all(axis=0)
        towards = np.nanmean(others[:, known], axis=0)
        scores += list(np.where(stored.flipped[known], towards, 1 - towards))
        truth += list(stored.flipped[known])
    arm = next(arm for arm in report["details"][0]["arms"] if arm["ambiguity"] == "tv:0.2")
    assert arm["noise_ranking"] == pytest.approx(roc_auc_score(truth, scores))
    rows = arm["weights"]["label"]
    assert [row["group"] for row in rows] == ["up to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "above 0.8"]
    assert sum(row["pairs"] for row in rows) == len(scores)
    assert rows[0]["pairs"] == sum(score >= 0.8 for score in scores)


def test_every_arm_has_the_same_groups(report):
    arms = [arm["weights"] for arm in report["details"][0]["arms"] if "weights" in arm]
    for factor in ("length", "margin", "disagreement", "label"):
        assert len({tuple(row["group"] for row in weights[factor]) for weights in arms}) == 1, factor
        assert len(arms[0][factor]) >= 2


def test_examples_are_the_extremes_with_their_texts(folder, report):
    arm = next(arm for arm in report["details"][0]["arms"] if "examples" in arm)
    weights = [[item["multiplier"] for item in arm["examples"][end]] for end in ("top", "bottom")]
    assert weights[0] == sorted(weights[0], reverse=True)
    assert weights[1] == sorted(weights[1])
    assert weights[0][-1] > weights[1][-1]
    assert re.fullmatch(r"Which one is it in t, number \d+\?", arm["examples"]["top"][0]["prompt"])


def test_without_texts_the_report_has_none_of_the_data(folder, tmp_path):
    report = build_content(folder, texts=False)
    page, files = write_report(report, tmp_path / "report.html")
    everything = [page, *(path for path in files.rglob("*") if path.is_file())]
    assert any(arm.get("weights") for arm in report["details"][0]["arms"])
    assert not any("Which one is it" in path.read_text(encoding="utf-8") for path in everything)


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


# What may be wrong with a folder


def text_of(report, folder):
    page, _ = write_report(report, folder / "report.html")
    return page.read_text(encoding="utf-8")


def said(report, *words):
    return any(all(word in note for word in words) for note in report["notes"])


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


def cut(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_half_written_table_is_one_sentence(tmp_path, capsys):
    write_sample(tmp_path / "r")
    cut(tmp_path / "r" / "results.parquet")
    assert robust_rlhf.main(["report", str(tmp_path / "r"), "-o", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert "half-written" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


def test_a_half_written_table_is_restored_from_the_runs(clean, tmp_path):
    rows = write_sample(tmp_path / "r")
    for run in {row["run"] for row in rows}:
        write_training(tmp_path / "r", run.removesuffix("-last"), [row for row in rows if row["run"] == run])
    cut(tmp_path / "r" / "results.parquet")
    after = build_content(tmp_path / "r", families=0)
    assert after["arms"] == clean["arms"]
    assert said(after, "results.parquet cannot be read (half-written?)")


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
    assert "No account of the adversary" in text_of(report, tmp_path)


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
    assert "No family has both" in text_of(report, tmp_path)
    assert build_content(tmp_path / "r", inside=["second"])["inside"] == ["second"]


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


# The page and what lies beside it


def test_page_needs_no_other_file_and_serves_screen_readers(written):
    html, _ = written
    page = Page()
    page.feed(html)
    assert page.tags.count("script") == page.tags.count("img") == page.tags.count("iframe") == 0
    assert all(address.startswith("#") or address == "data:," for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|xmlns", html)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope=)[\s>]", html)
    assert html.count('class="scroll" tabindex="0"') == html.count('class="scroll"')  # reached by the keyboard
    assert len(page.svgs) >= 18
    assert all(svg.get("aria-label") for svg in page.svgs)


def test_hostile_text_stays_text(tmp_path):
    write_sample(tmp_path / "r", regimes=(EVIL, "plain"), ambiguities=("erm", "tv:0.2"), seeds=2, whole=True)
    for path in tmp_path.glob("r/full/*/run.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"data": {"train": {"file": EVIL}}, "environment": {EVIL: EVIL}}))
    write_about(tmp_path / "r", {"title": EVIL, "command": f"demo '{EVIL}'", "settings": {EVIL: [EVIL]}})
    html = text_of(build_content(tmp_path / "r", families=1), tmp_path)
    page = Page()
    page.feed(html)
    assert page.tags.count("script") == 0
    assert "".join(page.text).count(EVIL) > 6
    tex = (tmp_path / "report_files" / "table-accuracy.tex").read_text()
    assert r"\textless{}script" in tex
    assert r"\& \$x\_1\$ 50 \%" in tex
    for drawing in (tmp_path / "report_files").glob("*.svg"):
        ElementTree.fromstring(drawing.read_text(encoding="utf-8"))


def test_every_figure_is_a_file_with_its_numbers(written):
    html, files = written
    drawings = sorted(path.stem for path in files.glob("*.svg"))
    assert len(drawings) == html.count("<figure>") >= 18
    for name in drawings:
        root = ElementTree.fromstring((files / f"{name}.svg").read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = "".join(root.itertext())
        assert not re.search(r"[$\\]", texts), name  # formulas are not typeset
        with (files / f"{name}.csv").open() as stream:
            assert len(list(csv.DictReader(stream))) >= 2, name
    sections = {name.rstrip("-0123456789").split("-")[0] for name in drawings}
    assert sections >= {
        "training",
        "category",
        "trade",
        "radius",
        "sample",
        "difference",
        "accuracy",
        "weight",
        "calibration",
        "tail",
        "shift",
    }


def test_tables_for_papers_hold_the_numbers_of_the_page(report, written):
    _, files = written
    entry = arm_of(report, "tv:0.2")["suites"]["ood_maths"]
    shown = f"{100 * entry['accuracy']:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"
    spread = np.std(list(entry["by_seed"].values()), ddof=1)
    for suffix in ("md", "tex"):
        text = (files / f"table-accuracy.{suffix}").read_text()
        assert f"{shown} ({100 * spread:.1f})" in text
        lines = [line for line in text.splitlines() if " | " in line or re.search(r"(?<!\\)&", line)]
        cells = {len(re.findall(r"(?<!\\)\|" if suffix == "md" else r"(?<!\\)&", line)) for line in lines}
        assert len(lines) >= 6
        assert len(cells) == 1
    tex = (files / "table-difference.tex").read_text()
    assert tex.count("{") == tex.count("}")
    assert r"ood\_maths" in tex
    with (files / "arms.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 5
    [row] = [row for row in rows if (row["ambiguity"], row["column"]) == ("tv:0.2", "ood_maths")]
    assert float(row["difference"]) == pytest.approx(entry["difference"]["difference"])
    assert float(row["seed_deviation"]) == pytest.approx(spread)


def test_stored_numbers_draw_the_same_page(written, tmp_path):
    html, files = written
    stored = json.loads((files / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    page, _ = write_report(stored, tmp_path / "again.html")
    assert page.read_text(encoding="utf-8") == html


def test_an_earlier_report_is_replaced_whole_and_nothing_else_is_touched(small, tmp_path):
    write_report(small, tmp_path / "a.html")
    (tmp_path / "a_files" / "trade-off-99.svg").write_text("old")
    write_report(small, tmp_path / "a.html")
    assert not (tmp_path / "a_files" / "trade-off-99.svg").exists()
    before = (tmp_path / "a.html").read_text()
    with pytest.raises(Exception, match="suites"):
        write_report({k: v for k, v in small.items() if k != "suites"}, tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == before
    (tmp_path / "mine_files").mkdir()
    (tmp_path / "mine_files" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is in the way"):
        write_report(small, tmp_path / "mine.html")
    assert (tmp_path / "mine_files" / "thesis.tex").exists()
    with pytest.raises(ValueError, match=r"end in \.html"):
        write_report(small, tmp_path / "report.pdf")


@pytest.mark.parametrize(("owner", "name"), [(Path, "unlink"), (report_page, "write_text"), (Path, "mkdir")])
def test_a_report_that_was_cut_short_is_in_nobodys_way(owner, name, small, tmp_path, monkeypatch):
    """A kill after any deleted or written file, and before the folder is made."""
    write_report(small, tmp_path / "a.html")
    whole = sorted(path.name for path in (tmp_path / "a_files").iterdir())
    act = getattr(owner, name)
    for count in (1, 2, 5):
        left = iter(range(count))

        def cut_short(*arguments, left=left, **more):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return act(*arguments, **more)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(owner, name, cut_short)
            write_report(small, tmp_path / "a.html")
        write_report(small, tmp_path / "a.html")
        assert sorted(path.name for path in (tmp_path / "a_files").iterdir()) == whole


def test_the_command_says_what_it_found_without_loading_torch(folder, tmp_path):
    code = "import sys, robust_rlhf; s = robust_rlhf.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(s)"
    arguments = ["report", str(folder), "-o", str(tmp_path / "out" / "report.html"), "--families", "0"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No arm of 3 is shown to raise the accuracy of the worst group" in done.stdout
    assert "note: Suites without categories" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("width", [500, 1300])
def test_page_opens_in_a_browser(written, tmp_path, width):
    html, _ = written
    assert opened(html, tmp_path, width=width) == f"drawn={html.count('<figure>')} wide=false requests=0"
