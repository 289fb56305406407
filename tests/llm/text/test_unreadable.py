"""What a tokenizer or its chat template cannot read is left out, or read as it does; it ends nothing."""

from __future__ import annotations

from typing import Any

import pytest
import transformers as tf
from tokenizer_shapes import TEMPLATES, bytewise, shaped
from tokenizers import Tokenizer, models

from llm.data.pairs import DataError, Message, Pair
from llm.data.prompts import Prompt
from llm.text.answers import encode_answers, encode_prompts
from llm.text.encoding import encode_pairs
from llm.text.rendering import Refused
from llm.text.tokens import Reader

QUESTION: list[Message] = [{"role": "user", "content": "Which colour has the dog number 3?"}]
SECOND: list[Message] = [
    *QUESTION,
    {"role": "assistant", "content": "Blue?"},
    {"role": "user", "content": "Really, a blue dog?"},
]
LONG: list[Message] = [
    {"role": "system", "content": "Be brief, dog."},
    {"role": "user", "content": "Which dog? " * 20},
    {"role": "assistant", "content": "That dog."},
    {"role": "user", "content": "Which dog? " * 20},
]


@pytest.mark.parametrize(
    "condition",
    [
        "messages[0].role != 'system'",
        "messages | length < 3",
        "messages | length == 2",
        "'dog' not in messages[0].content",
        "messages[0].content | upper == messages[0].content",
    ],
)
def test_a_template_that_refuses_short_chats_ends_nothing(condition):
    """Its frame is known from a chat that it writes, and kept; what it refuses is left out."""
    tokenizer = bytewise()
    tokenizer.chat_template = f"{{% if {condition} %}}{{{{ raise_exception('no') }}}}{{% endif %}}{TEMPLATES['chatml']}"
    refused: list[Message] = [{"role": "user", "content": "!"}, {"role": "assistant", "content": "?"}]
    pairs = [Pair("r", tuple(refused), "Red.", "Blue."), Pair("p", tuple(LONG), "Red.", "Blue.")]
    found = encode_pairs(pairs, tokenizer, max_length=60)
    assert found.kept == [1]
    (answer,) = encode_answers([Prompt("p", tuple(LONG))], ["Red."], tokenizer, max_length=60)
    assert answer == found[0]["chosen"]
    text = tokenizer.decode(answer)
    assert text.startswith("<|im_start|>system\nBe brief, dog.")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\nRed.<|im_end|>\n")
    assert len(answer) == 60


def test_text_that_cannot_be_read_as_text_ends_nothing():
    """A policy may write anything, and its judge reads it; a prompt is left out."""
    tokenizer = shaped("marked, first", "chatml")
    said: list[Message] = [{"role": "user", "content": "What is </s>?"}]
    prompts = [Prompt("a", tuple(QUESTION)), Prompt("b", tuple(said)), Prompt("c", tuple(SECOND))]
    refused: dict[int, str] = {}
    rows = encode_prompts(prompts, tokenizer, refused)
    assert (list(refused), rows[1]) == ([1], [])
    for place in (0, 2):
        asked = tokenizer.apply_chat_template(list(prompts[place].messages), add_generation_prompt=True)
        assert rows[place] == asked["input_ids"]
    with pytest.raises(DataError, match=r"'b' cannot be read: its text reads like a special token"):
        encode_prompts(prompts, tokenizer)
    whole = [*QUESTION, {"role": "assistant", "content": "It ends.</s> No."}]
    (row,) = encode_answers(prompts[:1], ["It ends.</s> No."], tokenizer, max_length=100)
    assert row == tokenizer.apply_chat_template(whole, return_dict=False)


def test_special_tokens_that_letters_can_spell_are_refused():
    """A vocabulary whose merges make the text of a special token."""
    inner = Tokenizer(
        models.BPE({t: i for i, t in enumerate([*"<a>bu", "<a", "<a>", "</s>"])}, [("<", "a"), ("<a", ">")])
    )
    tokenizer: Any = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", additional_special_tokens=["<a>"]
    )
    tokenizer.chat_template = "{% for m in messages %}<a>{{ m.content }}{{ eos_token }}{% endfor %}"
    reader, chat = Reader(tokenizer), [Message(role="user", content="bu")]
    ids = reader.answered([reader.renderer.answered(chat, ["ub<a"])])[0][0].ids
    assert ids.count(tokenizer.convert_tokens_to_ids("<a>")) == 2
    with pytest.raises(Refused, match="cannot read that as text"):
        reader.answered([reader.renderer.answered(chat, ["ub<a>"])])
