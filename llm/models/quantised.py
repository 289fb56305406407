"""Weights in 4 or 8 bits below an adapter, through bitsandbytes: how they are asked for, and what becomes of them."""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from .settings import Quantised

_log = logging.getLogger(__name__)
_PACKS = "support_avx512bf16_for_cpu"  # an attribute of a layer of bitsandbytes


def in_few_bits(quantised: Quantised | None, dtype: torch.dtype) -> dict[str, BitsAndBytesConfig]:
    """What ``from_pretrained`` is told: NF4 or LLM.int8, computed in ``dtype``; nothing where None is asked for."""
    if quantised is None:
        return {}
    if quantised == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    told = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": told}


def is_quantised(model: nn.Module) -> bool:
    """Whether the weights of a model, or those below its adapter, are in few bits, which no optimizer can move."""
    inner = cast(nn.Module, model.get_base_model()) if hasattr(model, "get_base_model") else model  # pyright: ignore
    return bool(getattr(inner, "is_quantized", False))


def differentiable(model: PreTrainedModel) -> PreTrainedModel:
    """The model, whose 4-bit layers give gradients at any time.

    On some CPUs bitsandbytes packs them anew at the first look in evaluation mode, and what is packed gives none, also
    in training mode afterwards: adapters below would stay as they are without an error.
    """
    for module in model.modules() if is_quantised(model) else ():
        if hasattr(module, _PACKS):
            setattr(module, _PACKS, False)
    return model


def at_full_size(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The model that the adapter in ``folder`` can be merged into; told where it was trained on other weights."""
    from ..run.finished import RunError  # an adapter is seldom loaded
    from ..run.run_differences import record_of

    if is_quantised(model):
        _log.warning("the base of %s is quantised: it is read at full size, with the rounding that is in it", folder)
        return cast(PreTrainedModel, model.dequantize())
    try:
        config = (record_of(folder) or {}).get("config", {})
    except RunError:  # an adapter goes on without what is told of its run
        return model
    bits = next((bits for bits in ("4bit", "8bit") if config.get(f"load_in_{bits}")), None)
    if bits is not None:
        _log.warning(
            "the adapter in %s was trained on a base in %s, and is read on the base at full size: numbers differ from "
            "those of its run by the rounding of these weights",
            folder,
            bits.replace("bit", " bits"),
        )
    return model
