"""docs/results/study.md: its tables and quoted numbers, and five of them counted again from the stored records."""

from __future__ import annotations

import re

import numpy as np
import pytest

from experiments.second_edition import publish, stored, tables


@pytest.fixture(scope="module")
def told():
    return stored.Told.kept()


@pytest.fixture(scope="module")
def page():
    return publish.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def records():
    return dict(np.load(stored.FOLDER / "records.npz"))


def test_tables_and_quoted_numbers_are_those_that_are_stored(told, page):
    assert tables.written(page, told) == page
    readme = publish.README.read_text(encoding="utf-8")
    assert tables.numbered(readme, told) == readme
    assert len(tables.QUOTES.findall(readme)) >= 5


def test_prose_has_no_result_that_is_not_quoted(page):
    """Decimals stand in marks, but for constants of the rules, versions and what the first edition had seen."""
    prose = re.sub(r"<!-- [\w ]+ -->\n(\|.*?)?<!-- end -->", "", page, flags=re.DOTALL)
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|\d{4}\.\d{5}", "", tables.QUOTES.sub("", prose))
    constants = {".05", "1.5", ".8", ".1", ".2", ".4", "2.13.0"} | {"1.00", ".40", ".15", ".04"}  # shares: see below
    assert set(re.findall(r"\d*(?:\.\d+)+", prose)) <= constants


def outside(records, part):
    """Suites out of distribution, and of each the records that ``part`` takes."""
    names = {key.split("|")[0].removeprefix("suite-") for key in records if key.startswith("suite-")}
    return {name: part(name) for name in sorted(names - {"test", "id_test", "twin", "planted"})}


def change(records, suite, one, other=("real", "erm")):
    """Right less right, in points, ``(seeds, pairs)``: records count halves."""
    first, second = (records["|".join((*cell, suite))].astype(float) for cell in (one, other))
    return 50 * (first - second)


def starts(text, mean):
    assert text.split(" [")[0] == f"{mean:+.1f}"


def test_numbers_are_counted_again(told, records):
    """By numpy alone."""
    plain = records["real|erm|test"]
    assert told.quoted("plain test").startswith(f"{50 * plain.mean():.1f} [")
    reasoning = outside(
        records,
        lambda name: change(records, name, ("real", "tv:0.4"))[:, records[f"suite-{name}|categories"] == "Reasoning"],
    )
    starts(told.quoted("gain real; tv:0.4; Reasoning"), np.concatenate(list(reasoning.values()), axis=1).mean())
    crossed = outside(records, lambda name: change(records, name, ("cross", "erm")).mean())
    assert len(crossed) == 4
    starts(told.quoted("gain cross; erm; average"), np.mean(list(crossed.values())))
    twins = change(records, "twin", ("twin", "regret:tv:0.2"), ("twin", "erm")).mean(axis=0)
    mixtures = [records[f"suite-twin|{name}"] for name in ("last", "middle", "both")]
    starts(told.quoted("gain twin; regret:tv:0.2; shifted"), np.mean([np.average(twins, weights=w) for w in mixtures]))
    minority = records["suite-planted|minority"].astype(bool)
    gained = change(records, "planted", ("planted", "tv:0.4,by=planted"), ("planted", "erm"))[:, minority]
    starts(told.quoted("gain planted; tv:0.4,by=planted; minority"), gained.mean())
    language = change(records, "test", ("dpo", "tv:0.4"), ("dpo", "erm"))
    assert language.shape == (3, 629)
    starts(told.quoted("gain dpo; tv:0.4; test"), language.mean())
    assert told.quoted("whole dpo; erm").startswith(f"{50 * records['dpo|erm|test'].mean():.1f} [")


def follows(row, *, two_sided_p):
    """The outcome of a comparison from its interval, where the rules let one tell it."""
    low, high, edge = row["low"], row["high"], row["margin"]
    if row["kind"] == "more":
        return "confirmed" if two_sided_p < 0.05 and row["mean"] > 0 else "refuted" if high < 0.02 else "undecided"
    if row["kind"] == "lost":
        return "confirmed" if two_sided_p < 0.05 else "refuted" if low > -edge else "undecided"
    return {"same": "refuted" if low > edge or high < -edge else None}.get(row["kind"])


def test_outcomes_follow_from_what_is_stored(told):
    """Comparisons by their intervals, ways by their comparisons, hypotheses by their ways, done again."""
    seen = 0
    for row in told.tests():
        if row["mean"] is not None and (expected := follows(row, two_sided_p=row["p"] or 0.0)) is not None:
            assert row["outcome"] == expected, row
            seen += 1
    assert seen >= 40
    for one in told.board["hypotheses"]:
        ways = []
        for way in one["ways"]:
            outcomes = {test["outcome"] for test in way["tests"]}
            ways += [next((name for name in ("refuted", "not run", "undecided") if name in outcomes), "confirmed")]
            assert way["outcome"] == ways[-1]
        assert one["computed"] == next((n for n in ("confirmed", "not run", "undecided") if n in ways), "refuted")
        if one["name"] not in ("H4", "H8"):
            assert (one["outcome"] == "cannot bear a worst case") == (told.board["enters"] is False)


def test_equivalence_needs_the_narrow_interval(told):
    """At 95 % inside the margins means at 90 %: then it must be confirmed; the mean outside: never."""
    rows = [row for row in told.tests() if row["kind"] == "same" and row["mean"] is not None]
    for row in rows:
        if max(-row["low"], row["high"]) < row["margin"]:
            assert row["outcome"] == "confirmed"
        if abs(row["mean"]) > row["margin"]:
            assert row["outcome"] != "confirmed"
    assert len(rows) >= 20


def test_what_the_page_says_without_a_number_is_so(told, records):
    """Its sentences, in its order, against the stored comparisons."""
    rows = {(*row["cell"][:2], row["where"], row["against"][1]): row for row in told.tests() if row["kind"] != "ranks"}
    real = {key[1:]: row for key, row in rows.items() if key[0] == "real"}
    radius = next(
        one["held_out"] for one in told.radii if [one["data"], one["set"], one["batch"]] == ["real", "tv", 32]
    )
    assert 1.5 < 0.1 / radius < 2.5
    assert 6.5 < 0.4 / radius < 7.5  # two to seven times it
    tuned, released, *static = told.entries
    assert not any(one["enters"] for one in told.entries)
    assert released["accuracy"] < 0.6 <= min(one["accuracy"] for one in (tuned, *static))
    assert all(one["all"]["held_out"] < tuned["all"]["held_out"] for one in (released, *static))
    assert len(static) == 3
    collapse = [row for row in told.tests("H1") if row["kind"] != "ranks"]
    inside, beyond = ([row for row in collapse if row["kind"] == kind] for kind in ("same", "lost"))
    assert [row["outcome"] for row in inside] == ["confirmed"] * 16
    assert all(row["high"] < 0 for row in beyond)  # every cell loses
    assert sum(row["outcome"] == "confirmed" for row in beyond) == 5
    assert len(beyond) == 24
    refuted = [row["cell"] for row in beyond if row["outcome"] == "refuted"]
    assert sorted(refuted) == [["noise", "cvar:1.5c", 128], ["noise", "cvar:2c", 128]]
    bears = {(one["data"], one["batch"]): one["held_out"] for one in told.radii if one["set"] == "cvar"}
    assert max(bears, key=lambda cell: bears[cell]) == ("noise", 128)  # alpha nearest to 1: the least radius
    assert [row["outcome"] for row in told.tests("H2")] == ["confirmed"] * 8
    shares = {(one["data"], one["arm"]): one["share"] for one in told.cells if one["batch"] == 32}
    assert f"{shares['real', 'tv:auto=0.5']:.2f}" == "1.00"
    assert [f"{shares['soft', f'regret:tv:{r}']:.2f}" for r in (0.2, 0.4, 0.8)] == ["0.40", "0.15", "0.04"]
    gap = [
        real["tv:0.2,by=length_gap", "Chat-Hard", f"{one}by=length_gap"]
        for one in ("balanced:", "permuted_groups:tv:0.2,")
    ]
    assert [row["outcome"] for row in gap] == ["confirmed"] * 2
    assert all(way["outcome"] != "confirmed" for way in told.hypothesis("H3")["ways"])
    assert told.board["plain"]["Chat-Hard"]["high"] < 0.5 < told.board["plain"]["Chat"]["low"]
    assert all(row["mean"] < 0 for row in told.tests("H4"))  # gains at none
    [language] = told.tests("H8")
    assert language["low"] < -0.02 < language["high"]  # neither shown nor excluded
    assert {row["outcome"] for row in told.tests("whole models")} == {"not run"}
    assert 2.4 < (4004 / told.board["whole"]["dpo"]["pairs"]) ** 0.5 < 2.6  # two and a half times
    assert all(real[f"tv:{r}", "average", "erm"]["high"] < -0.02 for r in (0.1, 0.2, 0.4))
    assert [real[f"tv:{r}", "Reasoning", "erm"]["outcome"] for r in (0.1, 0.2, 0.4)] == ["refuted", *["undecided"] * 2]
    assert all(real[f"tv:{r}", "Reasoning", "erm"]["high"] < 0.026 for r in (0.2, 0.4))
    texts = [row for row in told.tests("H6") if "topic" not in row["cell"][1]]
    assert all(row["low"] < 0 < row["high"] or row["mean"] < 0 for row in texts)
    minority = records["suite-planted|minority"].astype(bool)
    majority = [
        50 * records[f"planted|{arm}|planted"][:, ~minority].mean()
        for arm in ("balanced:by=planted", "tv:0.4,by=planted", "erm")
    ]
    assert [f"{one:.0f}" for one in majority] == ["66", "81", "97"]
    chosen = {(one["data"], one["arm"], one["batch"]): one for one in told.cells}
    own = [
        one for one in told.cells if one["data"] not in ("planted",) and one["arm"] not in ("erm, early", "tv:chosen")
    ]
    assert sum(one["settings"][0] == 0.001 for one in own) > len(own) / 2
    assert sum(one["settings"][1] == 3.0 for one in own) > len(own) / 2
    assert all(
        chosen["real", arm, 32]["id_test"] > chosen["real", "erm", 32]["id_test"]
        for arm in ("erm, early", "shuffled:tv:0.2")
    )
