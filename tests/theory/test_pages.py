"""The pages of verdicts and of studies: what stands first, what can be hidden, and what a reader can check."""

import re
from dataclasses import replace
from pathlib import Path

from proofs_check import Evidence, check
from proofs_check.claims.inner.hoeffding import kl_penalty_gap
from proofs_check.registry import CLAIMS
from proofs_check.show.sources import certificate_of, source_of
from synthetic.simulate.page import write_page


def test_what_is_refuted_stands_first_and_boxes_show_and_hide(ending):
    html = (ending.folder / "out.html").read_text()
    sections = re.findall(r'<section id="([^"]+)" class="verdict-(\w+) evidence-(\w+)"', html)
    order = ["surprise", "refuted", "vacuous", "inconclusive", "upheld"]
    kinds = [kind for _, kind, _ in sections]
    assert kinds == sorted(kinds, key=order.index)
    assert {"surprise", "refuted", "upheld"} <= set(kinds)
    rows = re.findall(r'<tbody class="verdict-(\w+) evidence-(\w+)">\n<tr><th scope="row"><a href="#([^"]+)"', html)
    assert [(label, kind, evidence) for kind, evidence, label in rows] == sections
    boxes = {name: int(count) for name, count in re.findall(r'id="show-verdict-(\w+)" checked/>[^(]*\((\d+)\)', html)}
    assert boxes == {kind: kinds.count(kind) for kind in set(kinds)}
    for name in boxes:
        assert f"body:has(#show-verdict-{name}:not(:checked)) .verdict-{name} {{ display: none; }}" in html


def test_a_claim_shows_the_code_that_checks_it_and_its_certificate():
    claim = kl_penalty_gap()
    source = source_of(claim)
    lines = (Path(__file__).parents[2] / source.place.split(":")[0]).read_text().splitlines()
    first = int(source.place.split(":")[1])
    assert lines[first - 1] == "@stated"
    assert "def kl_penalty_gap()" in source.text
    assert source.text.splitlines() == lines[first - 1 : first - 1 + len(source.text.splitlines())]
    assert source_of(replace(claim, lhs=len)) is None  # a side without a file
    [refuted] = [claim for claim in CLAIMS if claim.label == "tv-bias-root-n"]
    certified = check(refuted)
    assert "verifier.py" in certificate_of(certified, refuted)
    assert "not exported" in certificate_of(certified, replace(refuted, formula=None))
    assert certificate_of(replace(certified, evidence=Evidence.SEARCHED), refuted) == ""


def test_the_page_of_a_study_has_its_slopes_and_no_other_file(tmp_path):
    slope = {
        "panel": "a <b>",
        "curve": "tv:0.2",
        "theory": "",
        "value": -0.5,
        "low": -0.6,
        "high": -0.4,
        "first": 4.0,
        "last": 64.0,
    }
    summary = {"study": "s", "about": "What & why.", "figure": "Bands.", "records": 9,
               "parameters": {"seeds": 3, "n": (4, 8), "radius": None}, "slopes": [slope], "versions": {},
               "failures": [{"point": {"n": 1}, "seed": 0, "error": "<script>x"}]}  # fmt: skip
    (tmp_path / "s.png").write_bytes(b"png")
    write_page(tmp_path / "s.html", summary, title="T", picture=tmp_path / "s.png")
    html = (tmp_path / "s.html").read_text()
    assert "<script" not in html
    assert "a &lt;b&gt;" in html
    assert "<td>-0.500</td><td>[-0.600, -0.400]</td><td>4 to 64</td>" in html
    assert "<dt>n</dt><dd>4, 8</dd><dt>radius</dt><dd>as the study has it</dd>" in html
    assert re.search(r'<div class="scroll" tabindex="0"[^>]*><img ', html)  # legible on a narrow screen too
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    write_page(tmp_path / "s.html", summary | {"slopes": []}, title="T", picture=None)
    assert "There is nothing to draw" in (tmp_path / "s.html").read_text()
