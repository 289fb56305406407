"""Pairs across prompts: whose answers they take, how many there are, and that everybody makes the same ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.data.corpus.corpus import generate
from llm.data.grouping.columns import PairColumns
from llm.data.layouts.tools import CallingAnswer
from llm.data.pairs import DataError, Pair, write_pairs
from llm.data.trained_on.cross_prompt import cross_prompt_pairs
from llm.training.config import ConfigError, DPOConfig, RewardConfig, SFTConfig
from llm.training.run import load_training_pairs

PAIRS = generate(60, seed=3)


def asking(text):
    return ({"role": "user", "content": text},)


ANY = st.lists(
    st.builds(
        lambda number, ask, said, question: Pair(str(number), asking(ask), *said, question_id=question),
        st.integers(0, 99), st.sampled_from("abc"),
        st.lists(st.sampled_from("pqrst"), min_size=2, max_size=2, unique=True), st.sampled_from([None, "1", "2"]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(ANY, st.floats(0, 3), st.integers(0, 5))
def test_no_answer_to_the_same_question_is_ever_the_wrong_one(pairs, share, seed):
    pairs = [replace(pair, id=f"{place}") for place, pair in enumerate(pairs)]
    try:
        made = cross_prompt_pairs(pairs, share=share, seed=seed)
    except DataError as error:
        assert "set it to 0" in str(error)  # noqa: PT017
        return
    assert len(made) <= int(share * len(pairs) + 0.5)
    assert len({(json.dumps(pair.prompt), pair.rejected) for pair in made}) == len(made)
    known = {pair.id: pair for pair in pairs}
    for pair in made:
        own, other = (known[name] for name in pair.id.split("#")[0].split("+"))
        assert (pair.prompt, pair.chosen, pair.source, pair.category) == (*own_of(own), own.source, own.category)
        assert pair.rejected in (other.chosen, other.rejected)
        assert other.prompt != own.prompt
        assert own.question_id is None or other.question_id != own.question_id
        answers = {text for each in pairs if each.prompt == own.prompt for text in (each.chosen, each.rejected)}
        assert pair.rejected not in answers


def own_of(pair):
    return pair.prompt, pair.chosen


@pytest.mark.parametrize("share", [0.3, 1.0, 2.5])
def test_there_are_as_many_as_were_asked_for_and_all_lend_alike(share):
    made = cross_prompt_pairs(PAIRS, share=share, seed=1)
    assert len(made) == round(share * len(PAIRS))
    assert len({pair.id for pair in [*PAIRS, *made]}) == len(PAIRS) + len(made)
    lent = Counter(pair.id.split("+")[0] for pair in made)
    assert max(lent.values()) - min(lent.get(pair.id, 0) for pair in PAIRS) <= 1
    sides = Counter(pair.rejected in {each.chosen for each in PAIRS} for pair in made)
    assert min(sides.values()) > 0.2 * len(made)  # chosen answers of others and rejected ones


def test_a_seed_draws_one_set_and_another_seed_another():
    one, again, other = (cross_prompt_pairs(PAIRS, share=0.5, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_they_are_told_apart_and_keep_what_was_kept():
    tagged = [replace(pair, kept=(("tag", pair.id),), margin=1.0) for pair in PAIRS]
    made = cross_prompt_pairs(tagged, share=0.5)
    columns = PairColumns([*tagged, *made])
    assert Counter(columns["drawn"]) == {"own": len(PAIRS), "cross_prompt": len(made)}
    assert columns["tag"][len(PAIRS) :] == [pair.id.split("+")[0] for pair in made]
    assert all(pair.margin is None for pair in made)


def test_calls_of_tools_are_no_answer_to_somebody_else():
    called = CallingAnswer({"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "find"}}]})
    pairs = [Pair("a", asking("a"), "p", "q"), Pair("b", asking("b"), called, "r")]
    made = cross_prompt_pairs(pairs, share=1)
    assert [pair.rejected for pair in made if pair.id == "a+b"] == ["r"]


@pytest.mark.parametrize(
    ("pairs", "share", "message"),
    [
        (PAIRS, -0.1, r"cross_prompt is a share of the training pairs to add, from 0 to 100, got -0\.1"),
        (PAIRS, float("nan"), "got nan"),
        ([replace(PAIRS[0], id=str(n)) for n in range(4)], 0.5, "all 4 training pairs have the same one: add pairs"),
        (PAIRS[:1], 1, "all 1 training pairs have the same one"),
        ([Pair("a", asking("a"), "p", "q"), Pair("b", asking("b"), "q", "p")], 1, "the training pairs have none"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(pairs, share, message):
    with pytest.raises(DataError, match=message):
        cross_prompt_pairs(pairs, share=share)


@pytest.mark.parametrize("config", [RewardConfig, DPOConfig])
def test_a_run_adds_them_behind_its_own_and_holds_none_out(config, tmp_path):
    write_pairs(PAIRS, tmp_path / "a.jsonl")
    told = {"train_file": f"{tmp_path / 'a.jsonl'}:2", "validation_share": 0.3, "max_pairs": 50}
    plain, added = (load_training_pairs(config(**told, cross_prompt=share)) for share in (0.0, 0.4))
    assert added.train[: len(plain.train)] == plain.train
    assert len(added.train) == 50 + 20
    assert added.held_out == plain.held_out
    assert added.once == plain.once
    assert added.files["train"] == plain.files["train"] | {"cross_prompt": 20}
    asked = {json.dumps(pair.prompt) for pair in added.held_out}
    assert not asked & {json.dumps(pair.prompt) for pair in added.train}


def test_every_rank_makes_the_same_whatever_its_hashes(tmp_path):
    """Ranks are processes of their own, and sets of texts come in another order in each."""
    write_pairs(PAIRS, tmp_path / "a.jsonl")
    code = (
        "import sys, json; from llm.data.pairs import read_pairs;"
        "from llm.data.trained_on.cross_prompt import cross_prompt_pairs;"
        "made = cross_prompt_pairs(read_pairs(sys.argv[1]).pairs, share=2, seed=4);"
        "print(json.dumps([[pair.id, pair.rejected] for pair in made]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "a.jsonl")],
            env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert said[0] == said[1]
    assert len(json.loads(said[0])) == 2 * len(PAIRS)


def test_imitation_takes_none():
    with pytest.raises(ConfigError, match=r"cross_prompt adds .*sft does not read"):
        SFTConfig(train_file="a.jsonl", cross_prompt=0.1)
    with pytest.raises(ConfigError, match="cross_prompt is a share"):
        RewardConfig(train_file="a.jsonl", cross_prompt=-1)
