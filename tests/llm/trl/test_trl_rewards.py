"""Checkers as reward functions of TRL: through TRL's own method, against what a policy run of ours gets from them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from accelerate import Accelerator
from trl import GRPOTrainer

from llm.data.prompts import Prompt
from llm.rewards.names import RewardError
from llm.rewards.scorer import load_scorer
from llm.trl import reward_function

ANSWERS = ["the sum is 5", "4", "it is 12.0", "12"]
ROWS = [{"prompt": "2 + 2?", "answer": "4"}] * 2 + [{"prompt": "3 * 4?", "answer": "12"}] * 2


def by_trl(functions, weights=None):
    names = [function.__name__ for function in functions]
    stub = SimpleNamespace(
        accelerator=Accelerator(cpu=True), reward_funcs=functions, reward_processing_classes=[None] * len(functions),
        reward_func_names=names, environments=None, state=SimpleNamespace(global_step=0), _log_completion_extra=None,
        _log_metric=None, args=SimpleNamespace(report_to=[]), reward_weights=weights,
    )  # fmt: skip
    prompts = [row["prompt"] for row in ROWS]
    found = GRPOTrainer._calculate_rewards(stub, [dict(row) for row in ROWS], prompts, ANSWERS, [[1]] * len(ROWS))
    return found.double().cpu().numpy()


def test_checkers_say_to_trl_what_they_say_to_a_policy_run():
    found = by_trl([reward_function("number"), reward_function("exact"), reward_function("regex:^it")])
    prompts = [
        Prompt(str(row), ({"role": "user", "content": said["prompt"]},), answer=said["answer"])
        for row, said in enumerate(ROWS)
    ]
    for place, name in enumerate(("number", "exact", "regex:^it")):
        ours = load_scorer(name, batch_size=1, device="cpu")(prompts, ANSWERS)
        np.testing.assert_array_equal(found[:, place], ours)
    np.testing.assert_array_equal(found, [[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]])


@pytest.mark.parametrize("name", ["builtin", "some/model", "number:0.5", "checks.py"])
def test_other_names_are_refused(name):
    with pytest.raises(RewardError):
        reward_function(name)


def test_its_name_is_that_of_the_checker():
    assert reward_function("number?tolerance=0.1").__name__ == "number"
