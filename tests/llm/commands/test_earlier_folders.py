"""What was written before the modules were put into rooms is read as it was: records, notes, cards, sweeps, replays.

``recorded_folders.json.gz`` holds the texts of four finished runs (two steps from scratch), a sweep of two heads and a
replay file, as the commands below left them; weights are not among them.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest
from command_lines import flags

import llm
from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.doctor.record import read_run
from llm.kinds.registry import config_of
from llm.models.card import model_card
from llm.run.kinds import kind_of
from llm.run.resumption import differences
from llm.training.identity import identity
from llm.training.settings import parse_train
from robust_rlhf import main

FILE = Path(__file__).parents[1] / "recorded_folders.json.gz"
KINDS = ["sft", "reward", "dpo", "policy"]
SHORT = {"max_length": 48, "ambiguity": "tv:0.5", "plain_share": 0, "ramp_share": 0, "use_cpu": "true",
         "disable_tqdm": "true", "logging_steps": 1}  # fmt: skip
PAIRS = SHORT | {"model": "tiny", "max_steps": 2, "per_device_train_batch_size": 8}
POLICY = SHORT | {"model": "sft", "reward_model": "builtin", "max_length": 96, "max_steps": 1, "prompts_per_step": 4,
                  "samples": 2}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    stored = json.loads(gzip.decompress(FILE.read_bytes()))
    for name, text in stored["text"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for name, content in stored["binary"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(base64.b64decode(content))
    write_pairs(generate(24, seed=3), folder / "train.jsonl")
    return folder


def record(place, kind):
    return json.loads((place / kind / "run.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_of_the_kind_it_was(place, kind, capsys):
    assert record(place, kind)["kind"] != kind  # by a title then
    run = llm.Run(place / kind)
    assert run.kind == kind == read_run(place / kind).kind
    assert run.ambiguity == run.config.ambiguity == "tv:0.5"
    assert len(run.table) >= 1
    assert main(["doctor", str(place / kind)]) in (0, 1)
    assert kind_of(kind).trained in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_its_card_is_written_as_it_was(place, kind):
    metrics = json.loads((place / kind / "metrics.json").read_text())["suites"]
    card = model_card(record(place, kind), metrics)
    assert card == (place / kind / "model" / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_is_the_same_run(place, kind, monkeypatch):
    """What a run notes of itself: a checkpoint of then is continued without a word about settings."""
    monkeypatch.chdir(place)
    noted = json.loads((place / kind / "settings.json").read_text())
    told = {"config": f"{kind}-tiny", "train_file": "train.jsonl", "output_dir": kind}
    told |= POLICY if kind == "policy" else PAIRS
    config, arguments = parse_train(config_of(kind), flags(told))
    monkeypatch.setattr("llm.training.identity.contents", lambda names: {})  # there are no weights here
    now = identity(config, arguments, {"train": {"sha256": noted["sha256 of the train file"]}})
    then = {name: value for name, value in noted.items() if not name.startswith(("content of", "base of"))}
    assert differences(then, json.loads(json.dumps(now)))[0] == []


@pytest.mark.slow("it trains what is missing")
def test_a_sweep_becomes_a_report_and_goes_on(place, tmp_path, capsys):
    page = llm.write_report(place / "sweep", tmp_path / "report.html")
    numbers = json.loads((tmp_path / "report_files" / "report.json").read_text())
    assert {arm["ambiguity"] for arm in numbers["arms"]} == {"erm", "tv:0.4"}
    assert not [note for note in numbers["notes"] if "damaged" in note]
    assert page.exists()


def test_a_replay_file_is_replayed(place, capsys):
    assert main(["verify", "--replay", str(place / "replay.json")]) == 0
    assert "tv-bias-split" in capsys.readouterr().out
