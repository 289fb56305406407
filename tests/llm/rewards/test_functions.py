"""Functions that score answers: what they are given, as TRL gives it, and what they do instead of scoring."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from asking import FILE, SAYS, function, prompts, scorer

from llm.data.prompts import Prompt, read_prompts
from llm.rewards import bench
from llm.rewards.bench import BadScores
from llm.rewards.names import RewardError, reads_of

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
    "of_numpy_scalars": [0.5, 1, 1, 1], "prints": [1] * 4, "moves": [1] * 4,
    "of_torch": pytest.param("of_torch", [1] * 4, marks=pytest.mark.exhaustive),  # loads torch once more
}  # fmt: skip


@pytest.mark.parametrize(("name", "scores"), [s if isinstance(s, tuple) else (n, s) for n, s in FORMS.items()])
def test_scores_are_read_in_every_form(name, scores):
    subject = scorer(function(name))
    for _ in range(2):  # what it did to its process hinders no later batch
        np.testing.assert_array_equal(subject(prompts(2), ["a"] * 4), scores)


def test_a_fork_that_comes_back_answers_nothing():
    """Each batch has answers of its own: none is answered by what a fork said of an earlier one."""
    subject = scorer(function("forks"))
    for size in range(1, 6):
        answers = ["a" * size] * 2 * size
        assert subject(prompts(size), answers).tolist() == [size] * 2 * size


def test_an_interrupted_batch_is_not_answered_later(monkeypatch):
    subject = scorer(function("half"))
    with monkeypatch.context() as patch:
        patch.setattr(bench.Bench, "_receive", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            subject(prompts(1), ["a", "b"])
    assert scorer(function("half"))(prompts(2), ["a"] * 4).tolist() == [0.5] * 4


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


def test_a_function_whose_file_changed_is_loaded_again(tmp_path):
    file = tmp_path / "checks.py"
    for value in (0.25, 0.75):
        file.write_text(f"def f(completions):\n    return [{value}] * len(completions)\n")
        assert scorer(f"{file}:f")(prompts(1), ["a", "b"]).tolist() == [value, value]


def test_checkers_are_asked_without_torch():
    heavy = {"torch", "transformers", "numpy"}
    code = f"import sys, llm.rewards.worker, llm.rewards.bench\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
