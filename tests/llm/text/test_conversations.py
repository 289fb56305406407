"""The tokens of conversations over tokenizers and templates: those that are served, the answer where it stands."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import transformers as tf
from tokenizer_shapes import FORGETFUL, OPENED, TEMPLATES, TOKENIZERS, UNENDED, bytewise, shaped, wordpiece

from llm.data.pairs import Message
from llm.text.exported_templates import PLAIN
from llm.text.rendering import Refused, folded
from llm.text.tokens import Reader

QUESTION: list[Message] = [{"role": "user", "content": "Which colour has the dog number 3?"}]
SECOND: list[Message] = [
    *QUESTION,
    {"role": "assistant", "content": "Blue?"},
    {"role": "user", "content": "  Really, a blue dog?\n"},
]
ANSWERS = ["The dog is red.", "  Nobody knows. ", "red", "Ünïcödé 犬 is 赤\n\nand more.", "a\u00a0b"]
THOUGHT = "<think>\nIt may be blue.\n</think>\n\nIt is red."
MATRIX = [(kind, name) for kind, name in itertools.product(TOKENIZERS, TEMPLATES) if kind != "slow" or name != "phi"]


def tokens_of(tokenizer: Any, chat: list[Message], answer: str) -> Any:
    reader = Reader(tokenizer)
    return reader.answered([reader.renderer.answered(chat, [answer])])[0][0]


def served(tokenizer: Any, chat: list[Message], answer: str) -> list[int]:
    whole = [*chat, {"role": "assistant", "content": answer}]
    return tokenizer.apply_chat_template(whole, return_dict=False)


@pytest.mark.parametrize(("kind", "name"), MATRIX)
def test_tokens_are_those_that_are_served(kind, name):
    tokenizer = shaped(kind, name)
    both = kind in ("bytewise, both ends", "slow")  # these put an end behind any text
    for chat, answer in itertools.product((QUESTION, SECOND), ANSWERS):
        found = tokens_of(tokenizer, chat, answer)
        if name == "none":
            turns = "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in chat)
            expected = tokenizer(f"{turns}\n\nAssistant: {answer}")["input_ids"]
            expected += [tokenizer.eos_token_id] * (expected[-1] != tokenizer.eos_token_id)
        else:
            expected = served(tokenizer, chat, answer)
        if both and name != "none":
            assert found.ids[: len(expected)] == expected or found.ids[1 : len(expected) + 1] == expected
        else:
            assert found.ids == expected


@pytest.mark.parametrize(("kind", "name"), MATRIX)
def test_prompts_are_those_that_are_served(kind, name):
    tokenizer = shaped(kind, name)
    reader = Reader(tokenizer)
    for chat in (QUESTION, SECOND):
        (found,) = reader.asked([reader.renderer.asked(chat)])
        if name != "none" and kind != "bytewise, both ends":
            assert found == tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert found[: len(reader.edges.prefix)] == reader.edges.prefix


@pytest.mark.parametrize(("kind", "name"), MATRIX)
def test_the_answer_is_where_it_was_put(kind, name):
    """No token of the answer is before its place, none behind; one that it shares with the prompt is its own."""
    tokenizer = shaped(kind, name)
    reader = Reader(tokenizer)
    for chat, answer in itertools.product((QUESTION, SECOND), ANSWERS):
        found = tokens_of(tokenizer, chat, answer)
        (asked,) = reader.asked([reader.renderer.asked(chat)])
        if found.ids[: len(asked)] == asked:  # no token holds both
            assert found.answer == len(asked)
        before, own, after = (
            tokenizer.decode(found.ids[part], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for part in (slice(found.answer), slice(found.answer, found.text_end), slice(found.text_end, None))
        )
        assert squeezed(answer) in squeezed(own)
        block = len("<think></think>") if name == "rewriting" else 0  # which the model is not asked with
        assert len(squeezed(own)) <= len(squeezed(answer)) + block + 3  # a token may hold a sign beside it
        assert squeezed(chat[-1]["content"]) in squeezed(before)
        assert squeezed(answer[:6]) not in squeezed(after)
        assert found.text_end < found.end <= len(found.ids)
        assert found.ids[found.end - 1] in {*tokenizer.all_special_ids}


def squeezed(text: str) -> str:
    return "".join(text.replace("▁", " ").split()).replace("\u00a0", "")


@pytest.mark.parametrize(
    "answer", ["It ends.</s>", "</s>", "<|im_start|>user\nNo.<|im_end|>", "a <s> b <unk> c", "x</s> "]
)
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in MATRIX if k != "slow"])
def test_text_that_reads_like_a_special_token_stays_text(kind, name, answer):
    tokenizer = shaped(kind, name)
    try:
        found, plain = (tokens_of(tokenizer, SECOND, text) for text in (answer, "plain"))
    except Refused as reason:
        assert "cannot read that as text" in str(reason)  # noqa: PT017
        assert kind.startswith("marked")
        return
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert [i for i in found.ids if i in special] == [i for i in plain.ids if i in special]
    assert squeezed(answer) in squeezed(tokenizer.decode(found.ids[found.answer : found.text_end]))


@pytest.mark.parametrize("place", ["prompt", "system"])
def test_special_text_of_a_prompt_stays_text(place):
    tokenizer = shaped("bytewise", "chatml")
    said = "What does <|im_end|> mean, and </s>?"
    chat = (
        [{"role": "user", "content": said}] if place == "prompt" else [{"role": "system", "content": said}, *QUESTION]
    )
    found = tokens_of(tokenizer, chat, "An end.")
    assert found.ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == len(chat) + 1
    assert tokenizer.eos_token_id not in found.ids
    assert said in tokenizer.decode(found.ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", ["rewriting", "switched"])
def test_thoughts_are_kept(kind, name):
    tokenizer = shaped(kind, name)
    found = tokens_of(tokenizer, QUESTION, THOUGHT)
    own = tokenizer.decode(found.ids[found.answer : found.end])
    assert squeezed(THOUGHT) in squeezed(own)
    if name == "rewriting" and kind not in ("bytewise, both ends", "slow"):
        assert found.ids == served(tokenizer, QUESTION, THOUGHT)


@pytest.mark.parametrize(
    ("answer", "read"), [(THOUGHT, THOUGHT.removeprefix("<think>\n")), ("It is red.", "It is red.")]
)
def test_an_answer_begins_where_the_model_goes_on(answer, read):
    """Also where that is inside the answer's own text: what the prompt says, the model does not."""
    tokenizer = bytewise()
    tokenizer.chat_template = OPENED
    found = tokens_of(tokenizer, QUESTION, answer)
    assert found.ids == served(tokenizer, QUESTION, answer)
    assert tokenizer.decode(found.ids[found.answer : found.text_end]) == read
    asked = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    assert (found.ids[: found.answer] == asked) == (answer == THOUGHT)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_thoughts_that_a_template_deletes_are_refused(kind):
    tokenizer = shaped(kind, "forgetful")
    with pytest.raises(Refused, match="leaves out or rewrites a part of the answer"):
        tokens_of(tokenizer, QUESTION, THOUGHT)
    reader = Reader(tokenizer)
    (rendered,) = reader.renderer.answered(QUESTION, [THOUGHT], strict=False)
    assert rendered.text[rendered.start : rendered.end].strip() == "It is red."


@pytest.mark.parametrize(
    "template", ["{{ messages[-1].content | upper }}", "{{ messages[0].content }}", "{{ nothing }}"]
)
def test_an_answer_that_a_template_rewrites_is_refused(template):
    tokenizer = bytewise()
    tokenizer.chat_template = template
    with pytest.raises(Refused, match="leaves out or rewrites"):
        tokens_of(tokenizer, QUESTION, "The dog.")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{{ messages.absent() }}",
        "{% for i in range(10**9) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_is_a_reason(template):
    tokenizer = bytewise()
    tokenizer.chat_template = template
    with pytest.raises(Refused, match="its chat template refuses the chat: "):
        Reader(tokenizer).renderer.asked(QUESTION)


def test_a_template_that_asks_for_the_date_gives_the_same_text_tomorrow():
    tokenizer = bytewise()
    tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. " + str(TEMPLATES["chatml"])
    assert Reader(tokenizer).renderer.asked(QUESTION).text.startswith("Today is 26 Jul 2024. ")


@pytest.mark.parametrize("name", ["chatml", "llama2", "gemma"])
def test_a_system_turn_is_read_or_missed(name):
    tokenizer = shaped("bytewise", name)
    chat: list[Message] = [{"role": "system", "content": "Be brief."}, *QUESTION]
    renderer = Reader(tokenizer).renderer
    if name == "gemma":
        with pytest.raises(Refused, match="System role not supported"):
            renderer.answered(chat, ["Red."])
    else:
        assert renderer.answered(chat, ["Red."])[0].lost == ({"system"} if name == "llama2" else set())
    tokenizer.chat_template = folded(tokenizer.chat_template)
    (rendered,) = Reader(tokenizer).renderer.answered(chat, ["Red."])
    assert not rendered.lost
    joined = [{"role": "user", "content": "Be brief.\n\n" + QUESTION[0]["content"]}]
    assert rendered.text == Reader(shaped("bytewise", name)).renderer.answered(joined, ["Red."])[0].text
    assert Reader(tokenizer).renderer.asked(QUESTION) == Reader(shaped("bytewise", name)).renderer.asked(QUESTION)


def test_what_a_template_leaves_out_of_a_prompt_is_named():
    tokenizer = bytewise()
    tokenizer.chat_template = FORGETFUL
    calls: Any = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "<think>Four.</think>4", "tool_calls": [{"function": {"name": "adder"}}]},
        {"role": "user", "content": "And 3?"},
    ]
    assert Reader(tokenizer).renderer.answered(calls, ["7"])[0].lost == {"thoughts", "tool_calls"}
    tokenizer.chat_template = UNENDED
    assert Reader(tokenizer).renderer.answered(calls, ["7"])[0].lost == {"tool_calls"}


def test_the_plain_layout_shows_calls_of_tools_and_so_does_its_template():
    call = {"type": "function", "function": {"name": "adder", "arguments": {"a": "zwölf", "b": 2}}}
    chat: list[Message] = [
        {"role": "user", "content": "12 + 2?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call, call]},
        {"role": "tool", "content": "14"},
    ]
    tokenizer = bytewise()
    renderer = Reader(tokenizer).renderer
    (rendered,) = renderer.answered(chat, ["14."])
    line = '{"name": "adder", "arguments": {"a": "zwölf", "b": 2}}'
    assert rendered.text == (f"User: 12 + 2?\n\nAssistant: Let me see.\n{line}\n{line}\n\nTool: 14\n\nAssistant: 14.")
    tokenizer.chat_template = PLAIN
    assert Reader(tokenizer).renderer.answered(chat, ["14."])[0].text == rendered.text
    assert Reader(tokenizer).renderer.asked(chat).text == renderer.asked(chat).text


def test_a_template_that_ends_nothing_is_followed_by_the_end_token():
    tokenizer = bytewise()
    tokenizer.chat_template = UNENDED
    found = tokens_of(tokenizer, QUESTION, "Red.")
    text = f"### user:\n{QUESTION[0]['content']}\n\n### assistant:\nRed."
    assert found.ids == [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert found.end == len(found.ids) == found.text_end + 1


def test_an_encoder_keeps_its_two_tokens_with_a_template():
    tokenizer = wordpiece()
    text = tokenizer(f"user: {QUESTION[0]['content']} assistant: red")["input_ids"]
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    assert tokens_of(tokenizer, QUESTION, "red").ids == text


def test_tokens_of_a_slow_tokenizer_stand_where_a_fast_one_puts_them():
    fast = bytewise(None)
    text = f"User: {QUESTION[0]['content']}\n\nAssistant: "
    found = tokens_of(tf.ByT5Tokenizer(), QUESTION, "Rød.")
    assert found.answer == len(text) - 1
    assert found.text_end == len(text) + len("Rød.".encode())
    assert fast.decode(fast(text)["input_ids"]) == text
