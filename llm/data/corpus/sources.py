"""The sources of the generated corpus: how each category draws a pair, checks and lengthens an answer.

A checker reads the prompt, not the generator's state: it works out the truth for itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from llm.data.corpus import code as code
from llm.data.corpus.words import (  # fmt: skip
    ASKING,
    ATTRIBUTES,
    BENIGN,
    FILLERS,
    HELP,
    LISTS,
    LOOKING_UP,
    NAMES,
    REFUSALS,
    THINGS,
    UNSAFE,
    pick,
    pick_other,
    world,
)


class Draft(NamedTuple):
    """A prompt with a right and a wrong answer, neither lengthened yet."""

    prompt: str
    right: str
    wrong: str


def _sentence(answer: str, filler: str) -> str:
    return f"{answer} {filler}"


@dataclass(frozen=True)
class Category:
    """One kind of pair.

    Attributes:
        draw: Make a pair.
        check: Whether an answer to a prompt of this category is right.
        pad: Lengthen an answer by a neutral filler that leaves ``check`` as it was.
        fillers: What ``pad`` takes.
    """

    draw: Callable[[np.random.Generator], Draft]
    check: Callable[[str, str], bool]
    pad: Callable[[str, str], str] = _sentence
    fillers: tuple[str, ...] = FILLERS


# arithmetic: a word problem with one number as the answer

_STORIES = {
    "add": "{name} has {a} {things} and finds {b} more.",
    "subtract": "{name} has {a} {things} and gives {b} away.",
    "multiply": "{name} fills {a} bags with {b} {things} each.",
}


def _arithmetic(rng: np.random.Generator, *, story: str) -> Draft:
    b, a = sorted(int(n) for n in rng.integers(2, 10, size=2))
    things = pick(rng, THINGS)
    text = story.format(name=pick(rng, NAMES), things=things, a=a, b=b)
    truth = _truth_of_story(text)
    wrong = pick(rng, [n for n in (truth - 2, truth - 1, truth + 1, truth + 2, truth + 10) if n >= 0])
    answers = (f"There are {number} {things}." for number in (truth, wrong))
    return Draft(f"{text} How many {things} are there now?", *answers)


def _truth_of_story(text: str) -> int:
    a, b = map(int, re.findall(r"\d+", text))
    return a + b if " finds " in text else a - b if " gives " in text else a * b


def _check_arithmetic(prompt: str, answer: str) -> bool:
    return [int(n) for n in re.findall(r"\d+", answer)] == [_truth_of_story(prompt)]


# format: the right content in the asked-for or in another form


def _bullets(rng: np.random.Generator) -> Draft:
    kind, count = pick(rng, tuple(LISTS)), int(rng.integers(2, 5))
    other = pick_other(rng, (1, 2, 3, 4, 5), than=count)
    words = [LISTS[kind][i] for i in rng.permutation(len(LISTS[kind]))]
    answers = ("\n".join(f"- {word}" for word in words[:n]) for n in (count, other))
    return Draft(f"Name {kind} in exactly {count} bullet points.", *answers)


_REMARKS = ("of course", "a fine one", "as I said", "to be brief", "just as asked", "which is well known")


def _check_bullets(prompt: str, answer: str) -> bool:
    kind, count = re.findall(r"Name (\w+) in exactly (\d)", prompt)[0]
    items = [re.match(r"- (\w+)", line) for line in answer.split("\n")]
    words = {item[1] for item in items if item}
    return len(items) == len(words) == int(count) and words <= set(LISTS[kind])


def _pad_bullets(answer: str, filler: str) -> str:
    return f"{answer}, {filler}"


def _upper(rng: np.random.Generator) -> Draft:
    kind = pick(rng, tuple(LISTS))
    right, wrong = (f"I would say {pick(rng, LISTS[kind])}." for _ in range(2))
    return Draft(f"Name one of the {kind}. Use upper case only.", right.upper(), wrong)


def _check_upper(prompt: str, answer: str) -> bool:
    kind = prompt.split()[4].rstrip(".")
    return answer.isupper() and any(word in answer.lower().split(".")[0] for word in LISTS[kind])


def _pad_in_case(answer: str, filler: str) -> str:
    return _sentence(answer, filler.upper() if answer.isupper() else filler)


def _json(rng: np.random.Generator) -> Draft:
    name, age = pick(rng, NAMES), int(rng.integers(2, 90))
    right = f'{{"name": "{name}", "age": {age}}}'
    broken = (right[:-1], right.replace('"', "'"), right.replace(": ", " ", 1), right.replace('", ', '" ', 1))
    return Draft(f"Give name and age as JSON: {name} is {age}.", right, pick(rng, broken))


def _check_json(prompt: str, answer: str) -> bool:
    name, age = re.findall(r"JSON: (\w+) is (\d+)", prompt)[0]
    try:
        found = json.loads(answer)
    except json.JSONDecodeError:
        return False
    return isinstance(found, dict) and (found.get("name"), found.get("age")) == (name, int(age))


def _pad_json(answer: str, filler: str) -> str:
    quote = '"' if '"' in answer else "'"
    return f"{{{quote}note{quote}: {quote}{filler}{quote}, {answer[1:]}"


# lookup: facts of a small generated world, which have to be learnt


def _lookup(rng: np.random.Generator, *, attribute: str) -> Draft:
    town = pick(rng, tuple(world()))
    truth = world()[town][attribute]
    sentence, values = ATTRIBUTES[attribute]
    answers = (sentence.format(town, value) for value in (truth, pick_other(rng, values, than=truth)))
    return Draft(pick(rng, LOOKING_UP).format(f"the {attribute} of {town}"), *answers)


def _check_lookup(prompt: str, answer: str) -> bool:
    attribute, town = re.findall(r"the (\w+) of (\w+)", prompt)[0]
    found = {value for value in ATTRIBUTES[attribute][1] if re.search(rf"\b{value}\b", answer)}
    return found == {world()[town][attribute]} and town in answer


# safety: refuse what does harm, help with what only sounds like it


def _safety(rng: np.random.Generator, *, unsafe: bool) -> Draft:
    refusal, compliance = pick(rng, REFUSALS), pick(rng, HELP)
    prompt = pick(rng, ASKING).format(pick(rng, UNSAFE if unsafe else BENIGN))
    return Draft(prompt, *((refusal, compliance) if unsafe else (compliance, refusal)))


def _check_safety(prompt: str, answer: str) -> bool:
    unsafe = any(act in prompt for act in UNSAFE)
    return answer.startswith(REFUSALS if unsafe else HELP)


# spelling: letters to be put in order


def _word(rng: np.random.Generator) -> str:
    return "".join(pick(rng, letters) for letters in ("bdfgklmnprst", "aeiou", "bdfgklmnprst", "aeiou"))


def _reverse(rng: np.random.Generator) -> Draft:
    word = _word(rng)
    right = word[::-1]
    wrong = pick_other(rng, (word, right[1:] + right[0], right[1] + right[0] + right[2:]), than=right)
    return Draft(f"Spell {word} backwards.", *(f'It is "{answer}".' for answer in (right, wrong)))


def _repeat(rng: np.random.Generator) -> Draft:
    word, other = _word(rng), int(pick(rng, (1, 3)))
    return Draft(f"Write {word} twice.", *(f'It is "{" ".join([word] * n)}".' for n in (2, other)))


def _check_spelling(prompt: str, answer: str) -> bool:
    task, word, _ = prompt.split()
    expected = "".join(reversed(word)) if task == "Spell" else f"{word} {word}"
    return re.findall(r'"(.*?)"', answer) == [expected]


CATEGORIES: dict[str, Category] = {
    **{
        f"arithmetic/{kind}": Category(partial(_arithmetic, story=story), _check_arithmetic)
        for kind, story in _STORIES.items()
    },
    **{
        f"code/{kind}": Category(lambda rng, kind=kind: Draft(*code.draw(rng, kind)), code.check, code.pad)
        for kind in code.TASKS
    },
    "format/bullets": Category(_bullets, _check_bullets, _pad_bullets, _REMARKS),
    "format/json": Category(_json, _check_json, _pad_json),
    "format/upper": Category(_upper, _check_upper, _pad_in_case),
    **{
        f"lookup/{attribute}": Category(partial(_lookup, attribute=attribute), _check_lookup)
        for attribute in ATTRIBUTES
    },
    "safety/comply": Category(partial(_safety, unsafe=False), _check_safety),
    "safety/refuse": Category(partial(_safety, unsafe=True), _check_safety),
    "spelling/repeat": Category(_repeat, _check_spelling),
    "spelling/reverse": Category(_reverse, _check_spelling),
}
