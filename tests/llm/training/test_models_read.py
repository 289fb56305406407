"""The content of every model that a run names: what counts of it, and how often it is read."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from forked import finished, start_ranks
from resumed_runs import READ, command, models_of, read_by, touch

from llm.models import contents as reading
from llm.models.contents import content_of, contents, digest
from llm.policy.config import PolicyConfig
from llm.run import resumption
from llm.training.config import DPOConfig, RewardConfig, SFTConfig
from llm.training.identity import identity
from llm.training.settings import parse_train
from robust_rlhf import main

KINDS = {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig, "policy": PolicyConfig}


@pytest.fixture
def place(once, tmp_path):
    return shutil.copytree(models_of(once), tmp_path / "in")


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("sft", {"model"}),
        ("reward", {"model", "base of model"}),
        ("dpo", {"model", "reference_model"}),
        ("policy", {"model", "reward_model", "gold", "reference_model", "base of reference_model"}),
    ],
)
def test_the_content_of_every_model_that_a_run_names_is_noted(kind, read, place):
    config, arguments = parse_train(KINDS[kind], command(kind, place, place / "run", **read_by(kind, place))[2:])
    found = identity(config, arguments, {"train": {"sha256": "x"}})
    told = {name.removeprefix("content of "): value for name, value in found.items() if name.startswith("content of ")}
    assert told.keys() == read
    for role in read:
        folder = READ[kind][role.removeprefix("base of ")]
        assert told[role] == digest(place / (folder.replace("adapter", "base") if role.startswith("base") else folder))


def test_the_card_of_a_model_is_no_part_of_it_and_its_words_and_code_are(place):
    folder = place / "start"
    found = {digest(folder)}
    (folder / "README.md").write_text("judged")
    assert {digest(folder)} == found
    for name in ("vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja", "modeling_mine.py"):
        (folder / name).write_text("other")
        found.add(digest(folder))
    assert len(found) == 6


def test_a_run_folder_and_the_file_of_a_function_count_by_what_is_used(place, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(place / "start", run / "model")
    (run / "settings.json").write_text("{}")
    before = content_of(str(run))
    (run / "settings.json").write_text('{"other": 1}')
    assert content_of(str(run)) == before == digest(place / "start")
    touch(run / "model" / "model.safetensors")
    assert content_of(str(run)) != before
    code = tmp_path / "judge.py"
    code.write_text("def score(prompt, answer): return 1.0")
    before = content_of(f"{code}:score")
    assert content_of(str(code)) == before
    code.write_text("def score(prompt, answer): return 2.0")
    assert content_of(f"{code}:score") != before


def test_each_place_is_read_once_and_large_ones_are_named(place, monkeypatch, caplog):
    read = []
    monkeypatch.setattr(reading, "digest", lambda path: read.append(path.name) or digest(path))
    names = {
        "model": str(place / "start"),
        "reference_model": str(place / "start"),
        "gold": str(place / "reward-adapter"),
    }
    with caplog.at_level(logging.INFO, logger="llm.models.contents"):
        found = contents({**names, "reward_model": None})
        assert not caplog.records
        monkeypatch.setattr(reading, "_LARGE", 0)
        contents(names)
    assert list(found) == ["model", "reference_model", "gold", "base of gold"]
    assert sorted(read[:3]) == ["reward-adapter", "reward-base", "start"]
    assert len(read) == 6
    (said,) = [record.getMessage() for record in caplog.records]
    assert "GB once for the hashes of model, reference_model, gold, base of gold" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_hashes_nothing(kind, place, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "digest", lambda path: pytest.fail(f"{path} is hashed"))
    assert main([*command(kind, place, tmp_path / "run", **read_by(kind, place)), "--dry_run"]) == 0


def counted(log, argv):
    """Train; every digest leaves a line in ``log``."""
    import os

    def noting(path):
        with Path(log).open("a") as stream:
            stream.write(f"{os.environ['RANK']} {path.name}\n")
        return digest(path)

    reading.digest = noting
    return main(argv)


def test_one_process_hashes_for_all(place, tmp_path):
    read = {"model": place / "start", "reference_model": place / "reference"}
    argv = command("dpo", place, tmp_path / "run", dataloader_drop_last="true", per_device_train_batch_size=4, **read)
    finished(start_ranks(counted, str(tmp_path / "log"), argv))
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "0", "reference", "start"]
    assert resumption.other_versions(tmp_path / "run" / "settings.json") == []
