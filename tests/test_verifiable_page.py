"""docs/results/verifiable.md and the numbers it quotes, against the stored values of every problem."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scipy import stats

from experiments.verifiable import arms, publish, rules, tables
from experiments.verifiable.measures import NAMES
from experiments.verifiable.stored import points


@pytest.fixture(scope="module")
def told():
    return publish.stored()


@pytest.fixture(scope="module")
def page():
    return publish.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def problems():
    return json.loads((publish.FOLDER / "problems.json").read_text(encoding="utf-8"))


def test_tables_and_quoted_numbers_are_those_that_are_stored(told, page):
    assert tables.written(page, told) == page
    readme = publish.README.read_text(encoding="utf-8")
    assert tables.with_numbers(readme, told) == readme
    assert len(tables.MARK.findall(readme)) >= 3


def test_prose_has_no_result_that_is_not_quoted(page):
    """Decimals stand in marks, but for constants of the set-up: names of arms, sizes, and what the pilot had seen."""
    prose = re.sub(r"<!-- (\w+) -->\n\|.*?<!-- end -->", "", page, flags=re.DOTALL)
    prose = tables.MARK.sub("", prose)
    prose = re.sub(r"`[^`]*`|\d{4}\.\d{5}", "", prose)
    constants = {"7.6", "29.7", "3.5", "4.2", "0.2"}
    assert set(re.findall(r"\d+\.\d+", prose)) <= constants


def test_every_stored_difference_is_the_interval_of_the_stored_problems(told, problems):
    """Tuned, at the end, by scipy; and the levels."""
    for arm in problems:
        for measure in NAMES:
            values = np.array(problems[arm][measure])
            assert told.level(arm, measure)[0] == pytest.approx(values.mean(), abs=1e-5)
            if arm == "plain":
                continue
            change = values - np.array(problems["plain"][measure])
            found = told.gain(arm, measure)
            middle, half = change.mean(), stats.sem(change) * stats.t.ppf(0.975, len(change) - 1)
            expected = (middle, middle - half, middle + half)
            assert found[:3] == pytest.approx(expected, abs=2e-5), (arm, measure)
            if np.abs(change).max() > 1e-3:
                p = stats.ttest_1samp(change, 0.0).pvalue
                assert found.p == pytest.approx(p, rel=0.05, abs=1e-4), (arm, measure)


def test_the_scoreboard_follows_from_the_stored_problems(told, problems):
    """Tuned claims at the end: direction, margin and Holm's correction done again."""
    signed, raw = [], []
    board = told.verdicts("tuned")
    for claim, row in zip(rules.CLAIMS, board, strict=True):
        outcomes = []
        for test, (mean, low, high, p, p_holm, outcome) in zip(claim.tests, row["tests"], strict=True):
            if test.kind in ("more", "less"):
                signed.append(p_holm)
                raw.append(p)
                sign = np.sign(mean) * (1 if test.kind == "more" else -1)
                expected = "not shown" if p_holm >= 0.05 else "holds" if sign > 0 else "reversed"
            elif test.kind == "no less":
                expected = "holds" if low > -test.margin else "reversed" if high < -test.margin else "not shown"
            else:
                inside, outside = max(-low, high) < test.margin, low > test.margin or high < -test.margin
                expected = "holds" if inside else "reversed" if outside else "not shown"
            assert outcome == expected, claim.text
            outcomes.append(outcome)
            if test.when == "end":
                mine, other, base = (np.array(problems[arm][test.measure]) for arm in (test.arm, test.against, "plain"))
                change = mine - other if test.times is None else mine - base - test.times * (other - base)
                assert mean == pytest.approx(change.mean(), abs=2e-5), claim.text
        worst = "reversed" if "reversed" in outcomes else "holds" if set(outcomes) == {"holds"} else "not shown"
        assert row["verdict"] == worst, claim.text
    order = np.argsort(raw)
    stepped = np.maximum.accumulate(np.array(raw)[order] * np.arange(len(raw), 0, -1)).clip(max=1)
    assert np.array(signed)[order] == pytest.approx(stepped, rel=1e-4)


def test_an_arm_differs_from_itself_no_more_often_than_was_allowed(told):
    assert told.raw["comparisons"] == 100
    assert max(told.raw["alarms"].values()) <= rules.MOST_FALSE
    assert set(told.raw["alarms"]) == set(NAMES)


def test_every_arm_has_the_size_that_its_table_shows(told):
    sizes = told.raw["sizes"]["opposed"]
    assert set(sizes) == {arm.name for arm in arms.ARMS}
    assert set(sizes.values()) <= set(rules.SIZES)
    assert len(told.raw["arms"]["opposed"]) == len(arms.ARMS) * len(rules.SIZES)


def test_intervals_are_shown_in_points():
    assert points((0.0123, -0.0004, 0.025)) == "+1.2 [0.0, +2.5]"
    assert points((-0.0123, -0.025, -0.0006)) == "-1.2 [-2.5, -0.1]"


def test_marks_of_the_table_follow_from_the_stored_problems(told, problems):
    """Stars by Holm over the arms, and equals signs by the margins, done again."""
    names = [name for name in problems if name != "plain"]
    for measure, margin in (("train worst fifth", 0.03), ("held-out pass@16", 0.01)):
        changes = {name: np.array(problems[name][measure]) - np.array(problems["plain"][measure]) for name in names}
        raw = np.array([stats.ttest_1samp(changes[name], 0.0).pvalue for name in names])
        order = np.argsort(raw)
        adjusted = np.empty(len(raw))
        adjusted[order] = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
        marks = tables._marks(told, measure)
        for name, p in zip(names, adjusted, strict=True):
            half = stats.sem(changes[name]) * stats.t.ppf(0.975, len(changes[name]) - 1)
            assert ("*" in marks[name]) == (p < 0.05), (name, measure)
            assert ("=" in marks[name]) == (abs(changes[name].mean()) + half < margin), (name, measure)
        assert {"*" in mark for mark in marks.values()} == {"=" in mark for mark in marks.values()} == {True, False}
