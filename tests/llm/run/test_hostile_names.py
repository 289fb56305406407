"""Names that are HTML, formulas, markup and colour codes stay names: in every file written, and on the screen."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from forked import Forked
from hostile_names import NAMES, UTF8, WHERE, acting, day_of, files, hostile_pairs, ours, seen

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.report import build_content, write_report
from llm.report.screen import render_summary
from llm.run.escaping import csv_text, python_text, shell_word
from llm.run.terminal import Terminal
from llm.sweep.recorded import Finished, record_runs
from robust_rlhf import main


@pytest.fixture(scope="module")
def written(once):
    return day_of(once)


@pytest.mark.exhaustive(turns=8)
def test_nothing_acts_on_a_terminal(written):
    said = (written / "said.txt").read_text()
    assert not acting(said)
    lines = said.splitlines()
    for name in NAMES.values():  # categories, sources
        first = seen(name.replace("\r\n", "\n").split("\n")[0])
        assert any(first in " ".join(line.split()) for line in lines), name
    assert any(line.startswith("robust-rlhf: ") and "no <b>\\x1b[2Jmodel\\u202e" in line for line in lines)


@pytest.mark.slow("it opens pages in a browser")
def test_nothing_acts_in_what_people_read(written):
    for path in (*ours(written), *files(written, ".html", ".svg", ".tex")):
        assert not acting(path.read_text(encoding="utf-8")), path


def computed(cell: str) -> bool:
    """Whether a spreadsheet would take a cell for a formula."""
    try:
        float(cell)
    except ValueError:
        return cell.lstrip(" ")[:1] in ("=", "+", "-", "@") or cell[:1] in ("\t", "\r", "\n")
    return False


def unguarded(cell: str) -> str:
    """A cell as it was: one apostrophe less where there is one before what would begin a formula."""
    cell = cell[1:] if re.match(r"'[\t\r\n]", cell) else cell
    return re.sub(r"(^|[;\t\r\n])'(?=[\s']*[=+@-])", r"\1", cell)


def test_no_cell_is_a_formula_and_every_one_is_read_back(written):
    for path in files(written, ".csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            content = stream.read()
        rows = list(csv.reader(StringIO(content, newline="")))
        assert len({len(row) for row in rows}) == 1
        assert not [cell for row in rows for cell in row if computed(cell)], path
        elsewhere = csv.reader(StringIO(content, newline=""), delimiter=";")  # a list separator of half of Europe
        assert not [cell for row in elsewhere for cell in row if computed(cell)], path
    for folder in ("out", "judged"):
        place = written / f"{folder} {WHERE}"
        [suite] = json.loads((place / "metrics.json").read_text())["suites"].values()
        with (place / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {unguarded(row["suite"]) for row in rows} == {WHERE}
        for kind in ("category", "source"):
            stored = {unguarded(row["group"]): float(row["accuracy"]) for row in rows if row["kind"] == kind}
            assert stored == {name: record["accuracy"] for name, record in suite[f"by_{kind}"].items()}
            assert stored.keys() == set(NAMES.values())


def test_numbers_of_a_table_stay_numbers():
    [row] = csv.DictReader(StringIO(csv_text([{"a": -0.5, "b": "-0.5", "c": None, "d": 3, "e": "+1e-5", "f": "-"}])))
    assert row == {"a": "-0.5", "b": "-0.5", "c": "", "d": "3", "e": "+1e-5", "f": "'-"}


class Page(HTMLParser):
    """Collects elements and attributes of a page, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.words = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        assert not [value for name, value in attrs if name == "href" and "javascript" in (value or "")]

    def handle_data(self, data):
        self.words.append(data)


def demo_report(run: Path, folder: Path) -> None:
    """The report of a demo, from the run that there is and drawn margins; shown on the terminal's console too."""
    record = json.loads((run / "run.json").read_text())
    suites = {WHERE: hostile_pairs(30), NAMES["front"]: hostile_pairs(20)}
    margins = {name: np.linspace(-1, 1, len(pairs)) for name, pairs in suites.items()}
    runs = [
        Finished(run, record | {"environment": {"device": NAMES["image"]}, "config": record["config"] | {
            "ambiguity": ambiguity}}, margins)
        for ambiguity in ("erm", "tv:0.2")
    ]  # fmt: skip
    about = {
        "title": WHERE,
        "command": shell_word(WHERE),
        "settings": {WHERE: [WHERE]},
        "data": {NAMES["script"]: WHERE},
    }
    record_runs(folder / "results", runs, suites, train=hostile_pairs(record["data"]["trained_on"]), about=about)
    report = build_content(folder / "results")
    write_report(report, folder / "report.html")
    console = Terminal(width=400, record=True, file=StringIO())
    console.print(render_summary(report))
    shown = console.export_text()
    assert seen(WHERE) in shown
    assert not acting(shown)


@pytest.mark.slow("it makes every page")
def test_pages_and_drawings_hold_the_names_as_text(written, tmp_path):
    demo_report(written / f"out {WHERE}", tmp_path)
    for path in [*files(written, ".html"), tmp_path / "report.html"]:
        page = Page(text := path.read_text(encoding="utf-8"))
        assert not acting(text)
        assert not page.tags & {"script", "img", "b", "iframe", "object"}
        assert not [name for name in page.attributes if name.startswith("on")]
        words = " ".join(" ".join(page.words).split())
        assert all(seen(name) in words for name in (NAMES["image"], NAMES["direction"], WHERE))
    for path in (*files(written, ".svg"), *files(tmp_path, ".svg")):
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert not [part for part in root.iter() if part.tag.endswith(("script", "img", "}b"))]


def test_code_that_is_to_be_copied():
    assert [eval(python_text(name)) for name in NAMES.values()] == list(NAMES.values())
    words = " ".join(map(shell_word, NAMES.values()))
    assert not acting(words)
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True, env=UTF8).stdout
    assert said.decode().split("\0")[:-1] == list(NAMES.values())


def test_data_for_programs_is_raw(written):
    for path in files(written, ".json", ".jsonl"):
        content = path.read_text(encoding="utf-8")
        for part in [content] if path.suffix == ".json" else content.removesuffix("\n").split("\n"):
            json.loads(part)
    record = json.loads((written / f"out {WHERE}" / "run.json").read_text())
    assert record["config"]["model"] == f"rm {WHERE}"
    [suite] = json.loads((written / f"out {WHERE}" / "metrics.json").read_text())["suites"]
    assert suite == WHERE


def test_a_name_cannot_forge_a_line_of_ours(tmp_path):
    """In an error and in the log of a command in a process of its own."""
    forged = "x\nrobust-rlhf: all is well\r\n.jsonl"
    missing = Forked(main, ["data", "show", str(tmp_path / forged)])
    [said] = missing.communicate(timeout=60)[0].splitlines()
    assert "x robust-rlhf: all is well .jsonl" in said
    write_pairs(generate(4, seed=1), tmp_path / forged)
    with (tmp_path / forged).open("a") as stream:
        stream.write('{"prompt": "x", "chosen": "y", "rejected": "y"}\n')
    converted = Forked(main, ["data", "convert", str(tmp_path / forged), str(tmp_path / "out.jsonl")])
    logged, _ = converted.communicate(timeout=60)[0].splitlines()
    assert logged.startswith("robust-rlhf: /")
    assert "dropped 1 of 5 records" in logged
