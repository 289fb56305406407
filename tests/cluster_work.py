"""What workers of a real cluster are told to do; the cluster has this folder on its path."""

import os
import signal

from llm.sweep.process import train_elsewhere


def killed_once(once, cell):
    """Train; the worker of the first of them is killed as it begins."""
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return train_elsewhere(cell)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
