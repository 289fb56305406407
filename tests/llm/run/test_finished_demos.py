"""Demos that were damaged afterwards are made again or refused, in one sentence that says which file."""

from __future__ import annotations

import json
import shutil

import pytest
from checkpoint_runs import cut, flipped
from damaged_runs import HOSTILE, demo, digit, said_by

from llm.data.corpus.corpus import write_corpus
from llm.sweep import demo as demos
from robust_rlhf import main


@pytest.fixture(scope="module")
def done(once):
    return once("finished-demo", lambda folder: main(list(map(str, demo(folder / "demo")))))


@pytest.mark.exhaustive
@pytest.mark.slow("a demo is begun again ten times")
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


@pytest.mark.exhaustive(turns=8)
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


EARLIER = {  # as the version before the demo had a results folder wrote it
    "changed on the way": [],
    "data": None,
    "kind": "reward",
    "model": "tiny",
    "seeds": 1,
    "ambiguity": ["erm"],
    "max_pairs": 32,
    "eval_pairs": 8,
    "settings": {"max_steps": 1, "use_cpu": True, "max_length": 48, "disable_tqdm": True},
    "files": {},
    "content of the built-in corpus": {
        "id_test.jsonl": "c9d548320a8356091205120eca8a64a75019a43498a16e6563d14a640fe91527",
        "ood_reversed_length.jsonl": "868ab8be0350a4bf2f582b330ede94d8fa8c06308cb85568ad2ddf7bfd8154e5",
        "ood_shifted_mixture.jsonl": "6e2ef7ff8e0d8fa9974fb0fc943c52e18e20b9e4d333438ae4af914850061a3f",
        "train.jsonl": "a7f1232a89d5b43f0fb6deaa82562bdbc3869252794f7ae3ba96afcf7c99d8db",
    },
    "may be missing elsewhere": ["content of the built-in corpus"],
    "environment": {},
    "other versions": [],
    "checkpoints have a manifest after step": 0,
}


@pytest.mark.exhaustive(turns=8)
def test_a_demo_of_the_version_before_goes_on_with_one_sentence(done, tmp_path, capsys, caplog):
    folder = shutil.copytree(done / "demo", tmp_path / "demo")
    for left in ("results", "report_files"):
        shutil.rmtree(folder / left)
    (folder / "settings.json").write_text(json.dumps(EARLIER))
    (folder / "report.html").write_text("the page before")
    (folder / "report.json").write_text('{"format": 1}')
    model = folder / "runs" / "erm" / "seed-0" / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    status, said = said_by(capsys, caplog, demo(folder, "--resume"))
    assert (status, said.count("\n")) == (0, 1)
    assert f"{folder}/report.json was of an earlier version" in said
    assert not (folder / "report.json").exists()
    assert json.loads((folder / "report_files" / "report.json").read_text())["runs"] == 1
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert model.stat().st_mtime_ns == before
    assert said_by(capsys, caplog, demo(folder, "--resume")) == (0, "")


@pytest.mark.slow("a demo")
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_settings_of_a_demo_that_are_none_are_named_with_a_remedy_that_exists(content, done, tmp_path, capsys, caplog):
    folder = shutil.copytree(done / "demo", tmp_path / "demo")
    (folder / "settings.json").write_bytes(content)
    status, said = said_by(capsys, caplog, demo(folder, "--resume"))
    assert (status, said.count("\n")) == (2, 1)
    assert str(folder / "settings.json") in said or "holds files and no run of ours" in said
    assert "--force" not in said
