"""`make gpu` goes on where it was ended: what it keeps, what it tries again, and what it refuses to mix."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import gpu_page
import run
from gpu_samples import HERE, PATIENT, ROOT, alive, started, tempered


@pytest.fixture
def stages(tmp_path, monkeypatch):
    return tempered(tmp_path, monkeypatch)


def test_resuming_runs_what_is_missing(stages):
    first = started(stages, "--stages", "good", "fails", "needy")
    assert first["stages"]["fails"]["status"] == "failed"
    (stages / "temper_fails.py").write_text("def measure(setting, say):\n    say({'b': setting.has(a=1)})\n")
    (stages / "temper_good.py").write_text(PATIENT["fails"])
    again = started(stages, "--resume", "--stages", "good", "fails", "needy")["stages"]
    assert again["good"] == first["stages"]["good"]
    assert again["fails"]["status"] == "done"
    assert again["fails"]["records"] == [{"a": 1}, {"b": True}]
    assert again["fails"]["seconds"] >= first["stages"]["fails"]["seconds"]


def test_parts_that_failed_are_named_and_tried_again_when_asked_for(stages, capsys):
    (stages / "temper_good.py").write_text("def measure(setting, say):\n    say({'a': 1})\n    say({'failed': 'x'})\n")
    options = ["--json", str(stages / "gpu.json"), "--carried", str(stages / "none")]
    assert run.main([*options, "--stages", "good"]) == 0
    assert "good: 1 of its results failed: --resume --stages good tries them again" in capsys.readouterr().err
    (stages / "temper_good.py").write_text("def measure(setting, say):\n    say({'b': setting.has(a=1)})\n")
    assert run.main([*options, "--resume", "--stages", "good", "parts"]) == 0
    assert json.loads((stages / "gpu.json").read_text())["stages"]["good"]["records"] == [{"a": 1}, {"b": True}]


PROGRAM = """
import sys; sys.path[:0] = {paths}
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in a shell's background ignores interrupts
import children, run
children.LOOK, run.STAGES = 0.1, (run.Stage("parts", "temper_parts", 60.0),)
run.about = lambda env, carried: {here}
sys.exit(run.main(["--json", "{folder}/gpu.json", "--carried", "{folder}/none"]))
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive)]
)
def test_what_ends_a_run_costs_only_what_was_being_measured(stages, number):
    (stages / "stuck").touch()
    path, paths = stages / "gpu.json", [str(ROOT / "benchmarks/gpu"), str(ROOT / "benchmarks")]
    child = subprocess.Popen([sys.executable, "-c", PROGRAM.format(paths=paths, here=HERE, folder=stages)])
    end, records = time.monotonic() + 30, []
    while len(records) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
        records = json.loads(path.read_text())["stages"]["parts"]["records"] if path.exists() else []
    child.send_signal(number)
    assert child.wait(20) == (-9 if number == signal.SIGKILL else 128 + number)
    left = json.loads(path.read_text())["stages"]["parts"]
    assert (left["status"], [row["part"] for row in left["records"]]) == ("interrupted", [0, 1])
    (stages / "stuck").unlink()
    rows = started(stages, "--resume", "--stages", "parts")["stages"]["parts"]["records"]
    assert [row["part"] for row in rows] == [0, 1, 2]
    assert rows[0]["pid"] == rows[1]["pid"] != rows[2]["pid"]
    while alive(rows[0]["pid"]):
        assert time.monotonic() < end


def test_one_stage_anew_keeps_the_others(stages, monkeypatch):
    first = started(stages, "--stages", "good", "parts")["stages"]
    (stages / "temper_parts.py").write_text(PATIENT["good"])
    again = started(stages, "--stages", "parts")["stages"]
    assert again["good"] == first["good"]
    assert again["parts"]["records"] == [{"a": 1}]
    monkeypatch.setattr(run, "missing", lambda needs, env: ["all"])
    assert started(stages, "--stages", "parts")["stages"] == again


@pytest.mark.parametrize("how", [["--resume"], ["--stages", "parts"]])
@pytest.mark.parametrize("what", ["device", "versions", "cpu"])
def test_results_of_two_machines_do_not_mix(stages, monkeypatch, how, what):
    started(stages, "--stages", "good")
    before = (stages / "gpu.json").read_text()
    monkeypatch.setattr(run, "about", lambda env, carried: {**HERE, what: {"name": "another"}})
    with pytest.raises(run.NoRun, match=f"measured elsewhere.*{what}.*another.*--json"):
        started(stages, *how)
    assert (stages / "gpu.json").read_text() == before


def test_after_a_change_of_the_source_a_half_done_stage_starts_again(stages, monkeypatch):
    started(stages, "--stages", "good", "fails")
    (stages / "temper_fails.py").write_text("def measure(setting, say):\n    say({'b': setting.has(a=1)})\n")
    monkeypatch.setattr(run, "about", lambda env, carried: {**HERE, "revision": "new"})
    found = started(stages, "--resume", "--stages", "good", "fails")
    assert {name: stage["revision"] for name, stage in found["stages"].items()} == {"good": "abc", "fails": "new"}
    assert found["stages"]["fails"]["records"] == [{"b": False}]
    table = gpu_page.rendered(found | {"date": ""})
    assert re.search(r"\| good \| done \| 1 \| \d+ \| abc \|", table)


def test_resuming_a_run_that_is_whole_keeps_its_time(stages):
    first = started(stages, "--stages", "good", "needy")
    again = started(stages, "--resume", "--stages", "good", "needy")
    assert again["seconds"] == first["seconds"] == first["stages"]["good"]["seconds"] > 0
    assert again["stages"] == first["stages"]
    assert "s in all" in gpu_page.rendered(again | {"date": "", "revision": ""})


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot be read"), ("/dev/zero", "it is no file"), ("{", "cannot be read"), ("[1]", "no record"),
     ('{"stages": []}', "no record"), ('{"schema": 1}', "another version"),
     ('{"schema": 2, "dry": true, "stages": {}}', "a dry run")],
)  # fmt: skip
def test_resuming_another_kind_of_file_is_refused(stages, text, says):
    if text == "/dev/zero":
        (stages / "gpu.json").symlink_to(text)
    elif text is not None:
        (stages / "gpu.json").write_text(text)
    with pytest.raises(run.NoRun, match=says):
        started(stages, "--resume")
