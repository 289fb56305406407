"""What a setting names where a reward is asked for: models, checkers and functions, each with or without a weight.

Example:
    >>> [str(part) for part in parts_of(["number", "checks.py:polite:0.2", "runs/rm/model"])]
    ['number', 'checks.py:polite:0.2', 'runs/rm/model']
    >>> [part.kind for part in parts_of(["number?tolerance=0.01", "checks.py:polite", "runs/rm/model", "builtin"])]
    ['checker', 'function', 'model', 'builtin']
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

BUILTIN = "builtin"
SECONDS = 300.0  # within which a batch must be scored
CHECKERS = ("exact", "number", "regex", "json_schema", "unit_tests", "reasoning-gym")
SPELLING = (
    f"a reward model, {BUILTIN}, a checker ({', '.join(CHECKERS)}), FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION, each "
    "with or without :WEIGHT"
)
Kind = Literal["builtin", "checker", "function", "model"]
_WEIGHED = re.compile(r"(?P<name>.+):(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", re.I | re.S)
_CHECKER = re.compile(rf"(?P<name>{'|'.join(CHECKERS)})(?:\?(?P<options>[^:]*))?(?::(?P<argument>.+))?", re.S)
_FUNCTION = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<function>[A-Za-z_]\w*)")


class RewardError(ValueError):
    """What scores answers cannot be used as it is named, or not for these prompts; one sentence with the remedy."""


@dataclass(frozen=True)
class RewardPart:
    """One thing that scores answers.

    Attributes:
        name: As it was written, without the weight.
        weight: Its score counts so many times; below 0 it is a charge.
    """

    name: str
    weight: float = 1.0

    @classmethod
    def of(cls, given: object, setting: str = "reward_model") -> Self:
        """Read a name with or without its weight, a mapping of ``reward`` and ``weight``, or that mapping as JSON.

        A number behind the last colon is a weight, unless there is a file or folder of that very name.

        Raises:
            RewardError: It is none of these, or the weight makes no sense.
        """
        if isinstance(given, str) and given.startswith("{"):
            try:
                given = json.loads(given)
            except ValueError as error:
                raise RewardError(f"{setting}: {given} is no JSON ({error}); write {SPELLING}.") from error
        if isinstance(given, Mapping):
            if wrong := [name for name in given if name not in ("reward", "weight")]:
                raise RewardError(f"{setting}: there is no entry {wrong[0]!r} of a reward; there are reward, weight.")
            return cls(str(given.get("reward", "")), _weight(given.get("weight", 1.0), setting))._checked(setting)
        text = str(given)
        found = None if Path(text).exists() else _WEIGHED.fullmatch(text)
        part = cls(found["name"], _weight(found["weight"], setting)) if found else cls(text)
        return part._checked(setting)

    def _checked(self, setting: str) -> Self:
        if not self.name.strip():
            raise RewardError(f"{setting} names nothing; write {SPELLING}.")
        if self.name.endswith(".py"):
            raise RewardError(f"{setting}: {self.name} holds functions: name one, {self.name}:FUNCTION.")
        if self.kind == "checker":
            self.options()
        return self

    @property
    def kind(self) -> Kind:
        """What it is, by its name alone."""
        if self.name == BUILTIN:
            return BUILTIN
        if _CHECKER.fullmatch(self.name):
            return "checker"
        return "function" if not Path(self.name).exists() and _FUNCTION.fullmatch(self.name) else "model"

    @property
    def label(self) -> str:
        """A short name for logs: of a checker or function its own, of a model that of its folder."""
        if self.kind == "checker":
            return re.split("[?:]", self.name)[0]
        if self.kind == "function":
            return self.name.rpartition(":")[2]
        place = Path(self.name)
        return place.parent.name if place.name == "model" and place.parent.name else place.name

    def options(self) -> tuple[str, dict[str, str], str | None]:
        """Of a checker its name, its options by name, and what stands behind the colon.

        Raises:
            RewardError: The options are no ``KEY=VALUE&KEY=VALUE``.
        """
        found = _CHECKER.fullmatch(self.name)
        assert found is not None, self.name
        try:
            options = dict(parse_qsl(found["options"] or "", strict_parsing=bool(found["options"])))
        except ValueError as error:
            raise RewardError(f"{self.name}: options are written {found['name']}?KEY=VALUE&KEY=VALUE.") from error
        return found["name"], options, found["argument"]

    def reads(self) -> str | None:
        """The model or file whose content decides what the scores are; None where there is none."""
        if self.kind == "model":
            return self.name
        if self.kind == "function":
            place = self.name.rpartition(":")[0]
            return place if place.endswith(".py") else _module_file(place)
        argument = self.options()[2] if self.kind == "checker" else None
        return argument if argument and self.label == "json_schema" else None

    def __str__(self) -> str:
        """The text that is read as this part again."""
        if self.weight == 1 and (Path(self.name).exists() or not _WEIGHED.fullmatch(self.name)):
            return self.name
        return f"{self.name}:{repr(self.weight).removesuffix('.0')}"


def parts_of(given: object, setting: str = "reward_model") -> list[RewardPart]:
    """What a setting names: one reward, or several in a list; nothing names none.

    Raises:
        RewardError: As ``RewardPart.of``; or the same one stands twice.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    parts = [RewardPart.of(entry, setting) for entry in several if entry not in ("", None)]
    if twice := [name for name, count in Counter(part.name for part in parts).items() if count > 1]:
        raise RewardError(f"{setting}: {twice[0]} stands twice; name it once, with the sum of the weights.")
    return parts


def settled(given: object, setting: str = "reward_model") -> str | list[str]:
    """What names the same rewards in one way, ready for JSON: the text of a single one, or those of several."""
    texts = [str(part) for part in parts_of(given, setting)]
    return texts if len(texts) > 1 else "".join(texts)


def labels_of(parts: Sequence[RewardPart]) -> list[str]:
    """A name for each in logs, all different."""
    seen = Counter[str]()
    names = []
    for part in parts:
        seen[part.label] += 1
        names.append(part.label if seen[part.label] == 1 else f"{part.label}-{seen[part.label]}")
    return names


def models_in(given: object) -> list[str]:
    """The reward models among what a setting names."""
    return [part.name for part in parts_of(given) if part.kind == "model"]


def has_checks(*given: object) -> bool:
    """Whether one of these settings names a checker or a function, which may ask for columns of the prompts."""
    return any(part.kind in ("checker", "function") for setting in given for part in parts_of(setting))


def reads_of(role: str, given: object) -> dict[str, str]:
    """What a setting's rewards are read from, models and files, by the role that run folders note them under."""
    parts = parts_of(given, role)
    named = {f"{role} {label}": part.reads() for label, part in zip(labels_of(parts), parts, strict=True)}
    found = {name: place for name, place in named.items() if place}
    return dict(zip([role], found.values(), strict=False)) if len(parts) == 1 else found


def name_of(function: Callable[..., object]) -> str:
    """The name of a function that stands in a file of its own, as settings write it.

    Raises:
        RewardError: It stands elsewhere: in a notebook, in the script that is run, or within another function.
    """
    name, module = getattr(function, "__qualname__", ""), sys.modules.get(getattr(function, "__module__", ""))
    file = getattr(module, "__file__", None)
    if file is None or getattr(module, "__name__", "") == "__main__" or getattr(module, name, None) is not function:
        said = name or type(function).__name__
        raise RewardError(f"reward_model: {said} stands in no file of its own: write it into one, FILE.py:FUNCTION.")
    return f"{file}:{name}"


def search_path() -> list[str]:
    """Where ``PACKAGE.MODULE`` is looked for: as Python does, then in the working folder."""
    return [*sys.path, os.getcwd()]


def _module_file(name: str) -> str | None:
    for folder in search_path():
        place = Path(folder or ".", *name.split("."))
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file():
                return str(file)
    return None


def _weight(given: Any, setting: str) -> float:
    try:
        weight = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not math.isfinite(weight) or weight == 0:
        raise RewardError(f"{setting}: a weight says how often a score counts and is a number but 0, got {given!r}.")
    return weight
