"""Calls side by side in processes of their own; a process that dies takes its own call with it, and nothing else."""

from crew._processes import Answer, WorkerDied, side_by_side

__all__ = ["Answer", "WorkerDied", "side_by_side"]
