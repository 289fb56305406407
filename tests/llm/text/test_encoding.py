"""Encoding against what the tokenizer itself would do: templates, special tokens, truncation, padding."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llm.data.corpus.corpus import generate
from llm.data.pairs import DataError, Message, Pair, read_pairs
from llm.text.encoding import PairCollator, Truncation, encode_pairs

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
    assert texts(tokenizer, max_length=added + 3)[0] == shape.format(" Si")


def test_bert_style_tokenizer_gives_its_own_encoding(minilm_tokenizer):
    """Nothing is cut: the ids are those of the whole text, encoded by the tokenizer in one go."""
    item = encode_pairs([PAIR], minilm_tokenizer, max_length=128)[0]
    assert item["chosen"] == minilm_tokenizer(PLAIN + " Six.")["input_ids"]


@pytest.mark.parametrize("post", [None, "<bos> $A"])
@pytest.mark.parametrize("bos", ["", "<bos>"])
def test_template_bos_and_eos_are_not_doubled(post, bos):
    tokenizer = byte_level(template=bos + CHATML, post=post, bos_token="<bos>", eos_token="<eos>")
    begin = "<bos>" if bos or post else ""
    prompt = "<|system|>Be brief.<eos>\n<|user|>One two three four five?<eos>\n<|assistant|>"
    assert texts(tokenizer)[0] == f"{begin}{prompt}Six.<eos>"
    size = len("Six.") + 1 + bool(begin)
    assert texts(tokenizer, max_length=size + 4)[0] == f"{begin}nt|>Six.<eos>"


def test_template_equals_the_tokenizers_own_rendering():
    tokenizer = byte_level(template="<bos>" + CHATML, bos_token="<bos>", eos_token="<eos>")
    whole = [*CHAT, {"role": "assistant", "content": PAIR.chosen}]
    expected = tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert encode_pairs([PAIR], tokenizer, max_length=1000)[0]["chosen"] + newline == expected


THINKING = CHATML.replace("<|assistant|>", "<|assistant|><think></think>")
UPPER = "{% for m in messages %}{{ m.content | upper }}.{% endfor %}{{ '>' if add_generation_prompt }}"


@pytest.mark.parametrize(
    ("template", "cut"),
    [(THINKING, "nt|>Six.<eos>\n"), (UPPER, "BE BRIEF..")],
    ids=["the answer's text is found", "everything is answer"],
)
def test_template_whose_prompt_is_no_prefix(template, cut):
    assert texts(byte_level(template=template), max_length=10)[0] == cut


def test_template_that_refuses_names_the_pair():
    tokenizer = byte_level(template="{{ raise_exception('System role not supported') }}")
    with pytest.raises(DataError, match=r"refuses the chat of pair 'p': System role not supported"):
        encode_pairs([PAIR], tokenizer, max_length=100)


def test_truncation_keeps_the_prompts_end_and_the_answer():
    pair = Pair("p", ({"role": "user", "content": "abc"},), "xy", "uvwxyz" * 4)
    prompt = "User: abc\n\nAssistant:"  # 21 bytes; answers have 3 and 25
    tokenizer = byte_level()
    whole = encode_pairs([pair], tokenizer, max_length=46)
    assert whole.truncation == Truncation(pairs=1, prompts_cut=0, answers_cut=0, tokens_cut=0)
    some = encode_pairs([pair], tokenizer, max_length=30)
    assert tokenizer.decode(some[0]["chosen"]) == prompt + " xy"
    assert tokenizer.decode(some[0]["rejected"]) == prompt[-5:] + " " + "uvwxyz" * 4
    assert some.truncation == Truncation(pairs=1, prompts_cut=1, answers_cut=0, tokens_cut=16)
    most = encode_pairs([pair], tokenizer, max_length=7)
    assert tokenizer.decode(most[0]["chosen"]) == "ant: xy"
    assert tokenizer.decode(most[0]["rejected"]) == " uvwxyz"[:7]
    assert most.truncation == Truncation(pairs=1, prompts_cut=1, answers_cut=1, tokens_cut=17 + 39)


def test_kept_and_cut_tokens_add_up():
    pairs, tokenizer = generate(300, seed=3), byte_level(eos_token="<eos>")
    whole, cut = (encode_pairs(pairs, tokenizer, max_length=n) for n in (1000, 60))
    lost = 0
    for a, b in zip(whole, cut, strict=True):
        for side in ("chosen", "rejected"):
            lost += len(a[side]) - len(b[side])
            assert len(b[side]) <= 60
    assert whole.truncation.tokens_cut == 0
    assert cut.truncation.tokens_cut == lost > 0
    assert [item["index"] for item in cut] == list(range(300))


def test_batches_and_progress_change_nothing(monkeypatch):
    pairs, tokenizer = generate(25, seed=4), byte_level()
    expected = list(encode_pairs(pairs, tokenizer, max_length=80))
    monkeypatch.setattr("llm.text.encoding._BATCH", 7)
    assert list(encode_pairs(pairs, tokenizer, max_length=80, progress=True)) == expected
    assert len(encode_pairs([], tokenizer, max_length=80)) == 0


def test_max_length_needs_room():
    with pytest.raises(ValueError, match=r"includes the 2 special tokens .* at least 3, got 2"):
        encode_pairs([PAIR], byte_level(post="<bos> $A <eos>"), max_length=2)


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
