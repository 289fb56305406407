"""Hostile names stay names in cards, and in tables in Markdown, in TeX and on the screen."""

from __future__ import annotations

import json
import re
from contextlib import chdir
from io import StringIO

import pytest
import yaml
from hostile_names import MARKDOWN, NAMES, WHERE, acting, day_of, files, seen, structure, texts
from rich.console import Console

from llm.judging.tables import render_comparison, render_table
from llm.models.card import model_card
from llm.run.escaping import latex, markdown, markdown_code


@pytest.fixture(scope="module")
def written(once):
    return day_of(once)


TAME = {**dict.fromkeys(sorted([*NAMES.values(), WHERE], key=len, reverse=True), "tame"), "tame ": "tame"}


def tamed(value):
    """The same record with harmless names."""
    if isinstance(value, dict):
        return {tamed(key): tamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tamed(item) for item in value]
    for name, harmless in TAME.items() if isinstance(value, str) else ():
        value = value.replace(name, harmless)
    return value


def body(card: str) -> tuple[dict, str]:
    """Front matter and text, told apart as the hub's library does."""
    found = re.match(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\r|\n|$))", card)
    return yaml.safe_load(found[2]), card[found.end() :]


@pytest.mark.parametrize("folder", ["out", "policy"])
def test_a_card_has_the_same_structure_whatever_the_names(folder, written):
    run = written / f"{folder} {WHERE}"
    record, metrics = (json.loads((run / name).read_text()) for name in ("run.json", "metrics.json"))
    front, card = body((run / "model" / "README.md").read_text())
    with chdir(written):
        assert (run / "model" / "README.md").read_text() == model_card(record, metrics["suites"])
    tame, its_card = body(model_card(tamed(record), tamed(metrics["suites"])))
    assert structure(card) == structure(its_card)
    assert front.keys() == tame.keys()
    assert front["base_model"] == f"{'start' if folder == 'policy' else 'rm'} {WHERE}"  # read back as it is
    assert front["license"] == NAMES["image"]
    for name in (front["base_model"], f"{NAMES['image']} (of", WHERE):
        assert any(seen(name) in words for words in texts(card)), name


@pytest.mark.parametrize("name", NAMES.values())
def test_any_name_fits_any_place_of_a_card(name, written):
    """Every word of the record that is not ours, one sort at a time."""
    run = written / f"out {WHERE}"
    record, metrics = (json.loads((run / part).read_text()) for part in ("run.json", "metrics.json"))

    def card(word):
        changed = record | {"licence": word, "forced": [word], "other_versions": [word], "inaction": word}
        changed["config"] = record["config"] | {"model": word, "publish": word, "lora_rank": 1, "merge_adapter": False}
        changed["config"] |= {"ambiguity": "tv:0.2", "beta": 1.0, "loss": "x", "reference_model": word}
        train = record["data"]["train"] | {"file": word}
        changed["data"] = record["data"] | {"train": train, "eval": train}
        changed["environment"] = record["environment"] | {"torch": word, "device": word}
        return body(model_card(changed, {word: metrics["suites"][WHERE]}))

    (front, text), (tame, its_text) = card(name), card("tame")
    assert structure(text) == structure(its_text)
    assert {key: "tame" if item == name else item for key, item in front.items()} == tame
    assert not acting(text)
    assert sum(seen(name) in words for words in texts(text)) == sum("tame" in words for words in texts(its_text))
    [code] = [token.content for token in MARKDOWN.parse(text) if token.type == "fence"]
    [place] = re.findall(r"^tokenizer = AutoTokenizer.from_pretrained\((.*)\)$", code, re.MULTILINE)
    assert compile(code, "card", "exec")
    assert eval(place) == name


@pytest.mark.parametrize("name", NAMES.values())
def test_markdown_in_a_cell_and_in_a_line(name):
    for written, tag in ((markdown(name), "td"), (markdown_code(name), "code")):
        table = f"| a | b |\n|---|---|\n| {written} | {written} |\n| x | y |\n"
        cells = [words for words in texts(table) if words not in ("a", "b", "x", "y")]
        assert [re.sub("^<code>|</code>$", "", cell) for cell in cells] == [seen(name)] * 2
        assert sum(token.type == "tr_open" for token in MARKDOWN.parse(table)) == 3
        assert tag in MARKDOWN.render(table)
        inline = [part.type for token in MARKDOWN.parse(table) for part in token.children or ()]
        assert set(inline) <= {"text", "text_special", "code_inline"} | ({"html_inline"} if tag == "code" else set())
    assert "<em>" not in MARKDOWN.render(f"a {markdown(name)} b")


def test_tables_for_papers(written):
    for path in files(written / "report_files", ".md"):
        text = path.read_text(encoding="utf-8")
        rows = [token for token in MARKDOWN.parse(text) if token.type == "tr_open"]
        assert {kind for kind, _ in structure(text)} >= {"table_open"}
        assert len(rows) + 1 == text.count("\n|")  # and the rule below the heading
        assert any(seen(NAMES["image"]) in words for words in texts(text))
        structure(text)
    for path in files(written / "report_files", ".tex"):
        check_tex(path.read_text(encoding="utf-8"))


def check_tex(text: str) -> None:
    """Only commands that we use, as many cells in every row, and no row whose first cell is an option of the last."""
    known = {
        "usepackage", "begin", "end", "caption", "label", "toprule", "midrule", "bottomrule", "endhead", "multicolumn",
        "textit", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar", "cdot",
        "dots",
    }  # fmt: skip
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= known
    plain = re.sub(r"\\\\|\\[&%$#_{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert "%" not in plain.split("\n", 1)[1]
    assert not re.search(r"\\\\(\s|\\[a-z]+rule)*[\[*]", text)
    rows = [line for line in text.splitlines() if re.search(r"(?<!\\)&", line)]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


@pytest.mark.parametrize("name", NAMES.values())
def test_tex_of_any_name(name):
    check_tex("% head\n" + f"{latex(name)} & 1 \\\\\n" * 2)
    assert not acting(latex(name))


@pytest.mark.parametrize("name", NAMES.values())
def test_tables_on_any_console_show_the_name(name):
    """Not only on ours: whoever prints the table from Python gets no markup either."""
    console = Console(width=400, record=True, file=StringIO(), force_terminal=False)
    numbers = dict.fromkeys(("accuracy", "low", "high", "longer_wins", "mean_loss", "cvar_loss"), 0.5)
    record = numbers | {"pairs": 3, "ties": 0}
    suite = {"overall": record, "by_category": {name: record, "other": record}, "macro_accuracy": 0.5}
    console.print(render_table({name: suite}, title=name))
    difference = {"difference": 0.1, "low": 0.0, "high": 0.2, "only_a": 1, "only_b": 1, "p": 0.5, "mcnemar_p": 0.5}
    console.print(render_comparison({name: {"overall": difference}}, names=(name, "x")))
    shown = console.export_text()
    assert not acting(shown)
    assert " ".join(shown.split()).count(seen(name).split("  ")[0].split(" ")[0]) >= 5
