"""What pages show of the code itself: help of the commands, messages of errors, figures, examples and notebooks."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import sys
from pathlib import Path
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
WIDTH = "88"  # columns of a help text: as many as a page shows


class Shown(SphinxDirective):
    """A directive that shows what it makes; figures lie beside the built site."""

    def figure(self, name: str) -> tuple[Path, str]:
        """Where to write a figure, and how a page names it."""
        path = Path(self.env.app.doctreedir).parent / "figures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path, os.path.relpath(path, Path(self.env.doc2path(self.env.docname)).parent)

    def depends_on(self, path: Path) -> None:
        """Read the page anew when the file changes."""
        self.env.note_dependency(str(path))

    def section(self, title: str, *content: nodes.Node) -> nodes.section:
        """A section with an anchor of its own."""
        made = nodes.section("", nodes.title(title, title), *content, ids=[nodes.make_id(title)], names=[title])
        self.state.document.note_explicit_target(made, made)
        return made


def block(text: str, language: str = "text") -> nodes.literal_block:
    """Text as it stands."""
    return nodes.literal_block(text, text, language=language)


# Commands.


def help_of(*words: str) -> str:
    """What a command prints when it is asked for help."""
    import robust_rlhf

    out = io.StringIO()
    told, kept = contextlib.redirect_stdout(out), contextlib.redirect_stderr(out)
    with mock.patch.dict(os.environ, COLUMNS=WIDTH), told, kept, contextlib.suppress(SystemExit):
        robust_rlhf.main([*words])
    return out.getvalue()


def parts_of(command: str, text: str) -> list[str]:
    """The actions of a command, from its usage; kinds of training from their table."""
    from llm.run.kinds import KINDS

    if command == "train":
        return list(KINDS)
    found = re.search(r"\{([\w,-]+)\}\s+\.\.\.", text)
    return found[1].split(",") if found else []


class Commands(Shown):
    """Every command with its help and that of its actions, from the parsers that read them."""

    def run(self) -> list[nodes.Node]:
        """A section each."""
        import robust_rlhf

        self.env.note_reread()
        made: list[nodes.Node] = []
        for command in robust_rlhf.COMMANDS:
            text = help_of(command, "--help")
            inner = [self.action(command, part) for part in parts_of(command, text)]
            made.append(self.section(f"robust-rlhf {command}", block(text), *inner))
        return made

    def action(self, command: str, part: str) -> nodes.section:
        """One action, with all flags where a command can tell more of them."""
        text = help_of(command, part, "--help")
        if "--help all" in text:
            text = help_of(command, part, "--help", "all")
        return self.section(f"robust-rlhf {command} {part}", block(text))


# Errors.


class Messages(Shown):
    """Every message that a package raises, by room and kind of error."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A table for each folder of the package."""
        from .messages import rooms

        self.env.note_reread()
        return [
            self.section(room, nodes.paragraph("", what), _table(("message", "error"), rows))
            for room, what, rows in rooms(ROOT / self.arguments[0])
        ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in (85, 15)]
    lines = [nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in row)) for row in (head, *rows)]
    group += nodes.thead("", lines[0])
    group += nodes.tbody("", *lines[1:])
    return nodes.table("", group, classes=["messages"])


# Figures, examples, notebooks.


class WorstCase(Shown):
    """The figure of one set at some sizes; the content says what to see, values are added."""

    required_arguments, final_argument_whitespace, has_content = 1, True, True

    def run(self) -> list[nodes.Node]:
        """A figure with its caption."""
        from .figures import draw

        self.depends_on(Path(__file__).with_name("figures.py"))
        texts = self.arguments[0].split()
        path, name = self.figure(re.sub(r"\W+", "-", "-".join(texts)) + ".svg")
        said = draw(texts, path)
        caption = nodes.caption("", f"{' '.join(self.content)} Values: {said}")
        return [nodes.figure("", nodes.image(uri=name, alt=said), caption)]


class Example(Shown):
    """A script of examples/: its text, what it prints, and the figure that it draws."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Runs it."""
        import matplotlib.pyplot as plt

        script = EXAMPLES / self.arguments[0]
        self.depends_on(script)
        path, name = self.figure(f"{script.stem}.svg")
        out = io.StringIO()
        with mock.patch.object(sys, "argv", [str(script), str(path)]), contextlib.redirect_stdout(out):
            plt.switch_backend("agg")
            with plt.rc_context({"svg.hashsalt": "robust-rlhf"}):
                runpy.run_path(str(script), run_name="__main__")
            plt.close("all")
        text = script.read_text(encoding="utf-8")
        alt = text.partition('"""')[2].partition("\n")[0]
        return [block(text, "python"), block(out.getvalue()), nodes.image(uri=name, alt=alt)]


class Notebook(Shown):
    """A notebook of examples/: its text and its code."""

    required_arguments = 1
    option_spec = {"level": directives.nonnegative_int}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Its cells, one after the other."""
        path = EXAMPLES / self.arguments[0]
        self.depends_on(path)
        text = "\n\n".join(
            "".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```"
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Names the directives."""
    shown: dict[str, type[Directive]] = {
        "commands": Commands,
        "messages": Messages,
        "worst-case": WorstCase,
        "example": Example,
        "notebook": Notebook,
    }
    for name, directive in shown.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
