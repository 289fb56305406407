"""Prompts, and scorers by name, for the tests of rewards."""

from __future__ import annotations

from pathlib import Path

from llm.data.prompts import Prompt
from llm.rewards.scorer import load_scorer

FILE = Path(__file__).parents[1] / "misbehaving.py"
SAYS = {"chat": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}),
        "text": ({"role": "user", "content": "Q?"},)}  # fmt: skip


def prompts(count, how="text", **columns):
    """Each asked twice."""
    made = [
        Prompt(f"p{n}", SAYS[how], answer=str(n), beside=(("answer", str(n)), *columns.items()), as_text=how == "text")
        for n in range(count)
    ]
    return [prompt for prompt in made for _ in range(2)]


def scorer(*names, seconds=20):
    return load_scorer(list(names), batch_size=1, device="cpu", seconds=seconds)


def function(name):
    return f"{FILE}:{name}"
