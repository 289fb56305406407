"""Sequences one behind the other instead of below each other with padding: nothing is computed for a token of padding.

Every sequence starts again at position 0, by which transformers keeps them apart: fused and eager attention by a mask
over all tokens of the batch, flash attention by their boundaries. Not every model is built so; ``check_flat`` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..text.batches import padded
from .fetching import ModelError
from .logprobs import evaluation_mode, inner_model, takes_part, takes_places, token_logps
from .padding import probes

_AT_ONCE = 512  # tokens whose logits are copied to float32 together
Batch = dict[str, Tensor]
Reading = Callable[[nn.Module, Batch], Tensor]


class _Flat(NamedTuple):
    """A batch in one row: what the model reads, and where the padded batch ``(n, length)`` has its tokens."""

    read: Batch
    tokens: Tensor


def _flattened(inputs: Batch) -> _Flat:
    tokens = inputs["attention_mask"].bool()
    positions = tokens.cumsum(dim=1) - 1
    read = {"input_ids": inputs["input_ids"][tokens][None], "position_ids": positions[tokens][None]}
    return _Flat(read, tokens)


def flat_answer_logps(model: nn.Module, inputs: Batch) -> Tensor:
    """What ``answer_logps`` says of a padded batch, ``(n,)``, read without its padding."""
    flat, ids = _flattened(inputs), inputs["input_ids"]
    wanted = inputs["answer_mask"].bool() & flat.tokens
    wanted[:, 0] = False  # nothing predicts a first token
    places = wanted[flat.tokens].nonzero()[:, 0] - 1
    kind = type(inner_model(model))
    part = {"logits_to_keep": places} if takes_part(kind) and takes_places(kind) else {}
    logits = model(**flat.read, **part, use_cache=False).logits[0]
    logits = logits if part else logits[places]
    pieces = zip(logits.split(_AT_ONCE), ids[wanted].split(_AT_ONCE), strict=True)
    logps = torch.cat([token_logps(scores[None], targets[None])[0] for scores, targets in pieces])
    rows = wanted.nonzero()[:, 0]
    return torch.zeros(len(ids), dtype=logps.dtype, device=logps.device).index_add(0, rows, logps)


def flat_rewards(model: nn.Module, inputs: Batch) -> Tensor:
    """Rewards ``(n,)`` of the sequences of a padded batch by a causal classifier, read without the padding.

    transformers takes one reward of a row, that of its last token which is none of padding (an end that pads as well
    is passed over). Those of all tokens pass through the head before.

    Raises:
        ModelError: The head sees one state of a row, not one of every token.
    """
    flat = _flattened(inputs)
    with _outputs_of_the_head(model) as outputs:
        model(**flat.read, use_cache=False)  # with a cache there would be no mask between texts
    if len(outputs) != 1 or outputs[0].shape[:2] != flat.read["input_ids"].shape:
        raise ModelError(_one_state(inner_model(model)))
    config = cast(PretrainedConfig, inner_model(model).config).get_text_config()
    read = flat.tokens & (inputs["input_ids"] != config.pad_token_id)
    columns = torch.arange(read.shape[1], device=read.device)
    lengths = flat.tokens.sum(dim=1)
    return outputs[0][0, lengths.cumsum(dim=0) - lengths + (columns * read).argmax(dim=1), 0]


def _one_state(model: nn.Module) -> str:
    return f"{type(model).__name__} gives one reward a row, and padding_free puts many texts into it: leave it out"


@contextmanager
def _outputs_of_the_head(model: nn.Module) -> Iterator[list[Tensor]]:
    """What the head of a classifier gives inside: ``score`` of transformers' causal models."""
    inner, found = inner_model(model), list[Tensor]()
    head = getattr(inner, "score", None)
    if not isinstance(head, nn.Module):
        raise ModelError(_one_state(inner))
    hook = head.register_forward_hook(lambda module, given, output: found.append(cast(Tensor, output)))
    try:
        yield found
    finally:
        hook.remove()


@torch.no_grad()
def check_flat(model: nn.Module, tokenizer: PreTrainedTokenizerBase, read: Reading) -> None:
    """Refuse a model that reads a text otherwise with others before or behind it in the row.

    A few texts are read alone and in one row, and in that row with another text between them.

    Args:
        model: As it is trained, on its device.
        tokenizer: Its own.
        read: ``flat_answer_logps`` or ``flat_rewards``.

    Raises:
        ModelError: Naming the architecture and its attention.
    """
    inner, pad = cast(PreTrainedModel, inner_model(model)), cast(int, tokenizer.pad_token_id)
    if "position_ids" not in signature(type(inner).forward).parameters:
        raise ModelError(f"{type(inner).__name__} takes no positions, by which padding_free parts texts: leave it out")
    rows = probes(tokenizer)
    with evaluation_mode(model):
        alone = torch.cat([read(model, _batch([row], pad, inner.device)) for row in rows])
        together = read(model, _batch(rows, pad, inner.device))
        others = read(model, _batch([rows[0], rows[1][::-1], rows[2]], pad, inner.device))
    scale = float(alone.abs().max()) * (1e-3 if inner.dtype.itemsize >= 4 else 0.1)
    off, moved = (together - alone).abs().max(), (together - others)[[0, 2]].abs().max()
    if off > scale or moved > scale / 100:
        raise ModelError(
            f"{type(inner).__name__} with {inner.config._attn_implementation} attention lets texts that stand in one "
            "row see each other: leave padding_free out, or choose another attn_implementation"
        )


def _batch(rows: list[list[int]], pad: int, device: torch.device) -> Batch:
    ids, mask = (part.to(device) for part in padded(rows, pad))
    return {"input_ids": ids, "attention_mask": mask, "answer_mask": mask}
