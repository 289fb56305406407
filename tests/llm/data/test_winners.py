"""Every way to name the better of two answers, and what is refused because it may mean either."""

from __future__ import annotations

import pytest
from pair_layouts import save
from raw_records import SIDED, SIDES, TRUTH, texts, told

from llm.data.pairs import DataError, read_pairs

WINNERS = {
    "from 0": ([0, 1, 0, 1], ""),
    "from 1": ([1, 2, 1, 2], ""),
    "as text": (["1", "2", "1", "2"], ""),
    "as fractions": ([1.0, 2.0, 1.0, 2.0], ""),
    "letters": (["a", "B", "A", "b"], ""),
    "models": (["model_a", "model_b", "Model A", "winner_model_b"], ""),
    "words": (["first", "second", "First", "2nd"], ""),
    "order": (["A>B", "B>A", "a >> b", "[[B>>A]]"], ""),
    "columns": (["left", "right", "left", "Right"], ""),
    "told": ([1, 0, 1, 0], ":1/0"),
    "told, truth": ([True, False, True, False], ":true/false"),
    "told, words": (["yes", "NO", "yes", "no "], ":yes/no"),
    "told, signs": ([-1, 1, -1, 1], ":-1/1"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("kind", WINNERS)
def test_every_way_to_name_a_winner(tmp_path, kind, suffix, caplog):
    values, told_as = WINNERS[kind]
    rows = told([str(v) if suffix == ".csv" else v for v in values])
    read = read_pairs(save(rows, tmp_path / f"a{suffix}"), columns=SIDES + told_as)
    assert texts(read.pairs) == TRUTH
    counted = kind in ("from 0", "from 1", "as text", "as fractions")
    assert bool(read.read_as) == counted == ("if it is the other way round, write winner=says:" in caplog.text)
    assert not counted or f"winner {values[0] and 1} is read as the first answer" in read.read_as[0]


@pytest.mark.parametrize("tie", ["tie", "Tie (bothbad)", "draw", "A=B", "both", "winner_tie", 0.5])
def test_ties_are_counted_and_records_without_a_winner_too(tmp_path, tie):
    rows = told([0, tie, None, 1, 0, 1], [*SIDED[:2], *SIDED[2:], *SIDED[:2]])
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=SIDES)
    assert (len(read.pairs), read.dropped) == (4, {"tie": 1, "no winner": 1})


def test_a_tie_may_be_told(tmp_path):
    read = read_pairs(save(told([1, 2, 0, 2]), tmp_path / "a.jsonl"), columns=SIDES + ":1/2/0")
    assert (texts(read.pairs), read.dropped) == ([TRUTH[0], TRUTH[1], TRUTH[3]], {"tie": 1})


@pytest.mark.parametrize("start", [0, 1])
def test_a_one_waits_for_the_number_that_says_what_it_counts(tmp_path, start):
    """A file may begin with many of them; the order and the ids stay."""
    good = start == 1  # all but the last say 1
    rows = [
        {"q": f"q{i}", "left": "yes" if good else "no", "right": "no" if good else "yes", "says": 1} for i in range(50)
    ]
    rows.append({"q": "last", "left": "no" if good else "yes", "right": "yes" if good else "no", "says": 2 * start})
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=SIDES)
    assert {(pair.chosen, pair.rejected) for pair in read.pairs} == {("yes", "no")}
    assert [pair.id for pair in read.pairs] == [f"a-{i}" for i in range(51)]


@pytest.mark.parametrize(
    ("values", "line", "said"),
    [
        ([1, 1, 1, 1], 1, r"the winner is 1 wherever one looks, .* write winner=COLUMN:FIRST/SECOND"),
        ([0, 1, 2, 1], 3, r"the winner is 2 where others are 0 or 2: numbers count the answers from 0 or from 1"),
        ([1, 2, 0, 1], 3, r"the winner is 0 where"),
        ([True, False, True, False], 1, r"the winner is True, which is neither side nor a tie"),
        (["a", "b", "c", "a"], 3, r"the winner is 'c', which is neither side nor a tie"),
        (["model_a", "gpt-4", "model_a", "a"], 2, r"the winner is 'gpt-4'"),
        (["A>B", "A<B>A", "a", "b"], 2, "the winner is 'A<B>A'"),
        (["a", "I like a", "a", "b"], 2, "the winner is 'I like a'"),
        (["tie", "all the same", "a", "b"], 2, "the winner is 'all the same'"),
    ],
)  # fmt: skip
def test_a_winner_that_may_mean_either_is_refused_with_its_line(tmp_path, values, line, said):
    with pytest.raises(DataError, match=f"a.jsonl, line {line}: {said}"):
        read_pairs(save(told(values), tmp_path / "a.jsonl"), columns=SIDES)


def test_a_value_that_was_not_told_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 4: the winner 'maybe' is none of yes, no"):
        read_pairs(save(told(["yes", "no", "yes", "maybe"]), tmp_path / "a.jsonl"), columns=SIDES + ":yes/no")


def test_chosen_and_rejected_with_a_winner_are_sides_and_scores_go_with_their_answers(tmp_path):
    rows = [row | {"s1": 5 - i, "s2": 1} for i, row in enumerate(told([0, 1, 0, 1]))]
    columns = "prompt=q,chosen=left,rejected=right,winner=says,score_chosen=s1,score_rejected=s2"
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=columns)
    assert (texts(read.pairs), [pair.margin for pair in read.pairs]) == (TRUTH, [4, -3, 2, -1])


def test_two_sides_are_told_apart_by_their_scores_where_there_is_no_winner(tmp_path):
    rows = [row | {"s1": a, "s2": b} for row, (a, b) in zip(SIDED, [(2, 1), (-1, 4), (3, 3), (0, None)], strict=True)]
    columns = "prompt=q,first=left,second=right,score_chosen=s1,score_rejected=s2"
    read = read_pairs(save(rows, tmp_path / "a.jsonl"), columns=columns)
    assert (texts(read.pairs), [pair.margin for pair in read.pairs]) == (TRUTH[:2], [1, 5])
    assert read.dropped == {"tie": 1, "no rating": 1}
