"""Ambiguity sets as text, for recipes and the command line: ``"tv:0.2,max_ratio=8"``."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from .sets import AmbiguitySet


def _known() -> dict[str, type[AmbiguitySet]]:
    """Return every concrete set by its spec name; subclasses of other sets included."""
    found: dict[str, type[AmbiguitySet]] = {}
    waiting = [AmbiguitySet]
    while waiting:
        children = waiting.pop().__subclasses__()
        found |= {child.spec: child for child in children if "spec" in vars(child)}
        waiting.extend(children)
    return dict(sorted(found.items()))


def _number(text: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"ambiguity {spec!r} has {text!r} where a number belongs, as in 'tv:0.2,max_ratio=8'."
        ) from None


def _options(parts: list[str], names: list[str], spec: str) -> dict[str, float]:
    """Read ``name=number`` parts; only ``names`` are allowed, each once."""
    options: dict[str, float] = {}
    for part in parts:
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or name not in names or name in options:
            allowed = ", ".join(f"{known}=NUMBER" for known in names) or "none"
            raise ValueError(
                f"ambiguity {spec!r} has the option {part.strip()!r}, but the allowed ones, once each, are: {allowed}."
            )
        options[name] = _number(text, spec)
    return options


def parse_ambiguity(spec: str) -> AmbiguitySet | None:
    """Read an ambiguity set from text.

    Args:
        spec: ``"erm"`` for plain averaging, else ``NAME:SIZE`` with optional ``,OPTION=NUMBER`` parts:
            ``"tv:0.2"``, ``"tv:0.2,max_ratio=8"``, ``"cvar:0.3"``, ``"chi2:0.5"``, ``"kl:0.3"``.

    Returns:
        The set, or None for ``"erm"``.

    Raises:
        ValueError: Unknown name (the known ones are listed), unknown option, missing or malformed number, or
            a number outside its interval.

    Example:
        >>> parse_ambiguity("tv:0.2,max_ratio=8")
        TotalVariation(radius=0.2, max_ratio=8.0)
        >>> str(parse_ambiguity("cvar:0.3"))
        'cvar:0.3'
    """
    name, _, rest = (piece.strip() for piece in spec.partition(":"))
    if spec.strip() == "erm":
        return None
    known = _known()
    if name not in known:
        listed = ", ".join(["erm", *(f"{key}:{fields(kind)[0].name.upper()}" for key, kind in known.items())])  # pyright: ignore[reportArgumentType]
        raise ValueError(f"unknown ambiguity {spec!r}; the known ones are: {listed}.")
    size, *others = fields(known[name])  # pyright: ignore[reportArgumentType]
    if not rest:
        raise ValueError(f"ambiguity {spec!r} lacks its {size.name}; write for example '{name}:0.2'.")
    first, *parts = rest.split(",")
    chosen: Any = known[name]
    options = _options(parts, [field.name for field in others], spec)
    lacking = [field.name for field in others if field.default is MISSING and field.name not in options]
    if lacking:
        raise ValueError(f"ambiguity {spec!r} lacks {lacking[0]}; add ',{lacking[0]}=NUMBER'.")
    return chosen(_number(first.strip(), spec), **options)
