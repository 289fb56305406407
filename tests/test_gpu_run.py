"""`make gpu`: its patience with stages that fail, and where its results go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "gpu"))

import gpu_page
import gpu_results
import run
import surroundings
from gpu_samples import PATIENT, ROOT, alive, started, tempered


@pytest.fixture
def stages(tmp_path, monkeypatch):
    return tempered(tmp_path, monkeypatch)


@pytest.mark.exhaustive(turns=8)
@pytest.mark.slow("it waits for the limits of two stages that hang")
def test_a_stage_that_hangs_or_fails_costs_itself_alone(stages, capsys):
    found = started(stages)["stages"]
    assert {name: stage["status"] for name, stage in found.items()} == {
        "good": "done", "hangs": "out of time", "stubborn": "out of time", "fails": "failed", "nan": "failed",
        "dies": "failed", "parts": "done", "needy": "skipped",
    }  # fmt: skip
    assert {name: len(stage["records"]) for name, stage in found.items()} == {
        "good": 1, "hangs": 1, "stubborn": 1, "fails": 1, "nan": 0, "dies": 1, "parts": 3, "needy": 0,
    }  # fmt: skip
    assert found["fails"]["why"] == "ValueError: the reason"
    assert found["needy"]["why"] == f"needs no_such_package, numpy >= 99, found {np.__version__}"
    assert found["hangs"]["seconds"] < 30
    assert json.loads((stages / "gpu.json").read_text())["stages"] == found
    assert "fails: failed, 1 results" in capsys.readouterr().err
    assert not alive(found["stubborn"]["records"][0]["a"])


def test_a_stage_does_not_outlive_its_run(tmp_path):
    (tmp_path / "temper_hangs.py").write_text(PATIENT["hangs"])
    program = (
        "import subprocess, sys; print(subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True).pid,"
        " flush=True); sys.stdin.read()"
    )
    told, setting = tmp_path / "told", json.dumps(surroundings.Setting(tiny=True, carried="").within(60))
    command = [str(ROOT / "benchmarks/gpu/run.py"), "--stage", "temper_hangs", str(told), setting]
    path = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    started = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path
    )
    stage, end = int(started.stdout.readline()), time.monotonic() + 30
    while not told.exists() or not told.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert alive(stage)
    started.kill()
    started.communicate()
    while alive(stage):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_wheel_that_is_none_is_named(tmp_path):
    (tmp_path / "x.whl").write_text("no zip")
    with pytest.raises(SystemExit, match=r"x\.whl cannot be unpacked"):
        surroundings.unpacked(tmp_path, tmp_path / "site")


def test_time_for_all_stages_is_kept(stages):
    found = started(stages, "--limit", "0.5", "--stages", "good")["stages"]
    assert (found["good"]["status"], found["good"]["records"]) == ("out of time", [])


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_a_limit_is_a_time(seconds, capsys):
    with pytest.raises(SystemExit):
        run.parsed([f"--limit={seconds}"])
    assert seconds in capsys.readouterr().err


def test_on_a_full_disk_the_results_are_printed(stages, monkeypatch, capsys):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    assert run.main(["--json", str(stages / "gpu.json"), "--carried", str(stages / "none"), "--stages", "good"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["stages"]["good"]["records"] == [{"a": 1}]
    assert told.err.count("No space left on device") == 1
    assert not list(stages.glob("*.partial"))


def test_where_the_tree_cannot_be_written_the_results_go_elsewhere(stages, monkeypatch, capsys):
    """As on a source tree mounted read-only: neither its results nor its page can be written."""
    (stages / "file").touch()
    monkeypatch.setattr(run, "RESULTS", stages / "file" / "gpu.json")
    monkeypatch.setattr(gpu_page, "put", lambda *_: (_ for _ in ()).throw(OSError("Read-only file system")))
    assert run.main(["--carried", str(stages / "none"), "--stages", "good"]) == 1
    told = capsys.readouterr()
    (path,) = stages.glob("gpu-*.json")
    assert json.loads(path.read_text())["stages"]["good"]["records"] == [{"a": 1}]
    assert f"the results go to {path}" in told.err
    assert "gpu.md could not be written (Read-only file system): --page" in told.err
    assert not told.out


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        gpu_results.put(tmp_path / "full", "x")
    assert (tmp_path / "full").is_symlink()


def test_without_a_gpu_a_real_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "about", lambda env, carried: {"device": None, "versions": {}})
    with pytest.raises(run.NoRun, match="no CUDA device here: --dry-run"):
        started(tmp_path)
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.exhaustive
@pytest.mark.slow("six processes, each of which loads torch")
def test_the_dry_run_runs_every_stage(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/gpu/run.py"), "--dry-run", "--json", str(tmp_path / "dry.json")]
    subprocess.run(command, check=True)
    found = json.loads((tmp_path / "dry.json").read_text())
    assert {name: stage["status"] for name, stage in found["stages"].items()} == dict.fromkeys(
        [stage.name for stage in run.STAGES], "done"
    )


def test_the_limits_of_the_stages_fit_into_eight_minutes():
    assert sum(stage.limit for stage in run.STAGES) <= run.LIMIT == 480
