"""A diagnosis as it shows itself: on a terminal, printed, in a notebook, as a table."""

from __future__ import annotations

import json

import pytest
from record_runs import unpack

from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run
from robust_rlhf import main


@pytest.fixture
def run(tmp_path):
    return lambda name: unpack(name, tmp_path)


def test_a_run_of_few_logged_losses_is_not_called_sound(run, capsys):
    """No check for learning ran, which every way of showing the diagnosis says."""
    folder = run("healthy erm")
    content = json.loads((folder / "run.json").read_text())
    content["history"] = [row for row in content["history"] if "mean_loss" in row][:4]
    (folder / "run.json").write_text(json.dumps(content))
    diagnosis = diagnose(read_run(folder))
    assert main(["doctor", str(folder)]) == 0
    for shown in (capsys.readouterr().out, str(diagnosis), diagnosis._repr_html_()):
        assert "nothing found, but the checks for learning did not run: fewer than 8 losses" in shown
    table = diagnosis.table.set_index("title")
    assert table.loc["a loss below that of a coin", ["severity", "evidence"]].tolist() == [
        "not checked", "fewer than 8 losses were logged: lower logging_steps"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["healthy tv", "large radius"])
def test_a_diagnosis_prints_as_the_command_does(run, name, capsys):
    folder = run(name)
    main(["doctor", str(folder)])
    assert repr(diagnose(read_run(folder))) == capsys.readouterr().out.rstrip()
