"""Python, hardware and library versions: what a run is recorded with."""

from __future__ import annotations

import platform
from importlib import metadata

_LIBRARIES = (
    "robust-rlhf",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "numpy",
    "scipy",
    "statsmodels",
)


def environment() -> dict[str, str]:
    """Python, hardware and library versions."""
    import os

    import torch

    versions = {name: _version(name) for name in _LIBRARIES}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    return {"python": platform.python_version(), "system": platform.system(), "device": device, **versions}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
