"""Several answers to one prompt with ranks or ratings: Nectar, distilabel, and lists beside lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm.data.layouts.base import Columns, Comparison, Layout, Malformed, answer, first_of, items, number, unpacked
from llm.data.layouts.turns import messages
from llm.data.layouts.verdicts import best_against_lower

_PROMPTS = ("prompt", "instruction", "input", "question")
_ANSWERS = ("generations", "responses", "answers", "completions", "candidates_completions", "all_generated_responses")
_RATINGS = ("ratings", "rating", "scores", "all_rm_scores")  # higher is better
_RANKS = ("ranks", "rank")  # 1 is best


def _is_nectar(columns: Columns) -> bool:
    answers = unpacked(columns.get("answers"))
    entries = answers if isinstance(answers, list) else []
    return "prompt" in columns and any(isinstance(entry, Mapping) and "rank" in entry for entry in entries)


def _nectar(columns: Columns) -> Iterator[Comparison]:
    rated = []
    for entry in items(columns, "answers"):
        if not isinstance(entry, Mapping):
            raise Malformed(f"'answers' should hold objects with answer and rank, found {entry!r:.40}")
        rated.append((_negative(number(entry, "rank")), answer(entry, "answer")))
    yield from best_against_lower(answer(columns, "prompt"), rated, columns)


def _negative(rank: float | None) -> float | None:
    return None if rank is None else -rank


def _are_lists(columns: Columns) -> bool:
    decided = columns.keys() >= {"chosen", "rejected"}
    known = [columns.keys() & set(names) for names in (_PROMPTS, _ANSWERS, _RATINGS + _RANKS)]
    return not decided and all(known)


def _lists(columns: Columns) -> Iterator[Comparison]:
    texts = items(columns, first_of(columns, *_ANSWERS))
    name = first_of(columns, *_RATINGS, *_RANKS)
    values = items(columns, name)
    if len(texts) != len(values):
        raise Malformed(f"there are {len(texts)} answers, but {name!r} has {len(values)} entries")
    rated = []
    for text, value in zip(texts, values, strict=True):
        if not isinstance(text, str):
            raise Malformed(f"an answer should be text, found {type(text).__name__}")
        rating = number({name: value}, name)
        rated.append((rating if name in _RATINGS else _negative(rating), text))
    chat = messages(columns, first_of(columns, *_PROMPTS), role="user")
    yield from best_against_lower(chat, rated, columns)


NECTAR = Layout("nectar", "{prompt, answers: [{answer, rank}]}", _is_nectar, _nectar)
LISTS = Layout("ranked-lists", "{prompt or instruction, generations: [texts], ratings or ranks}", _are_lists, _lists)
