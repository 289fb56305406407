"""Places that cannot be written to, and words that are typed: one sentence each, which obeys nothing."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from checkpoint_runs import KINDS, command, place_of
from damaged_runs import demo, said_by
from forked import Forked

from dro_core.messages import check_folder
from robust_rlhf import COMMANDS


@pytest.fixture(scope="module")
def place(once):
    return place_of(once)


def writers(place, tmp_path, output):
    pairs, config = place.inputs / "train.jsonl", tmp_path / "rlhf.yaml"
    stages = {
        "reward": {"recipe": "reward-tiny"},
        "policy": {"recipe": "policy-tiny", "model": str(place.inputs / "start")},
    }
    config.write_text(json.dumps({"output_dir": str(output), "train_file": str(pairs), **stages}))
    return {
        **{f"train {kind}": command(place, kind, output) for kind in KINDS},
        "demo": demo(output),
        "pipeline": ["pipeline", "--config", config],
        "sweep": ["sweep", "--config", "heads", "--output", output],
        "evaluate": ["evaluate", place.runs / "reward", "--suite", pairs, "--output", output],
        "export": ["export", place.runs / "reward", "--to", "rewardbench", "-o", output],
        "report": ["report", tmp_path, "-o", output / "page.html"],
        "data builtin": ["data", "builtin", output],
        "data convert": ["data", "convert", pairs, output / "pairs.jsonl"],
        "simulate": ["simulate", "bias", "--output", output],
        "verify": ["verify", "--json", output / "verdicts.json"],
    }


@pytest.mark.parametrize("what", ["a file", "below a file", "no permission"])
def test_a_place_that_cannot_be_written_to_gets_one_sentence(what, place, tmp_path, capsys, caplog, monkeypatch):
    (tmp_path / "file").write_text("mine")
    output = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "sub"}.get(what, tmp_path / "closed")
    if what == "no permission":
        output.mkdir()
        monkeypatch.setattr("dro_core.messages._writable", lambda folder: folder != output)
    for name, argv in writers(place, tmp_path, output).items():
        status, said = said_by(capsys, caplog, argv)
        assert (status, said.count("\n")) == (2, 1), (name, said)
        assert "Errno" not in said, (name, said)
        assert str(tmp_path / ("closed" if what == "no permission" else "file")) in said, (name, said)
        assert any(text in said for text in ("is a file", "existing folder", "no permission")), (name, said)
    assert (tmp_path / "file").read_text() == "mine"


def without_rights(folder):
    os.setuid(65534)
    for place in (folder / "closed", folder / "closed" / "sub" / "run", folder / "open"):
        try:
            check_folder(place)
        except PermissionError:
            print("refused", place.relative_to(folder), flush=True)  # noqa: T201


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_whoever_has_no_rights_is_told_before():
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        folder = Path(place)
        folder.chmod(0o755)
        for name, mode in (("closed", 0o755), ("open", 0o777)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        said = Forked(without_rights, folder).communicate(60)[0]
    assert said.split() == ["refused", "closed", "refused", "closed/sub/run"]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_typed_is_shown_and_never_obeyed(name, capsys, caplog):
    evil = "\x1b[2J\u202eevil\u2066\x9b"
    rows = {
        "train": [["reward", f"--{evil}", "1"], ["reward", "--config", evil], [evil]],
        "data": [["show", evil], [evil]],
        "models": [["fetch", evil]],
        "doctor": [[evil], [".", f"--{evil}"]],
        "evaluate": [[".", "--suite", ".", f"--{evil}"]],
        "export": [[".", "--to", "lm-eval", "-o", "x", f"--{evil}"]],
        "report": [[".", f"--{evil}"]],
        "sweep": [["--config", "heads", f"--{evil}"]],
        "pipeline": [["--config", "x", f"--{evil}"], ["--config", evil]],
        "verify": [[evil], ["--json", f"{evil}/x/y"]],
        "simulate": [[evil], ["bias", "--ambiguity", evil]],
    }
    for argv in [[f"--{evil}"], *rows.get(name, [])]:
        status, said = said_by(capsys, caplog, [name, *argv])
        assert status == 2, (argv, said)
        assert not set(said) & set(evil.removesuffix("evil")) - set("[2J evil"), (argv, said)
    status, said = said_by(capsys, caplog, [evil])
    assert (status, "\x1b" in said, "unknown command" in said) == (2, False, True)
