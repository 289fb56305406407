"""Ambiguity sets as text, for recipes and the command line: ``"tv:0.2,max_ratio=8"``."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

from .sets.ambiguity import AmbiguitySet
from .sets.composition import Composite


def _subclasses(kind: type[AmbiguitySet], attribute: str) -> dict[str, type[AmbiguitySet]]:
    """Return every class below ``kind`` that states ``attribute`` itself, by its value."""
    found: dict[str, type[AmbiguitySet]] = {}
    waiting = [kind]
    while waiting:
        children = waiting.pop().__subclasses__()
        found |= {vars(child)[attribute]: child for child in children if attribute in vars(child)}
        waiting.extend(children)
    return dict(sorted(found.items()))


def _known() -> dict[str, type[AmbiguitySet]]:
    """Return the sets that text can name; one that holds an array cannot."""
    return {name: kind for name, kind in _subclasses(AmbiguitySet, "spec").items() if kind.from_text}


def _number(text: str, spec: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"ambiguity {spec!r} has {text!r} where a number belongs, as in 'tv:0.2,max_ratio=8'."
        ) from None


def _options(parts: list[str], names: list[str], spec: str) -> dict[str, str]:
    """Read ``name=text`` parts; only ``names`` are allowed, each once."""
    options: dict[str, str] = {}
    for part in parts:
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or name not in names or name in options:
            allowed = ", ".join(f"{known}={'NAME' if known == 'by' else 'NUMBER'}" for known in names)
            raise ValueError(
                f"ambiguity {spec!r} has the option {part.strip()!r}, but the allowed ones, once each, are: {allowed}."
            )
        options[name] = text
    return options


def parse_ambiguity(spec: str) -> AmbiguitySet | None:
    """Read an ambiguity set from text.

    Args:
        spec: ``"erm"`` for plain averaging, else ``NAME:SIZE`` with optional ``,OPTION=VALUE`` parts:
            ``"tv:0.2"``, ``"tv:0.2,max_ratio=8"``, ``"cvar:0.3"``, ``"chi2:0.5"``, ``"kl:0.3"``,
            ``"cressie_read:0.5,order=1.5"``, ``"spectral:0.1/0.3/0.6"``, ``"kl_penalty:1"``. Two options wrap
            any of them, in the order written: ``by=COLUMN`` reweights groups, ``trim=FRACTION`` drops the
            largest losses first.

    Returns:
        The set, or None for ``"erm"``. A set ``by=COLUMN`` needs ``bind`` before it can be solved.

    Raises:
        ValueError: Unknown name (the known ones are listed), unknown option, missing or malformed number, or
            a number outside its interval.

    Example:
        >>> parse_ambiguity("tv:0.2,max_ratio=8")
        TotalVariation(radius=0.2, max_ratio=8.0)
        >>> str(parse_ambiguity("cvar:0.3,by=source"))
        'cvar:0.3,by=source'
    """
    name, _, rest = (piece.strip() for piece in spec.partition(":"))
    if spec.strip() == "erm":
        return None
    known, wrappers = _known(), _subclasses(Composite, "option")
    if name not in known:
        listed = ", ".join(["erm", *(f"{key}:{kind.size.upper()}" for key, kind in known.items())])
        raise ValueError(f"unknown ambiguity {spec!r}; the known ones are: {listed}.")
    kind: Any = known[name]
    if not rest:
        raise ValueError(f"ambiguity {spec!r} lacks its {kind.size}; write for example '{name}:{kind.example}'.")
    size, *parts = rest.split(",")
    numbers = [_number(part.strip(), spec) for part in size.split("/")]
    own = {field.name: field for field in fields(kind) if field.name != kind.size}
    options = _options(parts, [*own, *wrappers], spec)
    lacking = [field.name for field in own.values() if field.default is MISSING and field.name not in options]
    if lacking:
        raise ValueError(f"ambiguity {spec!r} lacks {lacking[0]}; add ',{lacking[0]}=NUMBER'.")
    chosen = kind(
        **{kind.size: tuple(numbers) if len(numbers) > 1 else numbers[0]},
        **{o: _number(options[o], spec) for o in own if o in options},
    )
    for option, text in options.items():
        if option in wrappers:
            wrapper: Any = wrappers[option]
            chosen = wrapper(chosen, text if option == "by" else _number(text, spec))
    return chosen
