"""Puts together what travels beside the source to a machine without a network: `python benchmarks/gpu/pack.py`.

    wheels      transformers, which a bare machine has too old, array-api-compat, rich and its needs (15 MB)
    minilm/     MiniLM, matrices rounded to eight bits with a scale a row (22 MB)
    data/       preference pairs, with --data FOLDER (17 MB)
    REVISION    of the source, which may travel without its history

The folder stays out of the repository. What is missing costs the stages that need it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ("transformers", "array-api-compat", "rich", "pygments", "markdown-it-py", "mdurl")
_SCALE = ".scale"


def rounded(model: Path, target: Path) -> None:
    """A copy of a model folder, its matrices in int8: per row a scale of 1/127 of the largest entry."""
    from safetensors.numpy import load_file

    target.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        if file.suffix in (".json", ".txt") and file.is_file():
            shutil.copy(file, target)
    kept: dict[str, np.ndarray] = {}
    for name, weight in load_file(model / "model.safetensors").items():
        if weight.ndim != 2 or weight.dtype != np.float32:
            kept[name] = weight
            continue
        scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12) / 127
        kept[name], kept[name + _SCALE] = np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)
    np.savez_compressed(target / "weights.npz", allow_pickle=False, **kept)


def restored(packed: Path, target: Path) -> Path:
    """The folder that ``transformers`` loads, from what ``rounded`` wrote; weights in float32."""
    from safetensors.numpy import save_file

    target.mkdir(parents=True, exist_ok=True)
    for file in packed.iterdir():
        if file.suffix in (".json", ".txt"):
            shutil.copy(file, target)
    with np.load(packed / "weights.npz", allow_pickle=False) as stored:
        weights = {
            name: stored[name] * stored[name + _SCALE] if name + _SCALE in stored else stored[name]
            for name in stored
            if not name.endswith(_SCALE)
        }
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def wheels(target: Path) -> None:
    """Download the wheels that a bare machine needs, at the versions of this environment.

    Raises:
        SystemExit: The index cannot be reached.
    """
    from importlib.metadata import version

    named = [f"{name}=={version(name)}" for name in WHEELS]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        str(target),
    ]
    done = subprocess.run([*command, *named], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"no wheels: {(done.stderr.strip().splitlines() or ['pip gave no reason'])[-1]}")


def megabytes(folder: Path) -> float:
    """Of a file, or of all files below a folder."""
    files = folder.rglob("*") if folder.is_dir() else [folder]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def source_megabytes() -> float:
    """Of the files under version control; 0 where there is no history to tell."""
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False, cwd=ROOT)
    return sum(megabytes(ROOT / name) for name in done.stdout.split("\0") if name)


def main(given: list[str] | None = None) -> int:
    """Fill the folder and say what it weighs; status 1 where it is over the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / ".gpu", help="default: %(default)s")
    parser.add_argument("--data", type=Path, help="folder of train.jsonl.gz and its suites")
    parser.add_argument("--model", type=Path, help="folder of MiniLM (default: fetched)")
    parser.add_argument(
        "--limit", type=float, default=67.1, help="megabytes that may travel, source and all (default: %(default)s)"
    )
    options = parser.parse_args(given)
    options.folder.mkdir(parents=True, exist_ok=True)
    wheels(options.folder)
    sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]
    from machine import revision

    (options.folder / "REVISION").write_text(revision() + "\n")
    if options.data is not None:
        (options.folder / "data").mkdir(exist_ok=True)
        for file in sorted(options.data.glob("*.jsonl.gz")):
            shutil.copy(file, options.folder / "data")
        from llm.models.fetching import fetch

        rounded(options.model or fetch("minilm"), options.folder / "minilm")
    parts = {part.name: megabytes(part) for part in options.folder.iterdir()} | {"the source": source_megabytes()}
    for name, size in sorted(parts.items()):
        sys.stdout.write(f"{size:6.1f} MB  {name}\n")
    whole = sum(parts.values())
    sys.stdout.write(f"{whole:6.1f} MB  in all, of {options.limit:g} that may travel\n")
    return int(whole > options.limit)


if __name__ == "__main__":
    sys.exit(main())
