"""Does a classifier read padding? The reward of a text would be another one with longer texts beside it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.distributed.fsdp import is_fsdp_enabled
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from ..text.batches import padded
from ..text.tokens import Reader
from .architectures import on_meta, position_limit
from .fetching import ModelError
from .logprobs import evaluation_mode

_TEXTS = ["Yes.", "It depends on what stands beside it.", "No, 7 of 12, or so they say."]
_COLUMNS = 16  # of padding


def check_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model whose reward of a text changes with the padding behind it.

    Some take the last column for the last token (XLNet), some mix columns without a look at the mask (FNet, ConvBERT,
    MobileBERT). Which do is asked of the model: a few texts are read alone and with padding. Models that are loaded in
    parts are not asked, nor those without weights, nor those whose attention needs a GPU before they are there.

    Raises:
        ModelError: Naming the architecture.
    """
    waits = "flash" in str(model.config._attn_implementation) and model.device.type == "cpu"
    if waits or on_meta(model) or is_fsdp_enabled() or is_deepspeed_zero3_enabled():
        return
    alone, among = [], []
    for row in _that_fit(model, probes(tokenizer)):
        columns = min(len(row) + _COLUMNS, position_limit(model) or len(row) + _COLUMNS)
        alone.append(_reward(model, row, tokenizer, len(row)))
        among.append(_reward(model, row, tokenizer, columns))
    gap = max((abs(one - other) for one, other in zip(alone, among, strict=True)), default=0.0)
    scale = max(map(abs, alone + among), default=0.0)
    if gap > scale * (1e-3 if model.dtype.itemsize >= 4 else 0.1):  # never where there is a nan, which others name
        raise ModelError(
            f"{type(model).__name__} reads padding: the reward of a text changes by {gap:.2g} (rewards are up to "
            f"{scale:.2g}) with longer texts beside it in a batch, so none is right: take another architecture"
        )


def probes(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """A few texts of different lengths, as they are read."""
    edges = Reader(tokenizer).edges
    texts = tokenizer(_TEXTS, add_special_tokens=False)["input_ids"]
    return [[*edges.prefix, *ids, *edges.suffix] for ids in texts]


def _that_fit(model: PreTrainedModel, rows: list[list[int]]) -> list[list[int]]:
    """Those that leave room for padding."""
    limit = position_limit(model)
    return [row for row in rows if limit is None or len(row) < limit]


@torch.no_grad()
def _reward(model: PreTrainedModel, row: list[int], tokenizer: Any, columns: int) -> float:
    ids, mask = padded([row], tokenizer.pad_token_id, columns)
    with evaluation_mode(model):
        return float(model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits[0, 0])
