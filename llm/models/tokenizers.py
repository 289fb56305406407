"""The tokenizer of a model without its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..run.finished import check_model
from ..text.rendering import folded
from .adapters import adapter_chain, has_tokenizer
from .architectures import check_no_code, position_limit, tell_padding
from .fetching import FETCHABLE, ModelError, check_there, locate

_UNLIMITED = 1_000_000  # what tokenizers say who know of no limit is above
LONGEST = 512
"""Tokens that are read of a sequence where the tokenizer says nothing."""


def load_tokenizer(name: str, *, trust_remote_code: bool = False, fold_system: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Args:
        name: Alias, folder or hub name.
        trust_remote_code: Let a hub repository run its own code.
        fold_system: Read a system turn as the beginning of the first turn of the user, in its chat template.

    Raises:
        ModelError: There is none under that name.
    """
    _, place, adapters = parts_of(name)
    try:
        return tokenizer_of(place, adapters, trust_remote_code=trust_remote_code, fold_system=fold_system)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"cannot load a tokenizer from {name!r}: give a folder with tokenizer.json, a hub name, or one of "
            f"{', '.join(FETCHABLE)} ({str(error).splitlines()[0]})"
        ) from error


def limit_of(name: str, *, trust_remote_code: bool = False) -> int | None:
    """The most tokens that a model has positions for, told without its weights; None where that cannot be told.

    Raises:
        ModelError: It is nowhere.
    """
    base = adapter_chain(name)[0]
    if base == "tiny":
        return None
    place = locate(base)
    check_there(place)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
        if not trust_remote_code:
            check_no_code(config)
        with torch.device("meta"):
            return position_limit(AutoModel.from_config(config, trust_remote_code=trust_remote_code))
    except (OSError, ValueError, ImportError, TypeError, RuntimeError):  # said where the model is loaded
        return None


def parts_of(name: str) -> tuple[str, str, list[str]]:
    """The base of a model by its name and by its place, and the folders of the adapters on it; all of them whole.

    Raises:
        ModelError: It is built by training, or nowhere.
        RunError: A part is of a finished run, and not what was written.
    """
    base, *adapters = adapter_chain(name)
    if base == "tiny":
        raise ModelError("tiny is built from scratch by training: name the folder of a trained model")
    place = locate(base)
    check_there(place)
    for part in (place, *adapters):
        check_model(part)
    return base, place, adapters


def tokenizer_of(
    place: str, adapters: Sequence[str], *, trust_remote_code: bool, fold_system: bool
) -> PreTrainedTokenizerBase:
    """That of the last adapter that has one, which knows how the adapter was trained; else that of the base."""
    source = next(filter(has_tokenizer, reversed(adapters)), place)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    if fold_system and tokenizer.chat_template:
        tokenizer.chat_template = folded(tokenizer.chat_template)
    return tokenizer


def length_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a sequence as in training, where the tokenizer knows; else LONGEST."""
    longest = tokenizer.model_max_length
    return longest if longest < _UNLIMITED else LONGEST


def check_vocabulary(policy: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase) -> None:
    """Refuse a reference whose tokens are not the policy's: their log-probabilities would be of other things.

    Raises:
        ModelError: The vocabularies differ.
    """
    if policy.get_vocab() != reference.get_vocab():
        raise ModelError(
            f"the policy ({policy.name_or_path}) and the reference ({reference.name_or_path}) have different "
            "vocabularies, so their log-probabilities are not of the same tokens: choose a reference with the "
            "policy's tokenizer"
        )


def ensure_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Causal models often have no padding token; a classifier needs one to find the last real token.

    Raises:
        ModelError: There is neither a padding nor an end token.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError("the tokenizer has neither a padding nor an end token: set one and save it again")
        tokenizer.pad_token = tokenizer.eos_token
    tell_padding(model, tokenizer)
    tokenizer.padding_side = "right"  # positions then start at the first token, with any model
