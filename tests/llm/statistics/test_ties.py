"""What earns credit and what counts as one unit, wherever margins become accuracies."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from record_runs import unpack
from results_samples import SUITES, pairs_of, report_of_runs, write_sample
from rich.console import Console
from scipy import stats

from llm.data.pairs import Pair
from llm.data.prompts import Prompt
from llm.data.prompts import questions as prompts_asked
from llm.data.questions import questions
from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run
from llm.judging.accuracy import compare, render_table, summarise
from llm.kinds.sft import imitation_metrics
from llm.models.card import _results
from llm.policy.judging import score_interval
from llm.report.content import build_content
from llm.report.curves import reliability, shift_bounds
from llm.report.screen import render_summary
from llm.results.store import COLUMNS, read_results, write_results, write_table
from llm.statistics.arms import accuracy_record, difference_record
from llm.statistics.intervals import accuracy_interval, mcnemar_p
from llm.statistics.ties import RULE, credit
from llm.sweep.context import suite_rows
from llm.sweep.heads import HeadData, HeadTraining, _Watch
from llm.sweep.runs import _record
from llm.training.losses import Sigmoid
from llm.training.pair_trainer import metrics_by_category


def pair(number, asked=None, question=None):
    prompt = {"role": "user", "content": f"Number {number}?" if asked is None else asked}
    return Pair(f"p{number}", (prompt,), "yes", "no way", question_id=question)


def _seen(predictions, pairs):
    return SimpleNamespace(predictions=predictions, label_ids=np.arange(len(pairs)))


def _head(margins):
    """The accuracy by which a reward head keeps its best iterate."""
    data = HeadData(np.ones((1, 1)), {}, margins[:, None], np.full(len(margins), "a"))
    watch = _Watch(data, HeadTraining(checks=1), 1)
    watch.look(0, np.ones(1), None)
    return watch._accuracy


def _of_sweep(pairs, margins):
    return _record(margins, suite_rows("s", np.arange(len(pairs)), pairs), "")["accuracy"]


ACCURACIES = {  # every place that turns margins into right and wrong
    "evaluate": lambda pairs, m: summarise(pairs, m)["overall"]["accuracy"],
    "evaluate --against": lambda pairs, m: 0.5 + compare(pairs, m, 0 * m)["overall"]["difference"],
    "training": lambda pairs, m: metrics_by_category(pairs, Sigmoid())(_seen(m, pairs))["accuracy"],
    "sft": lambda pairs, m: imitation_metrics(pairs)(_seen(np.stack([m, 1 + 0 * m, 1 + 0 * m], 1), pairs))["accuracy"],
    "reports": lambda pairs, m: accuracy_record({0: m}, None)["accuracy"],
    "reports by seed": lambda pairs, m: accuracy_record({0: m}, None)["by_seed"][0],
    "differences": lambda pairs, m: 0.5 + difference_record({0: m}, {0: 0 * m}, None)["difference"],
    "differences by seed": lambda pairs, m: 0.5 + difference_record({0: m}, {0: 0 * m}, None)["by_seed"][0],
    "sweeps": _of_sweep,
    "reward heads": lambda pairs, m: _head(m),
    "calibration": lambda pairs, m: (lambda rows: sum(r["accuracy"] * r["pairs"] for r in rows) / len(m))(
        reliability(m)
    ),
    "shifts": lambda pairs, m: 1 - shift_bounds({0: m}, None)["error"],
}


@pytest.mark.parametrize("place", ACCURACIES)
def test_ties_earn_half_everywhere(place):
    pairs = [pair(n) for n in range(9)]
    margins = np.array([1.0, 2.0, 0.0, 0.0, 0.0, -1.0, 0.25, -0.0, -3.0])
    assert ACCURACIES[place](pairs, margins) == pytest.approx((3 + 4 / 2) / 9)
    assert ACCURACIES[place](pairs, 0 * margins) == pytest.approx(0.5)
    # Swapped labels swap right and wrong, which no rule but half credit survives.
    assert ACCURACIES[place](pairs, -margins) == pytest.approx(1 - ACCURACIES[place](pairs, margins))


def test_mcnemar_counts_a_tie_against_a_right_answer():
    a, b = credit([1, 1, 1, 1, 0, -1]), credit([0, 0, 0, 0, 0, -1])
    assert mcnemar_p(a, b) == pytest.approx(2 * 0.5**4)
    record = compare([pair(n) for n in range(6)], [1, 1, 1, 1, 0, -1], [0, 0, 0, 0, 0, -1])["overall"]
    assert (record["only_a"], record["only_b"]) == (4, 0)


def _screen(table, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    console.file.close()
    return console.export_text()


def test_ties_are_shown_on_screen_card_and_report(tmp_path):
    pairs = [pair(n) for n in range(40)]
    summary = summarise(pairs, np.zeros(40))
    text = _screen(render_table({"test": summary}))
    assert "ties" in text
    assert {"50.0", "40"} <= set(text.split())
    assert any("| 40 | 0.500" in line and "| 40 |" in line[10:] for line in _results({"test": summary}))
    report = report_of_runs(tmp_path, {"erm": {"test": np.zeros(40)}}, {"test": pairs})
    line, *_ = (line.split() for line in _screen(render_summary(report)).splitlines() if line.startswith("   erm"))
    assert (line[1], line[-1]) == ("50.0", "40")


def test_all_arms_of_a_demo_fit_into_a_terminal(tmp_path):
    pairs = [pair(n) for n in range(40)]
    names = ["erm", "tv:0.2", "tv:0.2,max_ratio=4", "cvar:0.3", "chi2:0.5"]
    suites = dict.fromkeys(("id_test", "ood_shifted_mixture", "ood_reversed_length"), pairs)
    draws = np.random.default_rng(0)
    margins = {name: {suite: draws.normal(size=40) for suite in suites} for name in names}
    report = report_of_runs(tmp_path, margins, suites)
    lines = _screen(render_summary(report)).splitlines()
    assert max(map(len, lines)) <= 80
    for arm in report["arms"]:
        for entry in (*arm["suites"].values(), arm["average"], arm["worst"]):
            shown = f"{100 * entry['accuracy']:.1f} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]"
            assert any(shown in " ".join(line.split()) for line in lines)
    assert sum("tv:0.2,max_ratio=4" in line for line in lines) == 5  # whole; on every suite, on average, worst group


# What counts as one unit.


def test_pairs_share_a_question_by_name_or_by_prompt():
    pairs = [
        pair(0, "Which?"), pair(1, "Which?"), pair(2, "Who?"), pair(3, "Why?", "q"), pair(4, "Why?"), pair(5, "x", "q"),
        pair(6, " "), pair(7, " "),
    ]  # fmt: skip
    found = questions(pairs)
    assert found[0] == found[1] is not None
    assert found[3:6] == ["q", "q", "q"]
    assert found[2] is found[6] is found[7] is None
    reply = ({"role": "user", "content": "Which?"}, {"role": "assistant", "content": "That."})
    later = Pair("l", (*reply, {"role": "user", "content": "Sure?"}), "yes", "no")
    assert questions([pairs[0], later, later])[0] is None  # a longer chat is another question
    asked = [Prompt(one.id, one.prompt) for one in pairs[:3]]
    assert prompts_asked(asked).tolist() == [0, 0, 1]


def _shared(prompts, each):
    return [pair(f"{p}-{n}", f"Prompt {p}?") for p in range(prompts) for n in range(each)]


def test_naming_the_prompt_as_question_changes_nothing_anywhere(tmp_path):
    pairs = _shared(20, 4)
    named = [Pair(p.id, p.prompt, p.chosen, p.rejected, question_id=p.prompt[0]["content"]) for p in pairs]
    draws = np.random.default_rng(0)
    a, b = (np.repeat(draws.normal(size=20), 4) + 0.3 * draws.normal(size=80) for _ in range(2))
    assert summarise(pairs, a) == summarise(named, a)
    assert compare(pairs, a, b) == compare(named, a, b)
    margins = {"erm": {"s": a}, "tv:0.2": {"s": b}}
    shown, renamed = (
        report_of_runs(tmp_path / name, margins, {"s": suite}) for name, suite in (("a", pairs), ("b", named))
    )
    assert shown == renamed
    assert suite_rows("s", np.arange(80), pairs).clusters == suite_rows("s", np.arange(80), named).clusters
    assert summarise(pairs, a)["overall"]["clusters"] == 20


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
def test_default_intervals_cover_where_prompts_are_shared(correlation):
    pairs, draws = _shared(60, 6), np.random.default_rng(int(10 * correlation))
    shared, truth, covered, naive = questions(pairs), stats.norm.cdf(0.4), 0, 0
    for _ in range(400):
        common, own = np.repeat(draws.normal(size=60), 6), draws.normal(size=360)
        margins = 0.4 + np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        found = accuracy_interval(credit(margins), shared)
        covered += found.low <= truth <= found.high
        alone = accuracy_interval(credit(margins))
        naive += alone.low <= truth <= alone.high
    assert summarise(pairs, margins)["overall"]["low"] == found.low  # this is the interval that is shown
    assert 0.92 <= covered / 400 <= 0.98
    assert naive / 400 < 0.88


# Scores of sampled answers.


def test_no_right_answer_at_29_prompts_has_an_upper_limit():
    expected = stats.binomtest(0, 29).proportion_ci(method="wilson")
    for samples in (1, 4):
        for value in (0.0, 1.0):
            found = score_interval(np.full((29, samples), value))
            low, high = expected if value == 0 else (1 - expected.high, 1 - expected.low)
            assert found == pytest.approx((value, low, high), abs=1e-12)


def test_scores_of_a_checker_are_an_accuracy_and_others_a_mean():
    draws = np.random.default_rng(3)
    right = (draws.random((40, 4)) < draws.random((40, 1))).astype(float)
    expected = stats.t.interval(0.95, 39, right.mean(), stats.sem(right.mean(axis=1)))
    assert score_interval(right) == pytest.approx((right.mean(), *expected))
    assert score_interval(right[:, :1]) == accuracy_interval(right[:, 0])
    scores = draws.normal(size=(40, 2))
    expected = stats.t.interval(0.95, 39, scores.mean(), stats.sem(scores.mean(axis=1)))
    assert score_interval(scores) == pytest.approx((scores.mean(), *expected))
    assert np.isnan(score_interval(np.full((9, 2), 0.3)).low)
    repeated = score_interval(np.repeat(right[:, :1], 2, axis=0), np.repeat(np.arange(40), 2))
    assert repeated.high - repeated.low > 0.9 * np.ptp(score_interval(right[:, :1])[1:])


# Stored sweeps.


def _tied(folder, *, earlier):
    """A sweep in which every tenth margin is a tie, by the rule of today or of the version before."""
    write_sample(folder, seeds=2, ambiguities=("erm", "tv:0.2"))
    found, rows = read_results(folder).table.to_dict("records"), []
    for row in found:
        file = folder / "margins" / f"{row['run']}.npz"
        with np.load(file) as stored:
            margins = {name: values.copy() for name, values in stored.items()}
        for values in margins.values():
            values[::10] = 0
        np.savez(file, **margins)
        values = margins[row["suite"]]
        members = pairs_of(*SUITES[row["suite"]], prefix=row["suite"])
        values = values[[row["category"] in ("", one.category) for one in members]]
        accuracy = np.mean(values > 0) if earlier else np.mean(credit(values))
        rows.append({**row, "accuracy": float(accuracy), "ties": int(np.sum(values == 0))})
    if earlier:
        columns = {name: kind for name, kind in COLUMNS.items() if name != "ties"}
        write_table(folder / "results.parquet", [{k: row[k] for k in columns} for row in rows], columns)
    else:
        write_results(folder, rows)
    return folder


def test_stores_of_an_earlier_version_are_read_with_their_rule_named(tmp_path):
    now, before = _tied(tmp_path / "now", earlier=False), _tied(tmp_path / "before", earlier=True)
    assert read_results(now).findings == ()
    (finding,) = read_results(before).findings
    assert finding.kind == "earlier rule"
    assert "a tie counts as an error" in finding.text
    assert len(finding.runs) == 4
    new, old = build_content(now), build_content(before)
    assert old["arms"][0]["suites"] == new["arms"][0]["suites"]  # intervals are made from margins, by one rule
    assert any("a tie counts as an error" in note for note in old["notes"])
    assert not any("another accuracy than the table" in note for note in [*old["notes"], *new["notes"]])
    assert new["arms"][0]["suites"]["id_test"]["ties"] == 2 * 30


@pytest.mark.parametrize("rule", [None, RULE])
def test_the_doctor_names_the_rule_of_an_earlier_run(rule, tmp_path):
    metrics = unpack("length", tmp_path) / "metrics.json"
    content = json.loads(metrics.read_text())
    for suite in content["suites"].values():
        suite["overall"]["ties"] = 3
    metrics.write_text(json.dumps(content | ({"rule": rule} if rule else {})))
    (said,) = (one.evidence for one in diagnose(read_run(tmp_path)).findings if "length" in one.title)
    assert ("a tie counts as an error" in said) == (rule is None)


@pytest.mark.exhaustive(turns=8)
def test_a_sweep_page_says_where_plain_training_learned_nothing(tmp_path):
    write_sample(tmp_path / "all", seeds=2, ambiguities=("erm", "tv:0.2"))
    sound = build_content(tmp_path / "all")
    assert not any("chance" in text for text in [*sound["notes"], *(claim["text"] for claim in sound["claims"])])
    write_sample(tmp_path / "some", seeds=2, ambiguities=("erm", "tv:0.2"), hard=0.6)
    some = build_content(tmp_path / "some")
    (note,) = (note for note in some["notes"] if "chance" in note)
    assert "erm on ood_maths" in note
    assert "erm on id_test" not in note
    write_sample(tmp_path / "none", seeds=2, ambiguities=("erm", "tv:0.2"), hard=0.6, suites={"ood": (200, ("",))})
    none = build_content(tmp_path / "none")
    assert "has not been shown to beat chance (50 %) anywhere" in none["claims"][0]["text"]
