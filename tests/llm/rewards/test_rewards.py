"""Rewards by name: how they are written, which prompts they can check, and weighted mixtures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from asking import SAYS, function, prompts, scorer

from llm.data.prompts import Prompt
from llm.rewards.bench import BadScores
from llm.rewards.names import BUILTIN, CHECKERS, RewardError, labels_of, parts_of, settled
from llm.rewards.scorer import check_prompts, told_by


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("checks.py", "checks.py holds functions: name one, checks.py:FUNCTION"),
        (["exact", "exact:2"], "exact stands twice"),
        ("exact:0", "a weight says how often a score counts and is a number but 0, got '0'"),
        ({"reward": "exact", "weight": "nan"}, "a number but 0, got 'nan'"),
        ('{"reward": "exact", "wait": 1}', "there is no entry 'wait' of a reward"),
        ('{"reward": "exact"', "is no JSON"),
        ({"weight": 2}, "names nothing"),
        ([{"reward": "exact", "weight": True}], "got True"),
    ],
)
def test_names_that_make_no_sense_are_refused(given, said):
    with pytest.raises(RewardError) as error:
        parts_of(given)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "given",
    ["builtin", "runs/rm/model", "owner/name", "number?tolerance=0.1", "regex:^a:5:1", "checks.py:polite:0.2",
     ["number", "checks.py:polite:-0.5", "runs/rm/model:2"], [{"reward": "regex:^a:5", "weight": 0.25}, "exact"]],
)  # fmt: skip
def test_what_names_rewards_is_one_text_that_is_read_again(given):
    once = settled(given)
    assert settled(once) == once
    assert parts_of(once) == parts_of(given)


def test_a_folder_whose_name_ends_in_a_number_is_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rm:2").mkdir()
    assert [(part.name, part.weight, part.kind) for part in parts_of(["rm:2", "rm:3"])] == [
        ("rm:2", 1, "model"),
        ("rm", 3, "model"),
    ]
    assert parts_of(settled(["rm:2:3", "exact"]))[0].weight == 3


def test_labels_differ():
    given = ["runs/a/model", "runs/a/other/model", "x.py:polite", "y.py:polite", "number?tolerance=1", BUILTIN]
    assert labels_of(parts_of(given)) == ["a", "other", "polite", "polite-2", "number", BUILTIN]


# Prompts that lack something.


def test_prompts_without_answers_are_counted_and_refused():
    good, bare = prompts(3)[::2], [Prompt(f"b{n}", SAYS["text"]) for n in range(2)]
    with pytest.raises(RewardError) as error:
        check_prompts(["number"], [*good, *bare], "suite s")
    assert "number cannot check the prompts of suite s: 2 of 5 have no `answer`, 'b0' first" in str(error.value)
    with pytest.raises(RewardError, match=r"1 of 5 have no `answer`.*; 1 of 5 have no number in `answer`"):
        check_prompts(["number"], [*good, bare[0], Prompt("w", SAYS["text"], answer="many")], "suite s")
    for name in (*CHECKERS[:2], function("half"), BUILTIN):
        check_prompts([name], good, "suite s")


def test_a_function_says_by_its_signature_which_columns_it_needs():
    with pytest.raises(RewardError, match="4 of 4 have no `solution`, 'p0' first"):
        check_prompts([None, function("wants")], prompts(2), "suite s")
    check_prompts([function("wants")], prompts(2, solution="x"), "suite s")


# Mixtures.


def test_a_mixture_is_the_weighted_sum_of_its_parts():
    answers = ["0", "0 please", "1", "2"]
    subject = scorer("number", "regex:please:0.5", f"{function('half')}:-2")
    np.testing.assert_allclose(subject(prompts(2), answers), [1 - 1, 1 + 0.5 - 1, 1 - 1, 0 - 1])
    assert told_by(subject) == {"reward/number": 0.75, "reward/regex": 0.25, "reward/half": 0.5, "unscored/half": 0.0}


def test_answers_that_nothing_scores_teach_nothing():
    alone = scorer(function("some"))
    assert alone(prompts(2), ["a"] * 4).tolist() == [1, 1, 1, 1]
    assert told_by(alone) == {"unscored/some": 0.5}
    mixed = scorer("number:3", function("some"))
    assert mixed(prompts(2), ["0", "0", "1", "2"]).tolist() == [4, 3, 4, 0]
    with pytest.raises(BadScores, match="never: no answer to prompt p0 was scored"):
        scorer(function("never"))(prompts(1), ["a", "b"])


def test_prompts_of_one_id_do_not_lend_each_other_scores(tmp_path):
    """A file may give two questions one id; each is filled with what its own answers got."""
    file = tmp_path / "even.py"
    file.write_text("def even(prompts, **columns):\n    return [None if i % 2 else i for i in range(len(prompts))]\n")
    first, second = prompts(2)[::2]
    second = replace(second, id=first.id, messages=[{"role": "user", "content": "another question"}])
    found = scorer(f"{file}:even")([first, first, second, second], ["a"] * 4)
    assert found.tolist() == [0, 0, 2, 2]


VERIFIABLE = [
    (["exact"], True), ([BUILTIN], True), (["number:0.5", "exact:0.5"], True), (["number", "exact"], False),
    (["number:-1"], False), ([function("half")], None), (["number:0.5", f"{function('half')}:0.5"], None),
]  # fmt: skip


@pytest.mark.parametrize(("names", "known"), VERIFIABLE, ids=[str(names)[-40:] for names, _ in VERIFIABLE])
def test_a_scorer_says_whether_it_gives_pass_rates(names, known):
    assert scorer(*names).verifiable is known


@pytest.mark.parametrize(("name", "known"), [("half", True), ("bools", False), ("chance", False), ("seen", False)])
def test_a_function_is_known_by_its_scores(name, known, tmp_path, monkeypatch):
    """The same answer twice with two scores is no check, nor is a score beyond 1."""
    monkeypatch.setenv("SEEN", str(tmp_path / "x"))
    subject = scorer(function(name))
    subject(prompts(2), ["aaa"] * 4)
    assert subject.verifiable is known
