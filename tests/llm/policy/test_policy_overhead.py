"""The benchmark of a policy step: what it times, and that it compares like with like."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from bigram import bigram, trainer
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from policy_overhead import UNTIMED, Contestant, race, table_of

from llm.policy import experience

REWARDS = np.arange(8.0).reshape(4, 2)


def contestant(ambiguity, folder, *, learning_rate=0.0):
    model, told = bigram(4, 2, np.zeros((4, 2))), {"learning_rate": learning_rate}
    subject = trainer(model, REWARDS, folder, actions=2, samples=3, ambiguity=ambiguity, arguments=told)
    return Contestant(ambiguity, subject)


def test_parts_of_a_step_are_timed_and_the_steps_are_the_same(tmp_path):
    solve = experience.prompt_multipliers
    both = [contestant("erm", tmp_path), contestant("tv:0.25", tmp_path)]
    race(both, steps=3)
    assert experience.prompt_multipliers is solve
    for one in both:
        assert len(one.whole) == len(one.adversary) == len(one.update) == UNTIMED + 3 == one.trainer.step
        assert all(a + u < w for a, u, w in zip(one.adversary, one.update, one.whole, strict=True))
    assert (both[0].left_out, both[1].left_out) == ([0.0] * 5, [0.25] * 5)
    console = Console(width=120, record=True)
    console.print(table_of(both, steps=3))
    assert "tv:0.25" in (said := console.export_text())
    assert "1.000 [1.000, 1.000]" in said


def test_contestants_that_drift_apart_are_not_compared(tmp_path):
    moving = contestant("erm", tmp_path, learning_rate=100.0)
    with pytest.raises(SystemExit, match="wrote different answers"):
        race([contestant("erm", tmp_path), moving], steps=3)
