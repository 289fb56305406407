"""Every Python block of README, CONTRIBUTING and docs is run with its output, every command line in them is parsed."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cvxpy
import numpy as np
import pytest
import torch
from results_samples import write_sample
from tiny_trl import arguments, build

import dro_core
import robust_rlhf
from dro_core import Wasserstein, worst_case
from llm.data.corpus.corpus import generate, write_corpus
from llm.data.pairs import write_pairs
from llm.kinds.registry import config_of
from llm.pipeline.plan import read_pipeline
from llm.sweep.plan import read_sweep
from llm.training.settings import parse_train
from proofs_check.claims.inner import hoeffding

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_PAGES = [*PAGES, *sorted((ROOT / "docs" / "results").glob("*.md"))]  # historic pages: command lines alone


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


def blocks(pages):
    found = [(page, match) for page in pages for match in re.finditer(r"```(\w*)\n(.*?)```", page.read_text(), re.S)]
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


def _trl(folder: Path) -> dict[str, Any]:
    """A model called my_model; arguments that fit a CPU and stop after one step."""
    from trl import DPOConfig

    tiny = build(folder)
    Path(tiny.causal).rename(folder / "my_model")

    def short(**said):
        return arguments(DPOConfig, folder / "run", **{**said, "gradient_accumulation_steps": 2})

    return {"pairs": tiny.data, "short": short}


def _trained(names: dict[str, Any]) -> None:
    assert names["args"].gradient_accumulation_steps == 2
    assert issubclass(names["RobustDPO"], names["RobustPairs"])


def _gradient(names: dict[str, Any]) -> None:
    np.testing.assert_allclose(names["losses"].grad, names["worst"].weights)


def _collapses(names: dict[str, Any]) -> None:
    assert names["model"].score(names["features"], names["labels"]) > 0.75
    with pytest.warns(UserWarning, match=r"the fit is the constant: some reweighting in cvar:0\.3"):
        names["RobustPreferenceClassifier"]("cvar:0.3").fit(names["features"], names["labels"])


def _scenarios(folder: Path) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    points = draws.normal(size=(6, 2))
    cost = np.linalg.norm(points[:, None] - points, axis=2)
    return {"ConvexSet": dro_core.ConvexSet, "cp": cvxpy, "cost": cost, "lengths": draws.integers(60, 180, 6) * 1.0}


def _convex(names: dict[str, Any]) -> None:
    losses = np.random.default_rng(1).exponential(size=6)
    weights = worst_case(losses, names["known_mean"]).weights
    assert weights @ names["lengths"] == pytest.approx(120.0, abs=1e-6)
    narrow = worst_case(losses, names["both"]).weights
    assert np.abs(narrow - 1 / 6).sum() <= 0.4 + 1e-6
    ours = worst_case(losses, dro_core.ConvexSet(names["transport"])).value
    assert ours == pytest.approx(float(worst_case(losses, Wasserstein(0.7, names["cost"])).value), abs=1e-6)


def _embedded(folder: Path) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    losses = torch.tensor(draws.exponential(size=5), requires_grad=True)
    return {"embeddings": draws.normal(size=(9, 3)), "rows": np.arange(5), "losses": losses}


def _is_distribution(names: dict[str, Any]) -> None:
    assert names["losses"].grad.sum().item() == pytest.approx(1.0)


def _own_data(folder: Path) -> dict[str, Any]:
    write_corpus(folder / "my-data", train=20, test=5)
    return {}


def _read(names: dict[str, Any]) -> None:
    assert "id_test" in names["suites"]
    assert len(names["data"].pairs) == 20


def _results(folder: Path) -> dict[str, Any]:
    write_sample(folder / "runs" / "heads", seeds=1, ambiguities=("erm",))
    return {}


def _no_findings(names: dict[str, Any]) -> None:
    assert names["results"].findings == ()
    assert len(names["results"].table)


def _few_pairs(folder: Path) -> dict[str, Any]:
    """The files that the block names, small."""
    write_corpus(folder / "corpus", train=192, test=12)
    for name, file in (("train", "train"), ("id_test", "test")):
        shutil.copy(folder / "corpus" / f"{name}.jsonl", folder / f"{file}.jsonl")
    return {}


def _compared(names: dict[str, Any]) -> None:
    difference = names["difference"] if hasattr(names["difference"], "columns") else names["difference"].table
    assert set(difference["group"]) > {"all"}
    assert names["robust"].ambiguity == "tv:0.2"


PYTHON = [
    Snippet("README.md", "from llm import", _few_pairs, _compared),
    Snippet("docs/python.md", "from llm import", _few_pairs, _compared),
    Snippet("README.md", "import trl", _trl, _trained),
    Snippet("README.md", "import torch", claims=_gradient),
    Snippet("README.md", "import numpy", claims=_collapses),
    Snippet("CONTRIBUTING.md", "@dataclass(frozen=True)\nclass MyBall", lambda _: {**vars(dro_core.sets.divergences)}),
    Snippet("CONTRIBUTING.md", "@dataclass(frozen=True)\nclass PricedL", lambda _: {**vars(hoeffding)}),
    Snippet("docs/convex-sets.md", "import cvxpy"),
    Snippet("docs/convex-sets.md", "known_mean", _scenarios, _convex),
    Snippet("docs/convex-sets.md", "from dro_core", _embedded, _is_distribution),
    Snippet("docs/data.md", "from llm.data.pairs", _own_data, _read, without="hf://", reason="needs the hub"),
    Snippet("docs/sweeps.md", "from llm.results.store", _results, _no_findings),
    Snippet("docs/trl.md", "import trl", _trl, _trained),
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


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
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


class Parsed(BaseException):
    """A command line was understood; nothing is done."""


@pytest.fixture
def parsing_only(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def understood(self, args=None, namespace=None):
        raise Parsed(parse(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understood)


def commands():
    """Page and arguments of every command line of ours, in blocks and between backticks."""
    found = set()
    for page in COMMAND_PAGES:
        text = page.read_text().replace("\\\n", " ")
        fenced = re.findall(r"```(\w*)\n(.*?)```", text, re.S)
        lines = [line for language, block in fenced if language in ("bash", "console") for line in block.splitlines()]
        prose = re.sub(r"```.*?```", "", text, flags=re.S)
        lines += [" ".join(span.split()) for span in re.findall(r"`(robust-rlhf [^`]*)`", prose)]
        for line in lines:
            match = re.search(r"(?:robust-rlhf|-m robust_rlhf|robust_rlhf\.py) (.*)", line)
            if match and (words := tuple(shlex.split(match[1], comments=True))):
                found.add((str(page.relative_to(ROOT)), words))
    return sorted(found)


def is_whole(words: tuple[str, ...]) -> bool:
    """Whether a command is written out, and not just named in a sentence."""
    return len(words) > 1 and not (words[0] == "train" and "--train_file" not in words)


def test_there_are_commands_to_check():
    assert sum(is_whole(words) for _, words in commands()) > 30
    assert {words[0] for _, words in commands()} <= {*robust_rlhf.COMMANDS, "COMMAND"}


WHOLE = [command for command in commands() if is_whole(command[1])]


@pytest.mark.parametrize(("page", "words"), WHOLE, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in WHOLE])
def test_command_lines_are_understood(page, words, parsing_only, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[0] == "train":
        config, given = parse_train(config_of(words[1]), [*words[2:], "--use_cpu", "true", "--bf16", "false"])
        assert config.train_file
        assert given.output_dir
        return
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
    for name in ("train", "test"):
        write_pairs(generate(8, seed=1), tmp_path / f"{name}.jsonl")
    (tmp_path / "rlhf.yaml").write_text(found["docs/policies.md"])
    assert len(read_pipeline("rlhf.yaml").stages()) > 8
    (tmp_path / "sweep.yaml").write_text(found["docs/sweeps.md"])
    assert len(read_sweep(str(tmp_path / "sweep.yaml"))[0].cells) > 60
    for text in (block.text for block in blocks(PAGES) if (block.page, block.language) == ("docs/data.md", "yaml")):
        (tmp_path / "run.yaml").write_text(text + ("" if "train_file" in text else "train_file: x"))
        parse_train(config_of("reward"), ["--config", "run.yaml", "--output_dir", "run", "--use_cpu", "true"])
