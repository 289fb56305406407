"""Two processes, one effective batch: the weights and the gradient are those of all examples of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.mark.slow
def test_gradient_on_two_processes_is_that_of_the_full_batch(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launcher, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "errors.json").read_text())
    assert found["ranks"] == 2
    assert len(found["errors"]) == 8
    for name, examples, error in found["errors"]:
        assert examples == 16, name  # both ranks' examples stand in the ledger
        assert error <= 1e-6, name
