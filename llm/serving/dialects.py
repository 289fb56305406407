"""The bodies of requests and responses: our own, and those that trainers send to reward servers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

from ..data.layouts import Malformed
from .batching import Item, ItemRewards
from .items import Answered, answered_of
from .reading import Written

Content = dict[str, Any]


class HttpError(Exception):
    """A request that is not answered; one sentence.

    Attributes:
        status: The HTTP status.
        headers: To send along.
    """

    def __init__(self, status: int, said: str, **headers: str) -> None:
        super().__init__(said)
        self.status, self.headers = status, headers


class Wanted(NamedTuple):
    """What a request asks: the items, and how the response is made of their rewards."""

    items: Sequence[Item]
    response: Callable[[Sequence[ItemRewards]], Content]


def content_of(body: bytes) -> Content:
    """The JSON object that a body must be.

    Raises:
        HttpError: It is none.
    """
    try:
        found = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise HttpError(400, f"byte {error.start + 1} of the body is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise HttpError(422, f"the body should be a JSON object, found {type(found).__name__}")
    return found


def own(content: Content) -> Wanted:
    """``/score``: one record with a prompt or messages and its answers, or several in ``items``."""
    several = "items" in content
    records = _listed(content["items"], "items") if several else [content]
    items: list[Answered] = []
    for place, record in enumerate(records):
        where = f"item {place}: " if several else ""
        if not isinstance(record, Mapping):
            raise HttpError(422, f"{where}an object was expected, found {type(record).__name__}")
        try:
            item = answered_of(record, str(place))
        except Malformed as problem:
            raise HttpError(422, f"{where}{problem}") from problem
        if item.reason:
            raise HttpError(422, f"{where}{item.reason}")
        items.append(item)

    def response(found: Sequence[ItemRewards]) -> Content:
        results = [_own_result(item, one) for item, one in zip(items, found, strict=True)]
        return {"results": results} if several else results[0]

    return Wanted(items, response)


def _own_result(item: Answered, found: ItemRewards) -> Content:
    return {"id": item.id, "rewards": found.rewards, "tokens": _tokens(found), "cut": found.read.cut}


def open_rlhf(content: Content) -> Wanted:
    """``/get_reward`` of OpenRLHF: ``query`` holds conversations as text; ``labels`` are not looked at."""
    queries = _texts(content, "query")
    prompts = _texts(content, "prompts") if content.get("prompts") is not None else [""] * len(queries)
    if len(prompts) != len(queries):
        raise HttpError(422, f"there are {len(queries)} texts in 'query', but {len(prompts)} in 'prompts'")

    def response(found: Sequence[ItemRewards]) -> Content:
        rewards = [one.rewards[0] for one in found]
        return {"rewards": rewards, "scores": rewards, "extra_logs": {}}

    return Wanted([Written(*both) for both in zip(queries, prompts, strict=True)], response)


def vllm(content: Content) -> Wanted:
    """``/classify`` of vLLM, which verl asks: ``input`` holds conversations as text; rewards come as they are."""
    for name in ("use_activation", "activation", "softmax"):
        if content.get(name):
            raise HttpError(422, f"rewards are given as they are, not squashed: send {name}=false or leave it out")

    def response(found: Sequence[ItemRewards]) -> Content:
        data = [
            {"index": place, "label": "reward", "probs": one.rewards, "num_classes": 1}
            for place, one in enumerate(found)
        ]
        return {"object": "list", "created": int(time.time()), "data": data, "usage": _usage(found)}

    return Wanted([Written(text) for text in _texts(content, "input")], response)


def embeddings(content: Content) -> Wanted:
    """``/v1/embeddings`` as SGLang answers for reward models, which verl asks."""

    def response(found: Sequence[ItemRewards]) -> Content:
        data = [{"object": "embedding", "index": place, "embedding": one.rewards} for place, one in enumerate(found)]
        return {"object": "list", "data": data, "usage": _usage(found)}

    return Wanted([Written(text) for text in _texts(content, "input")], response)


DIALECTS: dict[str, Callable[[Content], Wanted]] = {
    "/score": own,
    "/get_reward": open_rlhf,
    "/classify": vllm,
    "/v1/embeddings": embeddings,
}


def answers_in(items: Sequence[Item]) -> int:
    """How many rewards these items ask for."""
    return sum(len(item.answers) if isinstance(item, Answered) else 1 for item in items)


def check_found(found: Sequence[ItemRewards]) -> None:
    """Refuse items that could not be read, and rewards that are no numbers.

    Raises:
        HttpError: Naming the first such item.
    """
    for place, one in enumerate(found):
        if one.read.reason:
            raise HttpError(422, f"item {place}: {one.read.reason}")
        if not all(map(isfinite, one.rewards)):
            raise HttpError(500, f"a reward of item {place} is nan or infinite: check the model")


def _listed(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise HttpError(422, f"{name!r} should be a list, found {type(value).__name__}")
    return value


def _texts(content: Content, name: str) -> list[str]:
    """One text, or a list of them.

    Raises:
        HttpError: It is missing or something else, or a text is not valid Unicode.
    """
    if name not in content:
        raise HttpError(422, f"there is no {name!r}, found {', '.join(content) or 'nothing'}")
    texts = [content[name]] if isinstance(content[name], str) else _listed(content[name], name)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise HttpError(422, f"item {place} of {name!r} should be text, found {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise HttpError(422, f"item {place} of {name!r} is not valid Unicode") from error
    return texts


def _tokens(found: ItemRewards) -> list[int]:
    return [len(row) for row in found.read.rows]


def _usage(found: Sequence[ItemRewards]) -> Content:
    tokens = sum(sum(_tokens(one)) for one in found)
    return {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
