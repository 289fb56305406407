"""What to say of a file in no known layout: the mapping that would most likely read it, guessed from its columns.

Example:
    >>> advice({"question": "Who?", "response_a": "4", "response_b": "five", "winner": "a"})
    '`--columns prompt=question,first=response_a,second=response_b,winner=winner` would most likely read it'
    >>> advice({"question": "Who?", "answer": "4", "rating": 3})[:68]
    'the answers stand alone, one in each record, with the label rating: '
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from llm.data.columns import ColumnMap
from llm.data.winners import counts

_PROMPT = (
    "prompt", "question", "instruction", "query", "problem", "request", "input", "context", "post", "task", "messages",
    "user", "history", "title",
)  # fmt: skip
_GOOD = {"accepted", "best", "better", "chosen", "correct", "favored", "good", "pos", "positive", "preferred", "right"}
_GOOD |= {"win", "winning", "favoured", "liked"}
_BAD = {"bad", "disliked", "dispreferred", "incorrect", "lose", "losing", "neg", "negative", "rejected", "unpreferred"}
_BAD |= {"worse", "worst", "wrong", "disfavored", "disfavoured"}
_NOT = {"non", "not", "un"}
_SIDES = {("a", "b"), ("0", "1"), ("1", "2"), ("first", "second"), ("left", "right"), ("one", "two"), ("x", "y")}
_WINNER = {"winner", "preference", "preferred", "label", "labels", "choice", "verdict", "better", "judgement"}
_WINNER |= {"judgment", "vote", "decision", "selected"}
_ANSWER = {"answer", "completion", "generation", "output", "reply", "response", "text", "answers", "responses"}
_LABEL = {"label", "rating", "score", "reward", "thumbs", "feedback", "helpfulness", "quality", "grade", "stars"}
_ABOUT = {"id", "model", "name", "source", "category", "lang", "language", "date", "url", "uid", "rationale", "reason"}
_FULL = 25  # characters: texts longer than that are no names


class _Column(NamedTuple):
    name: str
    words: tuple[str, ...]
    value: object

    def has(self, *words: set[str]) -> bool:
        return any(word in group for word in self.words for group in words)

    @property
    def is_text(self) -> bool:
        """A text or turns of a chat, and by its name no note about them."""
        chat = isinstance(self.value, list) and bool(self.value) and isinstance(self.value[0], Mapping)
        text = isinstance(self.value, str) and (any(map(str.isalpha, self.value)) or self.has(_ANSWER, _GOOD, _BAD))
        return (chat or text) and not self.has(_ABOUT)

    @property
    def is_scalar(self) -> bool:
        return isinstance(self.value, bool | int | float) or (isinstance(self.value, str) and len(self.value) <= _FULL)

    @property
    def size(self) -> int:
        return len(str(self.value))


def advice(columns: Mapping[str, object]) -> str:
    """The rest of a sentence about a record in no known layout: a mapping, what is not clear, or what is missing."""
    known = [_Column(name, _words(name), value) for name, value in columns.items()]
    marked, sides = _marked(known), _sides(known)
    if len(marked) == 1:
        return _mapping(known, {"chosen": marked[0][0], "rejected": marked[0][1]})
    if len(marked) > 1 or (not marked and len(sides) > 1):
        pairs = " or ".join(f"{first.name} and {second.name}" for first, second in marked or sides)
        return f"the two answers may be {pairs}: say which with --columns, as in {_EXAMPLE}"
    if sides:
        return _of_sides(known, *sides[0])
    return _alone(known) or f"say which column holds what with --columns, as in {_EXAMPLE}"


def prompted(columns: Mapping[str, object]) -> str:
    """The rest of a sentence about a record of a file of prompts that has no column of this name."""
    texts = [_Column(name, _words(name), value) for name, value in columns.items()]
    called = [column for column in texts if isinstance(column.value, str | list) and column.has(set(_PROMPT))]
    asked = [column for column in called if not column.has(_ABOUT)]  # without a letter, too: 2 + 2?
    found = list(_prompts(asked or [column for column in texts if column.is_text]))
    right = [
        column.name for column in texts if column.has({"answer", "solution", "target"}) and column not in found[:1]
    ]
    more = f",answer={right[0]}" if right and right[0] != "answer" else ""
    return f"say which column holds it: `--columns prompt={found[0].name if found else 'COLUMN'}{more}`"


_EXAMPLE = "`--columns prompt=question,chosen=good,rejected=bad`"


def _words(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case: ``responseA``, ``response_a`` and ``Response A`` have the same."""
    return tuple(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))


def _marked(known: Sequence[_Column]) -> list[tuple[_Column, _Column]]:
    """Pairs of texts of which one is called good and the other bad, and else the same."""
    texts = [column for column in known if column.is_text and not column.has({"score", "rating"})]
    bad = [column for column in texts if column.has(_BAD) or (column.has(_NOT) and column.has(_GOOD))]
    good = [column for column in texts if column.has(_GOOD) and column not in bad]
    if len(good) == len(bad) == 1:
        return [(good[0], bad[0])]
    rest = _BAD | _GOOD | _NOT
    return [
        (g, b)
        for g in good
        for b in bad
        if [w for w in g.words if w not in rest] == [w for w in b.words if w not in rest]
    ]


def _sides(known: Sequence[_Column]) -> list[tuple[_Column, _Column]]:
    """Pairs of texts whose names differ in a side; those of answers alone where there are any."""
    found = [pair for pair in combinations(known, 2) if all(c.is_text for c in pair) and _are_sides(*pair)]
    answers = [pair for pair in found if pair[0].has(_ANSWER)]
    return answers or found


def _are_sides(one: _Column, other: _Column) -> bool:
    if len(one.words) != len(other.words):
        return False
    apart = [pair for pair in zip(one.words, other.words, strict=True) if pair[0] != pair[1]]
    return len(apart) == 1 and apart[0] in _SIDES


def _of_sides(known: Sequence[_Column], first: _Column, second: _Column) -> str:
    named = {"first": first, "second": second}
    winners = [column for column in known if column.is_scalar and column.has(_WINNER) and column not in (first, second)]
    if winners:
        said = _mapping(known, named | {"winner": winners[0]})
        said += _which(winners[0], first)
        others = " or ".join(column.name for column in winners)
        return said + (f", if the winner is not in another column: {others}" if len(winners) > 1 else "")
    numbers = [column for column in known if column.has({"score", "rating"})]
    scores = [pair for pair in combinations(numbers, 2) if _are_sides(*pair)]
    if len(scores) == 1:
        return _mapping(known, named | {"score_chosen": scores[0][0], "score_rejected": scores[0][1]})
    return (
        f"nothing says which of {first.name} and {second.name} is better: name the column that does, as in "
        f"`--columns {_text(_with_prompt(known, named)[0])},winner=COLUMN`"
    )


def _which(winner: _Column, first: _Column) -> str:
    """What must be known of a winner that is a number: data sets disagree on what it counts."""
    values = ("true", "false") if isinstance(winner.value, bool) else ("1", "0") if counts(winner.value) else None
    return f", with winner={winner.name}:{'/'.join(values)} where {values[0]} means {first.name}" if values else ""


def _alone(known: Sequence[_Column]) -> str | None:
    """The sentence about answers that have a label and no other answer beside them."""
    answers = [column for column in known if column.is_text and column.has(_ANSWER)]
    labels = [column for column in known if column.has(_LABEL) and not isinstance(column.value, list | Mapping)]
    if len(answers) != 1 or not labels:
        return None
    return (
        f"the answers stand alone, one in each record, with the label {labels[0].name}: a pair is two answers to one "
        "prompt, so put a better and a worse answer to the same prompt into one record, as prompt, chosen and rejected"
    )


def _mapping(known: Sequence[_Column], named: Mapping[str, _Column]) -> str:
    whole, others = _with_prompt(known, named)
    said = f"`--columns {_text(whole)}` would most likely read it"
    return said + (f", if the prompt is not in another column: {' or '.join(others)}" if others else "")


def _with_prompt(known: Sequence[_Column], named: Mapping[str, _Column]) -> tuple[dict[str, _Column], list[str]]:
    """The mapping with a prompt and a system text where there are such columns; what else may be the prompt."""
    rest = [column for column in known if column.is_text and column not in named.values()]
    system = [column for column in rest if "system" in column.words]
    prompts = list(_prompts([column for column in rest if column not in system]))
    whole = ({"prompt": prompts[0]} if prompts else {}) | dict(named)
    whole |= {"system": system[0]} if len(system) == 1 else {}
    return whole, [column.name for column in prompts] if len(prompts) > 1 else []


def _prompts(texts: Sequence[_Column]) -> Iterator[_Column]:
    """The columns that are called like a prompt, the likeliest first; the only other text where none is."""
    called = {word: [column for column in texts if word in column.words] for word in _PROMPT}
    found = list(dict.fromkeys(column for columns in called.values() for column in columns if column.name))
    yield from found or (texts if len(texts) == 1 else ())


def _text(named: Mapping[str, _Column]) -> str:
    return str(ColumnMap(tuple((key, column.name) for key, column in named.items())))
