"""Which columns of an unknown file may be the prompt and the answers: a mapping to offer, never to use unasked."""

from __future__ import annotations

from llm.data.layouts.base import Columns

# By role, the likelier name first; compared without case, spaces and signs between words.
_NAMES = {
    "prompt": ("prompt", "question", "instruction", "query", "input", "problem", "post", "context", "history",
               "conversation", "messages", "user", "text"),
    "chosen": ("chosen", "preferred", "better", "good", "best", "winner", "positive", "accepted", "correct", "win"),
    "rejected": ("rejected", "nonpreferred", "dispreferred", "worse", "bad", "worst", "loser", "negative", "wrong",
                 "incorrect", "lose"),
    "first": ("a", "1", "0", "first", "left"),
    "second": ("b", "2", "1", "second", "right"),
    "winner": ("winner", "label", "preference", "preferred", "choice", "verdict", "better", "labels", "judgment"),
    "system": ("system", "systemprompt", "systemmessage"),
}  # fmt: skip
_ANSWERS = ("", "response", "answer", "output", "completion", "reply", "text", "model", "humanref", "summary")


def suggested(columns: Columns) -> dict[str, str]:
    """The mapping that most likely reads these columns, ``{"prompt": "question", ...}``; empty where none does.

    Its keys are prompt, and chosen and rejected or first, second and winner, and system where there is one.

    >>> suggested({"question": "Where?", "good": "Here.", "bad": "There."})
    {'prompt': 'question', 'chosen': 'good', 'rejected': 'bad'}
    >>> suggested({"query": "Where?", "answer_a": "Here.", "answer_b": "There.", "choice": "a"})
    {'prompt': 'query', 'first': 'answer_a', 'second': 'answer_b', 'winner': 'choice'}
    """
    plain = {_bare(name): name for name in columns}
    prompt = _first(plain, _NAMES["prompt"])
    answers = _answers(plain) or _judged(plain)
    if prompt is None or not answers:
        return {}
    system = _first(plain, _NAMES["system"])
    taken = set(answers.values())
    return {} if prompt in taken else {"prompt": prompt, **answers, **({"system": system} if system else {})}


def candidates(columns: Columns) -> dict[str, list[str]]:
    """All columns that may be the prompt, where there are several: the file is ambiguous until one is named."""
    plain = {_bare(name): name for name in columns}
    found = [plain[name] for name in _NAMES["prompt"] if name in plain]
    return {"prompt": found} if len(found) > 1 else {}


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _first(plain: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((plain[name] for name in names if name in plain), None)


def _worded(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names alone, and beside every word for an answer."""
    return tuple(word for name in names for answer in _ANSWERS for word in (name + answer, answer + name))


def _answers(plain: dict[str, str]) -> dict[str, str]:
    chosen, rejected = (_first(plain, _worded(_NAMES[role])) for role in ("chosen", "rejected"))
    return {"chosen": chosen, "rejected": rejected} if chosen and rejected else {}


def _judged(plain: dict[str, str]) -> dict[str, str]:
    """Two answers numbered or lettered alike, and a column that names the better one."""
    winner = _first(plain, _NAMES["winner"])
    for answer in _ANSWERS[1:]:
        for first, second in zip(_NAMES["first"], _NAMES["second"], strict=True):
            pair = _first(plain, (answer + first, first + answer)), _first(plain, (answer + second, second + answer))
            if winner and all(pair):
                return {"first": str(pair[0]), "second": str(pair[1]), "winner": winner}
    return {}
