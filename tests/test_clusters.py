"""Clusters of Ray and Dask with two workers, for real: results as here to the bit, and what a lost worker costs.

`make clusters` installs both and runs this; elsewhere what is not installed is left out.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / "llm"), str(ROOT / "tests" / "llm" / "sweep")]
MODULES = {"ray": "ray", "dask": "distributed"}
LOST = {"ray": "WorkerCrashedError", "dask": "KilledWorker"}
KILLED = """
import sys, cluster_work, llm.sweep.sweep
from functools import partial
from pathlib import Path
from robust_rlhf import main
llm.sweep.sweep.train_elsewhere = partial(cluster_work.killed_once, Path(sys.argv[1]), sys.argv[2])
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture(scope="module", params=MODULES)
def backend(request):
    pytest.importorskip(MODULES[request.param], reason=f"{request.param} is not installed: make clusters")
    with pytest.MonkeyPatch.context() as patch:
        path = [ROOT, ROOT / "tests", *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, path)))
        patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # listens to this machine alone
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        for name in ("RAY_ADDRESS", "DASK_SCHEDULER_ADDRESS"):
            patch.delenv(name, raising=False)
        yield request.param


@pytest.fixture(scope="module")
def address(backend, tmp_path_factory):
    """Of a running cluster, in a folder that is not the command's."""
    folder, port, other = tmp_path_factory.mktemp(backend), free_port(), free_port()
    if backend == "ray":
        here = ("--node-ip-address", "127.0.0.1", "--port", port, "--ray-client-server-port", other)
        more = ("--num-cpus", 2, "--include-dashboard", "false", "--min-worker-port", 0, "--max-worker-port", 0)
        with running(folder, "ray.scripts.scripts", "start", "--head", "--block", *here, *more):
            wait_for(folder, lambda log: "Ray runtime started" in log)
            yield f"127.0.0.1:{port}"
        return
    here, at = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"), f"tcp://127.0.0.1:{port}"
    with (
        running(folder, "dask", "scheduler", "--port", port, *here),
        running(folder, "dask", "worker", at, "--nthreads", 1, "--nworkers", 2, *here),
    ):
        wait_for(folder, lambda log: log.count("Registered to") == 2)
        yield at


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(folder, module, *arguments):
    """Processes of a cluster, which end together."""
    with (folder / "log").open("a") as log:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(folder, condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition(said := (folder / "log").read_text()):
        assert time.monotonic() < end, said
        time.sleep(0.2)


def command(folder, *arguments, script=("-m", "robust_rlhf")):
    """How it ended, and what it said."""
    words = [sys.executable, *script, *map(str, arguments)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=1500)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow("it starts processes that load everything")
@pytest.mark.parametrize("which", ["running", "own"])
def test_the_table_of_a_study_is_the_same_to_the_byte(request, tmp_path, backend, which):
    where = ["--address", request.getfixturevalue("address")] if which == "running" else ["--jobs", 2]
    for name, options in {"here": [], "there": ["--backend", backend, *where]}.items():
        status, said = command(tmp_path, "simulate", "bias", "--n", 2, 4, "--output", name, *options)
        assert status == 0, said
    assert (tmp_path / "there" / "curves.csv").read_bytes() == (tmp_path / "here" / "curves.csv").read_bytes()


@pytest.mark.slow("it starts processes that load everything")
def test_the_reports_on_claims_are_the_same(tmp_path, backend, address):
    found = []
    for name, options in {"here": [], "there": ["--backend", backend, "--address", address]}.items():
        outputs = ["--json", f"{name}.json", "--certificates", name]
        status, said = command(tmp_path, "verify", "tv-gap", "chi2-variance", *outputs, *options)
        assert status == 0, said
        reports = json.loads((tmp_path / f"{name}.json").read_text())["reports"]
        certificates = {file.name: file.read_text() for file in (tmp_path / name).glob("*.json")}
        found.append(([{**report, "seconds": 0} for report in reports], certificates))
    assert found[0] == found[1]


@pytest.mark.slow("it trains, loses a worker, and trains again")
@pytest.mark.parametrize(
    ("kind", "moment"),
    [("heads", "begins"), ("heads", "has trained"), ("whole models", "saves"), ("whole models", "has trained")],
)
def test_a_sweep_is_the_same_to_the_bit_and_a_lost_worker_costs_its_training(
    once, tmp_path, backend, address, kind, moment
):
    from small_sweeps import KINDS, assert_same, undisturbed

    from llm.results.store import read_results

    (tmp_path / "s.yaml").write_text(json.dumps(KINDS[kind]))
    asked = ["sweep", "--config", "s.yaml", "--output", "r", "--cache", "cache", "--backend", backend]
    status, said = command(tmp_path, tmp_path / "lost", moment, *asked, "--address", address, script=("-c", KILLED))
    left = moment == "has trained"  # its result, which is found though nobody told of it
    assert status == (0 if left else 1), said
    failed = read_results(tmp_path / "r").table.query("status == 'failed'")
    assert set(failed["error"]) == (set() if left else {f"WorkerDied: its worker was lost ({LOST[backend]})"})
    assert failed["run"].str[:12].nunique() == (0 if left else 1)
    assert (tmp_path / "lost").exists()
    status, said = command(tmp_path, *asked, "--address", address)
    assert status == 0, said
    assert ("0 trainings done" if left else "1 trainings done") in said
    assert_same(tmp_path / "r", undisturbed(once, kind))
