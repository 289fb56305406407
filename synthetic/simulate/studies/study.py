"""What a study is: a grid of points, a pure function, and the figure that shows what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..figures import Panel
    from ..grid import Record, Scalar


@dataclass(frozen=True)
class Choices:
    """What a user chose; a study gives the empty ones their defaults.

    Args:
        full: Whether the full grid is wanted, else the quick one.
        ambiguity: Sets as text, ``parse_ambiguity`` reads them.
        n: Sizes of minibatches or samples.
        steps: T, the number of steps.
        radius: Radii of total-variation balls.
        dimension: Numbers of features.
    """

    full: bool = False
    ambiguity: tuple[str, ...] = ()
    n: tuple[int, ...] = ()
    steps: int | None = None
    radius: tuple[float, ...] = ()
    dimension: tuple[int, ...] = ()


@dataclass(frozen=True)
class Study:
    """One study.

    Args:
        name: On the command line.
        version: Raised with every change of ``evaluate`` that changes numbers, so that old files are not reused.
        title: Of the figure.
        about: What it shows, a few sentences.
        options: Which fields of ``Choices`` it heeds.
        seeds: Default number of seeds on the quick and the full grid; 0 if the study is exact.
        points: The grid for some choices; ValueError if they make no sense.
        evaluate: A pure function of (point, seed) at the top level of a module: workers import it.
        panels: The figure, from the rows of all points and the choices that made them.
    """

    name: str
    version: int
    title: str
    about: str
    options: tuple[str, ...]
    seeds: tuple[int, int]
    points: Callable[[Choices], Sequence[Mapping[str, Scalar]]]
    evaluate: Callable[[Mapping[str, Any], int], list[Record]]
    panels: Callable[[Sequence[Record], Choices], list[Panel]]


def allowed(sets: Sequence[str], study: str, *, erm: bool, groups: bool = False) -> tuple[str, ...]:
    """The sets, each once, if the study can use them.

    Raises:
        ValueError: ``erm`` where plain averaging is no choice, ``by=COLUMN`` where there are no groups.

    Example:
        >>> allowed(["tv:0.2", "erm", "tv:0.2"], "reward", erm=True)
        ('tv:0.2', 'erm')
    """
    if "erm" in sets and not erm:
        raise ValueError(f"--ambiguity of `{study}` must be a set such as tv:0.2, got erm: choose a set with a radius.")
    for spec in sets:
        if ",by=" in spec and not groups:
            raise ValueError(f"--ambiguity of `{study}` must have no by=COLUMN, got {spec}: its pairs have no groups.")
        if ",by=" in spec and ",by=group" not in spec:
            raise ValueError(f"--ambiguity of `{study}` has the groups by=group, got {spec}: write by=group.")
    return tuple(dict.fromkeys(sets))


def unique(points: Sequence[Mapping[str, Scalar]]) -> list[Mapping[str, Scalar]]:
    """Leave out repeated points: panels share some.

    Example:
        >>> unique([{"n": 1}, {"n": 2}, {"n": 1}])
        [{'n': 1}, {'n': 2}]
    """
    return [point for place, point in enumerate(points) if point not in points[:place]]


def distinct(rows: Sequence[Record], column: str) -> list[Any]:
    """The values of a column, each once, in the order of the rows, None left out.

    Example:
        >>> distinct([{"n": 4}, {"n": 2}, {"n": 4}, {}], "n")
        [4, 2]
    """
    return list(dict.fromkeys(row[column] for row in rows if row.get(column) is not None))
