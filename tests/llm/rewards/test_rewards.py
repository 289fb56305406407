"""Rewards by name: functions as TRL calls them, what they do instead of scoring, and weighted mixtures."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llm.data.prompts import Prompt, read_prompts
from llm.rewards import bench
from llm.rewards.names import BUILTIN, CHECKERS, RewardError, labels_of, parts_of, reads_of, settled
from llm.rewards.scorer import BadScores, check_prompts, load_scorer, told_by

FILE = Path(__file__).parents[1] / "misbehaving.py"
SAYS = {"chat": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}),
        "text": ({"role": "user", "content": "Q?"},)}  # fmt: skip


def prompts(count, how="text", **columns):
    """Each asked twice."""
    made = [
        Prompt(f"p{n}", SAYS[how], answer=str(n), beside=(("answer", str(n)), *columns.items()), as_text=how == "text")
        for n in range(count)
    ]
    return [prompt for prompt in made for _ in range(2)]


def scorer(*names, seconds=20):
    return load_scorer(list(names), batch_size=1, device="cpu", seconds=seconds)


def function(name):
    return f"{FILE}:{name}"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(FILE.parent)])


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    bench.close_all()


# As TRL calls them.


@pytest.mark.parametrize("how", ["text", "chat"])
def test_a_function_is_given_what_trl_gives_it(how, tmp_path, monkeypatch):
    """TRL's own method is called with the same records, and the function notes what it gets from either."""
    import misbehaving
    import torch
    from accelerate import Accelerator
    from trl import GRPOTrainer

    rows = [
        {"prompt": "Q?" if how == "text" else list(SAYS["chat"]), "answer": str(n), "level": n, "tags": ["a", n]}
        for n in (3, 4)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"prompt": row["prompt"]}) + "\n" for row in rows))
    monkeypatch.setenv("SEEN", str(tmp_path / "ours.json"))
    bench.close_all()  # the environment of a process is that of its start
    asked = [one for one in read_prompts(file, beside=True, distinct=False).prompts for _ in range(2)]
    answers = ["a", "bb", "", "dddd"]
    ours = scorer(function("seen"))(asked, answers)
    inputs = [row for row in rows for _ in range(2)]
    said = answers if how == "text" else [[{"role": "assistant", "content": text}] for text in answers]
    monkeypatch.setenv("SEEN", str(tmp_path / "trl.json"))
    stub = SimpleNamespace(
        accelerator=Accelerator(cpu=True), reward_funcs=[misbehaving.seen], reward_processing_classes=[None],
        reward_func_names=["seen"], environments=None, state=SimpleNamespace(global_step=0),
        _log_completion_extra=None, _log_metric=None,
        args=SimpleNamespace(report_to=[]),
    )  # fmt: skip
    theirs = GRPOTrainer._calculate_rewards(stub, inputs, [row["prompt"] for row in inputs], said, [[1]] * 4)
    torch.testing.assert_close(theirs[:, 0].double().cpu(), torch.from_numpy(ours))
    got, wanted = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ours", "trl"))
    assert (got["prompts"], got["completions"]) == (wanted["prompts"], wanted["completions"])
    own = {"completion_ids", "trainer_state", "log_extra", "log_metric"}
    columns = {name: values for name, values in wanted["columns"].items() if name not in own}
    assert {name: got["columns"][name] for name in columns} == columns
    assert got["columns"].keys() - columns.keys() == {"id", "source", "category"}


FORMS = {
    "half": [0.5, 0.5, 0.5, 0.5], "waits": [0.25] * 4, "counting": [0.5] * 4, "waiting": [0.75] * 4,
    "bools": [1, 0, 1, 0], "whole_numbers": [1, 1, 1, 1], "of_numpy": np.linspace(0, 1, 4, dtype=np.float32).tolist(),
    "of_numpy_scalars": [0.5, 1, 1, 1], "forks": [1] * 4, "prints": [1] * 4, "moves": [1] * 4,
    "of_torch": pytest.param("of_torch", [1] * 4, marks=pytest.mark.exhaustive),  # loads torch once more
}  # fmt: skip


@pytest.mark.parametrize(("name", "scores"), [s if isinstance(s, tuple) else (n, s) for n, s in FORMS.items()])
def test_scores_are_read_in_every_form(name, scores):
    subject = scorer(function(name))
    for _ in range(2):  # what it did to its process hinders no later batch
        np.testing.assert_array_equal(subject(prompts(2), ["a"] * 4), scores)


@pytest.mark.parametrize("name", [f"{FILE}:half", "misbehaving:half"])
def test_files_and_modules_hold_functions(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert scorer(name)(prompts(1), ["a", "b"]).tolist() == [0.5, 0.5]
    assert reads_of("reward_model", name) == {"reward_model": str(FILE)}


# Faults.

ONE = "at prompt p1, and the policy was not updated"
ALL = "at prompts p0, p1, p2, and the policy was not updated"
FAULTS = [
    ("raises", "raised ZeroDivisionError: division by zero (misbehaving.py, line", ONE),
    ("raises_late", "raised ZeroDivisionError: division by zero (misbehaving.py, line", ONE),
    ("nan", "gave nan, and an answer that is not to be scored is None", ONE),
    ("infinite", "gave -inf", ONE),
    ("enormous", "gave inf", ONE),
    ("words", "gave str ('good') where a number is needed", ONE),
    ("nested", "gave a list where a number is needed", ONE),
    ("too_few", "gave 5 scores for 6 answers", ALL),
    ("too_many", "gave 7 scores for 6 answers", ALL),
    ("text", "gave str ('111111') where a list of 6 scores is needed", ALL),
    ("nothing", "gave a NoneType where a list of 6 scores is needed", ALL),
    ("one_number", "gave a float where a list of 6 scores is needed", ALL),
    ("mapping", "gave a dict where a list of 6 scores is needed", ALL),
    ("hangs", "did not answer within 1 s (reward_seconds)", ALL),
    ("sleeps", "did not answer within 1 s (reward_seconds)", ALL),
    ("hangs_in_c", "did not answer within 1 s (reward_seconds)", ALL),
    ("ends", "ended its process, with status 3,", ALL),
    ("exits", "ended its process, with status 1,", ALL),
    ("crashes", "ended its process, by SIGSEGV,", ALL),
]


@pytest.mark.parametrize("beside", [(), ("exact:0.5",)], ids=["alone", "in a mixture"])
@pytest.mark.parametrize(("name", "said", "where"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_what_is_no_score_ends_in_one_sentence(name, said, where, beside):
    subject = scorer(*beside, function(name), seconds=1 if "reward_seconds" in said else 20)
    begun = time.perf_counter()
    with pytest.raises(BadScores) as error:
        subject(prompts(3), ["a", "a", "bad", "bad", "c", "c"])
    assert time.perf_counter() - begun < 15
    assert str(error.value).startswith(f"{function(name)} {said}")
    assert where in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pattern_without_end_ends_in_one_sentence_that_names_the_prompt():
    rows = [
        Prompt("easy", SAYS["text"], beside=(("pattern", "a"),)),
        Prompt("hard", SAYS["text"], beside=(("pattern", "(a+)+$"),)),
    ]
    with pytest.raises(BadScores, match=r"^regex did not answer within 1 s \(reward_seconds\) at prompt hard,"):
        scorer("regex", seconds=1)(rows, ["a" * 64 + "b"] * 2)


@pytest.mark.parametrize("fault", ["hangs", "ends", "raises"])
def test_after_a_fault_the_next_run_starts_afresh(fault):
    for _ in range(2):
        with pytest.raises(BadScores):
            scorer(function(fault), seconds=1)(prompts(1), ["bad", "bad"])
    assert scorer(function("half"))(prompts(1), ["a", "b"]).tolist() == [0.5, 0.5]


def test_nothing_is_left_running(tmp_path, monkeypatch):
    """What a function starts ends with its process, in its group."""
    file = tmp_path / "starts.py"
    file.write_text(
        "import subprocess\n\ndef starts(completions):\n    made = subprocess.Popen(['sleep', '600'])\n"
        "    return [float(made.pid)] * len(completions)\n"
    )
    (pid, _) = scorer(f"{file}:starts")(prompts(1), ["a", "b"])
    assert Path(f"/proc/{int(pid)}").exists() or not Path("/proc").exists()
    bench.close_all()
    for _ in range(50):
        state = Path(f"/proc/{int(pid)}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it still runs")


def test_what_a_function_prints_is_cut_and_said(tmp_path, caplog):
    file = tmp_path / "says.py"
    file.write_text("def says(completions):\n    print('hello ' * 10**5)\n    return [1.0] * len(completions)\n")
    with caplog.at_level(logging.INFO, "llm.rewards.bench"):
        scorer(f"{file}:says")(prompts(1), ["a", "b"])
        time.sleep(0.2)
        scorer(f"{file}:says")(prompts(1), ["a", "b"])
    said = [record.getMessage() for record in caplog.records if "printed: hello" in record.getMessage()]
    assert all(len(text) < 2200 for text in said)


# What cannot be used.

UNUSABLE = {
    function("lacking"): "there is no function 'lacking' in",
    function("NEEDED"): "there is no function 'NEEDED' in",
    function("wants_ids"): "wants completion_ids, which is not given here: give it a default",
    "nowhere.py:f": "nowhere.py:f: there is no file nowhere.py",
    "no_such_module:f": "no_such_module:f cannot be loaded: ModuleNotFoundError",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_loaded_is_refused_at_once(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RewardError) as error:
        scorer(name)
    assert UNUSABLE[name] in str(error.value)


@pytest.mark.parametrize(
    "code", ["1 / 0", "def f(:", "import sys; sys.exit(1)", "import os; os._exit(4)", "raise KeyboardInterrupt"]
)
def test_a_file_that_cannot_be_loaded_is_refused_in_one_sentence(code, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(code)
    with pytest.raises(RewardError, match=r"broken\.py:f cannot be loaded: ") as error:
        scorer(f"{file}:f")
    assert "\n" not in str(error.value)


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


def test_a_function_whose_file_changed_is_loaded_again(tmp_path):
    file = tmp_path / "checks.py"
    for value in (0.25, 0.75):
        file.write_text(f"def f(completions):\n    return [{value}] * len(completions)\n")
        assert scorer(f"{file}:f")(prompts(1), ["a", "b"]).tolist() == [value, value]


def test_checkers_are_asked_without_torch():
    import subprocess

    heavy = {"torch", "transformers", "numpy"}
    code = f"import sys, llm.rewards.worker, llm.rewards.bench\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
