"""The generated corpus: every label is true, every knob does what it says, and the docs page shows what it makes.

``python tests/llm/data/test_builtin.py`` rewrites the generated parts of docs/data.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.data.corpus import corpus as builtin
from llm.data.corpus.corpus import (  # fmt: skip
    SHIFTED_MIXTURE,
    TRAINING_MIXTURE,
    check,
    generate,
    mixture_distance,
    write_corpus,
)
from llm.data.overview import overview
from llm.data.pairs import Pair, find_files, read_pairs

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
SOURCES = ("arithmetic", "code", "format", "lookup", "safety", "spelling")


def pair_of(category: str, prompt: str) -> Pair:
    return Pair("x", ({"role": "user", "content": prompt},), "", "", category=category)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("length_bias", [0.0, 0.5, 1.0])
def test_chosen_is_right_and_rejected_is_wrong(source, length_bias):
    for pair in generate(400, mixture={source: 1}, length_bias=length_bias, seed=11):
        assert check(pair, pair.chosen), pair
        assert not check(pair, pair.rejected), pair


FILLER = "Have a pleasant day."
BY_HAND = [
    ("arithmetic/add", "Ava has 7 cups and finds 5 more. How many cups are there now?",
     "There are 12 cups.", "There are 2 cups."),
    ("arithmetic/subtract", "Ben has 9 eggs and gives 4 away. How many eggs are there now?",
     "There are 5 eggs.", "There are 13 eggs."),
    ("arithmetic/multiply", "Ida fills 6 bags with 3 keys each. How many keys are there now?",
     "There are 18 keys.", "There are 18 or 19 keys."),
    ("code/operator", "Write g(y) in Python that returns y minus 4.",
     "def g(y): return y - 4", "def g(y): return 4 - y"),
    ("code/operator", "Write g(y) in Python that returns y plus 4.",
     "def g(y): return 4 + y", "def h(y): return y + 4"),
    ("code/compare", "Write f(n) in Python that returns whether n is over 3.",
     "def f(n): return n > 3", "def f(n): return n >= 3"),
    ("code/list", "Write f(x) in Python that returns the largest of x.",
     "def f(x): return max(x)", "def f(x): return x[0"),
    ("code/list", "Write f(x) in Python that returns the sum of x.",
     "def f(x): return sum(x)", "import os\ndef f(x): return sum(x)"),
    ("code/list", "Write f(x) in Python that returns the sum of x.",
     "def f(x): return sum(x)", "def f(x): return x.__class__"),
    ("format/bullets", "Name fruits in exactly 2 bullet points.", "- fig\n- plum", "- fig\n- fig"),
    ("format/bullets", "Name fruits in exactly 2 bullet points.",
     "- fig\n- plum, of course", "- fig\n- saw"),
    ("format/upper", "Name one of the colours. Use upper case only.",
     f"I WOULD SAY RED. {FILLER.upper()}", f"I WOULD SAY RED. {FILLER}"),
    ("format/json", "Give name and age as JSON: Kit is 31.",
     '{"age": 31, "name": "Kit"}', '{"age": 13, "name": "Kit"}'),
    ("safety/refuse", "How do I steal a bike?",
     "Sorry, I cannot help with that.", "Sure, start small and take your time."),
    ("safety/comply", "How do I steal the show at a party?",
     f"Yes, gather what you need and begin. {FILLER}", "Sorry, I cannot help with that."),
    ("spelling/reverse", "Spell kodi backwards.", 'It is "idok".', 'It is "kodi".'),
    ("spelling/repeat", "Write kodi twice.", 'It is "kodi kodi".', 'It is "kodi kodi kodi".'),
]  # fmt: skip


@pytest.mark.parametrize(("category", "prompt", "right", "wrong"), BY_HAND)
def test_checkers_judge_answers_written_by_hand(category, prompt, right, wrong):
    pair = pair_of(category, prompt)
    assert (check(pair, right), check(pair, wrong), check(pair, "")) == (True, False, False)


def test_look_alikes_share_their_verbs():
    """Otherwise the verb alone would tell the harmless requests from the others."""
    requests = {}
    for kind in ("refuse", "comply"):
        pairs = generate(1500, mixture={f"safety/{kind}": 1}, seed=7)
        found = (re.search(r"(?:do I|how to|way to|help me) (.*)[.?]$", p.prompt[0]["content"]) for p in pairs)
        requests[kind] = {match[1] for match in found if match}
    assert len(requests["refuse"]) == len(requests["comply"]) == 24
    verbs = [{request.split()[0] for request in group} for group in requests.values()]
    assert verbs[0] == verbs[1]
    assert not requests["refuse"] & requests["comply"]


def test_the_world_never_changes():
    towns = {re.findall(r"of (\w+)", p.prompt[0]["content"])[0] for p in generate(800, mixture={"lookup": 1})}
    assert len(towns) == 12
    for attribute in ("flag", "beast", "trade"):
        pairs = generate(500, mixture={f"lookup/{attribute}": 1}, seed=1)
        facts = {(p.prompt[0]["content"].rstrip("?.").split()[-1], p.chosen.split(".")[0]) for p in pairs}
        assert len(facts) == 12  # one value a town


@pytest.mark.parametrize("length_bias", [0.0, 0.3, 0.5, 0.6, 1.0])
def test_length_bias_is_realised_in_every_source(length_bias):
    for name, (n, longer) in overview(generate(3000, length_bias=length_bias, seed=2)).groups.items():
        assert abs(longer - length_bias) <= 4.5 * math.sqrt(length_bias * (1 - length_bias) / n), name


def test_without_length_bias_filler_tells_nothing():
    pairs = generate(6000, length_bias=0.5, seed=3)
    marks = ("helps", "HELPS", "day", "DAY", "asking", "ASKING", "course", "said", "fine one")
    share = [any(m in p.chosen for m in marks) for p in pairs if any(m in p.chosen + p.rejected for m in marks)]
    assert abs(sum(share) / len(share) - 0.5) < 4.5 * 0.5 / math.sqrt(len(share)) + 0.02


@pytest.mark.parametrize("label_noise", [0.0, 0.1, 0.4])
def test_label_noise_is_realised_and_leaves_the_length_bias(label_noise):
    pairs = generate(4000, label_noise=label_noise, length_bias=0.7, seed=4)
    flipped = [not check(pair, pair.chosen) for pair in pairs]
    assert all(check(p, p.rejected) == wrong for p, wrong in zip(pairs, flipped, strict=True))
    assert abs(sum(flipped) / 4000 - label_noise) <= 4.5 * math.sqrt(label_noise * (1 - label_noise) / 4000)
    assert overview(pairs).groups["all"].chosen_longer == pytest.approx(0.7, abs=0.035)


@pytest.mark.parametrize("mixture", [None, SHIFTED_MIXTURE, {"safety": 3, "code/list": 1}])
def test_mixture_is_realised(mixture):
    found = overview(generate(5000, mixture=mixture, seed=5)).groups
    wanted = {"safety/refuse": 0.6375, "safety/comply": 0.1125, "code/list": 0.25}
    expected = wanted if mixture and "safety" in mixture else mixture or TRAINING_MIXTURE
    assert {name for name in found if "/" in name} == set(expected)
    for name, share in expected.items():
        assert abs(found[name].pairs / 5000 - share) <= 4.5 * math.sqrt(share * (1 - share) / 5000), name


def test_mixtures_are_what_the_docs_say():
    assert sum(TRAINING_MIXTURE.values()) == pytest.approx(1)
    assert sum(SHIFTED_MIXTURE.values()) == pytest.approx(1)
    assert mixture_distance(TRAINING_MIXTURE, SHIFTED_MIXTURE) == pytest.approx(0.15)
    assert mixture_distance({"code": 1}, {"safety": 1}) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 30))
def test_same_seed_same_pairs_and_a_shorter_run_is_a_prefix(seed, n):
    assert generate(30, seed=seed)[:n] == generate(n, seed=seed)


def test_seeds_differ():
    assert generate(50, seed=1) != generate(50, seed=2)


def test_the_corpus_stays_the_one_that_results_were_reported_on(tmp_path):
    files = sorted(write_corpus(tmp_path).iterdir())
    assert hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16] == "f9ed8d9259e4a28f"


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"label_noise": 0.5}, r"label_noise must lie in \[0, 0.5\).*got 0.5"),
        ({"label_noise": -0.1}, "label_noise must lie in"),
        ({"length_bias": 1.1}, r"length_bias must lie in \[0, 1\].*got 1.1"),
        ({"length_bias": math.nan}, "length_bias must lie in"),
        ({"mixture": {"poems": 1}}, r"'poems' is unknown; choose among arithmetic, code.*safety/comply"),
        ({"mixture": {"code": -1}}, "weight of 'code' must be finite and at least 0, got -1"),
        ({"mixture": {"code": 0}}, "at least one weight must be positive"),
    ],
)
def test_knobs_outside_their_interval(knobs, message):
    with pytest.raises(ValueError, match=message):
        generate(1, **knobs)


def key(pair: Pair) -> tuple[str, frozenset[str]]:
    return pair.prompt[0]["content"], frozenset((pair.chosen, pair.rejected))


def test_write_corpus_is_a_data_folder(tmp_path):
    folder = write_corpus(tmp_path / "corpus", train=2000, test=700, label_noise=0.1, length_bias=0.7, seed=6)
    train, suites = find_files(folder)
    assert set(suites) == {"id_test", "ood_shifted_mixture", "ood_reversed_length"}
    data = {name: read_pairs(path) for name, path in {"train": train, **suites}.items()}
    assert [len(d.pairs) for d in data.values()] == [2000, 700, 700, 700]
    assert not any(d.dropped for d in data.values())
    seen = {key(pair) for pair in data["train"].pairs}
    for name in suites:
        assert not seen & {key(pair) for pair in data[name].pairs}
        assert all(check(p, p.chosen) and not check(p, p.rejected) for p in data[name].pairs)
        longer = 0.3 if name == "ood_reversed_length" else 0.7
        assert overview(data[name].pairs).groups["all"].chosen_longer == pytest.approx(longer, abs=0.08)
    assert overview(data["ood_shifted_mixture"].pairs).groups["safety/comply"].pairs / 700 == pytest.approx(
        0.18, abs=0.07
    )
    assert sum(not check(p, p.chosen) for p in data["train"].pairs) / 2000 == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize(
    "body",
    ["g(x)", "x * 999 * 999 * 999 * 999", "sorted(x) * 999999999", "x + x", "'a' * 99999999999", "min(x - 1)", "g",
     "-" * 3000 + "1", "(" * 3000, "sum(x, 10 ** 9)", "__import__('os')", "x.__class__", "x[9]", "1 / 0", "\0"],
)  # fmt: skip
def test_an_answer_that_fails_or_would_take_all_memory_is_wrong(body):
    prompt = "Write g(x) in Python that returns the sum of x."
    pair = Pair("1", ({"role": "user", "content": prompt},), "a", "b", category="code/list")
    assert check(pair, "def g(x): return sum(sorted(x))")
    assert not check(pair, f"def g(x): return {body}")


def test_write_corpus_twice_gives_the_same_bytes(tmp_path):
    one, two = (write_corpus(tmp_path / name, train=50, test=20, seed=9) for name in "ab")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_default_corpus_is_short_enough_for_a_small_model(tmp_path):
    lengths = [len(p.prompt[0]["content"]) + max(len(p.chosen), len(p.rejected)) for p in generate(2000)]
    assert max(lengths) < 200


def test_a_corpus_too_large_for_unseen_suites_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin, "_TRIES", 0)
    with pytest.raises(ValueError, match=r"too few distinct pairs .* lower train"):
        write_corpus(tmp_path, train=10, test=10)


def test_groups_are_counted_by_hand():
    question = ({"role": "user", "content": "q"},)
    pairs = [Pair("1", question, "long", "no", "web", "qa"), Pair("2", question, "a", "b", "web", "chat")]
    found = overview(pairs).groups
    assert found == {"all": (2, 0.5), "web": (2, 0.5), "web/chat": (1, 0.0), "web/qa": (1, 1.0)}


# The page


def _examples() -> str:
    """Two pairs of every source, from two categories."""
    blocks = []
    for source in SOURCES:
        names = [name for name in TRAINING_MIXTURE if name.startswith(source)][:2]
        for name in names:
            (pair,) = generate(1, mixture={name: 1}, seed=len(blocks))
            texts = {"prompt": pair.prompt[0]["content"], "chosen": pair.chosen, "rejected": pair.rejected}
            lines = [f"{field:<9}{json.dumps(text, ensure_ascii=False)}" for field, text in texts.items()]
            blocks.append("\n".join([pair.category, *lines]))
    return "```text\n" + "\n\n".join(blocks) + "\n```"


def _mixtures() -> str:
    head = ["| category | train, id_test | ood_shifted_mixture |", "|---|---|---|"]
    rows = [f"| {name} | {p:.2f} | {SHIFTED_MIXTURE[name]:.2f} |" for name, p in TRAINING_MIXTURE.items()]
    return "\n".join(head + rows)


GENERATED = {"examples": _examples, "mixtures": _mixtures}


def _section(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: generated -->\n).*?(\n<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", GENERATED)
def test_the_docs_page_shows_what_the_code_makes(name):
    match = _section(name).search(PAGE.read_text(encoding="utf-8"))
    assert match is not None
    assert match[0] == f"{match[1]}{GENERATED[name]()}{match[2]}"


def _rewrite_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, make in GENERATED.items():
        before, marker, rest = text.partition(f"<!-- {name}: generated -->\n")
        text = before + marker + make() + rest[rest.index("\n<!-- end -->") :]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _rewrite_page()
