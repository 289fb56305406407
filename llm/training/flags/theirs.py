"""The settings of ``TrainingArguments`` as its source declares them: importing it would load torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Declared(NamedTuple):
    """A setting of transformers.

    Attributes:
        name: Of the field.
        type: Its annotation.
        default: Where it is written out; None otherwise.
        text: What it is for.
    """

    name: str
    type: str
    default: object
    text: str

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.type in ("bool", "bool | None")

    @property
    def shown(self) -> str:
        """What help shows as its value: the default, or what kind it is."""
        return str(self.default) if self.default not in (None, "", ()) else self.type.partition(" ")[0].upper()


@cache
def declared() -> dict[str, Declared]:
    """All settings by name, in their order.

    Raises:
        ModuleNotFoundError: transformers is not installed.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
    source = Path(spec.origin).with_name("training_args.py")
    found = _class(source) if source.exists() else None
    if found is None:  # of a version that keeps them elsewhere, or inherits some
        return _loaded()
    rows = [_row(node) for node in found.body if isinstance(node, ast.AnnAssign)]
    return {row.name: row for row in rows if row is not None}


def all_flags() -> set[str]:
    """How these settings are spelt on the command line, the opposites of those that are on included."""
    rows = declared().values()
    spelt = {f"--{row.name.replace('_', '-')}" for row in rows}
    return spelt | {f"--no-{row.name.replace('_', '-')}" for row in rows if row.is_switch and row.default is True}


def _class(source: Path) -> ast.ClassDef | None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"]
    return classes[0] if len(classes) == 1 and not classes[0].bases else None


def _row(node: ast.AnnAssign) -> Declared | None:
    """The setting that a line of the class declares; None of what cannot be set."""
    kind = ast.unparse(node.annotation)
    if not isinstance(node.target, ast.Name) or kind.startswith("ClassVar"):
        return None
    told = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
    if _value(told.get("init")) is False:
        return None
    default = _value(told.get("default") if isinstance(node.value, ast.Call) else node.value)
    return Declared(node.target.id, kind, default, _help(told.get("metadata")))


def _help(metadata: ast.expr | None) -> str:
    """The entry ``help`` of a mapping that may also hold what is worked out when it is loaded."""
    if not isinstance(metadata, ast.Dict):
        return ""
    texts = [value for key, value in zip(metadata.keys, metadata.values, strict=True) if _value(key) == "help"]
    return " ".join(str(_value(texts[0]) or "").split()) if texts else ""


def _value(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:  # worked out when it is loaded
        return None


def _loaded() -> dict[str, Declared]:
    from dataclasses import fields

    from transformers import TrainingArguments

    return {
        field.name: Declared(
            field.name,
            field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type)),
            field.default if isinstance(field.default, str | int | float) else None,
            " ".join(str(field.metadata.get("help", "")).split()),
        )
        for field in fields(TrainingArguments)
        if field.init
    }
