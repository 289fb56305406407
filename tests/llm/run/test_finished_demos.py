"""Demos that were damaged afterwards are made again or refused, in one sentence that says which file."""

from __future__ import annotations

import json
import shutil

import pytest
from damaged_runs import HOSTILE, demo, digit, said_by
from test_checkpoints import cut, flipped

from llm.data.corpus.corpus import write_corpus
from llm.demo import demo as demos
from robust_rlhf import main


@pytest.fixture(scope="module")
def done(once):
    return once("finished-demo", lambda folder: main(list(map(str, demo(folder / "demo")))))


def test_a_demo_names_what_was_damaged_and_makes_it_again(done, tmp_path, capsys, caplog):
    shutil.copytree(done / "demo", tmp_path / "demo")
    run = tmp_path / "demo" / "runs" / "erm" / "seed-0"
    damages = {"model/model.safetensors": flipped, "metrics.json": digit, "run.json": digit, "margins.npz": flipped,
               "metrics.csv": cut}  # fmt: skip
    for name, damage in damages.items():
        whole = (run / name).read_bytes()
        damage(run / name)
        status, said = said_by(capsys, caplog, demo(tmp_path / "demo", "--resume"))
        assert status == 0
        assert f"is exported and judged again: what it left is damaged ({run / name} " in said
        assert name in ("run.json", "margins.npz") or (run / name).read_bytes() == whole
        assert said_by(capsys, caplog, demo(tmp_path / "demo", "--resume")) == (0, "")


def test_a_demo_of_another_corpus_is_refused_and_a_damaged_one_is_made_again(
    done, tmp_path, capsys, caplog, monkeypatch
):
    folder = shutil.copytree(done / "demo", tmp_path / "demo")
    train = folder / "data" / "train.jsonl"
    whole = train.read_bytes()
    flipped(train)
    status, said = said_by(capsys, caplog, demo(folder, "--resume"))
    assert (status, f"{folder}/data is made again" in said) == (0, True)
    assert train.read_bytes() == whole
    with monkeypatch.context() as patch:
        patch.setattr(demos, "write_corpus", lambda place: write_corpus(place, seed=1))
        status, said = said_by(capsys, caplog, demo(folder, "--resume"))
        assert status == 2
        assert "another content of the built-in corpus: " in said
        assert "--force" not in said  # which a demo does not have
    settings = json.loads((folder / "settings.json").read_text())
    del settings["content of the built-in corpus"]  # as versions before left it
    (folder / "settings.json").write_text(json.dumps(settings))
    assert said_by(capsys, caplog, demo(folder, "--resume")) == (0, "")


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_settings_of_a_demo_that_are_none_are_named_with_a_remedy_that_exists(content, done, tmp_path, capsys, caplog):
    folder = shutil.copytree(done / "demo", tmp_path / "demo")
    (folder / "settings.json").write_bytes(content)
    status, said = said_by(capsys, caplog, demo(folder, "--resume"))
    assert (status, said.count("\n")) == (2, 1)
    assert str(folder / "settings.json") in said or "holds files and no run of ours" in said
    assert "--force" not in said
