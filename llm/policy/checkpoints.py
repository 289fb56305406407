"""Checkpoints of a policy run, made of data alone: safetensors, JSON, and tensors that torch reads without pickles."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import load
from safetensors.torch import load_model
from torch import nn

from ..run.files import write_json
from ..run.folder import MARKER, keep_newest, writing
from ..run.manifest import MANIFEST, write_manifest
from ..training.processes import on_main_process
from ..training.resuming import Resumable, loading, verify
from .ranks.states import load_states, save_states

_log = logging.getLogger(__name__)
_SCHEDULE, _SCALER = "schedule.json", "scaler.json"
_EARLIER_SCHEDULE = "custom_checkpoint_0.pkl"


def of_other_answers(folder: Path) -> bool:
    """Whether the run drew its answers otherwise up to here: from before the manifest, of accelerate's making."""
    return (folder / _EARLIER_SCHEDULE).exists() and not (folder / MANIFEST).exists()


class PolicyCheckpoints:
    """Writes and reads checkpoints with everything that the next step of a policy run depends on.

    Args:
        accelerator: Ranks and precision.
        module: Policy and value function as trained, wrapped for the ranks.
        optimizer: Of these.
        schedule: Of its learning rate.
        resumable: What else is saved.
    """

    def __init__(
        self, accelerator: Any, module: nn.Module, optimizer: Any, schedule: Any, resumable: Sequence[Resumable]
    ) -> None:
        self.accelerator, self.module, self.optimizer, self.schedule = accelerator, module, optimizer, schedule
        self.resumable = resumable

    def save(self, output: Path, progress: dict[str, Any], *, limit: int | None) -> None:
        """Write ``checkpoint-STEP`` with the step of ``progress``; every rank must call it. Then older ones may go.

        Args:
            output: The run folder.
            progress: Where the run stands, with its ``global_step``; JSON.
            limit: How many checkpoints are kept; None for all.

        Raises:
            CheckpointError: It could not be written; earlier ones are untouched.
        """
        step, main = progress["global_step"], self.accelerator.is_main_process
        folder = output / f"checkpoint-{step}"
        with writing(output, step):
            folder.mkdir(parents=True, exist_ok=True)
            if main:
                (folder / MANIFEST).unlink(missing_ok=True)
            save_states(folder, self.module, self.optimizer, main=main)
            if main:
                self._save_shared(folder)
                write_json(folder / MARKER, progress)
            write_json(folder / _random(self.accelerator.process_index), _drawing())
            self.accelerator.wait_for_everyone()  # the manifest names every rank's part
            if main:
                write_manifest(folder)
        if main:
            keep_newest(output, limit)

    def load(self, folder: Path, *, verified: bool = False) -> dict[str, Any]:
        """Go on from a checkpoint folder; where the run stood. ``verified``: whether the caller has read it whole.

        Raises:
            CheckpointError: A file is damaged, or cannot be loaded.
        """
        if not verified:
            on_main_process(lambda: verify(folder))
        with loading(folder, "the state of the run"):
            if of_other_answers(folder):
                self._load_earlier(folder)
            else:
                load_states(folder, self.module, self.optimizer, world=self.accelerator.num_processes)
                self._load_shared(folder)
                own = folder / _random(self.accelerator.process_index)
                if own.exists():  # ranks that the run did not have begin with the seed of their next step
                    _draw_on(json.loads(own.read_text(encoding="utf-8")))
            for part in self.resumable:
                part.load(folder)
            return json.loads((folder / MARKER).read_text(encoding="utf-8"))

    def _save_shared(self, folder: Path) -> None:
        """What is the same on all ranks, and small."""
        write_json(folder / _SCHEDULE, self.schedule.state_dict())
        if self.accelerator.scaler is not None:
            write_json(folder / _SCALER, self.accelerator.scaler.state_dict())
        for part in self.resumable:
            part.save(folder)

    def _load_shared(self, folder: Path) -> None:
        self.schedule.load_state_dict(json.loads((folder / _SCHEDULE).read_text(encoding="utf-8")))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(json.loads((folder / _SCALER).read_text(encoding="utf-8")))

    def _load_earlier(self, folder: Path) -> None:
        """A checkpoint of accelerate's making, as versions before the manifest wrote them; no code in it runs."""
        _log.warning(
            "%s is of an earlier version, which drew answers by other random numbers: the run goes on, and ends with "
            "other weights than it would have had there", folder,
        )  # fmt: skip
        load_model(self.module, folder / "model.safetensors")
        self.optimizer.load_state_dict(_data(folder / "optimizer.bin"))
        self.schedule.load_state_dict(_data(folder / _EARLIER_SCHEDULE))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(_data(folder / "scaler.pt"))


def _data(file: Path) -> Any:
    return load(file, map_location="cpu", weights_only=True)


def _random(rank: int) -> str:
    return f"rng_state_{rank}.json"


def _drawing() -> dict[str, object]:
    """Where the generators of this process stand; tensors of bytes as hexadecimal text."""
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 (libraries draw from it)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [state.numpy().tobytes().hex() for state in devices],
    }


def _draw_on(stored: dict[str, Any]) -> None:
    version, numbers, spare = stored["python"]
    random.setstate((version, tuple(numbers), spare))
    numpy_state = stored["numpy"]
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(_bytes(stored["torch"]))
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(text) for text in stored["cuda"]])


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
