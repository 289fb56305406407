"""Names that are HTML, formulas, markup and colour codes, a day's work on them, and how a reader sees them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import yaml
from forked import Forked
from markdown_it import MarkdownIt
from results_samples import write_sample
from tiny_models import save_models

from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair, write_pairs
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


def day_of(once):
    """The folder of a whole day's work on hostile names, and ``said.txt``, all that it wrote to the terminal."""

    def build(folder):
        (folder / "data").mkdir()
        pairs = hostile_pairs(96)
        for name in ("train", WHERE):
            write_pairs(pairs, folder / "data" / f"{name}.jsonl")
        save_models(folder, pairs, max_length=96, policy=f"start {WHERE}", reward=f"rm {WHERE}")
        for name in ("start", "rm"):
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


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


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
