"""Names that are HTML, formulas, markup and colour codes stay names: in every file written, and on the screen."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import unicodedata
from collections.abc import Iterator
from contextlib import chdir
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from forked import Forked
from markdown_it import MarkdownIt
from results_samples import write_sample
from rich.console import Console

from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair, write_pairs
from llm.demo.page import ArmRun, build_report, render_summary, write_report
from llm.judging.tables import render_comparison, render_table
from llm.models.card import model_card, policy_card
from llm.models.loading import tiny_policy, tiny_reward_model
from llm.run.escaping import csv_text, latex, markdown, markdown_code, python_text, shell_word
from llm.run.terminal import Terminal
from robust_rlhf import main

NAMES = {
    "image": "<img src=x onerror=alert(1)>",
    "script": "</td></script><script>alert(1)</script>",
    "attribute": '"\' onload=alert(1) x="',
    "entity": "&lt;b&gt; &#60;",
    "formula": "=cmd|' /C calc'!A0",
    "sum": "-2+3+cmd|x",
    "at": " @SUM(1)",
    "elsewhere": "x;=1+1;'+2",
    "quoted formula": "''=1",
    "tab": "\t=1+1",
    "cells": "a|b\\|c\\",
    "code": "`tick` ``` ~~~",
    "link": "[x](javascript:alert(1)) ![i](http://x)",
    "emphasis": "**bold** __it__ ~~no~~ $x$",
    "front": "two\nlines\n---\nlicense: mit\n---\n# title\n\n<b>",
    "returns": "a\rb\r\nc\u2028d",
    "return": "a\rb",
    "colour": "\x1b[31mred\x1b[0m\x07\x1b]8;;http://x\x07",
    "c1": "\x9b2J\x7f\x85",
    "direction": "\u202eevil\u2066\u200f\u061c",
    "rich": "[bold]rich[/bold] [link=http://x]l[/link] :smile: \\[x]",
    "tex": "[1cm] $\\input{x}$ % & ^^ # ~",
    "star": "*[2cm]",
    "quotes": "a\"b'c\\",
}
LICENCE = {"license": NAMES["image"], "name": "a---b"}
WHERE = "<b>=1;|[bold]`\u202e\x1b[31m"  # a file's or a folder's name
UTF8 = {**os.environ, "LC_ALL": "C.UTF-8"}
WIDE = {"COLUMNS": "2000", "ROBUST_RLHF_TRACEBACK": ""}


def acting(text: str) -> set[str]:
    """Characters that act instead of showing, by the Unicode database."""
    bidi = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    return {
        sign
        for sign in text
        if sign not in "\n\t"
        and (
            unicodedata.category(sign) in ("Cc", "Zl", "Zp")
            or unicodedata.bidirectional(sign) in bidi
            or sign in "\u200e\u200f\u061c"
        )
    }


def seen(name: str) -> str:
    """What a reader is to see of a name, on one line."""
    name = name.replace("\r\n", "\n")
    name = "".join(f"\\u{ord(sign):04x}" if acting(sign) else sign for sign in name)
    return " ".join(name.split())


def hostile_pairs(count: int) -> list[Pair]:
    names = list(NAMES.values())
    return [
        Pair(
            f"{names[row % len(names)]} {row}",
            ({"role": "user", "content": f"{pair.prompt[-1]['content']} {names[row % len(names)]}"},),
            f"{pair.chosen} {names[(row + 1) % len(names)]}",
            f"{pair.rejected} {names[(row + 2) % len(names)]}",
            source=names[(row + 3) % len(names)],
            category=names[(row + 4) % len(names)],
        )
        for row, pair in enumerate(generate(count, seed=3))
    ]


def commands(data: str, model: str, policy: str) -> Iterator[list[str]]:
    train, out = f"{data}/train.jsonl", f"out {WHERE}"
    fast = ["--max_steps", "2", "--use_cpu", "true", "--disable_tqdm", "true", "--max_length", "64"]
    reward = ["--model", model, "--train_file", train, "--eval_file", train, "--ambiguity", "tv:0.2,by=source"]
    reward += ["--suites", f"{data}/{WHERE}.jsonl", "--eval_pairs", "96", "--logging_steps", "1"]
    yield ["data", "show", train]
    yield ["train", "reward", "--config", "reward-tiny", *reward, *fast, "--output_dir", out]
    yield ["train", "reward", "--config", "reward-tiny", *reward, *fast, "--output_dir", "plan", "--dry_run", "true"]
    yield ["evaluate", f"{out}/model", "--against", model, "--suite", f"{data}/{WHERE}.jsonl", "--eval-pairs", "96",
           "--output", f"judged {WHERE}"]  # fmt: skip
    yield ["doctor", out]
    yield ["doctor", out, "--json"]
    yield ["export", f"{out}/model", "--to", "rewardbench", "-o", f"export {WHERE}", "--suite",
           f"{data}/{WHERE}.jsonl", "--eval-pairs", "9"]  # fmt: skip
    told = ["--model", policy, "--train_file", train, "--reward_model", model, "--gold", model, "--suites",
            f"{data}/{WHERE}.jsonl", "--eval_prompts", "23", "--eval_samples", "1", "--max_new_tokens", "2",
            "--prompts_per_step", "4", "--samples", "2", "--max_steps", "1", "--use_cpu", "true",
            "--disable_tqdm", "true"]  # fmt: skip
    yield ["train", "policy", "--config", "policy-tiny", *told, "--output_dir", f"policy {WHERE}"]
    yield ["evaluate", "no <b>\x1b[2Jmodel\u202e", "--suite", train]
    yield ["report", "results", "-o", "report.html", "--families", "1"]


def run_all(folder: str) -> int:
    with chdir(folder):
        return sum(main(argv) not in (0, 1) for argv in commands("data", f"rm {WHERE}", f"start {WHERE}"))


@pytest.fixture(scope="module")
def written(once):
    """The folder of a whole day's work on hostile names, and ``said.txt``, all that it wrote to the terminal."""

    def build(folder):
        (folder / "data").mkdir()
        pairs = hostile_pairs(96)
        for name in ("train", WHERE):
            write_pairs(pairs, folder / "data" / f"{name}.jsonl")
        torch.manual_seed(0)
        for name, (model, tokenizer) in {
            "start": tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=96),
            "rm": tiny_reward_model((pair.chosen for pair in pairs), max_length=96),
        }.items():
            model.save_pretrained(folder / f"{name} {WHERE}")
            tokenizer.save_pretrained(folder / f"{name} {WHERE}")
            (folder / f"{name} {WHERE}" / "README.md").write_text(f"---\n{yaml.safe_dump(LICENCE)}---\n")
        suites = {f"id{WHERE}": (60, (*NAMES.values(), "b")), f"ood {NAMES['tex']}": (60, ("a", "tiny"))}
        write_sample(folder / "results", suites=suites, ambiguities=("erm", "tv:0.2"), seeds=1, train=40,
                     models=(NAMES["rich"],), regimes=(NAMES["image"], NAMES["direction"]))  # fmt: skip
        process = Forked(run_all, str(folder), env={**os.environ, **WIDE})
        said, _ = process.communicate(300)
        assert process.returncode == 1, said  # one of them has no model
        (folder / "said.txt").write_text(said)

    return once("hostile-names", build)


def files(folder: Path, *suffixes: str) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file()]
    assert found
    return found


def ours(folder: Path) -> list[Path]:
    return [path for path in files(folder, ".md") if not path.parent.name.startswith(("rm ", "start "))]


def test_nothing_acts_on_a_terminal(written):
    said = (written / "said.txt").read_text()
    assert not acting(said)
    lines = said.splitlines()
    for name in NAMES.values():  # categories, sources
        first = seen(name.replace("\r\n", "\n").split("\n")[0])
        assert any(first in " ".join(line.split()) for line in lines), name
    assert any(line.startswith("robust-rlhf: ") and "no <b>\\x1b[2Jmodel\\u202e" in line for line in lines)


def test_nothing_acts_in_what_people_read(written):
    for path in (*ours(written), *files(written, ".html", ".svg", ".tex")):
        assert not acting(path.read_text(encoding="utf-8")), path


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
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


def structure(text: str) -> list[tuple[str, str]]:
    """All elements of a text in Markdown, without its words."""
    silent = {"text", "text_special", "softbreak"}
    tokens = [part for token in MARKDOWN.parse(text) for part in (token, *(token.children or ()))]
    assert not [token for token in tokens if token.type in ("html_block", "link_open", "image")]
    return [(token.type, token.tag) for token in tokens if token.type not in silent]


def texts(text: str) -> list[str]:
    """The words of every paragraph and cell, as a reader sees them."""
    return [
        " ".join("".join(part.content for part in token.children or ()).split())
        for token in MARKDOWN.parse(text)
        if token.type == "inline"
    ]


@pytest.mark.parametrize("folder", ["out", "policy"])
def test_a_card_has_the_same_structure_whatever_the_names(folder, written):
    run = written / f"{folder} {WHERE}"
    record, metrics = (json.loads((run / name).read_text()) for name in ("run.json", "metrics.json"))
    front, card = body((run / "model" / "README.md").read_text())
    make = policy_card if folder == "policy" else model_card
    with chdir(written):
        assert (run / "model" / "README.md").read_text() == make(record, metrics["suites"])
    tame, its_card = body(make(tamed(record), tamed(metrics["suites"])))
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
    runs = [
        ArmRun(ambiguity=ambiguity, seed=0, steps=2, seconds=1.0, history=record["history"],
               adversary=record["adversary"], record=record,
               margins={name: np.linspace(-1, 1, len(pairs)) for name, pairs in suites.items()})
        for ambiguity in ("erm", "tv:0.2")
    ]  # fmt: skip
    common = {"environment": {"device": NAMES["image"]}, "command": shell_word(WHERE), "settings": {WHERE: [WHERE]}}
    report = build_report(title=WHERE, runs=runs, suites=suites, data=record["data"], **common)
    write_report(report, folder)
    console = Terminal(width=400, record=True, file=StringIO())
    console.print(render_summary(report))
    shown = console.export_text()
    assert seen(WHERE) in shown
    assert not acting(shown)


def test_pages_and_drawings_hold_the_names_as_text(written, tmp_path):
    demo_report(written / f"out {WHERE}", tmp_path)
    for path in [*files(written, ".html"), tmp_path / "report.html"]:
        page = Page(text := path.read_text(encoding="utf-8"))
        assert not acting(text)
        assert not page.tags & {"script", "img", "b", "iframe", "object"}
        assert not [name for name in page.attributes if name.startswith("on")]
        words = " ".join(" ".join(page.words).split())
        assert all(seen(name) in words for name in (NAMES["image"], NAMES["direction"], WHERE))
    for path in files(written, ".svg"):
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert not [part for part in root.iter() if part.tag.endswith(("script", "img", "}b"))]


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
