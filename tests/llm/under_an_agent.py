"""One process of a run under torchrun: within a step, rank 1 sends SIGTERM to the launcher, or is killed with -9.

torchrun --nproc_per_node 2 under_an_agent.py SIGTERM transformers:Trainer:training_step 4 train reward ...
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path += [str(Path(__file__).parents[up] / below) for up, below in ((0, "."), (1, "."), (0, "training"))]
from signalled_runs import hit_in

from robust_rlhf import main


def event(name: str) -> None:
    """What comes over the run."""
    if name == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(3)  # until the launcher has passed it on: the other rank waits for the gradients of this one


if __name__ == "__main__":
    name, place, at, *argv = sys.argv[1:]
    sys.exit(hit_in(place, int(at), argv, lambda: event(name)) if os.environ["RANK"] == "1" else main(argv))
