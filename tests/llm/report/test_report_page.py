"""The page and what lies beside it: tables, figures, stored numbers, the command, a browser."""

import copy
import csv
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pages import Page, opened
from results_samples import SUITES, write_sample
from sample_reports import arm_of, correct, text_of

from llm.report import build_content, write_report
from llm.report import page as report_page
from llm.report.claims import claims
from llm.report.story.telling import story
from llm.results.store import write_about

EVIL = "<script src='https://evil.example/x.js'></script> & $x_1$ 50 %"


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
    assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in page.svgs)


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
    assert len(drawings) == html.count("</figure>") >= 18
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


def test_single_seeds_share_a_cell_beside_the_figure(written):
    with (written[1] / "accuracy-0.csv").open() as stream:
        rows = {(row["column"], row["arm"]): row["seeds"].split() for row in csv.DictReader(stream)}
    for suite in SUITES:
        assert [float(cell) for cell in rows[suite, "tv:0.2"]] == pytest.approx(
            correct(suite, "tv:0.2").mean(axis=1), abs=1e-6
        )


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


def test_the_command_says_what_it_found_without_loading_torch(folder, report, tmp_path):
    code = "import sys, robust_rlhf; s = robust_rlhf.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(s)"
    arguments = ["report", str(folder), "-o", str(tmp_path / "out" / "report.html"), "--families", "0"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert report["story"]["sentence"] in " ".join(done.stdout.split())
    rows = [line for line in done.stdout.splitlines() if line.startswith(" tv:0.2")]
    assert len(rows) == 5  # three suites, their average, the worst group
    assert max(map(len, rows)) <= 80
    assert "note: Suites without groups" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize("width", [500, 1300])
def test_page_opens_in_a_browser(written, tmp_path, width):
    html, _ = written
    assert opened(html, tmp_path, width=width) == f"drawn={html.count('</figure>')} wide=false requests=0"


@pytest.mark.exhaustive
def test_long_names_of_families_widen_no_page(report, tmp_path):
    told = copy.deepcopy(report)
    for record in told["arms"]:
        record["family"] = "x" * 10_000
    for family in told["families"]:
        family["label"] = "x" * 10_000
    told |= {"story": story(told), "claims": claims(told)}
    html = text_of(told, tmp_path)
    assert opened(html, tmp_path, width=500) == f"drawn={html.count('</figure>')} wide=false requests=0"
