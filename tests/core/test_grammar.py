"""The grammar of specs: any text comes apart and together again, and what means nothing is one sentence."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dro_core import parse_ambiguity
from dro_core.spec import Form, Spec, read

TEXTS = st.text() | st.lists(
    st.sampled_from([*",:=/. ?", "0.2", "inf", "nan", "1e400", "erm", "tv", "spectral", "kl_penalty", "by", "trim"])
).map("".join)

FORMS = {
    "plain": Form(lambda: "plain", "plain"),
    "one": Form(lambda size, **options: ("one", size, options), "one:1", "weight", options={"at": float, "by": str}),
    "many": Form(lambda sizes: ("many", sizes), "many:1/2", "shares", many=True),
    "around": Form(lambda inner, **o: ("around", inner, o), "around:one:1", inner="thing", options={"by": str}),
    "sized": Form(lambda size, inner: ("sized", size, inner), "sized:8:one:1", "number", inner="thing"),
    "needy": Form(lambda size, at: ("needy", size, at), "needy:1,at=2", "weight", options={"at": float}, needed=["at"]),
}


@given(TEXTS)
@example("tv:")
@example("tv:0.20:0.30")
@example("a:b:1/2:c,x,y=,=z,")
def test_any_text_comes_apart_and_together_again(text: str) -> None:
    spec = Spec.of(text)
    assert str(Spec.of(str(spec))) == str(spec)
    assert "nan" in text or Spec.of(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("tv:0.20", Spec("tv", (0.2,))),
        (" tv : 8 , by = a=b ", Spec("tv", (8.0,), options=(("by", "a=b"),))),
        ("micro:8:spectral:0.5/.5,within=", Spec("micro", (8.0,), Spec("spectral", (0.5, 0.5)), (("within", ""),))),
        ("tv:1e-5,by", Spec("tv", (1e-5,), options=(("by", None),))),
        ("tv:a lot", Spec("tv", inner=Spec("a lot"))),
        ("kl_penalty:inf", Spec("kl_penalty", (float("inf"),))),
        ("", Spec("")),
    ],
)
def test_texts_have_these_parts(text: str, spec: Spec) -> None:
    assert Spec.of(text) == spec


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("plain", "plain"),
        ("one:0.5,by=source,at=2", ("one", 0.5, {"by": "source", "at": 2.0})),
        ("many:1", ("many", 1.0)),
        ("many:1/2/3", ("many", (1.0, 2.0, 3.0))),
        ("many:1,", ("many", 1.0)),  # nothing behind the comma, and nothing could be
        ("around:plain,by=a", ("around", "plain", {"by": "a"})),
        ("sized:8:around:one:1,at=3", ("sized", 8.0, ("around", ("one", 1.0, {"at": 3.0}), {}))),
        # what both know is the outer one's, and the inner one's if it stands before
        ("around:one:1,by=a", ("around", ("one", 1.0, {}), {"by": "a"})),
        ("around:one:1,by=a,by=b", ("around", ("one", 1.0, {"by": "a"}), {"by": "b"})),
        ("around:around:plain,by=a,by=", ("around", ("around", "plain", {"by": "a"}), {"by": ""})),
        ("around:one:1,by=a,at=2", ("around", ("one", 1.0, {"at": 2.0}), {"by": "a"})),
    ],
)
def test_a_form_is_called_with_what_is_its_own(text: str, made: object) -> None:
    assert read(text, FORMS, "thing") == made


KNOWN = "the known ones are: plain, one:WEIGHT, many:SHARES, around:THING, sized:NUMBER:THING, needy:WEIGHT."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing:1", f"unknown thing 'nothing:1'; {KNOWN}"),
        ("plaine", f"unknown thing 'plaine', did you mean 'plain'? T{KNOWN[1:]}"),
        ("ONE:1", f"unknown thing 'ONE:1', did you mean 'one:1'? T{KNOWN[1:]}"),
        ("plain:1", f"unknown thing 'plain:1', did you mean 'plain'? T{KNOWN[1:]}"),
        ("sized:8:arund:one:1,at=2", f"unknown thing 'arund:one:1' in 'sized:8:arund:one:1,at=2', did you mean "
         f"'around:one:1'? T{KNOWN[1:]}"),
        ("one", "thing 'one' lacks its weight; write for example 'one:1'."),
        ("one:,by=a", "thing 'one:,by=a' lacks its weight; write for example 'one:1'."),
        ("around", "thing 'around' lacks its thing; write for example 'around:one:1'."),
        ("sized:8", "thing 'sized:8' lacks its thing; write for example 'sized:8:one:1'."),
        ("sized:8:", "thing 'sized:8:' lacks its thing; write for example 'sized:8:one:1'."),
        ("one:x", "thing 'one:x' has 'x' where a number belongs, as in 'one:1'."),
        ("one:1:", "thing 'one:1:' has '1:' where a number belongs, as in 'one:1'."),
        ("one:1:plain", "thing 'one:1:plain' has '1:plain' where a number belongs, as in 'one:1'."),
        ("one:1/2", "thing 'one:1/2' has '1/2' where a number belongs, as in 'one:1'."),
        ("many:1//3", "thing 'many:1//3' has '' where a number belongs, as in 'many:1/2'."),
        ("sized:one:1", "thing 'sized:one:1' has 'one' where a number belongs, as in 'sized:8:one:1'."),
        ("around:5", "thing 'around:5' has '5' where a thing belongs, as in 'around:one:1'."),
        ("one:1,at=x", "thing 'one:1,at=x' has 'x' where a number belongs, as in 'one:1'."),
        ("one:1,to=2", "thing 'one:1,to=2' has the option 'to=2', but the allowed ones, once each, are: at=NUMBER, "
         "by=NAME."),
        ("one:1,at=2,at=3", "thing 'one:1,at=2,at=3' has the option 'at=3', but the allowed ones, once each, are: "
         "at=NUMBER, by=NAME."),
        ("one:1,at", "thing 'one:1,at' has the option 'at', but the allowed ones, once each, are: at=NUMBER, by=NAME."),
        ("one:1,", "thing 'one:1,' has the option '', but the allowed ones, once each, are: at=NUMBER, by=NAME."),
        ("around:many:1,at=2", "thing 'around:many:1,at=2' has the option 'at=2', but the allowed ones, once each, "
         "are: by=NAME."),
        ("many:1,by=a", "thing 'many:1,by=a' has the option 'by=a', but takes none."),
        ("needy:1", "thing 'needy:1' lacks at; add ',at=NUMBER'."),
        ("around:" * 60 + "plain", "has more than 50 names inside one another; leave some out."),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        read(text, FORMS, "thing")


@given(TEXTS)
def test_no_text_ends_otherwise_than_in_a_set_or_a_sentence(text: str) -> None:
    try:
        found = parse_ambiguity(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found is None or "nan" in text or parse_ambiguity(str(found)) == found


def test_names_without_end_are_a_sentence_too() -> None:
    with pytest.raises(ValueError, match="unknown ambiguity"):
        parse_ambiguity("a:" * 100_000)
