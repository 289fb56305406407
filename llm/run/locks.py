"""The lock of a run folder, which is that of every folder that a command writes into: ``dro_core.locks``."""

from dro_core.locks import LOCK, FolderInUse, locked, locked_file

__all__ = ["LOCK", "FolderInUse", "locked", "locked_file"]
