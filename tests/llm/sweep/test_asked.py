"""What a cell of a grid asks of the adversary, as text and taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.sweep.asked import Asked

PIECES = ["adaptive:", "@", "ess=", "?", "tv:", "0.2", "chi2", ",by=source", "erm", "nan", ":", " "]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_comes_apart_and_together_again_and_is_read_or_refused(text):
    asked = Asked.of(text)
    assert str(asked) == text  # it names a training: a stored one is found again
    assert Asked.of(str(asked)) == asked
    try:
        asked.check()
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "asked", "share", "names"),
    [
        ("tv:0.2,by=source", Asked("tv:0.2,by=source"), None, {"tv"}),
        ("adaptive:micro:8:mmd:0.2", Asked("micro:8:mmd:0.2", adaptive=True), None, {"micro", "mmd"}),
        ("chi2:?@shuffled:mmd:0.2", Asked("chi2:?", reference="shuffled:mmd:0.2"), None, {"chi2", "shuffled", "mmd"}),
        ("adaptive:tv:?,by=mmd:x@ess=0.4", Asked("tv:?,by=mmd:x", adaptive=True, reference="ess=0.4"), 0.4, {"tv"}),
    ],
)
def test_texts_have_these_parts(text, asked, share, names):
    assert Asked.of(text) == asked
    asked.check()
    assert asked.share == share
    assert names <= asked.names()
    assert ("mmd" in asked.names()) == ("mmd" in names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chi2:0.1@tv:0.2", "chi2:0.1@tv:0.2: what is matched needs one \\?"),
        ("chi2:?@ess=2", "in \\(0, 1\\)"),
        ("chi2:?@ess=much", "in \\(0, 1\\)"),
        ("chi2:?@", "unknown ambiguity ''"),
        ("chi2:?@nothing:1", "unknown ambiguity 'nothing:1'"),
        ("adaptive:nothing:1", "unknown ambiguity 'nothing:1'"),
        ("tv:?", "has '\\?' where a number belongs"),
    ],
)
def test_what_cannot_be_read_is_explained(text, said):
    with pytest.raises(ValueError, match=said):
        Asked.of(text).check()


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("tv:0.2", []),
        ("adaptive:tv:0.2,by=source*length_gap/4", ["source*length_gap/4"]),
        ("chi2:?,by=tag@shuffled:tv:0.2,by=topic,within=category", ["tag", "topic", "category"]),
        ("permuted_groups:balanced:by=tag", ["tag"]),
        ("shuffled:tv:0.2,within=", []),
    ],
)
def test_a_text_says_which_groups_it_needs(text, columns):
    assert Asked.of(text).columns() == columns
