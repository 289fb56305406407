"""Log-probabilities of answers under a causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

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
    answer = answer_logits(model, inputs, embeddings=embeddings)
    return (token_logps(answer.logits, answer.targets) * answer.mask).sum(dim=1)


def answer_tokens(inputs: dict[str, Tensor]) -> Tensor:
    """How many tokens ``answer_logps`` sums over (not a first one: nothing predicts it), at least 1, shape ``(n,)``."""
    return inputs["answer_mask"][:, 1:].sum(dim=1).clamp(min=1)


class AnswerLogits(NamedTuple):
    """What a causal model says at the positions before the last ``length`` tokens of a batch.

    Attributes:
        logits: Shape ``(n, length, vocabulary)``.
        targets: The tokens that follow, ``(n, length)``.
        mask: Which of them belong to the answers, boolean, ``(n, length)``.
        states: Last hidden states at the same positions, ``(n, length, width)``, where asked for.
    """

    logits: Tensor
    targets: Tensor
    mask: Tensor
    states: Tensor | None


def answer_logits(
    model: nn.Module, inputs: dict[str, Tensor], *, embeddings: Tensor | None = None, states: bool = False
) -> AnswerLogits:
    """The logits that predict the answers; ``states`` asks for the hidden states below them. See ``answer_logps``."""
    ids, mask = inputs["input_ids"], inputs["answer_mask"].bool()
    kept = _kept(mask) if takes_part(type(inner_model(model))) else mask.shape[1]
    read: dict[str, object] = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
    if kept < mask.shape[1]:
        read["logits_to_keep"] = _last(kept, ids) if takes_places(type(inner_model(model))) else kept
    if states:
        read["output_hidden_states"] = True
    output = model(**read, attention_mask=inputs["attention_mask"], use_cache=False)
    return AnswerLogits(
        output.logits[:, -kept:-1],
        ids[:, 1 - kept :],
        mask[:, 1 - kept :],
        output.hidden_states[-1][:, -kept:-1] if states else None,
    )


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


def inner_model(model: nn.Module) -> nn.Module:
    """The model of transformers inside the wrappers of ranks, compilation and adapters."""
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore


def vocabulary_of(model: nn.Module) -> int:
    """How many logits a causal model gives of a place; 0 for a classifier."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return getattr(head, "out_features", 0)


@cache
def takes_part(kind: type[nn.Module]) -> bool:
    """Whether such a model can be asked for the logits at a part of the positions."""
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


@cache
def takes_places(kind: type[nn.Module]) -> bool:
    """Whether the part may be given by its places, where a model ``takes_part``."""
    return "Tensor" in str(inspect.signature(kind.forward).parameters["logits_to_keep"].annotation)


def _last(kept: int, ids: Tensor) -> Tensor:
    """The last places of a batch: states at places are gathered, while a number would cut a view of them.

    For the product of a view with the output layer torch on a CPU copies the matrix of that layer once per sequence.
    """
    return torch.arange(ids.shape[1] - kept, ids.shape[1], device=ids.device)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards the mode of each module as it was: a frozen part may have its own."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training:
            module.training = was_training
