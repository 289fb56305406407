"""An ambiguity set as the parameter of an estimator: its numbers by name, and the groups of the rows at hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from .._solvers.arrays import Array
from ..sets.ambiguity import AmbiguitySet
from ..sets.composition import Composite, Grouped
from ..spec import parse_ambiguity

PREFIX = "ambiguity__"
_BALANCED = "balanced"  # a rule of ``robust-rlhf train``
Given = AmbiguitySet | str | None


def parsed(given: Given) -> AmbiguitySet | None:
    """The set itself, or what its text means.

    Raises:
        TypeError: It is neither.
        ValueError: A text that names no set; of groups in balance the sentence says which weights they are.
    """
    wrong: Any = given
    if not isinstance(wrong, AmbiguitySet | str | None):
        raise TypeError(
            f"ambiguity must be a set such as TotalVariation(0.2), its text 'tv:0.2', or None for plain logistic "
            f"regression, got {wrong!r}."
        )
    if isinstance(given, str) and given.strip().startswith(_BALANCED):
        raise ValueError(
            f"{given!r} is a way of training and no set: for groups in balance fit 'erm' with "
            "sample_weight=1 / sizes[group], where _, group, sizes = "
            "np.unique(labels, return_inverse=True, return_counts=True)."
        )
    return parse_ambiguity(given) if isinstance(given, str) else given


def numbers_of(given: Any) -> dict[str, Any]:
    """Every field of a set and of those inside it, by the name that ``changed`` takes; nothing for what is no set."""
    try:
        ambiguity = parsed(given)
    except (TypeError, ValueError):  # the fit says what is wrong with it
        return {}
    return dict(_named(ambiguity)) if isinstance(ambiguity, AmbiguitySet) else {}


def _named(ambiguity: AmbiguitySet) -> Iterator[tuple[str, Any]]:
    inside = _inside(ambiguity)
    for part in inside.values():
        yield from _named(part)
    if is_dataclass(ambiguity):
        yield from ((field.name, getattr(ambiguity, field.name)) for field in fields(ambiguity))


def _inside(ambiguity: AmbiguitySet) -> dict[str, AmbiguitySet]:
    values = ((name, vars(ambiguity).get(name)) for name in ("inner", "price", "base"))
    return {name: part for name, part in values if isinstance(part, AmbiguitySet)}


def changed(given: Given, name: str, value: Any) -> Given:
    """Return the set with one number replaced, the outermost of that name; a text stays a text.

    Raises:
        ValueError: No such number; the known ones are listed. Or a value that the set refuses.
    """
    ambiguity = parsed(given)
    found = None if ambiguity is None else _changed(ambiguity, name, value)
    if found is None:
        known = ", ".join(sorted(PREFIX + known for known in numbers_of(given))) or "none"
        raise ValueError(f"ambiguity {given!r} has no number {name!r}; the parameters are: {known}.")
    return str(found) if isinstance(given, str) else found


def _changed(ambiguity: AmbiguitySet, name: str, value: Any) -> AmbiguitySet | None:
    if name in {field.name for field in fields(ambiguity)}:
        update: Any = {name: value}
        return replace(ambiguity, **update)
    for place, part in reversed(_inside(ambiguity).items()):
        if (found := _changed(part, name, value)) is not None:
            update = {place: found}
            return replace(ambiguity, **update)
    return None


def with_groups(ambiguity: AmbiguitySet | None, groups: Any, n: int) -> AmbiguitySet | None:
    """Return the set for the groups of n rows: one label each, or a mapping from names of columns to labels.

    Raises:
        ValueError: Labels for another number of rows, a name that the mapping lacks, a set that names two columns, or
            one that needs groups where none are given.
    """
    layer, names = ambiguity, list[Any]()
    while isinstance(layer, Composite):
        names += [layer.groups] if isinstance(layer, Grouped) else []
        layer = layer.inner
    if ambiguity is None or not names:
        return ambiguity
    if groups is None:
        fits = all(not isinstance(labels, str) and labels.shape[-1] == n for labels in names)
        if fits:
            return ambiguity
        raise ValueError(
            f"ambiguity {str(ambiguity)!r} needs the groups of these {n} rows: give fit(X, y, groups=labels); in "
            "cross-validation, set_fit_request(groups=True) on the estimator and params={'groups': labels}."
        )
    if isinstance(groups, Mapping):
        columns: Any = groups  # pyright: ignore[reportUnknownVariableType]
        return ambiguity.bind(columns)
    if len(names) > 1:
        raise ValueError(f"ambiguity {str(ambiguity)!r} has two groupings; give groups as a mapping from their names.")
    labels: Any = groups  # pyright: ignore[reportUnknownVariableType]
    if len(labels) != n:
        raise ValueError(f"groups has {len(labels)} labels for {n} rows; give one label per row.")
    return _regrouped(ambiguity, labels)


def _regrouped(ambiguity: AmbiguitySet, labels: Array) -> AmbiguitySet:
    assert isinstance(ambiguity, Composite)
    if isinstance(ambiguity, Grouped):
        return Grouped(ambiguity.inner, labels)
    update: Any = {"inner": _regrouped(ambiguity.inner, labels)}
    return replace(ambiguity, **update)
