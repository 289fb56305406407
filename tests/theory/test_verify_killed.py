"""What `robust-rlhf verify` keeps when its processes, or it, are killed or interrupted."""

import os
import signal
import time
from pathlib import Path

import pytest
from planted_claims import LIGHT, alive, by_label, start, stored, wait_for, workers


@pytest.mark.exhaustive(turns=8)
def test_a_killed_process_costs_its_own_claim_one_more_try(planted, tmp_path, ending):
    options = ["--jobs", "2", "--seed", "1", "--json", "out.json"]
    process = start([*planted, "alone", "plain", "other", "false", *options], cwd=tmp_path)
    wait_for((tmp_path / "pid").exists)
    first = int((tmp_path / "pid").read_text())
    os.kill(first, signal.SIGKILL)
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 0, out + progress
    assert progress.count("checking it again") == 1
    assert "alone: its process died (killed by SIGKILL" in progress
    assert int((tmp_path / "pid").read_text()) != first
    assert [report["verdict"] for report in stored()["reports"]] == ["upheld", "upheld", "upheld", "refuted"]
    assert [report["label"] for report in stored()["reports"]] == ["alone", "plain", "other", "false"]
    assert by_label()["plain"]["points"] != by_label(ending.folder / "out.json")["plain"]["points"]  # of another seed


@pytest.mark.slow("a check, a killed one, and its continuation")
@pytest.mark.parametrize("moment", [0.0, *(pytest.param(s, marks=pytest.mark.exhaustive) for s in (0.7, 1.4, 2.1))])
def test_a_process_killed_at_any_moment_changes_no_report(light, tmp_path, moment):
    process = start([*LIGHT, "--seed", "3", "--jobs", "2", "--json", "out.json"], cwd=tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: len(workers(children)) == 2)
    time.sleep(moment)
    for worker in workers(children)[:1]:
        os.kill(worker, signal.SIGKILL)
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 0, out + progress
    found, expected = by_label(tmp_path / "out.json"), by_label(light.folder / "out.json")
    for report in (*found.values(), *expected.values()):
        report.pop("seconds")
    assert found == expected


def test_a_claim_that_kills_its_process_twice_is_inconclusive(ending):
    reports = by_label(ending.folder / "out.json")
    assert [reports[label]["verdict"] for label in ("plain", "loud", "false")] == ["upheld", "upheld", "refuted"]
    assert reports["leaves"]["verdict"] == "inconclusive"
    assert reports["leaves"]["reason"] == "The process that checked it died 2 times: exit status 3."
    assert ending.err.count("leaves: its process died (exit status 3); checking it again") == 1


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(True, id="the whole group, as a terminal does"),
        pytest.param(False, id="the process", marks=pytest.mark.exhaustive),
    ],
)
def test_an_interrupt_keeps_what_is_finished(planted, tmp_path, group):
    outputs = ["--json", "out.json", "--html", "out.html", "--markdown", "out.md"]
    arguments = [*planted, "--jobs", "1", "plain", "alone", "other", *outputs]
    process = start(arguments, cwd=tmp_path, start_new_session=True)
    wait_for((tmp_path / "pid").exists)
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    out, progress = process.communicate(timeout=120)
    assert process.returncode == 130, progress
    assert "Traceback" not in progress
    assert "checking it again" not in progress
    assert "Interrupted. Not checked: alone, other." in out
    assert "plain" in out
    assert [report["label"] for report in stored()["reports"]] == ["plain"]
    assert stored()["unchecked"] == ["alone", "other"]
    assert "Not checked: alone, other." in (tmp_path / "out.html").read_text()
    assert "`plain`" in (tmp_path / "out.md").read_text()
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())), seconds=10)


def test_processes_leave_when_the_command_is_killed(planted, tmp_path):
    (tmp_path / "temporary").mkdir()
    process = start([*planted, "alone"], cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path / "temporary")})
    wait_for((tmp_path / "pid").exists)
    worker = int((tmp_path / "pid").read_text())
    assert alive(worker)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not alive(worker), seconds=10)
    assert not list((tmp_path / "temporary").iterdir())
