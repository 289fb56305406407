"""What a page says first: which model to use, a figure, the pairs behind it; no name and no number breaks it."""

import copy
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from pages import Page
from results_samples import SUITES, margins_of, pairs_of, write_sample
from sample_reports import text_of

from llm.report import build_content
from llm.report.page import draw, write_report
from llm.report.story.figure import story_figure
from llm.report.story.kept import ROOM, kept
from llm.report.story.telling import story

TWO = {"id_test": (300, ("",)), "ood_maths": (300, ("",))}
RTL = "\N{HEBREW LETTER ALEF}\u202etxt.exe"


def told(tmp_path, **more):
    """The report of arms that nothing but this tells apart."""
    sample = {"suites": TWO, "ambiguities": ("erm", "tv:0.2"), "seeds": 2, "train": 60, **more}
    write_sample(tmp_path / "r", **sample)
    return build_content(tmp_path / "r", families=0)


@pytest.mark.parametrize(
    ("shift", "begins", "shown"),
    [
        ({"gain": 1.0}, "Use tv:0.2: +", True),
        ({"gain": 1.0, "cost": 1.0}, "It depends: tv:0.2 is better", True),
        ({"gain": -1.0}, "Use plain training (erm): no other arm is shown to be better, and 1 of 1 is", True),
        ({"gain": 0.0}, "Nothing is shown: use plain training (erm)", False),
    ],
)
def test_the_sentence_names_the_model_to_use(shift, begins, shown, tmp_path):
    found = told(tmp_path, **shift)["story"]
    assert found["sentence"].startswith(begins), found["sentence"]
    assert found["shown"] is shown
    assert found["next"]


@pytest.mark.parametrize("gain", [0.0, -1.0])
def test_where_plain_training_learned_nothing_no_model_is_recommended(gain, tmp_path):
    """Also where a difference between two that are worth nothing is shown, and the badge says the same."""
    report = told(tmp_path, gain=gain)
    for entry in report["arms"][0]["suites"].values():
        entry["low"] = 0.4
    report["story"] = story(report)
    assert report["story"]["sentence"].startswith("Use none of these models yet")
    page = write_report(report, tmp_path / "report.html")[0].read_text()
    assert "Too weak to compare</span> Use none of these" in page


def test_a_loss_in_distribution_counts_before_any_correction(tmp_path):
    report = told(tmp_path, gain=1.0)
    [arm] = [arm for arm in report["arms"] if not arm["plain"]]
    loss = arm["suites"]["id_test"]["difference"]
    loss |= {"difference": -0.02, "low": -0.04, "high": -0.001, "p": 0.04, "p_holm": 0.2, "outcome": "worse"}
    assert story(report)["sentence"].startswith("It depends: ")
    loss |= {"outcome": "no difference shown"}
    assert story(report)["sentence"].startswith("Use tv:0.2")


def test_a_set_that_loses_in_another_family_is_not_recommended(tmp_path):
    """With wrong labels, say: a reader does not know which family is theirs."""
    report = told(tmp_path, gain=1.0, regimes=("clean", "wrong"), ambiguities=("erm", "tv:0.2", "cvar:0.3"))
    assert story(report)["sentence"].startswith("Use tv:0.2 (clean): +")
    losing = next(arm for arm in report["arms"] if (arm["ambiguity"], arm["family"]) == ("tv:0.2", "wrong"))
    for entry in (losing["suites"]["id_test"], losing["worst"]):
        entry["difference"] |= {"difference": -0.3, "low": -0.35, "high": -0.25, "p_holm": 1e-6, "outcome": "worse"}
    assert story(report)["sentence"].startswith("Use cvar:0.3 (clean): +")
    report["arms"] = [arm for arm in report["arms"] if arm["ambiguity"] != "cvar:0.3"]
    report["families"] = [{"label": name, "arms": [2 * n, 2 * n + 1]} for n, name in enumerate(("clean", "wrong"))]
    sentence = story(report)["sentence"]
    assert sentence.startswith("It depends: tv:0.2 (clean) is better than plain training (erm) on ood_maths (+")
    assert "tv:0.2 (wrong) is worse" in sentence
    assert "\u221230.0 points" in sentence


def test_no_finding_is_said_twice(tmp_path):
    hostile = "a" * 10_000
    write_sample(tmp_path / "r", suites=TWO, ambiguities=("erm", "tv:0.2"), regimes=(hostile, "b"), seeds=2, train=60)
    texts = [claim["text"] for claim in build_content(tmp_path / "r", families=2)["claims"]]
    assert len(texts) == len(set(texts))
    assert sum("is beaten in" in text for text in texts) == 2
    assert hostile not in str(texts)


def test_the_figure_has_the_numbers_of_the_tables_and_marks_the_worst_group(tmp_path):
    report = told(tmp_path, gain=1.0)
    [drawing] = story_figure(report)
    [arm] = [arm for arm in report["arms"] if not arm["plain"]]
    rows = {row["column"]: row for row in drawing.rows}
    assert rows.keys() == {"id_test", "ood_maths", "worst"}  # one suite outside: its average is the suite
    assert rows["ood_maths"]["difference"] == arm["suites"]["ood_maths"]["difference"]["difference"]
    root = ElementTree.fromstring(drawing.svg)
    groups = [group for group in root.iter("g") if group.get("class") == "arm0"]
    marks = {group.find("title").text.split(":")[1].split(",")[1].strip(): group for group in groups}
    points = {name: float(re.findall(r": ([+\u2212][\d.]+)", group.find("title").text)[0].replace("\u2212", "-"))
              for name, group in marks.items()}  # fmt: skip
    assert points["ood_maths"] == pytest.approx(100 * rows["ood_maths"]["difference"], abs=0.05)
    places = {name: float(re.search(r"translate\(([\d.]+)", list(group.iter("path"))[-1].get("transform"))[1])
              for name, group in marks.items()}  # fmt: skip
    ticks = {text.text: float(text.get("x")) for text in root.iter("text") if text.text in ("0", "+10")}
    scale = (ticks["+10"] - ticks["0"]) / 10
    for name, x in places.items():
        assert (x - ticks["0"]) / scale == pytest.approx(points[name], abs=0.3), name
    shaded = [group for group in root.iter("g") if group.find("rect[@fill='var(--mark)']") is not None]
    assert [group.get("aria-label").split(":")[0] for group in shaded] == ["worst group"]


def test_flipped_pairs_are_those_that_changed_sides(report):
    for entry in report["details"][0]["arms"][1:]:
        for suite, (count, categories) in SUITES.items():
            pairs = pairs_of(count, categories, prefix=suite, questions=60 if suite == "ood_maths" else None)
            means = [np.mean([margins_of(pairs, name, seed) for seed in range(3)], axis=0, dtype=np.float64)
                     for name in ("erm", entry["ambiguity"])]  # fmt: skip
            repaired = [pair.id for pair, a, b in zip(pairs, *means, strict=True) if a < 0 < b]
            assert entry["flips"]["suites"][suite]["repaired"] == len(repaired)
            assert {pair["id"] for pair in entry["flips"]["repaired"] if pair["suite"] == suite} <= set(repaired)
        gains = [pair["after"] - pair["before"] for pair in entry["flips"]["repaired"]]
        assert gains == sorted(gains, reverse=True)
        assert all(pair["before"] > 0 > pair["after"] for pair in entry["flips"]["broken"])


def test_texts_stay_out_where_they_are_not_wanted(folder):
    report = build_content(folder, families=1, texts=False)
    assert all(not entry["flips"]["repaired"] for entry in report["details"][0]["arms"][1:])
    assert "Which one is it" not in str(report)


def test_words_are_explained_beside_their_first_use(written):
    html, _ = written
    story_part = html[html.index('aria-labelledby="story"') : html.index('id="findings"')]
    for word in ("erm", "Holm", "arm"):
        explained = re.search(rf"<dt>{word}.*?</dt><dd>([^<]+)", story_part)
        assert explained, word
    assert story_part.index('id="favourites"') < story_part.index('id="flips"')


def many(small, count):
    """The same report with so many arms, each of its own name."""
    report = copy.deepcopy(small)
    plain, other = report["arms"]
    report["arms"] = [plain, *({**other, "ambiguity": f"tv:{n / 5000:.4f}"} for n in range(count - 1))]
    report["families"] = [{"label": "", "arms": list(range(count))}]
    report["story"] = story(report)
    return report


@pytest.mark.exhaustive(turns=8)
def test_two_thousand_arms_make_a_page_that_opens(small, tmp_path):
    report = many(small, 2000)
    text = text_of(report, tmp_path)
    assert len(text.encode()) < 5e6
    assert (
        text.count('<tr role="row"><th scope="row" role="rowheader">') == 2 * ROOM - 1
    )  # plain training has no difference
    assert f"{2000 - ROOM} of 2000 arms have no room here" in text
    assert len((tmp_path / "report_files" / "arms.csv").read_text().splitlines()) > 2000


def test_arms_that_differ_come_before_those_that_do_not(small):
    report = many(small, 400)
    for arm in report["arms"]:
        arm["suites"] = {name: copy.deepcopy(entry) for name, entry in arm["suites"].items()}
    last = report["arms"][-1]["suites"]["id_test"]["difference"]
    last |= {"difference": -0.3, "p": 1e-9, "p_holm": 1e-6, "outcome": "worse"}
    assert 399 in kept(report)
    assert 398 not in kept(report)


@pytest.mark.parametrize("name", ["x" * 10_000, RTL, "<script>alert(1)</script>\"'", ""])
def test_hostile_names_stay_names(name, small, tmp_path):
    report = copy.deepcopy(small)
    report["arms"][1]["ambiguity"] = report["title"] = name
    suite = report["arms"][0]["suites"].pop("id_test"), report["arms"][1]["suites"].pop("id_test")
    for arm, entry in zip(report["arms"], suite, strict=True):
        arm["suites"][name] = entry
    report["suites"] = {name: report["suites"].pop("id_test")}
    report["inside"] = [name]
    report["story"] = story(report)
    page = Page()
    page.feed(html := text_of(report, tmp_path))
    assert page.tags.count("script") == 0
    assert "\u202e" not in html
    assert len(max(html.split(), key=len)) < 20_000
    assert len(html) < len(text_of(small, tmp_path)) + 60_000
    for section in draw(report).values():
        for drawing in section:
            ElementTree.fromstring(drawing.svg)
