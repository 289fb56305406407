"""Docstrings as they are written here: indented formulas are kept as they stand, and none may be missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)
FACES = ("dro_core", "synthetic", "proofs_check", "llm", "llm.trl")
_SECTION = re.compile(r"(Args|Attributes|Example|Examples|Raises|Returns|Yields):$")
_TABLE = ("| ", "|-")
_BAR = re.compile(r"(``[^`]*``)|(\|)")


def as_rst(lines: list[str]) -> Iterator[str]:
    """The lines with ``::`` before formulas and tables, which are kept as they stand, and with bars that are only bars.

    A formula is indented by four after an empty line, and stands before the sections; a table has bars at its left.
    """
    left, in_prose, kept = "", True, False
    for before, line in zip(["", *lines], lines, strict=False):
        in_prose = in_prose and not _SECTION.match(line)
        is_table = line.startswith(_TABLE)
        begins = line.startswith("    ") and not before.strip() and in_prose and left and not left.startswith(" ")
        if begins or (is_table and not before.startswith(_TABLE)):
            yield from ("", "::", "")
        was_kept = kept
        kept = bool(begins or (kept and (not line.strip() or line.startswith("    "))))
        if was_kept and not kept:
            yield ""
        left = line if line.strip() else left
        if kept or is_table:
            yield "    " + line
        else:
            yield _BAR.sub(lambda found: found[1] or "\\|", line)


def check_and_mark(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Warns of a public name without a docstring, which ends the build."""
    if not any(lines):
        LOG.warning("%s has no docstring", name)
    lines[:] = as_rst(lines)


def public_names() -> dict[str, str]:
    """Where a name is defined, and where it is public: ``dro_core.sets.sorted.CVaR`` is ``dro_core.CVaR``."""
    found = {}
    for face in FACES:
        module = import_module(face)
        for name in module.__all__:
            value = getattr(module, name)
            found[f"{getattr(value, '__module__', face)}.{getattr(value, '__qualname__', name)}"] = f"{face}.{name}"
    return found


def resolve(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """A type in a signature, by its public name; one that is not public is shown and leads nowhere."""
    if node.get("refdomain") != "py" or not node["reftarget"].startswith(tuple(f"{face}." for face in FACES)):
        return None
    public = public_names().get(node["reftarget"])
    if public is None:
        return contnode
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)


def check_complete(app: Sphinx, env: Any) -> None:
    """Warns of a public name that no page of the reference describes."""
    for public in sorted({*public_names().values()} - {*env.domains.python_domain.objects}):
        LOG.warning("%s is public, and no page of docs/reference describes it", public)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the hooks; the first one runs before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", check_and_mark, priority=400)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", check_complete)
    return {"parallel_read_safe": True}
