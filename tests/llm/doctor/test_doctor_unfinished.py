"""The doctor on runs that did not come to their end: what their last checkpoint tells."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from record_runs import unpack

from llm.adversary.ledger import AdversaryLedger
from llm.doctor.doctor import diagnose
from llm.doctor.record import read_run
from llm.run.folder import MARKER
from robust_rlhf import main


@pytest.fixture
def run(tmp_path):
    return lambda name: unpack(name, tmp_path)


def unfinished(folder):
    """The same run as its last checkpoint leaves it, and that checkpoint."""
    content = json.loads((folder / "run.json").read_text())
    checkpoint = next(folder.glob("checkpoint-*"))
    (checkpoint / "config.json").write_text(json.dumps({"architectures": ["ModernBertForSequenceClassification"]}))
    state = {"global_step": 60, "log_history": content["history"][:12]}
    (checkpoint / MARKER).write_text(json.dumps(state))
    sizes = {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 1, "world_size": 1}
    (folder / "settings.json").write_text(json.dumps(content["config"] | sizes | {"learning_rate": 2e-3}))
    (folder / "run.json").unlink()
    return folder, checkpoint


@pytest.mark.parametrize("masses", [None, 2.0])
def test_weight_by_source_is_known_of_an_unfinished_run(run, masses):
    folder, checkpoint = unfinished(run("healthy tv"))
    unknown = diagnose(read_run(folder)).unchecked["weight by source"]
    assert unknown == "nothing in the folder says which source an example is of"
    ledger = AdversaryLedger(0)
    ledger.load(checkpoint)
    rare = np.arange(len(ledger.visits)) % 10 == 0
    ledger.sources = np.where(rare, "rare", "other").tolist()
    ledger.masses = None if masses is None else np.full(len(rare), masses)
    ledger.multiplier_sum = ledger.visits * np.where(rare, 9.0, 1 / 9)
    ledger.save(checkpoint)
    (found,) = diagnose(read_run(folder)).findings
    assert found.title == "one source takes the weight"
    assert found.evidence.startswith("rare has 10% of the ")
    ledger.sources = ["other"] * len(rare)
    ledger.save(checkpoint)
    assert diagnose(read_run(folder)).unchecked["weight by source"] == "all examples are of one source"


def test_unfinished_run_is_read_from_its_last_checkpoint(run, capsys):
    folder, checkpoint = unfinished(run("healthy tv"))
    assert main(["doctor", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "unfinished" in shown
    assert "reward model" in shown
    assert "the run has not come to its end" in shown
    shutil.rmtree(checkpoint)
    assert main(["doctor", str(folder)]) == 2
    assert "before its first checkpoint" in capsys.readouterr().err
