"""The messages of errors, read from the source: the text of every ``raise`` that says something."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LEAST = 3  # words; shorter ones are parts of sentences


def template(node: ast.expr) -> str:
    """The text of a message, with … for what is filled in; empty if it is made elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) or "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{template(node.left) or '…'}{template(node.right) or '…'}"
    return ""


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """Message and class of every error that the file raises in words."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = re.sub("…+", "…", " ".join(template(node.exc.args[0]).split()))
            if len([word for word in text.split() if word.strip("….,:;()'`")]) >= LEAST:
                yield text, ast.unparse(node.exc.func).rpartition(".")[2]


def rooms(package: Path) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Every folder of the package, what its docstring says it is, and its messages in the order of the alphabet."""
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        found = sorted({message for path in folder.glob("*.py") for message in messages(path)})
        if found:
            sign = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
            name = ".".join(folder.relative_to(package.parent).parts)
            yield name, " ".join(sign.partition("\n\n")[0].split()), found
