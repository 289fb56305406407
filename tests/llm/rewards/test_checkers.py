"""Checkers by name: what is right and what is wrong was worked out by hand, or is right by how the text was made."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.rewards.checkers import base
from llm.rewards.checkers.base import checker_of
from llm.rewards.checkers.number import number_in
from llm.rewards.names import RewardError, RewardPart

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
DOUBLE = {"tests": ["assert double(2) == 4", "assert double(-1) == -2"]}
HUMAN_EVAL = {"test": "def check(f):\n    assert f(3) == 6", "entry_point": "double"}
PASSES = "Sure:\n```python\ndef double(x):\n    return 2 * x\n```\nThat is all."
CASES = [  # checker, columns of the prompt, right answers, wrong ones
    ("exact", {"answer": "The cat"}, ["the  cat.", " THE CAT\n", "So: <answer>the cat</answer>"], ["a cat", "", "cat"]),
    ("exact", {"answer": ["yes", "yep"]}, ["Yep", "yes."], ["no"]),
    ("exact", {"answer": 4}, ["4", "4."], ["5", "4 5"]),
    (
        "number",
        {"answer": "1,250.5"},
        ["$1250.50", "it is 1,250.5 km.", r"\boxed{1250.5} not 3"],
        ["1.250,5", "125", ""],
    ),
    (
        "number",
        {"answer": "3 + 15 eggs.\n#### 18"},
        ["3, then 18 eggs", "#### 18 eggs, all told"],
        ["18 - 3 = 15", "#### 17"],
    ),
    (
        "number",
        {"answer": r"\frac{3}{4}"},
        ["0.75", "6/8", r"\boxed{\dfrac{3}{4}}", "it is 3 / 4"],
        ["0.7500001", "3/0"],
    ),
    ("number", {"answer": "-2"}, ["= -2", "\u22122", "<answer>-2</answer> but 3"], ["2", "4-2", "5 - 7 is 2"]),
    ("number", {"answer": "1.5e3"}, ["1500", "1,500"], ["1.5", "1e999"]),
    ("number?tolerance=0.01", {"answer": "3.14159"}, ["3.15", "3.1316"], ["3.16", "3.1"]),
    ("number?relative=0.1", {"answer": "200"}, ["220", "180"], ["221", "179"]),
    (r"regex:^\d{3}$", {}, ["123"], ["1234", "a123"]),
    ("regex", {"pattern": "(?i)yes", "answer": "no"}, ["Oh YES"], ["no"]),
    ("regex", {"answer": "b+"}, ["abba"], ["aa"]),
    ("unit_tests", DOUBLE, [PASSES, "def double(x): return x + x"], ["no code", PASSES.replace("2 *", "3 *")]),
    ("unit_tests", {"answer": "assert double(2) == 4"}, [PASSES], ["", "double = None"]),
    ("unit_tests", HUMAN_EVAL, [PASSES], ["def double(x): return 0"]),
    (
        "json_schema",
        {"schema": SCHEMA},
        ['{"n": 1}', 'So:\n```json\n{"n": 2}\n```'],
        ['{"n": "1"}', "n: 1", "[" * 5000],
    ),
    ("json_schema", {"answer": json.dumps(SCHEMA)}, ['{"n": 1, "m": 2}'], ["{}"]),
]
NAMED = [f"{name} {json.dumps(row)[:30]}" for name, row, _, _ in CASES]


def made(name):
    if name.startswith("json_schema"):
        pytest.importorskip("jsonschema")
    return checker_of(*RewardPart.of(name).options())


@pytest.mark.parametrize(("name", "row", "right", "wrong"), CASES, ids=NAMED)
def test_right_is_one_and_wrong_is_nothing(name, row, right, wrong):
    checker = made(name)
    assert checker.lacks(row) is None
    assert {text: checker.score(text, row) for text in right} == dict.fromkeys(right, 1.0)
    assert {text: checker.score(text, row) for text in wrong} == dict.fromkeys(wrong, 0.0)


WRITTEN = {
    "short latex": lambda n, d: rf"\boxed{{{n // d}\frac{n % d}{d}}}" if n >= 0 and d < 10 else f"{n}/{d}",
    "plain": lambda n, d: f"{n}/{d}",
    "latex": lambda n, d: ("-" if n < 0 else "") + rf"\frac{{{abs(n)}}}{{{d}}}",
    "boxed": lambda n, d: rf"First 17, then $\boxed{{{n}/{d}}}$, not 5.",
    "gsm8k": lambda n, d: f"3 * 4 = 12\n#### {n}/{d} apples",
    "sentence": lambda n, d: f"After 12 steps x = {n}/{d}.",
    "mixed": lambda n, d: f"{'-' if n < 0 else ''}{abs(n) // d} {abs(n) % d}/{d}",
}


@pytest.mark.parametrize("how", WRITTEN)
@given(st.integers(-(10**6), 10**6), st.integers(1, 10**4))
def test_fractions_are_read_exactly(how, over, under):
    assert number_in(WRITTEN[how](over, under)) == Fraction(over, under)


@pytest.mark.parametrize(
    "how",
    [
        "{:,}",
        r"\boxed{{{:,}}}",
        r"\(x={:,}\)",
        "${:,}",
        "total: {} km",
        "{}.0",
        "{}.",
        "**{}**",
        "({})",
        "{}%",
        "x={}, done",
    ],
)
@given(st.integers(-(10**9), 10**9))
def test_integers_are_read_with_separators_and_units(how, value):
    written = how.format(value)
    assert number_in(written.replace("$-", "-$")) == value
    if "\\" in how:
        for comma in ("{,}", r"\,", r",\!"):
            assert number_in(written.replace(",", comma)) == value


@pytest.mark.parametrize(
    "text", ["9" * 100_000, "1" + ",000" * 50_000, "1e" + "9" * 1000, r"\boxed{" * 5000, "1 " * 50_000]
)
def test_no_text_takes_long(text):
    import time

    begun = time.perf_counter()
    number_in(text)
    made("number").score(text, {"answer": "4"})
    assert time.perf_counter() - begun < 2


LACKING = [
    ("exact", {}, "no `answer`"),
    ("exact", {"answer": ""}, "no `answer`"),
    ("number", {"answer": None}, "no `answer`"),
    ("number", {"answer": "many"}, "no number in `answer`"),
    ("regex", {}, "no `pattern` and no `answer`"),
    ("regex", {"answer": "("}, "no regular expression in `pattern` or `answer`"),
    ("unit_tests", {}, "no `tests`, `test_list` or `answer`"),
    ("unit_tests", {"tests": "assert ("}, "no Python in `tests`, `test_list` or `answer`"),
    ("json_schema", {}, "no `schema` and no `answer`"),
    ("json_schema", {"schema": {"type": "nothing"}}, "no JSON schema in `schema` or `answer`"),
    ("json_schema", {"answer": "{"}, "no JSON schema in `schema` or `answer`"),
    ("json_schema", {"answer": "9"}, "no JSON schema in `schema` or `answer`"),
    ("json_schema", {"answer": 3.5}, "no JSON schema in `schema` or `answer`"),
    ("json_schema", {"answer": "null"}, "no JSON schema in `schema` or `answer`"),
    ("json_schema", {"schema": {"$schema": 5}}, "no JSON schema in `schema` or `answer`"),
]


@pytest.mark.parametrize(("name", "row", "said"), LACKING, ids=[f"{name}: {said}" for name, _, said in LACKING])
def test_prompts_that_cannot_be_checked_are_told(name, row, said):
    assert made(name).lacks(row) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("number?tolerence=1", "there is no option 'tolerence'; there are tolerance, relative"),
        ("number?tolerance=-1", "tolerance=-1 makes no sense"),
        ("number?tolerance=1/0", "tolerance=1/0 makes no sense"),
        ("number?tolerance", "options are written number?KEY=VALUE"),
        ("exact?x=1", "there is no option 'x'; it has none"),
        ("exact:x", "nothing but a weight can stand behind the colon"),
        ("unit_tests?seconds=0", "seconds=0 makes no sense"),
        ("unit_tests?memory=nan", "memory=nan makes no sense"),
        ("regex:(", "'(' is no regular expression"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, said):
    with pytest.raises(RewardError) as error:
        made(name)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("json_schema", "jsonschema", "json"), ("reasoning-gym", "reasoning_gym", "tasks")]
)
def test_a_package_that_is_missing_is_named_with_its_pip_line(name, package, extra, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RewardError, match=rf'not installed: pip install "robust-rlhf\[{extra}\]"'):
        checker_of(name, {}, None)


def test_a_schema_file_serves_all_prompts_and_fetches_nothing(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    checker = made(f"json_schema:{file}")
    assert checker.lacks({}) is None
    assert (checker.score('{"n": 3}', {}), checker.score("{}", {})) == (1.0, 0.0)
    file.write_text("{")
    with pytest.raises(RewardError, match="holds no JSON schema"):
        made(f"json_schema:{file}")


def test_every_name_has_a_checker():
    from llm.rewards.names import CHECKERS

    files = {file.stem.replace("_", "-") for file in __import__("pathlib").Path(base.__file__).parent.glob("*.py")}
    assert {name.replace("_", "-") for name in CHECKERS} == files - {"--init--", "base", "confined", "inside"}
