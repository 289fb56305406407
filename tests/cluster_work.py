"""What workers of a real cluster are told to do; the cluster has this folder on its path."""

import os
import signal
import sys

from llm.sweep.process import train_elsewhere


def killed_once(once, moment, cell, **told):
    """Train; the worker of the first of them is killed with -9: as it begins, saves a checkpoint, or has trained."""
    try:
        once.touch(exist_ok=False)
    except FileExistsError:
        return train_elsewhere(cell, **told)
    if moment == "saves":
        sys.addaudithook(_ends_with_a_checkpoint)
    if moment != "begins":
        train_elsewhere(cell, **told)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _ends_with_a_checkpoint(event, arguments):
    """As the last file of a checkpoint gets its name."""
    if event == "os.rename" and "checkpoint-4/manifest.json" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
