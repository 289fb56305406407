"""The generators of the package reasoning-gym, each with its own verifier: ``task:reasoning-gym/chain_sum?n=500``.

Options are those of the generator's configuration. The records name generator and index, from which the verifier has
the question again.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .address import TaskAddress, TaskError, most

if TYPE_CHECKING:
    from types import ModuleType

PREFIX = "reasoning-gym/"


def library() -> ModuleType:
    """The package's table of generators.

    Raises:
        TaskError: It is not installed, or not whole.
    """
    try:
        import_module("reasoning_gym")
        return import_module("reasoning_gym.factory")
    except ImportError as error:
        raise TaskError(
            f"the package reasoning-gym cannot be imported ({error}) or is not installed: "
            'pip install "robust-rlhf[tasks]".'
        ) from error


def opened(address: TaskAddress) -> Any:
    """The generator of an address, by index.

    Raises:
        TaskError: As ``library``; there is no such generator; an option is none of its own.
    """
    factory = library()
    name = address.name.removeprefix(PREFIX)
    if name not in factory.DATASETS:
        close = difflib.get_close_matches(name, factory.DATASETS, n=1)
        raise TaskError(f"reasoning-gym has no {name!r}{f', did you mean {close[0]}?' if close else '.'}")
    known = {field.name for field in fields(factory.DATASETS[name][1])} - {"seed", "size"}
    if wrong := [key for key, _ in address.options if key not in known]:
        raise TaskError(
            f"task:{address.name} has no option {wrong[0]!r}; there are n, seed, split, {', '.join(sorted(known))}."
        )
    options = {key: _value(text) for key, text in address.options}
    try:
        return factory.create_dataset(name, seed=address.seed, size=most(address), **options)
    except Exception as error:  # whatever a generator's own checks raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise TaskError(f"task:{address.name} refuses its options: {said}.") from error


def rows(address: TaskAddress) -> Iterator[dict[str, Any]]:
    """Questions without end, with ``task`` and ``index`` for the verifier."""
    generator = opened(address)
    query = "&".join([f"n={address.n}&seed={address.seed}", *(f"{key}={value}" for key, value in address.options)])
    for index in range(len(generator)):
        entry = generator[index]
        yield {
            "prompt": entry["question"],
            "answer": None if entry["answer"] is None else str(entry["answer"]),
            "difficulty": _difficulty(entry.get("metadata", {})),
            "source": address.name.removeprefix(PREFIX),
            "category": generator.category,
            "task": f"task:{address.name}?{query}",
            "index": index,
        }


def _difficulty(metadata: Mapping[str, object]) -> float | None:
    """The mean of what the generator says of this question by the names of its difficulties; None: it says nothing."""
    difficulties = metadata.get("difficulty")
    if not isinstance(difficulties, dict):
        return float(difficulties) if isinstance(difficulties, int | float) else None
    named = [metadata.get(name) for name in difficulties]
    numbers = [float(value) for value in named if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if numbers else None


def _value(text: str) -> object:
    """A number, true, false, null or a list as JSON has it, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
