"""Log-probabilities under the reference policy, computed once and kept on disk with a fingerprint.

What is computed is kept as it grows, so that a run that is stopped meanwhile goes on from there.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn
from transformers import TrainingArguments

from dro_core.files import whole

from ..models.logprobs import answer_logps
from ..run.progress import Steps
from ..run.stored_arrays import UnreadableArrays, read_arrays
from ..text.batches import PairCollator, longest_first
from ..text.encoding import EncodedPairs
from ..training.processes import on_main_process

_EVERY = 60.0  # seconds after which what was computed is kept
_log = logging.getLogger(__name__)


class StaleReferenceError(ValueError):
    """Stored reference log-probabilities belong to other weights or other pairs."""


def put_reference(
    model: nn.Module,
    datasets: Mapping[str, EncodedPairs],
    collator: PairCollator,
    arguments: TrainingArguments,
    *,
    cache: Path,
    own: bool = False,
) -> None:
    """Give every pair its reference log-probabilities: from ``cache``, or from the model, and then into ``cache``.

    The work is shared among the processes; each needs the whole model on its device while it lasts.

    Args:
        model: The reference policy.
        datasets: The pairs by name (train, eval).
        collator: Makes their batches.
        arguments: Device, precision and the evaluation batch size.
        cache: An ``.npz`` file.
        own: Whether it is of this run alone, and computed again where it does not fit.

    Raises:
        StaleReferenceError: The file was made by other weights, other pairs or another precision, or is damaged.
    """
    mark = fingerprint(model, datasets, precision=_precision(arguments))
    found = on_main_process(lambda: _usable(cache, mark, own=own))
    if found is None:
        so_far = _SoFar(cache, mark)
        found = {name: _computed(model, pairs, collator, arguments, name, so_far) for name, pairs in datasets.items()}
        on_main_process(lambda: _store(cache, mark, found))
        so_far.clear()
    for name, pairs in datasets.items():
        pairs.put_reference(found[name])


def fingerprint(model: nn.Module, datasets: Mapping[str, EncodedPairs], *, precision: str) -> str:
    """A hash of everything that decides the log-probabilities: weights, token ids, spans and precision."""
    digest = hashlib.blake2b(precision.encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        if "lora_" in name:  # a new adapter, which is switched off here
            continue
        content = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.flatten().view(torch.uint8).numpy())
    for name, pairs in datasets.items():
        digest.update(f"{name} {len(pairs)}".encode())
        for row in range(len(pairs)):
            item = pairs[row]
            digest.update(repr([item[key] for key in ("chosen", "chosen_span", "rejected", "rejected_span")]).encode())
    return digest.hexdigest()


def _precision(arguments: TrainingArguments) -> str:
    return "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "full"


def _usable(cache: Path, mark: str, *, own: bool) -> dict[str, np.ndarray] | None:
    try:
        return _stored(cache, mark)
    except StaleReferenceError as error:
        if not own:
            raise
        _log.warning("%s, so it is computed again", str(error).partition(": delete it")[0])
        return None


def _stored(cache: Path, mark: str) -> dict[str, np.ndarray] | None:
    if not cache.exists():
        return None
    try:
        content = read_arrays(cache)
    except UnreadableArrays as error:
        raise StaleReferenceError(f"{cache} cannot be read as reference log-probabilities: delete it") from error
    if str(content.pop("fingerprint", "")) != mark:
        raise StaleReferenceError(
            f"{cache} holds log-probabilities of another reference model, other pairs, another max_length or "
            "precision: delete it, or name another reference_cache"
        )
    return content


def _store(cache: Path, mark: str, logps: Mapping[str, np.ndarray]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    arrays: Any = dict(logps)
    with whole(cache) as stream:
        np.savez(stream, fingerprint=np.array(mark), **arrays)


class _SoFar:
    """What this process has computed, beside the cache until all is there."""

    def __init__(self, cache: Path, mark: str) -> None:
        state = PartialState()
        self.file = cache.with_name(f".{cache.stem}-{state.process_index}-of-{state.num_processes}.npz")
        self.mark, self._kept, self._rows = mark, time.monotonic(), dict[str, dict[int, tuple[float, float]]]()
        try:
            stored = read_arrays(self.file, "fingerprint")
        except UnreadableArrays:  # none, or cut off
            return
        if str(stored.pop("fingerprint")) == mark:
            for name in [name.removesuffix(".rows") for name in stored if name.endswith(".rows")]:
                logps = map(tuple, stored[f"{name}.logps"].tolist())
                self._rows[name] = dict(zip(stored[f"{name}.rows"].tolist(), logps, strict=True))

    def of(self, name: str) -> dict[int, tuple[float, float]]:
        """Row -> log-probabilities of the chosen and the rejected answer; what is put in is kept by ``keep``."""
        return self._rows.setdefault(name, {})

    def keep(self, *, now: bool = False) -> None:
        """Write it down, if that is due."""
        if now or time.monotonic() - self._kept > _EVERY:
            arrays = {f"{name}.rows": np.array([*rows], dtype=np.intp) for name, rows in self._rows.items()}
            arrays |= {f"{name}.logps": np.array([*rows.values()]).reshape(-1, 2) for name, rows in self._rows.items()}
            _store(self.file, self.mark, arrays)
            self._kept = time.monotonic()

    def clear(self) -> None:
        """All is in the cache."""
        self.file.unlink(missing_ok=True)


@torch.no_grad()
def _computed(
    model: nn.Module,
    pairs: EncodedPairs,
    collator: PairCollator,
    arguments: TrainingArguments,
    name: str,
    so_far: _SoFar,
) -> np.ndarray:
    """Log-probabilities ``(pairs, 2)``; sequences of similar length share a batch, the longest come first."""
    state, size, rows = PartialState(), arguments.per_device_eval_batch_size, so_far.of(name)
    mine = longest_first(pairs)[state.process_index :: state.num_processes]
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    left = [batch for batch in batches if not rows.keys() >= set(batch)]  # batches may have had another size
    device, training = arguments.device, model.training
    model.to(device).eval()
    adapter_off = getattr(model, "disable_adapter", nullcontext)
    quiet = bool(arguments.disable_tqdm) or not state.is_main_process
    dtype = torch.float16 if arguments.fp16 else torch.bfloat16
    told = {"desc": f"reference log-probabilities, {name}", "unit": "batch", "disable": quiet}
    with Steps(total=len(batches), initial=len(batches) - len(left), **told) as bar, _kept(so_far):
        for batch in left:
            inputs = {key: tensor.to(device) for key, tensor in collator([pairs[row] for row in batch]).items()}
            with adapter_off(), torch.autocast(device.type, dtype=dtype, enabled=arguments.bf16 or arguments.fp16):
                chosen, rejected = answer_logps(model, inputs).chunk(2)
            rows.update(zip(batch, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
            so_far.keep()
            bar.update()
    model.train(training)
    logps = np.full((len(pairs), 2), np.nan, dtype=np.float32)  # a pair that was left out must show
    for row, pair in gather_object([*rows.items()]):
        logps[row] = pair
    return logps


@contextmanager
def _kept(so_far: _SoFar) -> Iterator[None]:
    """Inside, what was computed is written down when the work is broken off."""
    try:
        yield
    except BaseException:
        so_far.keep(now=True)
        raise
