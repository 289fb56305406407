"""Encoding against what the tokenizer itself would do: templates, special tokens, truncation, padding."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError, Message, Pair, read_pairs
from llm.text.batches import PairCollator, by_length
from llm.text.encoding import EQUAL_TOKENS, Truncation, encode_pairs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHAT: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One two three four five?"},
)
PLAIN = "System: Be brief.\n\nUser: One two three four five?\n\nAssistant:"
PAIR = Pair("p", CHAT, "Six.", "Seven, I should think.")


def byte_level(*, template: str | None = None, post: str | None = None, **special: str) -> Any:
    """A tokenizer of single bytes, so that lengths can be worked out by hand."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    names = ["<pad>", "<bos>", "<eos>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({t: i for i, t in enumerate(names + letters)}, []))
    inner.add_special_tokens(names)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if post:
        inner.post_processor = processors.TemplateProcessing(
            single=post, special_tokens=[(n, inner.token_to_id(n)) for n in names if n in post]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", **special)
    tokenizer.chat_template = template
    return tokenizer


def texts(tokenizer: Any, pair: Pair = PAIR, max_length: int = 1000) -> tuple[str, str]:
    item = encode_pairs([pair], tokenizer, max_length=max_length)[0]
    return tokenizer.decode(item["chosen"]), tokenizer.decode(item["rejected"])


def test_plain_layout():
    assert texts(byte_level()) == (PLAIN + " Six.", PLAIN + " Seven, I should think.")


@pytest.mark.parametrize(
    ("post", "special", "shape"),
    [
        (None, {}, "{}"),
        (None, {"eos_token": "<eos>"}, "{}<eos>"),
        ("<bos> $A", {"bos_token": "<bos>"}, "<bos>{}"),
        ("<bos> $A", {"bos_token": "<bos>", "eos_token": "<eos>"}, "<bos>{}<eos>"),
        ("<bos> $A <eos>", {"bos_token": "<bos>", "eos_token": "<eos>"}, "<bos>{}<eos>"),
        ("<bos> <bos> $A <eos>", {"cls_token": "<bos>", "sep_token": "<eos>"}, "<bos><bos>{}<eos>"),
    ],
)
def test_special_tokens_stand_around_the_text_cut_or_not(post, special, shape):
    tokenizer = byte_level(post=post, **special)
    whole = texts(tokenizer)[0]
    assert whole.startswith(shape.split("{}")[0] + "System:")
    assert whole.endswith("Six." + shape.split("{}")[1])
    added = len(encode_pairs([PAIR], tokenizer, max_length=1000)[0]["chosen"]) - len(PLAIN + " Six.")
    assert added == shape.count("<")
    least = added + len("User: ") + len("\n\nAssistant:")
    assert texts(tokenizer, max_length=least + 6)[0] == shape.format("System: ?\n\nAssistant: Si")


def test_bert_style_tokenizer_gives_its_own_encoding(minilm_tokenizer):
    """Nothing is cut: the ids are those of the whole text, encoded by the tokenizer in one go."""
    item = encode_pairs([PAIR], minilm_tokenizer, max_length=128)[0]
    assert item["chosen"] == minilm_tokenizer(PLAIN + " Six.")["input_ids"]


@pytest.mark.parametrize("post", [None, "<bos> $A"])
@pytest.mark.parametrize("bos", ["", "<bos>"])
def test_a_template_says_which_special_tokens_there_are(post, bos):
    tokenizer = byte_level(template=bos + CHATML, post=post, bos_token="<bos>", eos_token="<eos>")
    prompt = "<|system|>Be brief.<eos>\n<|user|>One two three four five?<eos>\n<|assistant|>"
    assert texts(tokenizer)[0] == f"{bos}{prompt}Six.<eos>\n"
    item = encode_pairs([PAIR], tokenizer, max_length=1000)[0]
    assert tokenizer.decode(item["chosen"][slice(*item["chosen_span"])]) == "Six.<eos>"


def test_template_equals_the_tokenizers_own_rendering():
    tokenizer = byte_level(template="<bos>" + CHATML, bos_token="<bos>", eos_token="<eos>")
    whole = [*CHAT, {"role": "assistant", "content": PAIR.chosen}]
    expected = tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False)
    assert encode_pairs([PAIR], tokenizer, max_length=1000)[0]["chosen"] == expected


UPPER = "{% for m in messages %}{{ m.content | upper }}.{% endfor %}{{ '>' if add_generation_prompt }}"
RELUCTANT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)


def test_pairs_that_a_template_does_not_write_are_left_out_and_named(caplog):
    good = Pair("q", CHAT[1:], "Six.", "Seven.")
    for template, reason in ((RELUCTANT, "System role not supported"), (UPPER, "leaves out or rewrites")):
        tokenizer = byte_level(template=template)
        with pytest.raises(DataError, match=rf"None of 1 pairs can be read: of pair 'p', its chat template .*{reason}"):
            encode_pairs([PAIR], tokenizer, max_length=100)
    caplog.clear()
    found = encode_pairs([good, PAIR, good], byte_level(template=RELUCTANT), max_length=100)
    assert (found.kept, found.pairs, list(found.left_out)) == ([0, 2], [good, good], [1])
    assert list(found.truncation.left_out.values()) == [1]
    assert "1 of 3 pairs are left out, 'p' first: its chat template refuses the chat" in caplog.text


@pytest.mark.parametrize(
    ("chosen", "rejected", "length"),
    [
        ("It is Red.", "it is red.", 64),  # a tokenizer without case
        ("It is red 🙂.", "It is red 🙃.", 64),  # unknown signs
        ("It is  red.", "It is red.\n", 64),  # white space
        ("It is red and so is the cat.", "It is red and so is the dog.", 16),  # parted behind the end
    ],
)
def test_pairs_with_equal_tokens_are_left_out_and_counted(chosen, rejected, length, caplog):
    from tokenizer_shapes import wordpiece

    dead, alive = Pair("d", CHAT, chosen, rejected), Pair("a", CHAT, "Blue.", "Red.")
    found = encode_pairs([dead, alive, dead], wordpiece(), max_length=length)
    assert (found.kept, found.left_out) == ([1], {0: EQUAL_TOKENS, 2: EQUAL_TOKENS})
    assert found.truncation.left_out == {EQUAL_TOKENS: 2}
    assert found[0]["index"] == 0
    assert "2 of 3 pairs are left out, 'd' first: its two answers have the same tokens" in caplog.text


def test_both_answers_are_read_after_the_same_part_of_the_prompt():
    asked: tuple[Message, ...] = ({"role": "user", "content": "abcdefghij"},)
    short, long = Pair("p", asked, "xy", "uvwx"), Pair("q", asked, "xy", "uvwxyz" * 4)
    tokenizer = byte_level()  # the prompt has 6 + 10 + 12 bytes; answers have 3, 5 and 25
    assert encode_pairs([short, long], tokenizer, max_length=53).truncation == Truncation(pairs=2)
    found = encode_pairs([short], tokenizer, max_length=30)  # of the twelve that the frame leaves, five and seven
    for side, answer in (("chosen", "xy"), ("rejected", "uvwx")):
        assert tokenizer.decode(found[0][side]) == f"User: abcdhij\n\nAssistant: {answer}"
        assert tokenizer.decode(found[0][side][slice(*found[0][f"{side}_span"])]) == f" {answer}"
    assert found[0]["window"] == (10, 15, 3)
    assert found.truncation == Truncation(pairs=1, prompts_cut=1, tokens_cut=6)
    found = encode_pairs([long], tokenizer, max_length=30)  # six and six
    assert tokenizer.decode(found[0]["chosen"]) == "User: abchij\n\nAssistant: xy"
    assert tokenizer.decode(found[0]["rejected"]) == "User: abchij\n\nAssistant: uvwxy"
    assert found.truncation == Truncation(pairs=1, prompts_cut=1, answers_cut=1, tokens_cut=4 + 23)
    found = encode_pairs([long], tokenizer, max_length=52)  # the whole prompt leaves more than half
    assert tokenizer.decode(found[0]["rejected"]) == "User: abcdefghij\n\nAssistant: " + ("uvwxyz" * 4)[:-1]
    assert found.truncation == Truncation(pairs=1, answers_cut=1, tokens_cut=1)


def test_what_is_too_long_is_left_out_or_refused():
    pairs, tokenizer = [Pair("p", CHAT[1:], "Six.", "x" * 40), Pair("q", CHAT[1:], "Six.", "Seven.")], byte_level()
    found = encode_pairs(pairs, tokenizer, max_length=60, too_long="drop")
    assert (found.kept, found.truncation.left_out) == ([1], {"it is longer than max_length": 1})
    assert found.truncation.tokens_cut == 0
    with pytest.raises(DataError, match=r"'p' has 83 tokens, and max_length is 60: raise it, or say too_long=cut or"):
        encode_pairs(pairs, tokenizer, max_length=60, too_long="refuse")
    assert len(encode_pairs(pairs, tokenizer, max_length=83, too_long="refuse")) == 2


def test_kept_and_cut_tokens_add_up():
    pairs, tokenizer = generate(300, seed=3), byte_level(eos_token="<eos>")
    whole, cut = (encode_pairs(pairs, tokenizer, max_length=n) for n in (1000, 60))
    before, lost = dict(zip(whole.kept, whole, strict=True)), 0
    for place, b in zip(cut.kept, cut, strict=True):
        for side in ("chosen", "rejected"):
            lost += len(before[place][side]) - len(b[side])
            assert len(b[side]) <= 60
    assert whole.truncation.tokens_cut == 0
    assert cut.truncation.tokens_cut == lost > 0
    assert [item["index"] for item in cut] == list(range(len(cut)))
    assert len(cut) + len(cut.left_out) == 300


def test_batches_and_progress_change_nothing(monkeypatch):
    pairs, tokenizer = generate(25, seed=4), byte_level()
    expected = list(encode_pairs(pairs, tokenizer, max_length=80))
    monkeypatch.setattr("llm.text.encoding._BATCH", 7)
    assert list(encode_pairs(pairs, tokenizer, max_length=80, progress=True)) == expected
    assert len(encode_pairs([], tokenizer, max_length=80)) == 0


def test_max_length_needs_room():
    with pytest.raises(ValueError, match=r"includes the 20 tokens that stand around .* at least 21, got 20"):
        encode_pairs([PAIR], byte_level(post="<bos> $A <eos>"), max_length=20)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_collator_pads_as_the_tokenizer_does_on_the_right(side, multiple):
    """Also where the tokenizer is told to pad left, for generation."""
    tokenizer = byte_level(eos_token="<eos>")
    data = encode_pairs(generate(5, seed=5), tokenizer, max_length=90)
    items = [data[i] for i in (3, 1)]
    rows = [item[name] for name in ("chosen", "rejected") for item in items]
    expected = tokenizer.pad(
        {"input_ids": rows}, pad_to_multiple_of=multiple, return_tensors="pt", padding_side="right"
    )
    tokenizer.padding_side = side
    batch = PairCollator(tokenizer, pad_to_multiple_of=multiple)(items)
    for name in ("input_ids", "attention_mask"):
        torch.testing.assert_close(batch[name], expected[name])
    assert batch["index"].tolist() == [3, 1]


@pytest.mark.parametrize(("most", "length"), [(None, 72), (80, 72), (70, 70), (60, 66)])
def test_padding_ends_where_the_model_may(most, length):
    """A row of 66 tokens; no row is ever cut here."""
    row = {"index": 0, "chosen": [1] * 66, "rejected": [1] * 40, "chosen_span": (0, 1), "rejected_span": (0, 1)}
    assert PairCollator(byte_level(), max_length=most)([row])["input_ids"].shape == (2, length)


def test_collator_without_padding_token():
    tokenizer = byte_level()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"has no padding token.*set tokenizer\.pad_token"):
        PairCollator(tokenizer)


def test_real_pairs_are_encoded_fast_enough(shared_data, minilm_tokenizer):
    pairs = read_pairs(shared_data / "id_test.jsonl.gz").pairs
    start = time.perf_counter()
    data = encode_pairs(pairs, minilm_tokenizer, max_length=256)
    seconds = time.perf_counter() - start
    assert seconds * 13_903 / len(pairs) < 90  # for the whole training file; 20 s on an idle core
    assert all(ids[0] == 101 and ids[-1] == 102 for i in data for ids in (i["chosen"], i["rejected"]))
    assert data.truncation.pairs == len(pairs)


@pytest.mark.parametrize("sides", [("chosen", "rejected"), ("chosen",)])
@pytest.mark.parametrize("limit", [None, 90])
def test_micro_batches_by_length_hold_what_the_collator_makes_of_the_same_pairs(sides, limit):
    tokenizer = byte_level(eos_token="<eos>")
    data = encode_pairs(generate(40, seed=5), tokenizer, max_length=90)
    data.put_reference(np.arange(2 * len(data)).reshape(-1, 2))
    collator = PairCollator(tokenizer, max_length=limit, sides=sides)
    window = [collator([data[i] for i in range(start, start + 6)]) for start in range(0, 24, 6)]
    found = by_length(window, collator)
    indices = [index for batch in found for index in batch["index"].tolist()]
    lengths = [max(len(data[i][side]) for side in sides) for i in indices]
    assert sorted(indices) == list(range(24)) != indices
    assert lengths == sorted(lengths, reverse=True)
    for batch in found:
        expected = collator([data[i] for i in batch["index"].tolist()])
        assert batch.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(batch[name], values)
    assert by_length(window[:1], collator) == window[:1]
