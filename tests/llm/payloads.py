"""Files that would run code if they were unpickled or built, and the commands that read them."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from checkpoint_runs import KINDS, command

from llm.run.manifest import MANIFEST, write_manifest
from robust_rlhf import main

BINARY = (".bin", ".npy", ".npz", ".pkl", ".pt", ".pth", ".safetensors", ".parquet", ".joblib")


class Payload:
    """Unpickling this leaves a mark."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def mark_in(tmp_path, monkeypatch):
    """Where a payload would show; it does where pickles are loaded."""
    monkeypatch.chdir(tmp_path)  # where reports are written
    file = tmp_path / "mark"
    pickle.loads(pickle.dumps(Payload(file)))
    assert file.exists()
    file.rmdir()
    return file


def disguises(path, mark):
    """Ways to hide a payload in a file of that name."""
    yield lambda: path.write_bytes(pickle.dumps(Payload(mark)))
    if path.suffix in (".bin", ".pkl", ".pt", ".pth"):
        yield lambda: torch.save(Payload(mark), path)
    if path.suffix in (".npy", ".npz"):
        objects = np.array([Payload(mark)], dtype=object)
        names = list(np.load(path)) if path.suffix == ".npz" else []
        yield lambda: np.savez(path, **dict.fromkeys(names, objects)) if names else np.save(path, objects)


def planted(folder, mark, read, *, every=False):
    """Hide a payload in one file after the other and read the folder; how many were read."""
    kept, tried = folder.with_name(f"{folder.name}-kept"), 0
    shutil.copytree(folder, kept)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        if not every and path.suffix not in BINARY:
            continue
        for hide in disguises(path, mark):
            hide()
            for checkpoint in {part for part in path.parents if (part / MANIFEST).exists()}:
                write_manifest(checkpoint)  # whoever hides it has read how checkpoints are written
            assert read() in (0, 1, 2), path  # and no traceback
            assert not mark.exists(), path
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            tried += 1
    shutil.rmtree(kept)
    return tried


ALL = pytest.param(True, marks=pytest.mark.exhaustive)


def evaluated(place, model, *more):
    return main(["evaluate", str(model), "--suite", str(place.inputs / "train.jsonl"), "--eval-pairs", "4", *more])


def adapter_in(place, folder):
    """An adapter on the starting policy, out of a checkpoint."""
    shutil.copytree(place.runs / "dpo" / "checkpoint-3", folder)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "ledger.npz", MANIFEST):
        (folder / name).unlink()
    return folder


def readers(place, tmp_path, model):
    """Every command that loads a model, with that one as the model, the start, the reward or the judge."""
    suite, out = str(place.inputs / "train.jsonl"), tmp_path / "out"
    yield ["evaluate", str(model), "--suite", suite, "--eval-pairs", "4"]
    yield ["evaluate", str(place.inputs / "rm"), "--suite", suite, "--eval-pairs", "4", "--against", str(model)]
    yield ["export", str(model), "--to", "rewardbench", "-o", str(tmp_path / "exported")]
    for kind in KINDS:
        yield command(place, kind, out, model=model, overwrite=out.exists())
    yield command(place, "policy", out, reward_model=model, overwrite=out.exists())
    yield command(place, "policy", out, reference_model=model, overwrite=out.exists())


def tagged(mark):
    """YAML that builds an object by a call."""
    return f"!!python/object/apply:os.system ['touch {mark}']"
