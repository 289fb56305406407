"""Did the processes share the work as they were told to?"""

from __future__ import annotations

from ..run.launch import said_of_processes
from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord


def not_sharded(run: RunRecord) -> Verdict:
    """A sharding that the launch asked for and that did not run."""
    if not run.distribution:
        return Unchecked(
            "how the run was spread over processes is noted of finished runs alone, and not by all versions"
        )
    if not run.distribution["asked"]:
        return None
    return Finding(
        Severity.WARNING,
        "the run was not sharded",
        said_of_processes(run.distribution),
        "on CPUs accelerate knows DDP alone: plan the memory of every process for the whole model, or use GPUs",
    )
