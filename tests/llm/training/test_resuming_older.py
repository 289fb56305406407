"""Runs of older versions, and under other versions of libraries, go on; what they lack is said once."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version

import pytest
from resumed_runs import command, models_of, touch

from llm.run.resumption import ENVIRONMENT, FORCED, OPTIONAL, SESSIONS, differences
from llm.training.config import SFTConfig
from robust_rlhf import main


@pytest.fixture
def place(once, tmp_path):
    return shutil.copytree(models_of(once), tmp_path / "in")


def finished_run(place, tmp_path):
    run = tmp_path / "run"
    argv = command("sft", place, run, model=place / "start", weight_decay=0.1)
    assert main(argv) == 0
    return run, argv


def test_other_versions_are_named_and_not_refused(place, tmp_path, caplog):
    run, argv = finished_run(place, tmp_path)
    notes = json.loads((run / "settings.json").read_text())
    assert notes[ENVIRONMENT]["torch"] == version("torch")
    notes[ENVIRONMENT] |= {"torch": "2.1.0", "accelerate": "0.9"}
    (run / "settings.json").write_text(json.dumps(notes))
    assert main([*argv, "--resume"]) == 0
    said = caplog.text
    change = f"started with torch 2.1.0, resumed with {version('torch')}"
    assert change in said
    assert "started with accelerate 0.9" in said
    assert change in json.loads((run / "run.json").read_text())["other_versions"]
    assert "| other versions | started with accelerate 0.9, resumed with" in (run / "model" / "README.md").read_text()
    assert main([*argv, "--resume"]) == 0
    again = json.loads((run / "settings.json").read_text())
    assert again[ENVIRONMENT]["torch"] == "2.1.0"  # what it started with
    assert len(again[SESSIONS]) == 2


# What the first version noted, beside its settings and hashes of the data.
FIRST = [
    "seed", "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "world_size", "lr_scheduler_type", "weight_decay", "max_grad_norm", "bf16", "fp16",
    "warmup_steps", "lr_scheduler_kwargs", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon",
    "data_seed", "dataloader_drop_last",
]  # fmt: skip


def test_a_folder_of_an_older_version_goes_on_and_what_it_lacks_is_said_once(place, tmp_path, capsys, caplog):
    run, argv = finished_run(place, tmp_path)
    notes = json.loads((run / "settings.json").read_text())
    ours = SFTConfig.__dataclass_fields__
    old = {name: value for name, value in notes.items() if name in ours or name in FIRST or "sha256" in name}
    (run / "settings.json").write_text(json.dumps({**old, FORCED: []}))
    assert main([*argv, "--resume", "--weight_decay", "0.2"]) == 2  # what it did note still counts
    assert "another weight_decay: " in capsys.readouterr().err
    assert main([*argv, "--resume"]) == 0
    assert caplog.text.count("older version, which did not note content of model and ") == 1
    for file in ("run.json", "model/README.md"):  # who has no log of that session learns it there
        assert (run / file).read_text().count("started by an older version, which did not note content of model") == 1
    caplog.clear()
    assert main([*argv, "--resume"]) == 0
    assert "older version" not in caplog.text
    touch(place / "start" / "model.safetensors")
    assert main([*argv, "--resume"]) == 2


def notes(optional=(), **entries):
    return {**entries, OPTIONAL: list(optional)}


@pytest.mark.parametrize(
    ("found", "wanted", "changed"),
    [
        (notes(a=1), notes(a=2), ["a"]),
        (notes(a=1), notes(), ["a"]),
        (notes(), notes(a=1), ["a"]),
        (notes(["a"], a=1), notes(), []),
        (notes(), notes(["a"], a=1), []),
        (notes(["a"], a=1), notes(["a"], a=2), ["a"]),  # the library's default is another now
        (notes(a=None), notes(a=False), []),
        (notes(a=[]), notes(a=None), []),
        (notes(a=0), notes(a=None), ["a"]),
        (notes(a=0), notes(a=1), ["a"]),
        ({"a": 1}, notes(a=1, b=2), []),
        ({"a": 1, "b": 3}, notes(a=1), []),
        ({"a": 1}, notes(a=1, **{"sha256 of the eval file": "x"}), ["sha256 of the eval file"]),
    ],
)
def test_notes_are_compared_both_ways(found, wanted, changed):
    assert differences(found, wanted).changed == changed
    if OPTIONAL in found:
        assert differences(wanted, found).changed == changed
