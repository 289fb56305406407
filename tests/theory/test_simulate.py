"""`robust-rlhf simulate`: the runner is resumable and reproducible, slopes are right, measurements obey the theory."""

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import product

import pytest

import synthetic.simulate.command as command
from dro_core.clusters.pool import Pool
from synthetic.simulate.grid import Task, run
from synthetic.simulate.studies.study import Study

SLOW = """
import os, sys, time
from pathlib import Path
import synthetic.simulate.command as command
from synthetic.simulate.studies.study import Study
def points(choices):
    return [{"x": x} for x in range(1, 41)]
def evaluate(point, seed):
    if __name__ == "__main__":
        (Path("at work") / str(os.getpid())).touch()
        time.sleep(0.1)
    return [{"y": point["x"] ** -0.5}]
slow = Study("slow", 1, "Slow", "About.", (), (0, 0), points, evaluate, lambda rows, choices: [])
if __name__ == "__main__":
    command.NAMES, command.study = ("slow",), lambda name: slow
    sys.exit(command.main(sys.argv[1:]))
"""


def table(folder):
    with (folder / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def tasks(count=6, version=1):
    return [Task("planted", version, {"x": x}, seed) for x in range(1, count + 1) for seed in range(2)]


def planted(point, seed):
    return [{"y": (1 + seed) * point["x"] ** -0.5}]


def counting(calls, point, seed):
    calls.append((point["x"], seed))
    return planted(point, seed)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def know_only(study, monkeypatch):
    monkeypatch.setattr(command, "NAMES", (study.name,))
    monkeypatch.setattr(command, "study", lambda name: study)


def started(tmp_path, *options):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "at work").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, str(tmp_path / "slow.py"), "slow", "--output", str(tmp_path / "out"), *options]
    return subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True, cwd=tmp_path,
        # A suite that runs in the background ignores interrupts, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def finished(tmp_path):
    return len(list((tmp_path / "out" / "points").glob("*.json")))


@pytest.mark.slow("a simulation twice")
@pytest.mark.parametrize(("signals", "jobs"), [([signal.SIGKILL], 1), ([signal.SIGINT], 1), ([signal.SIGINT], 2)])
def test_a_run_that_was_ended_goes_on_where_it_stopped(tmp_path, signals, jobs, monkeypatch, capsys):
    first = started(tmp_path, "--jobs", str(jobs))
    wait_for(lambda: finished(tmp_path) >= 3)
    os.killpg(first.pid, signals[0])
    message = first.communicate(timeout=60)[1]
    kept = finished(tmp_path)
    assert 3 <= kept < 40
    assert not (tmp_path / "out" / "curves.csv").exists()
    if signals[0] == signal.SIGINT:
        assert first.returncode == 130, message
        assert f"{kept} of 40 points are kept" in " ".join(message.split())
        assert "Run the same command again" in message
    know_only(runpy.run_path(str(tmp_path / "slow.py"))["slow"], monkeypatch)
    assert command.main(["slow", "--output", str(tmp_path / "out")]) == 0
    message = capsys.readouterr().err
    assert f"40 of 40 points are there, {kept} of them from an earlier run" in message
    assert [float(row["y"]) for row in table(tmp_path / "out")] == [x**-0.5 for x in range(1, 41)]


@pytest.mark.exhaustive(turns=8)
def test_a_process_that_is_killed_costs_its_point_until_the_next_start(tmp_path, monkeypatch, capsys):
    first = started(tmp_path, "--jobs", "2")
    wait_for(lambda: finished(tmp_path) >= 3)
    os.kill(int(next((tmp_path / "at work").iterdir()).name), signal.SIGKILL)
    message = " ".join(first.communicate(timeout=60)[1].split())
    assert first.returncode == 1, message
    assert "39 of 40 points are there" in message
    assert "WorkerDied: its process was ended by SIGKILL; the machine may be out of memory" in message
    assert "1 points failed (tracebacks in summary.json); the same command tries them again" in message
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["failures"]) == 1
    know_only(runpy.run_path(str(tmp_path / "slow.py"))["slow"], monkeypatch)
    assert command.main(["slow", "--output", str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert command.main(["slow", "--output", str(tmp_path / "whole"), "--jobs", "1"]) == 0
    assert "40 of 40 points are there, 39 of them from an earlier run" in capsys.readouterr().err
    assert same_files(tmp_path / "out", tmp_path / "whole")


def damaged(folder, harm):
    """Every file of a finished run in turn; what is in the folder is whole again between them."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        before = file.read_bytes()
        harm(file)
        yield file
        file.write_bytes(before)


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def scramble(file):
    """One digit is another one, where there are digits; otherwise bytes in the middle."""
    content = bytearray(file.read_bytes())
    digits = [at for at, byte in enumerate(content) if 48 <= byte < 57] or [len(content) // 2]
    content[digits[-1]] += 1
    file.write_bytes(bytes(content))


def same_files(one, other):
    """Whether two runs left the same, up to their own addresses."""
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in (one, other)]
    own = [(one / name).read_text().replace(str(one), str(other)) for name in names[0] if name.suffix != ".png"]
    return names[0] == names[1] and own == [(other / n).read_text() for n in names[0] if n.suffix != ".png"]


@pytest.mark.parametrize("harm", [cut, scramble, lambda file: file.unlink()], ids=["cut", "scrambled", "deleted"])
def test_damage_to_any_file_is_made_good_by_the_next_start(tmp_path, monkeypatch, harm):
    know_only(Study("bias", 1, "T", "A.", (), (1, 1), lambda _: [{"x": x} for x in range(1, 4)], planted,
                    lambda rows, choices: []), monkeypatch)  # fmt: skip
    assert command.main(["bias", "--output", str(tmp_path / "whole")]) == 0
    assert command.main(["bias", "--output", str(tmp_path / "out")]) == 0
    for file in damaged(tmp_path / "out", harm):
        assert command.main(["bias", "--output", str(tmp_path / "out")]) == 0
        assert same_files(tmp_path / "out", tmp_path / "whole"), file


def test_only_what_is_missing_changed_or_damaged_is_evaluated(tmp_path):
    calls = []
    evaluate = partial(counting, calls)
    whole = run(evaluate, tasks(), tmp_path, pool=Pool(jobs=1))
    assert len(calls) == 12
    assert run(evaluate, tasks(8), tmp_path, pool=Pool(jobs=1)).reused == 12
    assert sorted(calls[12:]) == list(product((7, 8), (0, 1)))
    (tmp_path / f"{tasks()[3].digest}.json").write_text('{"records": [')
    again = run(evaluate, tasks(), tmp_path, pool=Pool(jobs=1))
    assert (again.rows, again.reused, len(calls)) == (whole.rows, 11, 17)
    run(evaluate, tasks(version=2), tmp_path, pool=Pool(jobs=1))
    run(evaluate, tasks(), tmp_path, pool=Pool(jobs=1), fresh=True)
    assert len(calls) == 17 + 24
    assert not list(tmp_path.glob("*.partial"))


def failing_study(faults):
    def evaluate(point, seed):
        if point["x"] in faults:
            raise RuntimeError("a planted fault")
        return [{"y": {3: [1.0], 4: float("nan")}.get(point["x"], point["x"])}]

    return Study(
        "bias", 1, "T", "A.", (), (1, 1), lambda _: [{"x": x} for x in range(6)], evaluate, lambda rows, choices: []
    )


@pytest.mark.slow("processes of their own")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_point_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys, jobs):
    know_only(failing_study({1}), monkeypatch)
    assert command.main(["bias", "--output", str(tmp_path), "--jobs", jobs]) == 1
    told = capsys.readouterr().err
    assert told.startswith("simulate bias: 6 points.\n")  # before anything is waited for
    assert "3 of 6 points are there" in told
    assert "{'x': 1}, seed 0: RuntimeError: a planted fault" in told
    failures = json.loads((tmp_path / "summary.json").read_text())["failures"]
    assert [failure["point"]["x"] for failure in failures] == [1, 3, 4]
    assert "Traceback" in failures[0]["trace"]
    assert "write several records" in failures[1]["error"]
    assert "use None for what does not exist" in failures[2]["error"]
    assert [row["x"] for row in table(tmp_path)] == ["0", "2", "5"]
    know_only(failing_study(set()), monkeypatch)
    assert command.main(["bias", "--output", str(tmp_path), "--jobs", jobs]) == 1
    assert [row["x"] for row in table(tmp_path)] == ["0", "1", "2", "5"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["bias", "--n", "0"], "--n: must be a whole number in [1, 1000000], got 0"),
        (["bias", "--n", "4", "50000"], "--n of `bias` must lie in [1, 20000], got 50000"),
        (["bias", "--n", "4.5"], "--n: must be a whole number in [1, 1000000], got 4.5"),
        (["reward", "--steps", "-3"], "--steps: must be a whole number in [1, 1000000], got -3"),
        (["reward", "--radius", "nan"], "--radius: must be a number in [0, 1], got nan"),
        (["reward", "--jobs", "0"], "--jobs: must be a whole number in [1, 10000], got 0"),
        (["bias", "--ambiguity", "tv:2"], "must lie in [0, 1], got 2.0"),
        (["bias", "--ambiguity", "erm"], "must be a set such as tv:0.2, got erm"),
        (["dpo", "--ambiguity", "tv:0.2,by=group"], "must have no by=COLUMN"),
        (["shift", "--ambiguity", "tv:0.2,by=source"], "write by=group"),
        (["shift", "--radius", "0.95"], "must lie in [0, 0.9], got 0.95"),
        (["bias", "--steps", "5"], "there is no flag --steps, did you mean --seeds?"),
        (["bias", "--grid", "huge"], "--grid: 'huge' is none of quick, full"),
        (["biass"], "'biass' is none of bias, reward, dpo, npg, shift, when, did you mean 'bias'?"),
        (["npg", "--output", __file__], "is a file: choose another folder"),
    ],
)
def test_a_bad_request_is_one_sentence_and_status_two(capsys, options, sentence):
    assert command.main(options) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("dask", "distributed")])
def test_a_backend_that_is_not_there_says_how_to_install_it(tmp_path, monkeypatch, capsys, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert command.main(["bias", "--n", "2", "--output", str(tmp_path), "--backend", backend]) == 2
    assert f"pip install 'robust-rlhf[{backend}]'" in capsys.readouterr().err


def test_simulate_loads_neither_torch_nor_a_plotting_library_before_it_needs_one():
    code = "import sys, synthetic.simulate.command as s\ntry: s.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'matplotlib', 'joblib', 'statsmodels', 'cvxpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "bias|reward|dpo|npg|shift|when" in done.stdout
