"""Log-probabilities under the reference policy, computed once and kept on disk with a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from rich.progress import track
from torch import nn
from transformers import TrainingArguments

from dro_core.files import whole

from ..models.logprobs import answer_logps
from ..run.stored_arrays import UnreadableArrays, read_arrays
from ..text.batches import PairCollator, longest_first
from ..text.encoding import EncodedPairs
from ..training.processes import on_main_process


class StaleReferenceError(ValueError):
    """Stored reference log-probabilities belong to other weights or other pairs."""


def put_reference(
    model: nn.Module,
    datasets: Mapping[str, EncodedPairs],
    collator: PairCollator,
    arguments: TrainingArguments,
    *,
    cache: Path,
) -> None:
    """Give every pair its reference log-probabilities: from ``cache``, or from the model, and then into ``cache``.

    The work is shared among the processes; each needs the whole model on its device while it lasts.

    Args:
        model: The reference policy.
        datasets: The pairs by name (train, eval).
        collator: Makes their batches.
        arguments: Device, precision and the evaluation batch size.
        cache: An ``.npz`` file.

    Raises:
        StaleReferenceError: The file was made by other weights, other pairs or another precision.
    """
    mark = fingerprint(model, datasets, precision=_precision(arguments))
    found = on_main_process(lambda: _stored(cache, mark))
    if found is None:
        found = {name: _computed(model, pairs, collator, arguments) for name, pairs in datasets.items()}
        on_main_process(lambda: _store(cache, mark, found))
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


@torch.no_grad()
def _computed(
    model: nn.Module, pairs: EncodedPairs, collator: PairCollator, arguments: TrainingArguments
) -> np.ndarray:
    """Log-probabilities ``(pairs, 2)``; sequences of similar length share a batch, the longest come first."""
    state, size = PartialState(), arguments.per_device_eval_batch_size
    mine = longest_first(pairs)[state.process_index :: state.num_processes]
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    device, training = arguments.device, model.training
    model.to(device).eval()
    adapter_off = getattr(model, "disable_adapter", nullcontext)
    rows: list[tuple[int, float, float]] = []
    quiet = arguments.disable_tqdm or not state.is_main_process
    dtype = torch.float16 if arguments.fp16 else torch.bfloat16
    for batch in track(batches, "reference", transient=True, disable=bool(quiet)):
        inputs = {name: tensor.to(device) for name, tensor in collator([pairs[row] for row in batch]).items()}
        with adapter_off(), torch.autocast(device.type, dtype=dtype, enabled=arguments.bf16 or arguments.fp16):
            chosen, rejected = answer_logps(model, inputs).chunk(2)
        rows += zip(batch, chosen.tolist(), rejected.tolist(), strict=True)
    model.train(training)
    logps = np.full((len(pairs), 2), np.nan, dtype=np.float32)  # a pair that was left out must show
    for row, chosen, rejected in gather_object(rows):
        logps[row] = chosen, rejected
    return logps
