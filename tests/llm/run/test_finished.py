"""Finished runs that were damaged afterwards, and records that are none: one sentence that says which file."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from checkpoint_runs import KINDS, command, cut, flipped, halted, place_of, same_end
from damaged_runs import HOSTILE, copy, digit, evaluate, said_by

from llm.run import sealed
from llm.run.finished import SEAL
from robust_rlhf import main


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seal_lists_what_a_run_exported_as_it_is(kind, place):
    run = place.runs / kind
    files = json.loads((run / SEAL).read_text())["files"]
    there = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    checkpoints = {name for name in there if name.startswith("checkpoint-")}
    for_people = {"model/README.md", "model/chat_template.jinja"}
    assert there - checkpoints - for_people - {SEAL} == set(files)
    for name, facts in files.items():
        content = (run / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_to_any_file_of_a_finished_run_is_named(kind, place, tmp_path, capsys, caplog):
    run = copy(place, kind, tmp_path)
    files = [name for name in json.loads((run / SEAL).read_text())["files"] if name.startswith("model/")]
    assert {"model/model.safetensors", "model/tokenizer.json", "model/config.json"} <= set(files)
    looks = [(name, evaluate(run, place)) for name in files]
    looks += [("run.json", ["doctor", run]), ("run.json", evaluate(run, place)), (SEAL, evaluate(run, place))]
    looks += [("settings.json", evaluate(run, place)), (SEAL, ["doctor", run])]
    if kind in ("sft", "policy"):
        export = ["export", run, "--to", "rewardbench", "-o", tmp_path / "export"]
        looks += [("run.json", export), ("model/model.safetensors", export)]
    for name, argv in looks:
        whole = (run / name).read_bytes()
        for damage in (flipped, cut):
            damage(run / name)
            status, said = said_by(capsys, caplog, argv)
            assert (status, said.count("\n")) == (2, 1), (name, argv[0], said)
            assert f"{run / name} " in said, (name, argv[0], said)
            (run / name).write_bytes(whole)
    assert said_by(capsys, caplog, evaluate(run, place))[0] == 0


def test_what_people_add_or_edit_is_no_damage_nor_is_a_folder_without_a_seal(place, tmp_path, capsys, caplog):
    run = copy(place, "reward", tmp_path)
    (run / "model" / "README.md").write_text("my own card")
    (run / "model" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    (run / "model" / "notes.txt").write_text("mine")
    (run / "metrics.csv").write_text("mine")
    assert said_by(capsys, caplog, evaluate(run, place)) == (0, "")
    digit(run / "run.json")
    moved = shutil.copytree(run / "model", tmp_path / "elsewhere" / "model")
    flipped(moved / "model.safetensors")
    assert said_by(capsys, caplog, evaluate(moved.rename(moved.with_name("reward")), place))[0] == 0
    (run / SEAL).unlink()
    assert said_by(capsys, caplog, evaluate(run, place)) == (0, "")
    assert "cannot" not in said_by(capsys, caplog, ["doctor", run])[1]


def test_a_finished_model_is_hashed_once_by_the_run_that_starts_from_it(place, tmp_path, monkeypatch):
    run, hashed, digest = copy(place, "reward", tmp_path), [], hashlib.file_digest

    def counted(stream, name):
        hashed.append(Path(stream.name))
        return digest(stream, name)

    monkeypatch.setattr(sealed, "_SETTLED", -1)
    monkeypatch.setattr(sealed.hashlib, "file_digest", counted)
    assert main(command(place, "reward", tmp_path / "next", model=run, max_steps=1)) == 0
    assert hashed.count(run / "model" / "model.safetensors") == 1
    with (run / "model" / "model.safetensors").open("r+b") as weights:
        weights.write(b"\0")
    before = len(hashed)
    assert main(command(place, "reward", tmp_path / "last", model=run, max_steps=1)) == 2
    assert run / "model" / "model.safetensors" in hashed[before:]  # it was touched, so it is read again


def bytes_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_a_finished_run_changes_no_byte(kind, place, tmp_path, capsys, caplog):
    run = copy(place, kind, tmp_path)
    kept = f"{run} is finished and whole: nothing is left to do, and every file stays as it is\n"
    assert said_by(capsys, caplog, command(place, kind, run, resume=True)) == (0, kept)
    assert bytes_of(run) == bytes_of(place.runs / kind)


@pytest.mark.parametrize("kind", ["dpo", "policy"])
def test_it_is_judged_on_suites_that_it_was_not_judged_on(kind, place, tmp_path, capsys):
    run, suite = copy(place, kind, tmp_path), tmp_path / "suite.jsonl"
    lines = (place.inputs / "train.jsonl").read_text().splitlines(keepends=True)
    argv = command(place, kind, run, resume=True, suites=suite)
    for judged in (lines[:4], lines[4:8]):
        suite.write_text("".join(judged))
        before = bytes_of(run)
        assert main(argv) == 0
        after, shown = bytes_of(run), capsys.readouterr().out
        assert "suite" in shown
        changed = {str(name) for name in after if after[name] != before.get(name)}
        assert {"metrics.json", "model/README.md"} <= changed
        assert not changed & {"run.json", "settings.json", "model/model.safetensors"}
        assert main(argv) == 0
        assert bytes_of(run) == after
        assert capsys.readouterr().out == shown


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_a_damaged_finished_run_writes_it_again(kind, place, tmp_path):
    run = copy(place, kind, tmp_path)
    flipped(run / "model" / "model.safetensors")
    digit(run / "run.json")
    assert main(command(place, kind, run, resume=True)) == 0
    assert same_end(run, place.runs / kind)
    ours, before = (json.loads((folder / SEAL).read_text())["files"] for folder in (run, place.runs / kind))
    assert ours.keys() == before.keys()
    assert ours["model/model.safetensors"] == before["model/model.safetensors"]


def test_metrics_written_over_those_of_a_run_are_listed_anew(place, tmp_path, capsys, caplog):
    run = copy(place, "reward", tmp_path)
    for pairs in ("4", "5"):
        judged = [*evaluate(run, place), "--output", run]
        judged[judged.index("--eval-pairs") + 1] = pairs
        assert said_by(capsys, caplog, judged) == (0, "")
        assert "cannot" not in said_by(capsys, caplog, ["doctor", run])[1]
    whole = (run / "metrics.json").read_text()
    digit(run / "metrics.json")
    status, said = said_by(capsys, caplog, ["doctor", run])
    assert (status, said.startswith(f"robust-rlhf: {run / 'metrics.json'} ")) == (2, True)
    (run / "metrics.json").write_text(whole)
    flipped(run / SEAL)
    status, said = said_by(capsys, caplog, [*evaluate(place.runs / "reward", place), "--output", run])
    assert (status, str(run / SEAL) in said) == (2, True)


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_a_resumed_run_that_ends_before_its_export_is_not_damaged(kind, place, tmp_path, capsys, caplog, monkeypatch):
    run = copy(place, kind, tmp_path)
    before = (run / "settings.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("llm.training.frame.save_run", lambda *_: (_ for _ in ()).throw(OSError("power failure")))
        assert main(command(place, kind, run, resume=True, force=True, weight_decay=0.5)) == 2
    assert (run / "settings.json").read_bytes() != before
    assert said_by(capsys, caplog, evaluate(run, place)) == (0, "")


def test_two_writes_within_one_tick_of_the_clock_are_told_apart(tmp_path, monkeypatch):
    state = sealed._state

    def ticks(descriptor):  # of a clock of seconds
        return *state(descriptor)[:3], *(moment - moment % 10**9 for moment in state(descriptor)[3:])

    monkeypatch.setattr(sealed, "_state", ticks)
    file = tmp_path / "file"
    for turn in range(30):
        content = b"%03d" % turn
        file.write_bytes(content)
        assert sealed.file_hash(file) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_record_that_is_none_is_named_by_whoever_reads_it(content, place, tmp_path, capsys, caplog):
    sft, unfinished = copy(place, "sft", tmp_path, sealed=False), halted(place, "reward", tmp_path / "unfinished")
    (sft / "metrics.json").write_text("{}")
    export = ["export", sft, "--to", "rewardbench", "-o", tmp_path / "export"]
    resume = command(place, "reward", unfinished, resume=True)
    state = unfinished / "checkpoint-2" / "trainer_state.json"
    rows = [
        (sft / "run.json", ["doctor", sft], 2),
        (sft / "run.json", export, 2),
        (sft / "run.json", evaluate(sft, place), 0),  # whose model is whole: a warning
        (sft / "metrics.json", ["doctor", sft], 2),
        (unfinished / "settings.json", resume, 2),
        (state, ["doctor", unfinished], 2),
        (unfinished / "checkpoint-2" / "ledger.npz", ["doctor", unfinished], 2),
        (state, resume, 2),
    ]
    if content not in (b"{}", b'{"a": 1}', HOSTILE["other kinds"]):  # whose entries may all be missing
        rows.append((unfinished / "settings.json", ["doctor", unfinished], 2))
    for file, argv, expected in rows:
        whole = file.read_bytes()
        file.write_bytes(content)
        status, said = said_by(capsys, caplog, argv)
        assert (status, said.count("\n")) == (expected, 1), (file, argv[0], said)
        assert str(file) in said, (file, argv[0], said)
        file.write_bytes(whole)
