"""Log-probabilities of answers under a causal language model."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn


def answer_logps(model: nn.Module, inputs: dict[str, Tensor], *, embeddings: Tensor | None = None) -> Tensor:
    """Log pi(answer | prompt) of every sequence, summed over the tokens of the answer, in nats.

    Only the positions that predict an answer token pass through the output layer, where the model can be asked
    for a part (``logits_to_keep``): with long prompts and a large vocabulary that is most of the memory.

    Args:
        model: A causal model of transformers, wrapped for ranks or adapters or not.
        inputs: ``input_ids``, ``attention_mask`` and ``answer_mask`` of shape ``(n, length)``, as ``PairCollator``
            makes them.
        embeddings: Input embeddings ``(n, length, width)`` to read instead of the ids, for gradients in them.

    Returns:
        Shape ``(n,)``, at least float32. A sequence without answer tokens has 0.
    """
    ids, mask = inputs["input_ids"], inputs["answer_mask"].bool()
    kept = _kept(mask) if _takes_part(type(_inner(model))) else mask.shape[1]
    read: dict[str, Any] = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
    if kept < mask.shape[1]:
        read["logits_to_keep"] = kept
    logits = model(**read, attention_mask=inputs["attention_mask"], use_cache=False).logits[:, -kept:-1]
    targets, counted = ids[:, 1 - kept :], mask[:, 1 - kept :]
    return (token_logps(logits, targets) * counted).sum(dim=1)


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Log softmax(logits) at the targets, ``(n, length)``, at least float32, one sequence at a time to spare memory.

    Args:
        logits: ``(n, length, vocabulary)``.
        targets: ``(n, length)``.
    """
    rows = []
    for row, target in zip(logits, targets, strict=True):
        scores = row.to(torch.promote_types(row.dtype, torch.float32))
        rows.append(scores.gather(-1, target[:, None])[:, 0] - scores.logsumexp(-1))
    return torch.stack(rows)


def _kept(mask: Tensor) -> int:
    """How many of the last positions are needed: from the one that predicts the first answer token of any row."""
    first = int(mask.any(dim=0).int().argmax()) if mask.any() else mask.shape[1] - 1
    return mask.shape[1] - max(first - 1, 0)


def _inner(model: nn.Module) -> nn.Module:
    """The model of transformers inside the wrappers of ranks and adapters."""
    model = extract_model_from_parallel(model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore


@cache
def _takes_part(kind: type[nn.Module]) -> bool:
    return "logits_to_keep" in inspect.signature(kind.forward).parameters
