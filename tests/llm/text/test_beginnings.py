"""What texts share is read once, where that gives the tokens of the whole text, and nowhere else."""

from __future__ import annotations

import random
from typing import Any

import pytest
from shapes import SHAPES, tokenizer_of
from tokenizer_shapes import TEXTS, TOKENIZERS, bytewise, marked, wordpiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm.text.alignment import tokenised
from llm.text.beginnings import LEAST, cuts, separable

NUMBERS = {"llama3": r"\p{N}{1,3}", "qwen": r"\p{N}"}
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIGNS = [
    "'s", "\n", "\n\n", "  ", "\t", "3,141", "ß", "Å", "e\u0301", "σς", "你好", "🙂", "don't", "-", "...", "<s>",
    "</s>", "[SEP]", "<|im_end|>", "İ", "ﬁ", "\u200d", "\u00a0", "a b", "the red dog", "nobody knows it",
]  # fmt: skip


def by_pattern(pattern: str, *, normalizer: Any = None) -> Any:
    """Byte-level BPE behind a pattern that parts words, as the tokenizers of today."""
    inner = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    inner.normalizer = normalizer
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"],
        show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator([*TEXTS, *SIGNS], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def altered(tokenizer: Any, change: Any) -> Any:
    change(tokenizer)
    return tokenizer


def joining(tokenizer: Any) -> None:
    rules = [pre_tokenizers.Split(Regex(r"dog.*"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(rules)


def dropping(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.model.dropout = 0.5


APART = {
    **{name: TOKENIZERS[name] for name in TOKENIZERS if name.startswith("bytewise")},
    **{f"pattern of {name}": lambda n=n: by_pattern(PATTERN % n) for name, n in NUMBERS.items()},
    "composing": lambda: by_pattern(PATTERN % NUMBERS["qwen"], normalizer=normalizers.NFC()),
    "wordpiece": wordpiece,
    "wordpiece with case": lambda: wordpiece(lower=False),
}
WHOLE = {
    **{name: TOKENIZERS[name] for name in TOKENIZERS if name.startswith(("marked", "slow"))},
    "an unknown pattern": lambda: by_pattern(r"\S+\s\S+|\s+|\S+"),
    "an unknown normaliser": lambda: by_pattern(PATTERN % r"\p{N}", normalizer=normalizers.Replace("d k", "dk")),
    "a token with a space": lambda: altered(bytewise(), lambda t: t.add_tokens(["red dog"])),
    "a token with a space between signs": lambda: altered(bytewise(), lambda t: t.add_tokens(["<a b>"])),
    "an unknown rule beside a known one": lambda: altered(bytewise(), joining),
    "a token that takes the space": lambda: altered(
        bytewise(), lambda t: t.add_tokens([AddedToken("dog", rstrip=True, normalized=False)])
    ),
    "dropout": lambda: altered(bytewise(), dropping),
}


def prompts(seed: int) -> list[str]:
    """Texts that begin alike, in groups of one to four, their common part full of what tokenizers mind."""
    rng, found = random.Random(seed), []
    words = [*" ".join(TEXTS[:20]).split(), *SIGNS]
    for _ in range(16):
        shared = "".join(
            rng.choice(words) + rng.choice([" ", " ", " ", "", "\n"]) for _ in range(rng.choice([3, 30, 60]))
        )
        found += [
            shared + rng.choice(["", " ", "\n"]) + " ".join(rng.choices(words, k=rng.randint(0, 30)))
            for _ in range(rng.randint(1, 4))
        ]
    return [text for text in found if text]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", APART)
def test_tokens_and_their_places_are_those_of_the_whole_text(name, split):
    tokenizer = APART[name]()
    assert separable(tokenizer)
    for seed in range(3):
        texts = prompts(seed)
        assert sum(cut > 0 for _, cut in cuts(texts)) > 10
        whole, apart = (tokenised(tokenizer, texts, split=split, apart=how) for how in (False, True))
        for text, one, other, (_, cut) in zip(texts, whole, apart, cuts(texts), strict=True):
            assert one.ids == other.ids
            for character in range(cut + 2, len(text) + 1):
                assert (one.before(character), one.behind(character)) == (
                    other.before(character),
                    other.behind(character),
                )


@pytest.mark.parametrize("name", WHOLE)
def test_tokenizers_that_might_look_across_read_texts_whole(name):
    assert not separable(WHOLE[name]())


def test_some_of_those_do_look_across():
    """The rule is no mere caution: cut where others may be, these read other tokens."""
    for name in ("marked, always", "an unknown pattern"):
        tokenizer, texts = WHOLE[name](), prompts(0)
        whole, apart = (tokenised(tokenizer, texts, split=False, apart=how) for how in (False, True))
        assert [one.ids for one in whole] != [other.ids for other in apart], name


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_models_are_read_alike(shape):
    tokenizer, texts = tokenizer_of(shape), prompts(1)
    if separable(tokenizer):
        whole, apart = (tokenised(tokenizer, texts, split=False, apart=how) for how in (False, True))
        assert [one.ids for one in whole] == [other.ids for other in apart]


def test_what_is_shared_is_read_once_and_short_beginnings_are_not_cut():
    tokenizer, long = bytewise(), "the red dog " * 40
    seen: list[list[str]] = []

    class Counting:
        is_fast, added_tokens_decoder = True, tokenizer.added_tokens_decoder

        def __call__(self, texts, **options):
            seen.append(texts)
            return tokenizer(texts, **options)

    tokenised(Counting(), [long + "a", long + "b", long + "c", "short", "shorter"], split=False, apart=True)
    assert [len(text) > LEAST for text in seen[0]] == [True, False, False, False, False, False]
    assert list(cuts([long, long])) == [(0, len(long) - 5)] * 2  # before its last word
    assert marked().is_fast
