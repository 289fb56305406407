"""The tutorial from a laptop to a cluster: its commands are run, on one machine, in its order."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from slurm_stand_ins import stand_ins

PAGE = Path(__file__).parents[3] / "docs" / "tutorials" / "cluster.md"
SWEEP = "dask scheduler"
pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow("it starts processes that load everything")]


def steps() -> list[str]:
    """The blocks of commands, without what cannot be run here."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    kept = [block for block in blocks if "--num_processes 8" not in block]
    assert len(blocks) - len(kept) == 1, "only step 3 needs GPUs"
    return ["".join(line for line in block.splitlines(keepends=True) if "pip install" not in line) for block in kept]


def walk(folder: Path, blocks: list[str]) -> list[str]:
    """Run the blocks in one shell, as a reader does; returns what each of them said."""
    script = "".join(f"{block}\necho '=== end of a block'\n" for block in blocks).replace("8786", str(free_port()))
    with (folder / "said").open("w+") as said, (folder / "errors").open("w+") as errors:
        shell = subprocess.Popen(
            ["bash", "-ec", script],
            cwd=folder,
            env=os.environ | stand_ins(folder / "bin"),
            stdout=said,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = shell.wait(1500)
        finally:  # what a block left in the background goes with it
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    told = (folder / "said").read_text()
    assert status == 0, told + (folder / "errors").read_text()
    return told.split("=== end of a block\n")[:-1]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def history(folder: Path) -> list[dict[str, float]]:
    return [row for row in json.loads((folder / "run.json").read_text())["history"] if "robust_loss" in row]


@pytest.mark.exhaustive
def test_one_process_two_processes_and_two_nodes_take_the_same_steps(tmp_path):
    blocks = [block.replace("doctor runs/two", "doctor runs/two || test $? = 1") for block in steps()]
    said = walk(tmp_path, [block for block in blocks if SWEEP not in block])
    one, *others = (history(tmp_path / "runs" / name) for name in ("one", "two", "slurm"))
    assert len(one) == 20
    for other in others:
        for mine, its in zip(one, other, strict=True):
            assert its["robust_loss"] == pytest.approx(mine["robust_loss"], rel=1e-5)
            assert its["mean_loss"] == pytest.approx(mine["mean_loss"], rel=1e-5)
    assert any(row["robust_loss"] > row["mean_loss"] * 1.01 for row in one), "the adversary never acted"
    assert any("16" in text and "passes" in text for text in said), "the plan tells the effective batch"
    assert (tmp_path / "two.html").stat().st_size > 10_000


@pytest.mark.cluster
def test_the_sweep_runs_on_a_dask_cluster(tmp_path):
    pytest.importorskip("distributed", reason="dask is not installed: make clusters")
    walk(tmp_path, [block for block in steps() if SWEEP in block])
    assert "trainings done" in (tmp_path / "errors").read_text()
    assert (tmp_path / "sweep.html").stat().st_size > 10_000
