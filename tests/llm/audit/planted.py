"""Pairs with every fault planted a known number of times, another number for each, so that no two can be swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokenizer_shapes import WORDS, wordpiece

from llm.data.pairs import Pair

# Leaves system turns and calls of tools out, and the thoughts of every answer.
TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role }} {{ (m.content or '').split('</think>')[-1] }} "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
LENGTH = 60
LONG = " ".join(f"{word} {word}" for word in WORDS.split()) + " "  # 44 tokens
CALL: Any = [{"function": {"name": "look_up", "arguments": {}}}]


def tokenizer() -> Any:
    """Words and letters, with a template that loses what is not said by user or assistant."""
    found = wordpiece()
    found.chat_template = TEMPLATE
    return found


def user(text: str, *before: Any) -> tuple[Any, ...]:
    return (*before, {"role": "user", "content": text})


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def ask(i: int, what: str = "dog") -> str:
    return f"which colour has the {what} number {i}"


FAULTS: dict[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
    "prompt_cut": (3, lambda i: {"prompt": user(LONG * 2 + ask(i))}),
    "answers_cut": (4, lambda i: {"chosen": LONG * 2 + f"red {i}"}),
    "token_identical": (5, lambda i: {"chosen": f"Red {i}", "rejected": f"RED  {i}"}),
    "special_token_text": (2, lambda i: {"rejected": f"blue [SEP] {i}"}),
    "double_framing": (6, lambda i: {"prompt": user(f"[INST] {ask(i)} [/INST]")}),
    "system_lost": (7, lambda i: {"prompt": user(ask(i, "cat"), said("system", f"they say number {i}"))}),
    "thoughts_lost": (8, lambda i: {"chosen": f"<think>it is red</think>red {i}"}),
    "tool_calls_lost": (9, lambda i: {"prompt": user(ask(i), said("assistant", "", tool_calls=CALL))}),
    "negative_margins": (10, lambda i: {"margin": -1.0}),
}
HEALTHY, DUPLICATES, CONTRADICTIONS = 40, 11, 12


def planted() -> list[Pair]:
    """The pairs, those of one fault after the other."""
    pairs = list(_faulty())
    sound = pairs[-HEALTHY:]
    twice = [Pair(f"twice-{p.id}", p.prompt, p.chosen, p.rejected, source=p.source) for p in sound[:DUPLICATES]]
    other = sound[DUPLICATES : DUPLICATES + CONTRADICTIONS]
    against = [Pair(f"against-{p.id}", p.prompt, p.rejected, p.chosen, source=p.source) for p in other]
    return [*pairs, *twice, *against]


def _faulty() -> Iterator[Pair]:
    number = 100
    for name, (count, fault) in [*FAULTS.items(), ("healthy", (HEALTHY, lambda _: {}))]:
        for place in range(count):
            number += 1
            sound = {"prompt": user(ask(number)), "chosen": f"red {number}", "rejected": f"blue {number}"}
            yield Pair(f"{name}-{place}", **(sound | fault(number)), source=name, category=f"{name}/{place % 2}")


def expected() -> dict[str, int]:
    """Pairs of every fault, by the names of an audit."""
    return {name: count for name, (count, _) in FAULTS.items()} | {
        "pairs": HEALTHY + DUPLICATES + CONTRADICTIONS + sum(count for count, _ in FAULTS.values()),
        # Rendered prompts hold markers of a common chat format, too.
        "special_token_text": FAULTS["special_token_text"][0] + FAULTS["double_framing"][0],
        "duplicates": DUPLICATES,
        "contradictions": CONTRADICTIONS,
    }
