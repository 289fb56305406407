"""Windows of prompts: kept in length, the same for both answers, no token lost that has room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.text.tokens import Frame, Tokens
from llm.text.window import room_for, sequences, whole_from

FRAMES = st.builds(Frame, st.integers(0, 6), st.integers(0, 6), st.integers(0, 3))


@st.composite
def conversations(draw):
    """A frame, a length, and answers after one prompt; every token is its own number, so that all can be told apart."""
    frame = draw(FRAMES)
    prompt = frame.start + draw(st.integers(0, 60)) + frame.end
    texts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    limit = sum(frame) + draw(st.integers(1, 80))
    before, rows = list(range(prompt)), []
    for place, length in enumerate(texts):
        first = 1000 * (place + 1)
        ids = [*before, *range(first, first + length), *range(-frame.after, 0)]
        end = len(ids) if frame.after < 2 else prompt + length + 1
        rows.append(Tokens(ids, prompt, prompt + length, end))
    return frame, limit, prompt, rows


@given(conversations())
def test_all_answers_are_read_after_the_same_part_of_the_prompt(case):
    frame, limit, prompt, rows = case
    read = sequences(rows, limit, frame)
    window = read.room.window
    seen = [*range(window.start), *range(prompt - window.end, prompt)]
    for ids, (first, last) in read.rows:
        assert ids[:first] == seen
        assert len(ids) <= limit
        assert first < last or frame.after
    assert window.start + window.end + window.cut == prompt


@given(conversations())
def test_what_frames_the_conversation_is_kept(case):
    frame, limit, _, rows = case
    read = sequences(rows, limit, frame)
    window = read.room.window
    if window.cut:
        assert window.start >= frame.start
        assert window.end >= frame.end
        assert 0 <= (window.start - frame.start) - (window.end - frame.end) <= 1
    for (ids, _), row in zip(read.rows, rows, strict=True):
        assert ids[len(ids) - frame.after :] == row.ids[row.text_end :]


@given(conversations())
def test_nothing_is_cut_that_has_room_and_half_of_it_is_the_answers(case):
    frame, limit, prompt, rows = case
    read = sequences(rows, limit, frame)
    needed = max(len(row.ids) - prompt for row in rows)
    if prompt + needed <= limit:
        assert [ids for ids, _ in read.rows] == [row.ids for row in rows]
        assert read.answers_cut == read.room.window.cut == 0
        return
    longest = max(len(ids) for ids, _ in read.rows)
    assert longest == limit
    if read.answers_cut and read.room.window.cut:
        assert read.room.answer == frame.after + max((limit - sum(frame)) // 2, 1)
    for (ids, (first, last)), row in zip(read.rows, rows, strict=True):
        whole = len(row.ids) - prompt <= read.room.answer
        kept = row.ids[prompt:] if whole else [*row.ids[prompt : prompt + read.room.answer - frame.after]]
        assert ids[first : first + len(kept)] == kept
        assert last - first == (row.end - prompt if whole else len(kept))


@pytest.mark.parametrize(
    ("prompt", "answers", "limit", "window", "answer"),
    [
        (10, [5, 9], 30, (10, 0, 0), 9),
        (30, [5, 9], 30, (10, 11, 9), 9),  # the prompt gets what the longer answer leaves, around two and three
        (30, [20, 9], 30, (8, 9, 13), 13),  # half and half of the 24 that the frame leaves
        (30, [20, 9], 9, (3, 4, 23), 2),  # the same where there is hardly any room: something is asked in any case
        (10, [5, 40], 30, (10, 0, 0), 20),  # a short prompt leaves more than half
    ],
)
def test_worked_examples(prompt, answers, limit, window, answer):
    room = room_for(prompt, answers, limit, Frame(2, 3, 1))
    assert (tuple(room.window), room.answer) == (window, answer)


@given(FRAMES)
def test_a_window_of_less_than_the_frame_is_refused(frame):
    with pytest.raises(ValueError, match=rf"includes the {sum(frame)} tokens that stand around .* at least"):
        room_for(5, [1], sum(frame), frame)
    assert room_for(5, [1 + frame.after], sum(frame) + 1, frame).answer == frame.after + 1


@given(FRAMES, st.integers(1, 40), st.integers(1, 60))
def test_a_prompt_is_whole_from_the_least_length_at_which_it_is(frame, said, answer):
    prompt, answer, least = frame.start + said + frame.end, answer + frame.after, sum(frame) + 1
    whole = [room_for(prompt, [answer], limit, frame).window.cut == 0 for limit in range(least, 250)]
    assert max(whole_from(prompt, answer, frame), least) == least + whole.index(True)
    assert all(whole[whole.index(True) :])
