"""Every Python block of README, CONTRIBUTING and docs is run with its output, every command line in them is parsed."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import page_names as given
import pytest
import yaml

import robust_rlhf
from dro_core.sets import divergences
from llm.data.columns import columns_of
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.registry import config_of
from llm.pipeline.plan import read_pipeline
from llm.sweep.plan import read_sweep
from llm.training.settings import parse_train
from proofs_check.claims.inner import hoeffding

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs" / "tutorials").glob("*.md"))
COMMAND_PAGES = [*PAGES, *sorted((ROOT / "docs" / "results").glob("*.md"))]  # historic pages: command lines alone


FENCED = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.M)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def blocks(pages):
    found = [(page, match) for page in pages for match in FENCED.finditer(page.read_text())]
    return [Block(str(page.relative_to(ROOT)), match[1], match[2]) for page, match in found]


# Python.


@dataclass
class Snippet:
    """How a block is run.

    Attributes:
        first: What it begins with, so that it is found again.
        given: Called with an empty folder, in which the block runs: the names that the page takes for granted.
        claims: Called with all names afterwards; asserts what the page says of them.
        without: Lines with this text are left out, for the ``reason``.
    """

    page: str
    first: str
    given: Callable[[Path], dict[str, Any]] = lambda folder: {}
    claims: Callable[[dict[str, Any]], None] = lambda names: None
    without: str = ""
    reason: str = ""


PYTHON = [
    Snippet("README.md", "from llm import", given.few_pairs, given.compared),
    Snippet("docs/index.md", "import numpy"),
    Snippet("docs/tutorials/frozen-embeddings.md", "import numpy"),
    Snippet("docs/tutorials/frozen-embeddings.md", "from dro_core", given.few_pairs, given.fitted),
    Snippet("docs/tutorials/own-checker.md", "from pathlib", given.small_policy),
    Snippet("docs/tutorials/reward-model.md", "from llm import", given.few_pairs, given.compared_by_source),
    Snippet("docs/tutorials/theorem.md", "from dataclasses", claims=given.refuted),
    Snippet("docs/tutorials/trl.md", "import trl", given.few_pairs, given.trained_groups),
    Snippet("docs/python.md", "from llm import", given.few_pairs, given.compared),
    Snippet("README.md", "import trl", given.trl, given.trained),
    Snippet("README.md", "import torch", claims=given.gradient),
    Snippet("README.md", "import numpy", claims=given.collapses),
    Snippet("CONTRIBUTING.md", "@dataclass(frozen=True, eq=False)\nclass MyBall", lambda _: vars(divergences).copy()),
    Snippet("CONTRIBUTING.md", "@dataclass(frozen=True)\nclass PricedL", lambda _: {**vars(hoeffding)}),
    Snippet("docs/collapse.md", "from dro_core import collapse_radius", given.features, given.bears_some),
    Snippet("docs/collapse.md", "found = collapse_radius(chosen - rejected", given.solved_features, given.bears_more),
    Snippet("docs/convex-sets.md", "import cvxpy"),
    Snippet("docs/convex-sets.md", "known_mean", given.scenarios, given.convex),
    Snippet("docs/data.md", "from llm.data.pairs", given.own_data, given.read, without="hf://", reason="needs the hub"),
    Snippet("docs/rewards.md", "from pathlib import Path", given.small_policy),
    Snippet("docs/serving.md", "from llm import score", given.small_reward, given.scored),
    Snippet("docs/sets.md", "from dro_core import MeanDiscrepancy", given.embedded, given.is_distribution),
    Snippet("docs/sets.md", "radii = radius_from_confidence", given.visited, given.fall_with_visits),
    Snippet("docs/sweeps.md", "from llm.results.store", given.results, given.no_findings),
    Snippet("docs/trl.md", "import trl", given.trl, given.trained),
    Snippet("docs/trl.md", "from llm.trl import RobustGRPO", given.checked, given.told_groups),
    Snippet("docs/trl.md", "from llm.data.pairs", given.tokens, given.windowed),
]  # fmt: skip


def _of(snippet: Snippet) -> Block:
    named = [b for b in blocks(PAGES) if b.language == "python" and b.page == snippet.page]
    (found,) = [block for block in named if block.text.startswith(snippet.first)]
    return found


def test_every_python_block_has_an_entry():
    assert sorted(b for b in blocks(PAGES) if b.language == "python") == sorted(map(_of, PYTHON))


def printed_as_said(text: str, out: str) -> None:
    """The comment behind every print of a block begins with what was printed."""
    said = re.findall(r"^print\(.*\)  # (.*)$", text, re.M)
    shown = [line for line in out.splitlines() if line.strip()]
    assert len(said) == len(shown) == text.count("print(")
    for comment, line in zip(said, shown, strict=True):
        assert re.match(re.escape(line) + r"($|[:;,.] )", comment), (comment, line)


@pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.slow("many of them train")
@pytest.mark.parametrize("snippet", PYTHON, ids=lambda s: f"{s.page}: {s.first.splitlines()[-1][:24]}")
def test_python_blocks_run_as_printed(snippet, tmp_path, monkeypatch, capsys):
    lines = _of(snippet).text.splitlines(keepends=True)
    text = "".join(line for line in lines if not snippet.without or snippet.without not in line)
    assert bool(snippet.without) == bool(snippet.reason)
    names = snippet.given(tmp_path)
    monkeypatch.chdir(tmp_path)
    if short := names.pop("short", None):
        import trl

        monkeypatch.setattr(trl, "DPOConfig", short)
    capsys.readouterr()
    exec(compile(text, snippet.page, "exec"), names)
    if "trl" not in names:
        printed_as_said(text, capsys.readouterr().out)
    snippet.claims(names)


# Command lines.


SHELLS = ("bash", "console", "sh")


class Parsed(BaseException):
    """A command line was understood; nothing is done."""


def only_parse(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def understood(self, args=None, namespace=None):
        raise Parsed(parse(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understood)


def ours(line: str) -> tuple[str, ...]:
    """The words of a command line up to a pipe or the file that takes what it says."""
    return tuple(takewhile(lambda word: word not in ("|", ">"), shlex.split(line, comments=True)))


def commands():
    """Page and arguments of every command line of ours, in blocks and between backticks."""
    found = set()
    for page in COMMAND_PAGES:
        text = page.read_text().replace("\\\n", " ")
        fenced = FENCED.findall(text)
        lines = [line for language, block in fenced if language in SHELLS for line in block.splitlines()]
        prose = FENCED.sub("", text)
        lines += [" ".join(span.split()) for span in re.findall(r"`(robust-rlhf [^`]*)`", prose)]
        for line in lines:
            match = re.search(r"(?:robust-rlhf|-m robust_rlhf|robust_rlhf\.py) (.*)", line)
            if match and (words := ours(match[1])):
                found.add((str(page.relative_to(ROOT)), words))
    return sorted(found)


def is_whole(words: tuple[str, ...]) -> bool:
    """Whether a command is written out, and not just named in a sentence."""
    return len(words) > 1 and not (words[0] == "train" and "--train_file" not in words)


def test_there_are_commands_to_check():
    assert sum(is_whole(words) for _, words in commands()) > 30
    assert {words[0] for _, words in commands()} <= {*robust_rlhf.COMMANDS, "COMMAND", "--help"}


WHOLE = [command for command in commands() if is_whole(command[1])]


@pytest.mark.parametrize(("page", "words"), WHOLE, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in WHOLE])
def test_command_lines_are_understood(page, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[0] == "train":
        config, given = parse_train(config_of(words[1]), [*words[2:], "--use_cpu", "true", "--bf16", "false"])
        assert config.train_file
        assert given.output_dir
        return
    only_parse(monkeypatch)
    with pytest.raises(Parsed):
        robust_rlhf.main(list(words))


def test_make_targets_exist():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        target
        for page in COMMAND_PAGES
        for pattern in (r"`make ([a-z-]+)", r"^make ([a-z-]+) +#")
        for target in re.findall(pattern, page.read_text(), re.M)
    }
    assert {"demo", "test", "check", "bench"} <= named <= known


# Files.


def test_yaml_blocks_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {block.page: block.text for block in blocks(PAGES) if block.language == "yaml"}
    assert set(found) == {"docs/data.md", "docs/policies.md", "docs/sweeps.md"}
    mapped = next(block.text for block in blocks(PAGES) if block.text.startswith("columns:"))
    assert str(columns_of(yaml.safe_load(mapped)["columns"])).count("=") == 4
    for name in ("train", "test"):
        write_pairs(generate(8, seed=1), tmp_path / f"{name}.jsonl")
    (tmp_path / "rlhf.yaml").write_text(found["docs/policies.md"])
    assert len(read_pipeline("rlhf.yaml").stages()) > 8
    whole, changed = (
        block.text for block in blocks(PAGES) if (block.page, block.language) == ("docs/sweeps.md", "yaml")
    )
    for settings in (yaml.safe_load(whole), yaml.safe_load(whole) | yaml.safe_load(changed)):
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(settings))
        assert len(read_sweep(str(tmp_path / "sweep.yaml"))[0].cells) > 60
    for text in (block.text for block in blocks(PAGES) if (block.page, block.language) == ("docs/data.md", "yaml")):
        (tmp_path / "run.yaml").write_text(text + ("" if "train_file" in text else "train_file: x"))
        parse_train(config_of("reward"), ["--config", "run.yaml", "--output_dir", "run", "--use_cpu", "true"])
