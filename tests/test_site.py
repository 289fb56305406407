"""The site of docs/: what its pages take from code, scripts and results is right, and nothing is left out."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import dro_core
from dro_core import AmbiguitySet, TotalVariation

ROOT = Path(__file__).parents[1]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
sys.path.insert(0, str(DOCS))

from made.figures import draw, set_of  # noqa: E402
from made.messages import messages, rooms  # noqa: E402

SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "robust_reward.py")  # tests/test_examples.py
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SLOW = {"reward_model.ipynb"}  # trains three models


# Figures of sets.


def drawn():
    """The sets of concepts.md, by figure."""
    return [line.split() for line in re.findall(r"^```\{worst-case\} (.*)$", (DOCS / "concepts.md").read_text(), re.M)]


def parts(ambiguity: AmbiguitySet):
    """The set, what it is made around, and what it is the sum of."""
    fields = [getattr(ambiguity, name, None) for name in ambiguity.__dataclass_fields__]
    inner = [part for field in fields if isinstance(field, AmbiguitySet) for part in parts(field)]
    return [type(ambiguity), *inner]


def test_every_public_set_has_a_figure():
    public = {getattr(dro_core, name) for name in dro_core.__all__}
    sets = {kind for kind in public if isinstance(kind, type) and issubclass(kind, AmbiguitySet)} - {AmbiguitySet}
    assert sets == {kind for texts in drawn() for text in texts for kind in parts(set_of(text))} & public


def test_a_figure_says_what_the_solver_found(tmp_path):
    said = draw(["tv:0", "cvar:0"], tmp_path / "one.svg")
    assert said == "mean 0.99, tv:0 0.99 (24.0 of 24 examples count), cvar:0 3.87 (1.0 of 24 examples count)."
    draw(["tv:0", "cvar:0"], tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


# Scripts and notebooks of the gallery.


def test_the_gallery_shows_every_script_and_notebook():
    """And links each, for who reads the pages where they are not built."""
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    shown = re.findall(r"^```\{(?:example|notebook)\} (.*)$", pages, re.M)
    assert sorted(shown) == [path.name for path in sorted([*SCRIPTS, *NOTEBOOKS])]
    linked = set(re.findall(r"\]\(\.\./examples/([\w.]+)\)", pages))
    assert linked == {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}


def hidden_by_the_legend(axes):
    """The drawn points, of curves and clouds, on which the legend lies, in dots of the figure."""
    if (legend := axes.get_legend()) is None:
        return []
    curves = [line.get_transform().transform_path(line.get_path()).interpolated(100).vertices for line in axes.lines]
    clouds = [axes.transData.transform(cloud.get_offsets()) for cloud in axes.collections]
    frame = legend.get_window_extent()
    return [point for points in (*curves, *clouds) for point in points if frame.contains(*point)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_draws_its_figure(script, tmp_path, monkeypatch, capsys):
    assert len(script.read_text().splitlines()) <= 40
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "figure.svg")])
    plt.switch_backend("agg")
    runpy.run_path(str(script), run_name="__main__")
    [axes] = plt.gcf().axes
    plt.close("all")
    assert axes.get_title()
    assert not hidden_by_the_legend(axes)
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    assert capsys.readouterr().out.strip()


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(
    "notebook",
    [pytest.param(path, marks=[pytest.mark.exhaustive] if path.name in SLOW else []) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    cells = json.loads(notebook.read_text())["cells"]
    assert all(cell.get("outputs", []) == [] and cell.get("execution_count") is None for cell in cells)
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    names: dict[str, object] = {}
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        *before, last = (tree := ast.parse("".join(cell["source"]))).body
        if not isinstance(last, ast.Expr):
            before, last = tree.body, None
        exec(compile(ast.Module(before, []), notebook.name, "exec"), names)
        if last is not None:  # what a cell ends with is shown
            assert repr(eval(compile(ast.Expression(last.value), notebook.name, "eval"), names))
    plt.close("all")


# Messages.


def test_messages_are_what_is_raised():
    with pytest.raises(ValueError, match=r"radius") as raised:
        TotalVariation(2)
    known = {text for _, _, rows in rooms(ROOT / "dro_core") for text, _ in rows}
    patterns = [".*".join(map(re.escape, text.split("…"))) for text in known]
    assert any(re.fullmatch(pattern, " ".join(str(raised.value).split())) for pattern in patterns)


def test_messages_are_read_with_what_is_filled_in_left_open(tmp_path):
    (tmp_path / "file.py").write_text(
        "raise DataError(f'{x}{y!r} has no pairs: ' 'add ' + name(x))\n"
        "raise ValueError('short one')\nraise module.RunError(f'there is {x:.2f} left of it')\n"
    )
    assert sorted(messages(tmp_path / "file.py")) == [
        ("there is … left of it", "RunError"),
        ("… has no pairs: add …", "DataError"),
    ]


# Numbers that pages quote.

QUOTING = [DOCS / "should-i.md", DOCS / "limits.md", DOCS / "peers.md", *sorted((DOCS / "tutorials").glob("*.md"))]
INTERVAL = re.compile(r"([+-]?[\d.]+) \[([+-]?[\d.]+), ([+-]?[\d.]+)\]")


def without_comments(text: str) -> str:
    return re.sub(r"<!--.*?-->", "", text)


def quotes():
    """Page, numbers and the pages that the paragraph links, of every quoted interval."""
    for page in QUOTING:
        for paragraph in page.read_text().split("\n\n"):
            linked = [page.parent / link for link in re.findall(r"\]\(([\w./-]+\.md)", paragraph)]
            for found in INTERVAL.finditer(" ".join(paragraph.split())):
                yield page, found[0], linked


def test_intervals_are_those_of_the_pages_that_the_paragraph_links():
    found = list(quotes())
    assert len(found) >= 8
    for page, quoted, linked in found:
        there = [without_comments(path.read_text()).replace("+", "") for path in linked]
        assert any(quoted.replace("+", "") in text for text in there), f"{page.name}: {quoted}"


# The build.

BROKEN = """# A page

[nowhere](nowhere.md) [no such part](#nothing)

```{toctree}
reference
```
"""
UNDOCUMENTED = """# Reference

```{eval-rst}
.. autofunction:: dro_core.worst_case
.. autofunction:: made_for_this.silent
```
"""


@pytest.mark.exhaustive
@pytest.mark.slow("a build of its own, which loads all packages")
def test_the_build_refuses_what_is_wrong(tmp_path):
    """Links that lead nowhere, public names without a docstring or a page."""
    pytest.importorskip("sphinx", reason="make docs installs it")
    source = tmp_path / "docs"
    shutil.copytree(DOCS / "made", source / "made")
    shutil.copy(DOCS / "conf.py", source)
    (source / "index.md").write_text(BROKEN)
    (source / "reference.md").write_text(UNDOCUMENTED)
    (source / "made_for_this.py").write_text("def silent():\n    pass\n")
    words = ["-m", "sphinx", "-q", "-W", "-n", "-b", "html", str(source), str(tmp_path / "build" / "site")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    for said in ("nowhere", "nothing", "made_for_this.silent has no docstring", "dro_core.CVaR is public, and no page"):
        assert said in done.stderr
    assert "dro_core.worst_case is public" not in done.stderr


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: page.stem
)
def test_no_line_of_prose_begins_with_a_mark(page):
    """A comment at the beginning of a line begins a block of its own, and cuts the sentence in two."""
    assert not re.findall(r"^ *<!-- .+ -->.*\S.*<!-- / -->", page.read_text(encoding="utf-8"), re.M)
