"""Tasks by name: their answers are right by another way of finding them, and prompts come as asked."""

from __future__ import annotations

import json
import operator
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from llm.data.mixing import mixed_prompts
from llm.data.pairs import DataError
from llm.data.prompts import read_prompts
from llm.rewards import bench
from llm.rewards.scorer import check_prompts, load_scorer
from llm.tasks import generated
from llm.tasks.library import names

FOLDER = Path(generated.__file__).parent


def sorted_words(text):
    kind, words = text.split(": ")
    return " ".join({"Copy": list, "Sort by alphabet": sorted}.get(kind, lambda w: list(reversed(w)))(words.split()))


def remainder(text):
    """By numbers that are reduced after every operation."""
    inner, modulus = re.fullmatch(r"What is (.*) modulo (\d+)\?", text).groups()
    value, *steps = re.findall(r"[+*]|\d+", inner)
    for sign, number in zip(steps[::2], steps[1::2], strict=True):
        value = {"+": operator.add, "*": operator.mul}[sign](int(value), int(number)) % int(modulus)
    return str(int(value) % int(modulus))


def letters(text):
    letter, word = re.fullmatch(r"How often does (.) stand in (\w+)\?", text).groups()
    return str(Counter(word)[letter])


ANOTHER_WAY = {
    "addition": lambda text: str(sum(map(int, re.findall(r"\d+", text)))),
    "modular": remainder,
    "sorting": sorted_words,
    "letters": letters,
}
CHECKED_BY = {"sorting": "exact"}


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    bench.close_all()


def test_every_task_is_checked_here():
    assert sorted(ANOTHER_WAY) == names()


@pytest.mark.parametrize("name", ANOTHER_WAY)
def test_answers_are_right_and_their_checker_says_so(name):
    prompts = read_prompts(f"task:{name}?n=300&seed=5", beside=True).prompts
    assert len(prompts) == len({prompt.messages[0]["content"] for prompt in prompts}) == 300
    assert [prompt.answer for prompt in prompts] == [ANOTHER_WAY[name](p.messages[0]["content"]) for p in prompts]
    assert {len({getattr(prompt, field) for prompt in prompts}) > 1 for field in ("source", "answer")} == {True}
    difficulties = {dict(prompt.beside)["difficulty"] for prompt in prompts}
    assert len(difficulties) > 2
    assert {type(value) for value in difficulties} == {int}
    checker = CHECKED_BY.get(name, "number")
    check_prompts([checker], prompts, name)
    scorer = load_scorer(checker, batch_size=1, device="cpu")
    assert set(scorer(prompts, [p.answer for p in prompts]).tolist()) == {1.0}
    assert set(scorer(prompts, [f"{p.answer} 7 or so" for p in prompts]).tolist()) <= {0.0, float(name != "sorting")}


@pytest.mark.parametrize("name", ANOTHER_WAY)
def test_a_task_is_one_small_file(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 25


@pytest.mark.parametrize("name", ANOTHER_WAY)
def test_seeds_decide_and_splits_share_nothing(name):
    def asked(address):
        return [prompt.messages[0]["content"] for prompt in read_prompts(address).prompts]

    assert asked(f"task:{name}?n=50&seed=1") == asked(f"task:{name}?n=80&seed=1")[:50]
    assert asked(f"task:{name}?n=50&seed=1") != asked(f"task:{name}?n=50&seed=2")
    train, test = (asked(f"task:{name}?n=150&seed={seed}&split={split}") for seed, split in ((1, "train"), (2, "test")))
    assert not set(train) & set(test)


def test_options_make_a_task_harder():
    easy, hard = (read_prompts(f"task:addition?n=40&digits={digits}").prompts for digits in (1, 6))
    assert {prompt.source for prompt in easy} == {"1 digits"}
    assert {prompt.source for prompt in hard} == {f"{digits} digits" for digits in range(1, 7)}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("task:additon", "there is no task 'additon', did you mean addition?"),
        (
            "task:chess",
            "there is no task 'chess'; there are addition, letters, modular, sorting and reasoning-gym/NAME",
        ),
        ("task:addition?n=0", "n is how many questions, from 1 to 1000000, got 0"),
        ("task:addition?n=x", "n is a whole number of at least 0, got 'x'"),
        ("task:addition?n=5&n=6", "an option stands twice"),
        ("task:addition?n", "options are KEY=VALUE"),
        ("task:addition?split=dev", "split is train or test, got dev"),
        ("task:addition?digit=3", "has no option 'digit'; there are n, seed, split, digits"),
        ("task:addition?digits=0", "digits is a whole number from 1 to 1000, got '0'"),
        ("task:addition?digits=1&n=200", "has only about 100 different questions with these options, and n is 200"),
        ("task:", "names no task"),
        ("task:../../x", "names no task"),
    ],
)
def test_addresses_that_make_no_sense_are_refused(address, said):
    with pytest.raises(DataError) as error:
        read_prompts(address)
    assert said in str(error.value)


def test_tasks_are_mixed_with_weights_as_files_are(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"prompt": "1 + 1?", "answer": 2, "source": "own"}) + "\n")
    mixture = mixed_prompts(["task:addition?n=20:0.5", "task:sorting?n=10:2", str(file)], distinct=True, beside=True)
    drawn = mixture.drawn(seed=0)
    assert Counter(prompt.category for prompt in drawn) == {"addition": 10, "sorting": 20, "unknown": 1}
    assert len({prompt.id for prompt in drawn}) == 31
    assert [prompt.answer for prompt in drawn if prompt.source == "own"] == ["2"]


# Prompts of files with answers.


def save(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_prompt_carries_the_answer_of_its_file_and_asked_for_its_other_columns(tmp_path):
    rows = [
        {"prompt": "a", "answer": 3, "level": [1, 2]},
        {"prompt": "b", "answer": ""},
        {"prompt": "c", "answer": ["x", "y"]},
    ]
    file = save(tmp_path / "a.jsonl", *rows)
    assert [prompt.answer for prompt in read_prompts(file).prompts] == ["3", None, '["x", "y"]']
    assert [prompt.beside for prompt in read_prompts(file).prompts] == [()] * 3
    beside = [dict(prompt.beside) for prompt in read_prompts(file, beside=True).prompts]
    assert beside == [{"answer": 3, "level": [1, 2]}, {"answer": ""}, {"answer": ["x", "y"]}]
    mapped = read_prompts(
        save(tmp_path / "b.jsonl", {"q": "a", "sol": "7"}), columns="prompt=q,answer=sol", beside=True
    )
    assert (mapped.prompts[0].answer, dict(mapped.prompts[0].beside)["answer"]) == ("7", "7")


ELSEWHERE = {
    "gsm8k": ({"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"}, "prompt=question"),
    "competition": ({"problem": "Find $x$.", "solution": "It is 4.", "level": "5"}, "prompt=problem,answer=solution"),
    "integers": ({"query": "1+1", "target": 2}, "prompt=query,answer=target"),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_files_of_other_columns_are_read_as_they_are_told_to_be(kind, tmp_path):
    """The sentence that refuses them says the mapping that reads them."""
    row, columns = ELSEWHERE[kind]
    file = save(tmp_path / "a.jsonl", row)
    with pytest.raises(DataError) as error:
        read_prompts(file)
    assert f"`--columns {columns}`" in str(error.value)
    (prompt,) = read_prompts(file, columns=columns).prompts
    question, answer = list(row.values())[:2]
    assert (prompt.messages[0]["content"], prompt.answer) == (question, str(answer))


def test_answers_are_part_of_what_prompts_are_where_they_are_checked(tmp_path):
    """Elsewhere a file is what it was before it had answers, for runs that go on."""
    files = [
        save(tmp_path / f"{n}.jsonl", {"prompt": "a", "id": "1", **more})
        for n, more in enumerate([{}, {"answer": "1"}, {"answer": "2"}])
    ]
    assert len({read_prompts(file).sha256 for file in files}) == 1
    assert len({read_prompts(file, beside=True).sha256 for file in files}) == 3


@pytest.mark.parametrize("several", [False, True], ids=["one file", "two files"])
def test_a_repeated_prompt_with_another_answer_is_named_and_left_out(several, tmp_path, caplog):
    rows = [
        {"prompt": "a", "answer": "1", "id": "x"},
        {"prompt": "a", "answer": "1", "id": "y"},
        {"prompt": "a", "answer": "2", "id": "z"},
    ]
    if several:
        files = [str(save(tmp_path / "a.jsonl", rows[0])), str(save(tmp_path / "b.jsonl", *rows[1:], {"prompt": "b"}))]
    else:
        files = str(save(tmp_path / "a.jsonl", *rows))
    mixture = mixed_prompts(files, distinct=True, beside=True)
    assert [prompt.answer for prompt in mixture.items if prompt.messages[0]["content"] == "a"] == ["1"]
    counted = mixture.describe()["dropped"]
    assert counted["repeated prompt with another answer"] == 1
    assert "prompt z repeats an earlier one with another answer" in caplog.text
    assert len(mixed_prompts(files, distinct=False, beside=True).items) == 3 + several


# reasoning-gym: a stand-in of its interface, and the package itself where it is installed.

STAND_IN = """
from dataclasses import dataclass
import random
@dataclass
class Config:
    seed: int = 0
    size: int = 5
    top: int = 9
    def validate(self):
        assert self.top > 0, "top must be positive"
class Set:
    category = "games"
    def __init__(self, config): self.config = config
    def __len__(self): return self.config.size
    def __getitem__(self, index):
        number = random.Random(self.config.seed + index).randint(0, 10**self.config.top)
        return {"question": f"Twice {number}?", "answer": str(2 * number),
                "metadata": {"number": number, "difficulty": {"number": (0, 9)}}}
    def score_answer(self, answer, entry):
        return 1.0 if int(answer) == 2 * entry["metadata"]["number"] else 0.01
DATASETS = {"twice": (Set, Config)}
def create_dataset(name, **options):
    config = Config(**options)
    config.validate()
    return Set(config)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "reasoning_gym"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "factory.py").write_text(STAND_IN)
    for name in [name for name in sys.modules if name.split(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    bench.close_all()
    yield
    bench.close_all()
    for name in [name for name in sys.modules if name.split(".")[0] == "reasoning_gym"]:
        del sys.modules[name]


def test_the_library_s_own_verifier_scores_its_prompts(stand_in):
    prompts = read_prompts("task:reasoning-gym/twice?n=12&seed=3&top=4&split=test", beside=True).prompts
    assert {(prompt.source, prompt.category) for prompt in prompts} == {("twice", "games")}
    assert [dict(p.beside)["difficulty"] * 2 for p in prompts] == [float(p.answer) for p in prompts]
    check_prompts(["reasoning-gym"], prompts, "x")
    scorer = load_scorer("reasoning-gym", batch_size=1, device="cpu")
    assert scorer(prompts, [f"Well, <answer> 0{p.answer} </answer>" for p in prompts]).tolist() == [1.0] * 12
    assert scorer(prompts, ["7", "no number"] * 6).tolist() == [0.01, 0.0] * 6  # it trips over words
    assert scorer.verifiable is True


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("task:reasoning-gym/twise", "reasoning-gym has no 'twise', did you mean twice?"),
        ("task:reasoning-gym/twice?tip=3", "has no option 'tip'; there are n, seed, split, top"),
        ("task:reasoning-gym/twice?top=0", "refuses its options: top must be positive"),
    ],
)
def test_what_the_library_has_not_is_refused(address, said, stand_in):
    with pytest.raises(DataError) as error:
        read_prompts(address)
    assert said in str(error.value)


def test_a_library_that_is_missing_is_named_with_its_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError, match=r'not installed: pip install "robust-rlhf\[tasks\]"'):
        read_prompts("task:reasoning-gym/chain_sum?n=5")


@pytest.mark.parametrize("name", ["chain_sum", "countdown", "zebra_puzzles", "prime_factorization"])
def test_the_package_itself(name):
    pytest.importorskip("reasoning_gym")
    prompts = read_prompts(f"task:reasoning-gym/{name}?n=4&seed=1", beside=True).prompts
    scorer = load_scorer("reasoning-gym", batch_size=1, device="cpu")
    assert scorer(prompts, [f"<answer>{p.answer}</answer>" for p in prompts]).tolist() == [1.0] * 4
    assert scorer(prompts, ["no such thing"] * 4).max() < 0.1
