"""Soft labels that a run fits itself: a calibrated head on frozen features of its own backbone, by folds of prompts.

Features are computed once per pair before the first step, shared out among the ranks; the first one fits and writes
``soft_labels.jsonl`` into the run folder, from which a resumed run takes them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import nn

from dro_core.command_line.pace import paced
from dro_core.files import whole

from ...data.overview import prompts_of
from ...data.pairs import DataError, Pair
from ...models.logprobs import evaluation_mode
from ...run.folder import CheckpointError
from ...statistics.crossfit import crossfit
from ...text.batches import PairCollator, longest_first
from ...text.encoding import EncodedPairs
from ..pair_trainer import PairTrainer
from ..processes import on_main_process

if TYPE_CHECKING:
    from transformers import TrainingArguments

FILE = "soft_labels.jsonl"
_log = logging.getLogger(__name__)


def check_folds(prompts: NDArray[np.str_], folds: int) -> None:
    """Refuse more folds than prompts, of which each pair ``(n,)`` has one.

    Raises:
        DataError: One sentence with the remedy.
    """
    if folds > (count := len(np.unique(prompts))):
        raise DataError(
            f"soft_folds {folds} is more than the {count} prompts of the training pairs, of which each is in one: "
            "lower it, or take soft_labels data or none"
        )


def clusters_of(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """A number for the prompt of every pair, ``(n,)``; prompts that are equal but for white space have the same."""
    return np.unique(prompts_of(pairs), return_inverse=True)[1]


def fitted(trainer: PairTrainer, encoded: EncodedPairs, config: Any, output: Path) -> list[float]:
    """The probability that every label is right: from the run folder, or fitted and written there; on all ranks.

    Args:
        trainer: Of the run, before its first step.
        encoded: Its training pairs.
        config: The settings.
        output: The run folder.

    Raises:
        CheckpointError: What stands in the run folder is of other pairs, or cut off.
    """
    file = output / FILE
    found = on_main_process(lambda: _stored(file, encoded.pairs) if file.exists() else None)
    if found is not None:
        return found
    model, collator = trainer.model, cast("PairCollator", trainer.data_collator)
    differences = feature_differences(model, encoded, collator, trainer.args)

    def fit() -> list[float]:
        masses = None if trainer.masses is None else trainer.masses.double().cpu().numpy()
        clusters, seed = clusters_of(encoded.pairs), config.subset_seed
        found = crossfit(differences, clusters, folds=config.soft_folds, masses=masses, seed=seed).tolist()
        _store(file, encoded.pairs, found)
        right, loss = np.mean(np.array(found) > 0.5), -np.log(found).mean()
        _log.info(
            "soft labels: %d folds of prompts tell %.1f %% of %d labels on pairs they have not seen, at a loss of %.3f "
            "nats (a coin's is %.3f)",
            *(config.soft_folds, 100 * right, len(found), loss, np.log(2)),
        )
        return found

    return on_main_process(fit)


@torch.no_grad()
def feature_differences(
    model: nn.Module, pairs: EncodedPairs, collator: PairCollator, arguments: TrainingArguments
) -> NDArray[np.float32]:
    """Mean last hidden states of chosen minus rejected answers with their prompt, ``(pairs, width)``, on all ranks.

    Adapters are not looked at: before the first step they change nothing.

    Args:
        model: Of the run, whole.
        pairs: The training pairs.
        collator: Makes their batches.
        arguments: Device, precision and the evaluation batch size.
    """
    state, size = PartialState(), arguments.per_device_eval_batch_size
    mine = longest_first(pairs)[state.process_index :: state.num_processes]
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    device, dtype = arguments.device, torch.float16 if arguments.fp16 else torch.bfloat16
    backbone = backbone_of(model.to(device))
    rows: list[tuple[list[int], NDArray[np.float32]]] = []
    quiet = bool(arguments.disable_tqdm) or not state.is_main_process
    with evaluation_mode(model):
        for batch in paced(batches, "batches with features", shown=not quiet):
            inputs = {name: part.to(device) for name, part in collator([pairs[row] for row in batch]).items()}
            with torch.autocast(device.type, dtype=dtype, enabled=arguments.bf16 or arguments.fp16):
                read = backbone(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            mask = inputs["attention_mask"][..., None].float()
            means = (read.last_hidden_state.float() * mask).sum(dim=1) / mask.sum(dim=1)
            chosen, rejected = means.chunk(2)
            rows.append((batch, (chosen - rejected).cpu().numpy()))
    width = rows[0][1].shape[1] if rows else 0
    parts = gather_object(rows)
    differences = np.full((len(pairs), max([width, *(part.shape[1] for _, part in parts)])), np.nan, dtype=np.float32)
    for batch, part in parts:
        differences[batch] = part
    return differences


def backbone_of(model: nn.Module) -> nn.Module:
    """A model without its head; an adapter, which is new, stays inside."""
    bare: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
    return bare.base_model


def _stored(file: Path, pairs: Sequence[Pair]) -> list[float]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = [(str(line["id"]), float(line["p"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(_wrong(file, "cannot be read")) from error
    if [name for name, _ in found] != [pair.id for pair in pairs] or not all(0 <= p <= 1 for _, p in found):
        raise CheckpointError(_wrong(file, "does not hold a probability for each of the training pairs"))
    return [p for _, p in found]


def _wrong(file: Path, what: str) -> str:
    return f"{file} {what}: put a whole copy back, or delete it, and the labels are fitted again"


def _store(file: Path, pairs: Sequence[Pair], found: Sequence[float]) -> None:
    with whole(file, durable=True) as stream:
        for pair, p in zip(pairs, found, strict=True):
            stream.write((json.dumps({"id": pair.id, "p": p}) + "\n").encode())
