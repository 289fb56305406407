"""The command `robust-rlhf verify`: what it says, what it stores and what it refuses."""

import re
import sys
from html.parser import HTMLParser

import pytest
from planted_claims import ENDING, LIGHT, PLANTED, by_label, one_line, plant

from proofs_check.__main__ import main
from proofs_check.registry import CLAIMS
from proofs_check.report import Control
from proofs_check.show.text import told


@pytest.mark.slow("it waits for all planted claims, some of which kill their process")
def test_a_run_in_this_process_stores_what_the_command_stores(planted, ending, capfd):
    outputs = ["--json", "out.json", "--html", "out.html", "--markdown", "out.md"]
    labels = ["plain", "other", "false", "raises", "leaves", "nowhere"]
    assert main([*planted, "--jobs", "1", *labels, *outputs]) == 1
    here, there = by_label(), by_label(ending.folder / "out.json")
    for label in labels:
        for report in (here[label], there[label]):
            report.pop("seconds", None)
        assert here[label] == there[label]
    assert "not as expected" in one_line(capfd.readouterr().out)
    with open("out.html") as page:
        assert "<svg" in page.read()


def test_a_run_shows_and_stores_its_verdicts_and_leaves_nothing_else(light, capsys):
    status, out, progress, folder = light
    assert status == 0, progress
    assert [path.name for path in folder.iterdir()] == ["out.json"]
    assert "3 claims checked: 2 upheld, 1 refuted, all as expected." in out
    assert out.index(LIGHT[0]) < out.index(LIGHT[1]) < out.index(LIGHT[2])
    for label in LIGHT:
        line = rf"^{label}: \w+, \w+, tightness \S+, \d+ instances, \S+ s, [123] of 3$"
        assert len(re.findall(line, progress, re.M)) == 1
    assert progress.startswith("Checking 3 claims by the quick budget.\n")
    assert "mut.: false versions refuted, of all" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert main(["--replay", str(folder / "out.json")]) == 0
    again = capsys.readouterr().out
    assert again.count("unchanged since stored, left ") == 3
    assert again.count("exact arithmetic still refutes it") == 1


@pytest.mark.slow("three checks")
def test_results_do_not_depend_on_the_processes_or_the_order(light, tmp_path):
    assert main(["--jobs", "1", *LIGHT[::-1], "--seed", "3", "--json", str(tmp_path / "turned.json")]) == 0
    found, turned = by_label(light.folder / "out.json"), by_label(tmp_path / "turned.json")
    for report in (*found.values(), *turned.values()):
        assert report.pop("seconds") >= 0
    assert found == turned


def test_what_other_claims_import_changes_no_draw(ending):
    """Hypothesis draws from the constants of the modules that are loaded: each twin is in a process of its own."""
    first, last = (by_label(ending.folder / "out.json")[label] for label in ("draws", "late"))
    assert len(first["points"]) > 50
    assert (first["worst"], first["points"]) == (last["worst"], last["points"])


def test_verdicts_on_claims_that_cannot_be_checked(ending):
    assert ending.status == 1
    reports = by_label(ending.folder / "out.json")
    nowhere = reports["nowhere"]
    assert nowhere["verdict"] == "vacuous"
    assert nowhere["rejected"] > 2
    assert f"{nowhere['rejected']} of {nowhere['rejected']} instances fail the assumptions" in nowhere["reason"]
    for label, why in {"nan": "not a number", "raises": "ZeroDivisionError: no side to see"}.items():
        assert reports[label]["verdict"] == "inconclusive"
        assert why in reports[label]["reason"]
        assert reports[label]["worst"]["instance"] == {"value": 1.0}
    assert reports["rejects"]["verdict"] == "inconclusive"
    assert "The check itself failed" in reports["rejects"]["reason"]
    assert reports["plain"]["verdict"] == "upheld"
    out = one_line(ending.out)
    assert "nowhere: vacuous, expected upheld." in out
    assert "raises: inconclusive, expected upheld. The claim could not be evaluated on the instance" in out
    assert "nan: inconclusive, expected upheld. The claim could not be evaluated on the instance shown" in out
    assert out.count("There: value = 1.0.") == 2  # of nan and raises
    assert "not as expected: nowhere, nan, raises, rejects, leaves." in out


def test_what_a_side_prints_stays_in_its_process(ending):
    assert by_label(ending.folder / "out.json")["loud"]["verdict"] == "upheld"
    assert "NOISE" not in ending.out + ending.err


def test_one_claim_is_shown_in_full(planted, capsys):
    assert main([*planted, "--show", "false"]) == 0
    out = one_line(capsys.readouterr().out)
    for text in (
        "x <= 2x | x_1 > 0", "Three times as much is not at most twice as much.", "by hand", "x > 0",
        "refuted (certified)", "in exact arithmetic", "Take <x> = 1.",
        "value = 1.0", "left side 3.0", "right side 2.0", "margin 1 of the scale; above 1e-08 a violation",
        "false/half: refuted",
    ):  # fmt: skip
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tv-gup"], "No claim is called tv-gup: did you mean tv-gap"),
        (["--show", "tv_bias_root_n"], "did you mean tv-bias-root-n"),
        (["zzz"], "No claim is called zzz. `robust-rlhf verify --list` names all"),
        (["--jobs", "0"], "--jobs: must be a whole number in [1, 10000], got 0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--json", "none/out.json"], "--json needs a file in an existing folder, got none/out.json"),
        (["--html", "."], "--html needs a file in an existing folder"),
        (["tv-gap", "tv-dual", "--show", "tv-gap"], "--show tells about one claim: leave out tv-dual"),
        (["--replay", "out.json", "--html", "out.html"], "--html stores what a check finds"),
        (["--replay", "out.json"], "out.json cannot be read: No such file or directory"),
        (["--registry", "nonsense:CLAIMS"], "registry must be MODULE:NAME of a tuple of claims, got 'nonsense:CLAIMS'"),
        (["--registry", "math:pi"], "--registry"),
        (["--registry", "proofs_check:__all__"], "which holds others"),
        (["--registry", "tests/mine.py:CLAIMS"], "write the module without .py, as for import: tests.mine:CLAIMS"),
        (["--registry", "proofs_check.registry"], "proofs_check.registry:CLAIMS"),
        (["--registry", "nowhere:CLAIMS"], "the current folder, PYTHONPATH and what is installed were looked through"),
    ],
)
def test_bad_requests_get_one_sentence_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_one_claim_in_place_of_a_tuple_is_told_so(tmp_path, monkeypatch, capsys):
    arguments = plant(tmp_path, monkeypatch, PLANTED + "\nONE = CLAIMS[0]\n")
    assert main([*arguments[:1], arguments[1].replace("CLAIMS", "ONE")]) == 2
    assert "which is one claim: put it into a tuple, ONE = (claim,)" in capsys.readouterr().err


def test_what_refuted_a_mutant_is_said_as_it_was():
    """No corners where there are none, and no search alone where none was asked for."""
    ways = {
        (True, False, None): "refuted, by the search",
        (True, False, False): "refuted, by the search from corners",
        (True, True, True): "refuted, by the corners and by the search alone",
        (False, False, False): "not refuted",
    }
    assert {outcome: told(Control(*outcome)) for outcome in ways} == ways


def test_help_and_list(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 44
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()  # not a terminal: one line each, for grep
    assert [line.split()[0] for line in listed] == [claim.label for claim in CLAIMS]


class Page(HTMLParser):
    """The structure of a page; every element that is opened has to be closed."""

    EMPTY = ("meta", "link", "br")
    SHAPES = ("path", "use", "defs", "rect", "image")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.headings, self.tags, self.text = [], [], [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("href", "src") if name in found]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_and_the_table_of_verdicts(ending):
    """Of upheld claims, one of them with a curve, of broken ones and a refuted one."""
    html, table = ((ending.folder / name).read_text() for name in ("out.html", "out.md"))
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert set(anchors) <= set(page.ids)
    assert set(ENDING) <= set(anchors)
    assert not [link for link in page.links if not link.startswith(("#", "data:"))]
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert not re.search(r"https?://", html)
    assert (tags.count("h1"), tags.count("h2"), tags.count("section")) == (1, len(ENDING), len(ENDING))
    figures = [found for tag, found in page.tags if tag == "svg"]
    assert [found["role"] for found in figures] == ["img"] * 7  # nothing can be drawn of a claim that is broken
    [other] = [found["aria-label"] for found in figures if found["aria-label"].startswith("other:")]
    assert other.startswith("other: left side 1 to 128, right side 2 to 256, value from 1 to 128")
    for text in ("✓ upheld", "✗ refuted", "? inconclusive (expected: upheld)", "Take <x> = 1.", "false/half: refuted"):
        assert text in one_line(page.text)
    assert "unparsed" not in html
    assert "mathdefault" not in html
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.count(" | ") for row in rows] == [10] * len(ENDING)
    assert r"| x <= 2x \| x\_1 > 0 | refuted | certified |" in rows[-1]
    assert re.search(r"\| 1 of 1 \| 1 of 1 \| - \| by hand \|$", rows[-1])
    head = re.search(r"<th[^>]*>Mutants refuted</th><th[^>]*>By corners</th><th[^>]*>By search alone</th>", html)
    assert head, "what was refuted stands before how"
    assert "--registry planted:CLAIMS" in table
    assert "<h1>Verdicts on the claims of planted:CLAIMS</h1>" in html
    assert f"Writing out.html, with a figure for each of {len(ENDING)} claims." in ending.err
    assert "| value in [1, 2] |" in rows[-1]
    assert "Tested on value in [1, 2]." in one_line(page.text)
