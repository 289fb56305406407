"""Pipelines whose gold is a checker or a function: refused where it cannot check, and part of what was made."""

from __future__ import annotations

import json

import pytest
from test_pipeline import section, write
from whole_runs import wrong

from llm.pipeline.plan import read_pipeline
from llm.pipeline.run import State, state_of
from llm.training.config import ConfigError
from robust_rlhf import main

GOLDS = {
    "a checker": ("exact", "no `answer`"),
    "a function": ("{folder}/checks.py:f", "no `answer`"),
}


@pytest.mark.parametrize("kind", GOLDS)
def test_prompts_that_gold_cannot_check_are_refused_before_anything_is_trained(kind, tmp_path, capsys):
    (tmp_path / "checks.py").write_text("def f(completions, answer):\n    return [1.0] * len(answer)\n")
    gold, said = GOLDS[kind]
    files = section(write(tmp_path), "evaluation", gold=gold.format(folder=tmp_path))
    path = write(tmp_path, evaluation=files)
    assert f"the training set: 47 of 47 have {said}" in wrong(capsys, "pipeline", "--config", str(path))
    assert not list(tmp_path.rglob("model"))


def test_a_function_judges_a_pipeline_and_its_file_is_part_of_it(tmp_path, capsys):
    checks = tmp_path / "checks.py"
    checks.write_text("def f(completions, source):\n    return [len(str(c)) % 2 for c in completions]\n")
    files = section(write(tmp_path), "evaluation", gold=f"{checks}:f", best_of=4)
    path = write(tmp_path, arms=["standard/standard"], evaluation=files)
    assert main(["pipeline", "--config", str(path)]) == 0
    scores = json.loads((tmp_path / "run" / "best_of" / "train" / "gold.json").read_text())
    rows = next(value for value in scores.values() if isinstance(value, list))
    assert {score for row in rows for score in row} <= {0, 1}
    stage = read_pipeline(path).stages()[-1]
    assert state_of(stage) is State.DONE
    checks.write_text(checks.read_text() + "# another\n")
    with pytest.raises(ConfigError, match=r"was made from another gold \(its content changed\)"):
        state_of(stage)
