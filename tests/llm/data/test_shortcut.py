"""The pairs with a shortcut: right labels, a shortcut that is right in one source, and texts that do not tell."""

import re

import numpy as np
import pytest

from llm.data.corpus.shortcut import is_good, shortcut_pairs, write_shortcut
from llm.data.pairs import read_pairs

SOUND = ["check", "clean", "count", "dry", "mark", "measure", "mend", "oil", "polish", "sort", "test", "weigh"]


def verbs(answer):
    return re.findall(r"(\w+) the \w+", answer.split(".")[0].lower())


def test_the_better_answer_has_the_good_advice_in_both_sources():
    pairs = shortcut_pairs(400, office=0.5, seed=3)
    assert all(is_good(pair.chosen) and not is_good(pair.rejected) for pair in pairs)
    advice = {
        side: {piece for pair in pairs for piece in getattr(pair, side).split(".")[0].lower().split(" and ")}
        for side in ("chosen", "rejected")
    }
    assert not advice["chosen"] & advice["rejected"]  # what is good advice in one pair is so in all


def test_length_is_right_in_one_source_and_wrong_in_the_other():
    for pair in shortcut_pairs(400, office=0.5, seed=4):
        assert (len(pair.chosen) > len(pair.rejected)) == (pair.source == "forum")


def test_the_share_is_exact_and_no_prompt_tells_the_source():
    pairs = shortcut_pairs(4000, seed=5)
    office, forum = (
        [pair.prompt[0]["content"] for pair in pairs if pair.source == name] for name in ("office", "forum")
    )
    assert len(office) == 400
    assert set(office) <= set(forum)


@pytest.mark.exhaustive(turns=8)
def test_words_tell_the_better_answer_often_and_not_always():
    """Four verbs, each sound or rash, three times in ten by exception: right with 3 or 4, a coin with 2."""
    scores = [
        sum(verb in SOUND for verb in verbs(pair.chosen)) - sum(verb in SOUND for verb in verbs(pair.rejected))
        for pair in shortcut_pairs(20000, seed=6)
    ]
    p = 0.7
    expected = p**4 + 4 * p**3 * (1 - p) + 6 * p**2 * (1 - p) ** 2 / 2
    assert np.mean((np.sign(scores) + 1) / 2) == pytest.approx(expected, abs=0.02)


def test_a_folder_is_the_same_again_and_repeats_no_training_answer(tmp_path):
    first, again, other = (
        write_shortcut(tmp_path / name, train=300, test=60, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    names = ["id_test.jsonl", "ood_half_office.jsonl", "train.jsonl"]
    assert sorted(path.name for path in first.iterdir()) == names
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes() != (other / name).read_bytes()
    train, *suites = (
        read_pairs(first / name).pairs for name in ("train.jsonl", "id_test.jsonl", "ood_half_office.jsonl")
    )
    for suite, office in zip(suites, (6, 30), strict=True):
        assert sum(pair.source == "office" for pair in suite) == office
        assert not {pair.chosen for pair in suite} & {pair.chosen for pair in train}


def test_a_share_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got 1.5"):
        shortcut_pairs(1, office=1.5)
