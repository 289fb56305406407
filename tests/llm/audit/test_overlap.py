"""Training pairs in suites: exactly those that were put there, and likenesses against sets of pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.audit.overlap import NEAR, TrainingTexts, likeness, sketch
from llm.data.corpus.corpus import generate
from llm.data.pairs import Pair


def pieces(text):
    plain = "".join(text.casefold().split())
    return {plain[i : i + 5] for i in range(len(plain) - 4)}


def true_likeness(one, other):
    return len(pieces(one) & pieces(other)) / len(pieces(one) | pieces(other))


def changed(text, words, seed):
    """The text with some of its words exchanged for others."""
    parts, draw = text.split(), random.Random(seed)
    for place in draw.sample(range(len(parts)), words):
        parts[place] = "".join(draw.choices("abcdefgh", k=6))
    return " ".join(parts)


LETTERS = st.text("abcdef ", min_size=5, max_size=60).filter(lambda text: len("".join(text.split())) >= 5)


@given(LETTERS, LETTERS)
def test_short_texts_are_compared_exactly(one, other):
    assert likeness(sketch(one), [sketch(other)])[0] == pytest.approx(true_likeness(one, other))


@pytest.mark.parametrize("words", [0, 5, 20, 60])
def test_long_texts_are_compared_by_samples(words):
    errors = []
    for seed in range(40):
        text = " ".join(f"{seed}word{i * 7919 % 1009}" for i in range(300))
        other = changed(text, words, seed)
        errors.append(likeness(sketch(text), [sketch(other)])[0] - true_likeness(text, other))
    assert abs(sum(errors) / 40) < 0.03  # 64 pieces each, of 40 texts
    assert max(map(abs, errors)) < 0.25


def pair(name, prompt, chosen, rejected):
    return Pair(name, ({"role": "user", "content": prompt},), chosen, rejected)


def counts(train, suite):
    texts = TrainingTexts()
    for one in train:
        texts.add(one)
    found = texts.overlap(suite)
    return {(what, how): cases.count for what, parts in found.items() for how, cases in parts.items()}


def test_what_was_put_there_is_found_and_nothing_else():
    text = {i: " ".join(f"w{(i * 131 + j * 7919) % 10007}" for j in range(60)) for i in range(60)}
    train = [pair(f"t{i}", text[i], f"{text[i]} yes", f"{text[i + 1]} no") for i in range(30)]
    same = [pair(f"s{i}", f" {text[i]}\n", train[i].rejected, f"{train[i].chosen} ") for i in range(7)]  # exchanged
    near = [pair(f"n{i}", changed(text[i], 2, i), train[i].chosen.upper(), train[i].rejected) for i in range(7, 12)]
    asked = [pair(f"a{i}", text[i], text[i + 30], "no") for i in range(12, 15)]
    other = [pair(f"o{i}", text[i], train[i + 5].chosen.upper(), train[i + 5].rejected) for i in range(15, 19)]
    fresh = [pair(f"f{i}", text[i], f"{text[i]} yes", "no") for i in range(40, 51)]
    found = counts(train, [*same, *near, *asked, *other, *fresh])
    assert found == {
        ("pairs", "exact"): 7, ("pairs", "near"): 5, ("prompts", "exact"): 14, ("prompts", "near"): 5,
    }  # fmt: skip


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_near_prompts_are_those_that_a_comparison_with_all_finds(count):
    """Sentences from one mould, many of which are alike: the worst case of an index."""
    train, suite = generate(count, seed=0), generate(60, seed=1)
    asked = {p.prompt[-1]["content"] for p in train}
    alike = [
        p.prompt[-1]["content"] not in asked and any(true_likeness(p.prompt[-1]["content"], a) >= NEAR for a in asked)
        for p in suite
    ]
    assert counts(train, suite)["prompts", "near"] == sum(alike)


def test_a_suite_without_training_pairs_and_one_that_is_the_training_file():
    pairs = generate(50, seed=3)
    assert set(counts([], pairs).values()) == {0}
    assert counts(pairs, pairs)["pairs", "exact"] == 50
