"""The code source: one-line Python functions, right or buggy, and a checker that runs them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm.data.corpus.words import pick


class _Fixed(list[int]):
    """A list that cannot grow: an answer such as ``x * 99999999`` would take all memory."""

    __add__ = __mul__ = __rmul__ = None  # type: ignore[assignment]


_SAFE = {"sum": sum, "max": max, "min": min, "len": len, "abs": abs, "sorted": lambda x: _Fixed(sorted(x))}
_NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.BinOp, ast.Compare, ast.Call,
    ast.Name, ast.Load, ast.Subscript, ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


@dataclass(frozen=True)
class Exercise:
    """A kind of small function.

    Attributes:
        asked: What it returns, with ``{x}`` for the argument and ``{k}`` for a number.
        right: Its body.
        buggy: Bodies that fail.
        truth: The reference ``(argument, k) -> result``, written apart from ``right``.
        arguments: What it is tried on.
    """

    asked: str
    right: str
    buggy: tuple[str, ...]
    truth: Callable[..., object]
    arguments: Sequence[object]


def _over(x: int, k: int) -> bool:
    return x - k >= 1


def _under(x: int, k: int) -> bool:
    return k - x >= 1


def _equal(x: int, k: int) -> bool:
    return not x - k


def _total(values: list[int]) -> int:
    return values[0] + _total(values[1:]) if values else 0


def _count(values: list[int]) -> int:
    return 1 + _count(values[1:]) if values else 0


_NUMBERS = range(-12, 13)
_LISTS = tuple(map(_Fixed, ([4, 7, 2], [9], [5, 5, 8, 1], [3, -6])))
TASKS: dict[str, tuple[Exercise, ...]] = {
    "operator": (
        Exercise("{x} plus {k}", "{x} + {k}", ("{x} - {k}", "{x} * {k}"), lambda x, k: k - -x, _NUMBERS),
        Exercise("{x} minus {k}", "{x} - {k}", ("{x} + {k}", "{k} - {x}"), lambda x, k: -(k - x), _NUMBERS),
        Exercise("{x} times {k}", "{x} * {k}", ("{x} + {k}", "{x} - {k}"), lambda x, k: sum([x] * k), _NUMBERS),
    ),
    "compare": (
        Exercise("whether {x} is over {k}", "{x} > {k}", ("{x} < {k}", "{x} >= {k}"), _over, _NUMBERS),
        Exercise("whether {x} is under {k}", "{x} < {k}", ("{x} > {k}", "{x} <= {k}"), _under, _NUMBERS),
        Exercise("whether {x} is {k}", "{x} == {k}", ("{x} != {k}", "{x} > {k}"), _equal, _NUMBERS),
    ),
    "list": (
        Exercise("the sum of {x}", "sum({x})", ("max({x})", "len({x})"), lambda x, k: _total(x), _LISTS),
        Exercise("the length of {x}", "len({x})", ("sum({x})", "min({x})"), lambda x, k: _count(x), _LISTS),
        Exercise("the largest of {x}", "max({x})", ("min({x})", "{x}[0]"), lambda x, k: sorted(x)[-1], _LISTS),
        Exercise("the smallest of {x}", "min({x})", ("max({x})", "{x}[0]"), lambda x, k: sorted(x)[0], _LISTS),
    ),
}
_ASKED = "Write {f}({x}) in Python that returns "


def draw(rng: np.random.Generator, category: str) -> tuple[str, str, str]:
    """Return a prompt, a right answer and a buggy one."""
    task = pick(rng, TASKS[category])
    names = {"f": pick(rng, "fgh"), "x": pick(rng, "xyzvn"), "k": int(rng.integers(2, 10))}
    answer = "def {f}({x}): return "
    texts = (_ASKED + task.asked + ".", answer + task.right, answer + pick(rng, task.buggy))
    prompt, right, wrong = (text.format(**names) for text in texts)
    return prompt, right, wrong


def check(prompt: str, answer: str) -> bool:
    """Run the answer on every argument of its task and compare with the reference."""
    task, name, k = _task(prompt)
    try:
        function = _function(answer, name)
        found = [function(x) for x in task.arguments]
    except Exception:  # the answer is somebody else's program: whatever it raises, it is wrong
        return False
    return all(_same(y, task.truth(x, k)) for x, y in zip(task.arguments, found, strict=True))


def pad(answer: str, filler: str) -> str:
    """Add the filler as a comment."""
    return f"{answer}  # {filler}"


def _same(found: object, expected: object) -> bool:
    return type(found) is type(expected) and found == expected


def _task(prompt: str) -> tuple[Exercise, str, int]:
    """Recognise the task a prompt sets, the name it wants and its number (0 where there is none)."""
    name, argument, k = re.findall(r"Write (\w+)\((\w+)\).*?(\d*)\.$", prompt)[0]
    for task in (task for tasks in TASKS.values() for task in tasks):
        if prompt == (_ASKED + task.asked + ".").format(f=name, x=argument, k=k):
            return task, name, int(k or 0)
    raise ValueError(f"The code source never asks: {prompt!r}.")


def _is_harmless(node: ast.AST) -> bool:
    """White-listed, and no constant but a number: texts can be multiplied until memory is full."""
    return isinstance(node.value, int) if isinstance(node, ast.Constant) else isinstance(node, _NODES)


def _function(answer: str, name: str) -> Callable[[object], object]:
    """Compile the answer; only arithmetic, comparisons and six builtins pass, so running it is safe.

    Raises:
        SyntaxError: No Python, or more than that.
    """
    tree = ast.parse(answer)
    if not all(_is_harmless(node) for node in ast.walk(tree)):
        raise SyntaxError("only arithmetic, comparisons and simple calls are run")
    scope: dict[str, Any] = {"__builtins__": _SAFE}
    exec(compile(tree, "<answer>", "exec"), scope)  # white-listed nodes only
    return scope[name]
