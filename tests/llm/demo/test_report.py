"""The report: its numbers against direct calculation, its verdicts, its page, and what may be missing."""

import json
import re
import time

import numpy as np
import pytest
from pages import Page, opened
from rich.console import Console

from llm.data.pairs import Pair, length_baseline
from llm.demo.page import ArmRun, build_report, render_summary, write_report
from llm.report import plots
from llm.statistics.intervals import accuracy_interval, holm, independent_mean, mcnemar_p, paired_difference

EVIL = "</p><script src='https://evil.example/x.js'></script><img src=x onerror=alert(1)>"


def suite(pairs, *, categories=("a", "b"), questions=None, prefix="p"):
    return [
        Pair(
            f"{prefix}{n}",
            ({"role": "user", "content": f"Which, in case {n}?"},),
            "yes" * (1 + n % 3),
            "no no",
            category=categories[n % len(categories)],
            question_id=None if questions is None else f"q{n % questions}",
        )
        for n in range(pairs)
    ]


def margins(seed, pairs, shift=0.4):
    return np.random.default_rng(seed).standard_normal(pairs) + shift


def run(ambiguity, seed, scores, **fields):
    defaults = {"history": [], "adversary": {}, "seconds": 1.5, "steps": 10}
    return ArmRun(ambiguity=ambiguity, seed=seed, margins=scores, **{**defaults, **fields})


def report_of(runs, suites, **fields):
    defaults = {"title": "T", "data": {}, "environment": {}, "command": "demo", "settings": {}}
    return build_report(runs=runs, suites=suites, **{**defaults, **fields})


def page_of(report, folder):
    write_report(report, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def two_arms():
    suites = {"id": suite(90), "ood": suite(120, categories=("x", "y", "z"), questions=30)}
    scores = {
        (arm, seed): {name: margins(hash_free, len(pairs)) for name, pairs in suites.items()}
        for hash_free, (arm, seed) in enumerate([("tv:0.2", 0), ("tv:0.2", 1), ("erm", 0), ("erm", 1)])
    }
    runs = [run(arm, seed, values) for (arm, seed), values in scores.items()]
    return suites, scores, report_of(runs, suites)


def test_accuracy_averages_seeds_pair_by_pair(two_arms):
    suites, scores, report = two_arms
    assert report["baseline"] == "erm"
    for name, pairs in suites.items():
        correct = [scores["tv:0.2", seed][name] > 0 for seed in (0, 1)]
        entry = report["suites"][name]["arms"]["tv:0.2"]
        expected = accuracy_interval(np.mean(correct, axis=0), [p.question_id for p in pairs])
        assert (entry["accuracy"], entry["low"], entry["high"]) == pytest.approx(expected)
        assert entry["by_seed"] == {"0": correct[0].mean(), "1": correct[1].mean()}


def test_difference_is_paired_and_mcnemar_stays_with_single_seeds(two_arms):
    suites, scores, report = two_arms
    a, b = ([scores[arm, seed]["ood"] > 0 for seed in (0, 1)] for arm in ("tv:0.2", "erm"))
    questions = [p.question_id for p in suites["ood"]]
    expected = paired_difference(np.mean(a, axis=0), np.mean(b, axis=0), questions)
    entry = report["suites"]["ood"]["differences"]["tv:0.2"]
    assert (entry["difference"], entry["low"], entry["high"]) == pytest.approx(expected)
    assert report["suites"]["ood"]["mcnemar"]["tv:0.2"] == {
        str(seed): pytest.approx(mcnemar_p(a[seed], b[seed])) for seed in (0, 1)
    }
    assert "erm" not in report["suites"]["ood"]["differences"]


def test_category_rows_are_the_categories_pairs(two_arms):
    suites, scores, report = two_arms
    rows = [n for n, p in enumerate(suites["ood"]) if p.category == "y"]
    record = report["suites"]["ood"]["categories"]["y"]
    correct = np.mean([scores["erm", seed]["ood"][rows] > 0 for seed in (0, 1)], axis=0)
    assert record["pairs"] == len(rows)
    assert record["arms"]["erm"]["accuracy"] == pytest.approx(correct.mean())
    assert record["longer_wins"] == pytest.approx(np.mean([length_baseline(suites["ood"][n]) for n in rows]))
    accuracies = {
        name: category["arms"]["erm"]["accuracy"] for name, category in report["suites"]["ood"]["categories"].items()
    }
    assert report["suites"]["ood"]["worst_category"]["erm"]["accuracy"] == min(accuracies.values())
    assert report["suites"]["ood"]["macro_categories"]["erm"] == pytest.approx(np.mean(list(accuracies.values())))


def test_holm_runs_over_all_categories_of_all_suites(two_arms):
    *_, report = two_arms
    records = [
        category["differences"]["tv:0.2"]
        for one in report["suites"].values()
        for category in one["categories"].values()
    ]
    assert report["tests"] == {"suites": 2, "categories": 5}
    assert [r["p_holm"] for r in records] == pytest.approx(holm([r["p"] for r in records]))


def test_average_over_suites(two_arms):
    suites, scores, report = two_arms
    intervals = [
        accuracy_interval(
            np.mean([scores["erm", seed][name] > 0 for seed in (0, 1)], axis=0), [p.question_id for p in pairs]
        )
        for name, pairs in suites.items()
    ]
    assert tuple(report["macro"]["arms"]["erm"].values()) == pytest.approx(independent_mean(intervals))


def test_verdicts_follow_the_intervals():
    suites = {"clear": suite(200), "tied": suite(200), "reverse": suite(200), "one": suite(1)}
    good, poor = margins(0, 200, 2.0), margins(0, 200, 0.2)
    base = margins(1, 200)
    swap = {"clear": good, "tied": base + 1e-6, "reverse": poor, "one": np.ones(1)}
    runs = [
        run("erm", 0, {"clear": poor, "tied": base, "reverse": good, "one": np.ones(1)}),
        run("cvar:0.3", 0, swap),
    ]
    report = report_of(runs, suites)
    outcomes = {name: one["differences"]["cvar:0.3"]["outcome"] for name, one in report["suites"].items()}
    assert outcomes == {
        "clear": "better",
        "tied": "no difference shown",
        "reverse": "worse",
        "one": "too few pairs",
    }
    verdict = report["verdicts"][1]
    assert verdict["arm"] == "cvar:0.3"
    assert verdict["headline"] == "Against erm, after Holm's correction: better on 1, worse on 1, of 4 suites."
    assert verdict["points"][0]["text"].startswith("Suites: 1 better, 1 worse, 1 no difference shown, 1 too few")
    assert verdict["points"][0]["items"][0].startswith("better: clear (+")
    assert verdict["points"][0]["items"][1].startswith("worse: reverse (\N{MINUS SIGN}")
    assert "It learned something" in report["verdicts"][0]["headline"]
    assert any("Seed-to-seed variation is not measured for erm, cvar:0.3" in text for text in report["cautions"])


def test_arms_that_did_not_act_or_were_trained_otherwise_are_named():
    pairs = {"id": suite(30)}
    record = {"config": {"ambiguity": "erm"}, "steps": 8, "effective_batch": 128, "inaction": None}
    idle = record | {"steps": 32, "effective_batch": 32, "inaction": "the adversary did not act: so it is"}
    runs = [
        run("erm", 0, {"id": margins(1, 30)}, record=record),
        run("tv:0.2", 0, {"id": margins(2, 30)}, record=idle),
        run("tv:0.3", 0, {"id": margins(3, 30)}, record=record),
        run("tv:0.4", 0, {"id": margins(4, 30)}),
    ]
    assert report_of(runs, pairs)["cautions"][:2] == [
        "tv:0.2, seed 0: the adversary did not act: so it is.",
        "tv:0.2 and erm also differ in: steps 32 against 8, effective batch 32 against 128.",
    ]


def test_exchanging_the_arms_exchanges_better_and_worse():
    suites = {"s": suite(300)}
    good, poor = {"s": margins(0, 300, 1.5)}, {"s": margins(0, 300, 0.0)}
    one = report_of([run("erm", 0, poor), run("tv:0.2", 0, good)], suites)
    other = report_of([run("erm", 0, good), run("tv:0.2", 0, poor)], suites)
    assert one["suites"]["s"]["differences"]["tv:0.2"]["outcome"] == "better"
    assert other["suites"]["s"]["differences"]["tv:0.2"]["outcome"] == "worse"


def test_a_finding_lost_to_holm_is_marked():
    names = [f"c{n}" for n in range(20)]
    pairs = suite(800, categories=names)
    base = np.ones(800)
    base[[n for n in range(800) if n % 20 == 3][:5]] = -1  # 5 of 40: p = 0.02, times 20 categories
    report = report_of([run("erm", 0, {"s": base}), run("tv:0.2", 0, {"s": np.ones(800)})], {"s": pairs})
    point = next(p for p in report["verdicts"][1]["points"] if p["text"].startswith("Categories"))
    assert "After Holm's correction 0 of the 1 stay." in point["text"]
    assert point["items"] == [
        "better: s / c3 (+12.5 points, [+1.8, +23.2]), not after Holm's correction",
    ]


def test_a_baseline_at_chance_is_called_out():
    report = report_of([run("erm", 0, {"s": margins(0, 60, 0.0)})], {"s": suite(60)})
    assert "not been shown to beat chance" in report["verdicts"][0]["headline"]


def test_seeds_that_only_one_arm_has_are_left_out_of_the_difference():
    suites = {"s": suite(50)}
    shared, alone, base = margins(0, 50), -np.ones(50), margins(1, 50)
    runs = [run("erm", 0, {"s": base}), run("tv:0.2", 0, {"s": shared}), run("tv:0.2", 7, {"s": alone})]
    entry = report_of(runs, suites)["suites"]["s"]["differences"]["tv:0.2"]
    assert entry["difference"] == pytest.approx(np.mean(shared > 0) - np.mean(base > 0))


def test_what_may_be_missing_may_be_missing(tmp_path):
    unknown = [Pair(f"u{n}", one.prompt, "a", "bb") for n, one in enumerate(suite(5))]
    suites = {"none": [], "single": suite(1), "unknown": unknown, "partly": suite(30), "nowhere": suite(4)}
    history = [
        {"step": 1, "loss": float("nan")},
        {"step": 2, "loss": 0.7, "mean_loss": 0.6, "zero_share": float("inf")},
        {"step": 2, "eval_loss": None},
        {"train_runtime": 3.0},
    ]
    runs = [
        run("tv:0.2", 0, {"none": np.zeros(0), "single": np.ones(1), "unknown": np.zeros(5)}, history=history),
        run("chi2:0.5", 3, {"partly": margins(0, 30), "unknown": np.ones(5)}, adversary={"by_source": {}}),
    ]
    report = report_of(runs, suites)
    assert report["baseline"] == "tv:0.2"
    assert report["suites"]["unknown"]["arms"]["tv:0.2"]["ties"] == 5
    assert report["suites"]["partly"]["differences"] == {}
    assert report["suites"]["nowhere"]["arms"] == {}
    assert "not run" in page_of(report, tmp_path)
    assert page_of(report_of(runs[:1], suites), tmp_path)
    assert page_of(report_of(runs[:1], {}), tmp_path)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "at least one finished run"),
        ([run("erm", 1, {}), run("erm", 1, {})], "Two runs of erm have seed 1"),
        ([run("erm", 0, {"s": np.ones(3)})], r"got shape \(3,\) for 4 pairs"),
        ([run("erm", 0, {"s": np.array([1, np.nan, 1, 1])})], r"\(pairs p1\)"),
    ],
)
def test_wrong_input_is_explained(runs, message):
    with pytest.raises(ValueError, match=message):
        report_of(runs, {"s": suite(4)})


@pytest.fixture(scope="module")
def rich_report(tmp_path_factory):
    """Three arms, two seeds, six suites, twenty categories, hostile texts everywhere."""
    names = [f"category_{n}" for n in range(18)] + [EVIL, "a category with a name that is far too long for a figure"]
    suites = {f"suite_{k}": suite(400, categories=names, questions=100 if k == 2 else None) for k in range(5)}
    suites[EVIL] = suite(40)
    example = {
        "id": EVIL, "source": EVIL, "category": EVIL, "prompt": EVIL + "$x_1$" * 2000, "chosen": EVIL,
        "rejected": "\ud800 lone", "multiplier": 3.2, "visits": 2, "margin": -1.5,
    }  # fmt: skip
    adversary = {
        "by_source": {EVIL: {"pairs": 30, "multiplier": 2.0}, "other": {"pairs": 70, "multiplier": 4 / 7}},
        "by_category": {"$c_1$": {"pairs": 100, "multiplier": 1.0}},
        "longer_share_of_weight": 0.4,
        "top": [example] * 12,
        "bottom": [{**example, "prompt": [{"role": "user", "content": EVIL}], "margin": None}] * 12,
    }
    fields = (
        "mean_loss",
        "robust_loss",
        "effective_sample_size",
        "largest_multiplier",
        "zero_share",
        "radius_fraction",
    )
    history = [{"step": s, "loss": 1 / s, **dict.fromkeys(fields, 1 / s)} for s in range(1, 900)]
    runs = [
        run(arm, seed, {name: margins(k + 10 * seed, len(p)) for name, p in suites.items()},
            history=history, adversary={} if arm == "erm" else adversary)
        for k, arm in enumerate(["erm", "tv:0.2", "tv:0.2,max_ratio=4"])
        for seed in (0, 1)
    ]  # fmt: skip
    started = time.perf_counter()
    report = report_of(
        runs, suites, title=EVIL, command=f"demo '{EVIL}'", environment={"python": "3"},
        data={"train": {"file": EVIL, "dropped": {}, "layouts": ["trl", "hh"], "note": None}}, settings={"seeds": 2},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("rich")
    page_of(report, folder)
    return report, folder, time.perf_counter() - started


def test_page_is_small_quick_self_contained_and_escaped(rich_report):
    _, folder, seconds = rich_report
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert seconds < 30  # about 5 s on an idle core
    assert len(html.encode()) < 3_000_000
    page = Page()
    page.feed(html)
    assert page.tags.count("script") == page.tags.count("img") == page.tags.count("iframe") == 0
    assert all(address.startswith("#") or address == "data:," for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|xmlns", html)
    assert EVIL in "".join(page.text)  # shown as text, not dropped
    assert len(page.ids) == len(set(page.ids))
    inside = {address[1:] for address in page.addresses if address.startswith("#")}
    assert inside <= set(page.ids)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]


def test_page_structure_serves_screen_readers(rich_report):
    html = (rich_report[1] / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert page.tags.count("h1") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    assert not re.search(r"<th(?![^>]*scope=)[\s>]", html)
    assert len(page.svgs) > 15
    for svg in page.svgs:
        width, height = map(float, svg["viewbox"].split()[2:])
        assert min(width, height) > 0
        assert svg.get("aria-label") or svg.get("aria-hidden") == "true"


def test_json_is_valid_and_can_be_drawn_again(rich_report, tmp_path):
    text = (rich_report[1] / "report.json").read_text(encoding="utf-8")
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert page_of(stored, tmp_path) == (rich_report[1] / "report.html").read_text(encoding="utf-8")


def test_a_failure_leaves_the_earlier_report(two_arms, tmp_path):
    before = page_of(two_arms[2], tmp_path)
    with pytest.raises(Exception, match="runs"):
        write_report({k: v for k, v in two_arms[2].items() if k != "runs"}, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before


def test_weight_shares_are_pairs_times_weight(rich_report):
    html = (rich_report[1] / "report.html").read_text(encoding="utf-8")
    row = html[html.index('<th scope="row">other</th>') :]
    assert re.findall(r"<td>([\d.]+)</td>", row)[:3] == ["70.0", "40.0", "0.57"]


def test_summary_for_the_screen_shows_every_suite(rich_report):
    with open("/dev/null", "w") as nowhere:
        console = Console(width=160, record=True, file=nowhere)
        console.print(render_summary(rich_report[0]))
    text = console.export_text()
    assert "longer wins" in text
    assert all(name in text for name in ("suite_0", "tv:0.2,max_ratio=4", "average"))


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


def test_page_opens_in_a_browser(rich_report, tmp_path):
    html = (rich_report[1] / "report.html").read_text(encoding="utf-8")
    assert opened(html, tmp_path, width=500) == f"drawn={html.count('<figure>')} wide=false requests=0"
