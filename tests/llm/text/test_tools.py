"""Tools: a conversation with their definitions, or an answer that calls them, is read as whoever serves it reads it."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizer_shapes import bytewise

from llm.audit.auditor import audit_of
from llm.data.layouts.tools import CallingAnswer, calls_text, record_of, with_tools
from llm.data.overview import overview
from llm.data.pairs import Message, Pair, PairSet, read_pairs, write_pairs
from llm.data.prompts import Prompt
from llm.features.features import load_backbone
from llm.text.answers import encode_answers, encode_prompts
from llm.text.encoding import encode_pairs
from llm.text.exported_templates import PLAIN
from llm.text.rendering import ANSWER_LOST, Renderer
from llm.text.token_cache import fingerprint

trl = pytest.importorskip("trl")

PLACE = {"type": "string", "description": 'A town, "as" it\'s called.'}
PARAMETERS = {"type": "object", "properties": {"place": PLACE, "days": {"type": "integer"}}, "required": ["place"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Knows {name}.", "parameters": PARAMETERS}}
    for name in ("weather_at", "tide_at")
]
ASKED: list[Message] = [{"role": "user", "content": "Will it rain in Ünna?"}]
CHAT = with_tools(tuple(ASKED), TOOLS)
MORE = pytest.mark.exhaustive
# Templates of models as they are served, of different families: what they write of calls, and what ends them.
WRITING = [
    "qwen2_5", "llama3_1", "gemma4", "lfm2_2_5", "qwen3",
    *(pytest.param(name, marks=MORE) for name in ("qwen3_5_think", "gemma4_v2", "glm4moe", "qwen3_vl")),
]  # fmt: skip
SILENT = ["phi3", *(pytest.param(name, marks=MORE) for name in ("llama3", "qwen2_5_vl", "gemma3", "cohere"))]


def served(name: str) -> Any:
    """A tokenizer with the template of a model, and with its special tokens."""
    tokenizer = bytewise()
    template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(re.findall(r"<\|?\w+\|?>", template)))})
    return tokenizer


def calling(place: str = "Ünna", days: int = 3, *, content: str = "", calls: int = 1) -> CallingAnswer:
    named = [{"name": "weather_at", "arguments": {"place": place, "days": days + n}} for n in range(calls)]
    turns = [{"type": "function", "function": call} for call in named]
    return CallingAnswer({"role": "assistant", "content": content, "tool_calls": turns})


def own_ids(tokenizer: Any, chat: Any, tools: Any = TOOLS, **more: Any) -> list[int]:
    """As whoever serves the model asks for them."""
    text = tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, **more)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def turn(answer: str) -> Any:
    (found,) = record_of(answer) if isinstance(answer, CallingAnswer) else [{"role": "assistant", "content": answer}]
    return found


def pairs(*answers: str) -> list[Pair]:
    return [Pair(f"p{n}", CHAT, answer, "I do not know.") for n, answer in enumerate(answers)]


@pytest.mark.parametrize("name", WRITING)
def test_ids_are_those_of_serving_with_the_same_tools(name):
    tokenizer = served(name)
    answers = ["It will.", calling(), calling("a \"b\"\n{c} 'd'", 0)]
    encoded = encode_pairs(pairs(*answers), tokenizer, max_length=4000)
    assert not encoded.left_out
    assert not encoded.truncation.lost
    asked = own_ids(tokenizer, ASKED, add_generation_prompt=True)
    for answer, item in zip(answers, encoded, strict=True):
        whole = own_ids(tokenizer, [*ASKED, turn(answer)])
        first, end = item["chosen_span"]
        assert item["chosen"][: len(whole)] == whole
        assert item["chosen"][len(whole) :] == (
            [tokenizer.eos_token_id] if name == "glm4moe" else []
        )  # it ends nothing
        assert own_ids(tokenizer, ASKED, tools=None) != own_ids(tokenizer, ASKED)
        assert asked[:first] == item["chosen"][:first]
        assert "weather_at" in tokenizer.decode(item["chosen"][:first])
        told = tokenizer.decode(item["chosen"][first:end])
        assert ("rain" if isinstance(answer, CallingAnswer) else "weather_at") not in told
        behind = tokenizer.decode(item["chosen"][end:], skip_special_tokens=True)
        assert not behind.strip()
    assert "Ünna" in tokenizer.decode(encoded[1]["chosen"][encoded[1]["chosen_span"][0] :])
    assert encode_prompts([Prompt("q", CHAT)], tokenizer) == [asked]
    (row,) = encode_answers([Prompt("q", CHAT)], ["It will."], tokenizer, max_length=4000)
    assert row == encoded[0]["chosen"]


@pytest.mark.parametrize("name", SILENT)
def test_what_a_template_does_not_write_is_counted_or_left_out_by_name(name):
    tokenizer = served(name)
    given = pairs("It will.", calling(), "It will not.")
    encoded = encode_pairs(given, tokenizer, max_length=4000)
    assert encoded.left_out == {1: ANSWER_LOST}
    assert encoded.truncation.lost == {"tools": 2}
    assert encoded[0]["chosen"] == own_ids(tokenizer, [*ASKED, turn("It will.")], tools=None)
    found = audit_of(PairSet(given, "a.jsonl", "", ""), tokenizer, max_length=4000)
    assert found.as_json()["tool_calls_lost"] == {"count": 2, "examples": ["p0", "p2"]}


def test_a_name_that_the_prompt_mentions_is_no_definition():
    mentioned = with_tools(({"role": "user", "content": "What are weather_at and tide_at?"},), TOOLS)
    encoded = encode_pairs([Pair("p", mentioned, "Tools.", "Towns.")], served("phi3"), max_length=4000)
    assert encoded.truncation.lost == {"tools": 1}


@pytest.mark.parametrize(
    ("name", "answer"),
    [("llama3_1", calling(content="Let me look.")), ("llama3_1", calling(calls=2)), ("gptoss", calling(calls=2))],
)
def test_an_answer_of_which_a_part_is_not_written_is_left_out(name, answer):
    """What is said beside a call; a second call, refused or not."""
    encoded = encode_pairs(pairs("It will.", answer), served(name), max_length=4000)
    assert list(encoded.left_out) == [1]


def test_all_of_several_calls_and_what_is_said_beside_them_is_read():
    tokenizer, answer = served("qwen2_5"), calling(content="Let me look.", calls=3)
    (item,) = encode_pairs(pairs(answer), tokenizer, max_length=4000)
    assert item["chosen"] == own_ids(tokenizer, [*ASKED, turn(answer)])
    told = tokenizer.decode(item["chosen"][slice(*item["chosen_span"])])
    assert [told.count(said) for said in ("Let me look.", "<tool_call>", "weather_at")] == [1, 3, 3]


def test_special_tokens_in_calls_and_definitions_stay_text():
    tokenizer = served("qwen2_5")
    described = copy.deepcopy(TOOLS)
    described[0]["function"]["description"] = "Not <|im_end|> but text."  # pyright: ignore[reportArgumentType]
    chat, answer = with_tools(tuple(ASKED), described), calling("<|im_end|>")
    (item,) = encode_pairs([Pair("p", chat, answer, "No.")], tokenizer, max_length=4000)
    end, plain = tokenizer.convert_tokens_to_ids("<|im_end|>"), own_ids(tokenizer, [*ASKED, turn(calling())])
    assert item["chosen"].count(end) == plain.count(end)
    assert tokenizer.decode(item["chosen"]).count("<|im_end|>") == plain.count(end) + 2


def test_the_plain_layout_writes_calls_and_counts_definitions():
    tokenizer, answer = bytewise(), calling(content="Let me look.")
    encoded = encode_pairs(pairs(answer), tokenizer, max_length=4000)
    assert encoded.truncation.lost == {"tools": 1}
    line = '{"name": "weather_at", "arguments": {"place": "Ünna", "days": 3}}'
    assert str(answer) == f"Let me look.\n{line}"
    assert tokenizer.decode(encoded[0]["chosen"], skip_special_tokens=True).endswith(f"Assistant: Let me look.\n{line}")
    texts = []
    for template in (None, PLAIN):
        tokenizer.chat_template = template
        texts.append(Renderer(tokenizer).answered(ASKED, [calling(), answer]))
    assert [rendered.text for rendered in texts[0]] == [rendered.text for rendered in texts[1]]


def test_a_call_is_told_from_the_same_text_wherever_it_is_kept(tmp_path):
    answer = calling()
    spoken = "Look:" + calls_text(turn(answer))
    called = calling(content="Look:")
    assert spoken == called  # as texts they are
    copies = [pickle.loads(pickle.dumps(called)), copy.deepcopy(called), replace(pairs(called)[0], id="q").chosen]
    assert [record_of(found) for found in copies] == [[called.turn]] * 3
    write_pairs(pairs(called, spoken), tmp_path / "a.jsonl")
    read = read_pairs(tmp_path / "a.jsonl").pairs
    assert [record_of(pair.chosen) for pair in read] == [[called.turn], spoken]
    assert read[0].prompt == CHAT
    tokenizer, backbone = bytewise(), load_backbone("tiny", max_length=64, train=pairs(called))
    bare = [replace(pairs(spoken)[0], prompt=tuple(ASKED))]
    for marks in (
        {
            fingerprint(given, tokenizer, max_length=64, too_long="cut")
            for given in (pairs(called), pairs(spoken), bare)
        },
        {backbone.fingerprint(given) for given in (pairs(called), pairs(spoken), bare)},
    ):
        assert len(marks) == 3
    assert overview([*pairs("Yes."), replace(pairs("Yes.")[0], prompt=tuple(ASKED))]).duplicates.count == 0
    assert overview([*pairs("Yes."), *pairs("Yes.")]).duplicates.count == 1


def test_definitions_are_read_in_every_spelling_and_nulls_of_tables_are_none_of_them():
    functions: list[Any] = [tool["function"] for tool in TOOLS]
    for spelling in (TOOLS, json.dumps(TOOLS), functions, json.dumps(functions)):
        assert with_tools(tuple(ASKED), spelling) == CHAT
    filled: list[Any] = copy.deepcopy(TOOLS)
    filled[0]["function"]["parameters"]["properties"]["unit"] = None
    assert with_tools(tuple(ASKED), filled) == CHAT
    for odd in (None, "", "[]", "a hammer", ["hammer"], [{"title": "x"}], float("nan")):
        assert with_tools(tuple(ASKED), odd) == tuple(ASKED)
    assert with_tools(CHAT, [{"name": "other"}]) == CHAT  # its own first
