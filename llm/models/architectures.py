"""Where architectures differ: configurations inside configurations, tables of positions, the layers of a head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, utils
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .fetching import ModelError

_Model = TypeVar("_Model", bound=nn.Module)

_WRITTEN = ("pad", "bos", "eos", "cls", "sep")  # the special tokens that a batch may hold beside the text
_ASSUMED = 512  # tokens a model reads that says nothing about it


def configurations(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """A configuration and those inside it: composite models keep that of the text model in ``text_config``."""
    yield config
    for part in vars(config).values():
        if isinstance(part, PretrainedConfig):
            yield from configurations(part)


def check_no_code(config: PretrainedConfig) -> None:
    """Refuse a configuration whose attention transformers would fetch from the hub and run, where it finds ``kernels``.

    Raises:
        ValueError: It names a repository, or a flash attention that is not installed, which has one to stand in for it.
    """
    for part in configurations(config):
        name = str(part._attn_implementation)
        is_here = getattr(utils, f"is_{name.replace('flash_attention', 'flash_attn')}_available", lambda: True)
        if "/" in name or not is_here():
            raise ValueError(
                f"its configuration, or attn_implementation, asks for {name}, which is not installed and would be code "
                "of the hub: that takes trust_remote_code; sdpa is always there"
            )


def choose_attention(config: PretrainedConfig, name: str | None) -> None:
    """Let every part of a model attend by the implementation of that name; None leaves its own choice.

    Raises:
        ModelError: transformers knows no such implementation; it needs a package, or the code of a hub repository.
    """
    if name is None:
        return
    known = ["eager", *(key for key in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in key)]  # the rest generates
    if name not in known and "/" not in name:
        raise ModelError(f"attn_implementation must be one of {', '.join(sorted(known))}, got {name!r}")
    config._attn_implementation = name


def switch_dropout_off(config: PretrainedConfig) -> None:
    """Set every dropout rate to zero, at every depth."""
    for part in configurations(config):
        for field, value in list(vars(part).items()):
            if "drop" in field and isinstance(value, float):
                setattr(part, field, 0.0)


def tell_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let every part of the model know the padding token: a causal classifier reads the last token that is none."""
    told: list[Any] = [model.config, model.config.get_text_config()]
    if model.can_generate() and model.generation_config is not None:
        told.append(model.generation_config)
    for config in told:
        config.pad_token_id = tokenizer.pad_token_id


def on_meta(model: nn.Module) -> bool:
    """Whether the model is an outline without weights, of which a plan can be made."""
    return any(part.is_meta for part in model.parameters())


def position_limit(model: PreTrainedModel) -> int | None:
    """The most tokens that the model has positions for; None where its configuration names no limit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None or limit < 1 else limit - _spare_positions(model)


def _spare_positions(model: nn.Module) -> int:
    """Positions that no token gets: where padding has one (RoBERTa and its relatives), text starts behind it."""
    tables = [part for name, part in model.named_modules() if "position" in name and isinstance(part, nn.Embedding)]
    return max((table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0)


def placed(model: _Model, device: torch.device | str) -> _Model:
    """The model itself, on a device."""
    return model.to(device)


def reading_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens per answer as in training, where the tokenizer knows; at most what the model reads."""
    return min(tokenizer.model_max_length, position_limit(model) or _ASSUMED)


def check_length(model: PreTrainedModel, max_length: int) -> None:
    """Refuse sequences longer than the model has positions for."""
    check_limit(position_limit(model), max_length)


def check_limit(limit: int | None, max_length: int) -> None:
    """Refuse sequences longer than a limit; None is no limit."""
    if limit is not None and max_length > limit:
        raise ModelError(f"max_length is {max_length}, but this model reads at most {limit} tokens: lower it")


def check_tokens(model: PreTrainedModel, tokenizer: Any) -> None:
    """Refuse a tokenizer whose special tokens, or those its chat template writes, lie beyond the model's embedding.

    Raises:
        ModelError: Naming such a token.
    """
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:  # CANINE hashes characters into several tables
        return
    if rows is None:
        return
    special = {str(getattr(tokenizer, f"{name}_token")): getattr(tokenizer, f"{name}_token_id") for name in _WRITTEN}
    template = str(tokenizer.chat_template)
    added = {token: place for token, place in tokenizer.get_added_vocab().items() if token in template}
    for token, place in (added | special).items():
        if place is not None and place >= rows:
            raise ModelError(
                f"the token {token!r} of the tokenizer is number {place}, but the model's embedding has {rows} rows: "
                "set pad_token (or the special token in question) to one it has, or enlarge it by "
                "model.resize_token_embeddings(len(tokenizer)) and save both again"
            )


def tied_embeddings(model: PreTrainedModel) -> bool:
    """Whether a policy reads and writes tokens by the same weight."""
    reads, writes = model.get_input_embeddings(), model.get_output_embeddings()
    return writes is not None and reads.weight is writes.weight


def head_modules(model: PreTrainedModel, drawn: Iterable[str] = ()) -> list[str]:
    """Names of the modules that are trained whole beside an adapter, and stored with it.

    These are the layers of the head, whatever an architecture calls them, and those layers of the trunk whose weights
    the files of the model lacked: drawn again at the next load, they would be others.

    Args:
        model: A classifier.
        drawn: Names of the weights that were drawn at random.
    """
    trunk: object = model.base_model
    head = [name for name, part in model.named_children() if trunk not in (model, part) and list(part.parameters())]
    owners = {name.rpartition(".")[0] for name in drawn} - {""}
    return head + sorted(owner for owner in owners if owner.split(".")[0] not in head)
