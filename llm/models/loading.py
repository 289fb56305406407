"""Where models come from: a hub name, a folder, a package on PyPI, or from scratch."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..run.finished import check_model
from .adapters import adapter_chain, adapter_task, merge_adapter, remember_drawn
from .architectures import check_no_code, check_tokens, choose_attention, switch_dropout_off
from .contents import check_below
from .fetching import FETCHABLE, ModelError, check_there, locate
from .padding import check_padding
from .quantised import at_full_size, differentiable, in_few_bits
from .settings import Quantised
from .tokenizers import ensure_padding, parts_of, tokenizer_of

_log = logging.getLogger(__name__)
TINY_VOCABULARY = 2048
TINY_LAYERS = 4


def load_reward_model(
    name: str,
    *,
    trust_remote_code: bool = False,
    disable_dropout: bool = True,
    new_head: bool = True,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    quantised: Quantised | None = None,
    fold_system: bool = False,
    outline: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with one output, the reward, and its tokenizer.

    Args:
        name: Alias (``minilm``), folder, or hub name; a folder may hold an adapter for a base model elsewhere.
        trust_remote_code: Let a hub repository run its own code. Off unless the user sets it.
        disable_dropout: Set every dropout rate to zero (weights and gradients then see one function).
        new_head: Whether a model without a reward head may get a random one, as training needs it;
            judging such a model would report noise.
        dtype: Precision of the weights: float32, bfloat16 or float16.
        attn_implementation: Attention by transformers' names; None: the model's own choice.
        quantised: Read the weights in 4 or 8 bits (bitsandbytes); an adapter in the folder is merged at full size.
        fold_system: Let the chat template read a system turn as the beginning of the first turn of the user.
        outline: For a plan: where there are no weights, the model without them, on the meta device.

    Raises:
        ModelError: Nothing loadable under that name.
        RunError: It is the model of a finished run, and not what was written.
    """
    model, tokenizer, lacking = _load(
        AutoModelForSequenceClassification,
        name,
        trust_remote_code=trust_remote_code,
        disable_dropout=disable_dropout,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantised=quantised,
        fold_system=fold_system,
        outline=outline,
        num_labels=1,
        ignore_mismatched_sizes=True,  # a classifier of other labels: its trunk is as good a start as any
    )
    if lacking and not new_head:
        where = "neither the adapter nor its base model holds" if adapter_task(name) else "it lacks"
        raise ModelError(f"{name!r} has no whole reward head, {where} {', '.join(lacking[:3])}: train it first")
    check_padding(model, tokenizer)
    return remember_drawn(model, lacking), tokenizer


def load_policy(
    name: str,
    *,
    trust_remote_code: bool = False,
    disable_dropout: bool = True,
    dtype: str = "float32",
    attn_implementation: str | None = None,
    quantised: Quantised | None = None,
    fold_system: bool = False,
    outline: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer; arguments as in ``load_reward_model``.

    Raises:
        ModelError: Nothing loadable under that name, or no causal model.
    """
    model, tokenizer, lacking = _load(
        AutoModelForCausalLM,
        name,
        trust_remote_code=trust_remote_code,
        disable_dropout=disable_dropout,
        dtype=dtype,
        attn_implementation=attn_implementation,
        quantised=quantised,
        fold_system=fold_system,
        outline=outline,
    )
    if lacking:
        raise ModelError(f"{name!r} is no causal language model: it lacks {', '.join(lacking[:3])}")
    return model, tokenizer


def is_policy(name: str, *, trust_remote_code: bool = False) -> bool:
    """Whether ``name`` holds a causal language model rather than a reward model, by its configuration.

    Raises:
        ModelError: There is no configuration under that name.
        RunError: It is the model of a finished run, and not what was written.
    """
    chain = [locate(part) for part in adapter_chain(name)]
    check_there(chain[0])
    for part in chain:
        check_model(part)
    if task := adapter_task(name):
        return task == "CAUSAL_LM"
    try:
        config = AutoConfig.from_pretrained(chain[0], trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _unloadable(name, error) from error
    return not set(config.architectures or []).isdisjoint(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def _load(
    kind: Any, name: str, *, trust_remote_code: bool, fold_system: bool, **settings: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """Model with its adapters merged in, tokenizer, and the names of weights that no file has.

    The tokenizer is the one in the folder of the last adapter that has one: it knows how the adapter was trained.
    """
    base, place, adapters = parts_of(name)
    for below, adapter in pairwise([base, *adapters]):
        check_below(adapter, below)
    settings["outline"] &= not adapters  # which are merged into weights
    try:
        model, lacking = _base(kind, place, trust_remote_code=trust_remote_code, **settings)
        tokenizer = tokenizer_of(place, adapters, trust_remote_code=trust_remote_code, fold_system=fold_system)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unloadable(base, error) from error
    for adapter in adapters:
        model, given = merge_adapter(at_full_size(model, adapter), adapter)
        lacking -= given
    ensure_padding(model, tokenizer)
    check_tokens(model, tokenizer)
    return model, tokenizer, sorted(lacking)


def _base(
    kind: Any,
    place: str,
    *,
    trust_remote_code: bool,
    disable_dropout: bool,
    dtype: str,
    attn_implementation: str | None,
    quantised: Quantised | None,
    outline: bool,
    ignore_mismatched_sizes: bool = False,
    **settings: object,
) -> tuple[PreTrainedModel, set[str]]:
    """A model without its adapters, and the names of the weights that its files lack, or have in another shape.

    Raises:
        ValueError: A weight below the head has another shape: the files are of another model.
    """
    config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code, **settings)
    choose_attention(config, attn_implementation)
    if not trust_remote_code:
        check_no_code(config)
    if disable_dropout:
        switch_dropout_off(config)
    try:
        model, loading = kind.from_pretrained(
            place,
            config=config,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            **in_few_bits(quantised, getattr(torch, dtype)),
        )
    except OSError as error:
        if not outline or quantised:
            raise
        reason = str(error).splitlines()[0]
        _log.warning("planned from the configuration of %s alone; what reads weights is not checked: %s", place, reason)
        with torch.device("meta"):
            return kind.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code), set()
    other_shapes = {name for name, *_ in loading["mismatched_keys"]}
    trunk = f"{model.base_model_prefix}."
    if wrong := sorted(name for name in other_shapes if name.startswith(trunk)):
        raise ValueError(f"{wrong[0]} has another shape in its files than in its configuration")
    return differentiable(model), set(loading["missing_keys"]) | other_shapes


def _unloadable(name: str, error: Exception) -> ModelError:
    return ModelError(
        f"cannot load a model from {name!r}: give a folder with config.json and model.safetensors, a hub name, "
        f"or one of {', '.join(FETCHABLE)} ({str(error).splitlines()[0]})"
    )


def tiny_reward_model(
    texts: Iterable[str], *, max_length: int, attn_implementation: str | None = None, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A byte-level encoder of about a million parameters, from scratch; for tests and the demo.

    The tokenizer is a byte-level BPE trained on ``texts``, so any text can be encoded; the model is a
    four-layer ModernBERT with mean pooling. Initialisation uses torch's global generator; the weights of another
    ``dtype`` are the same, rounded.
    """
    tokenizer = _byte_level_tokenizer(texts, max_length=max_length)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=TINY_LAYERS,
        num_attention_heads=4,
        max_position_embeddings=max(512, max_length),
        layer_types=["full_attention"] * TINY_LAYERS,
        classifier_pooling="mean",
        bos_token_id=None,
        eos_token_id=None,
        **ids,
    )
    config.num_labels = 1
    choose_attention(config, attn_implementation)
    return _rounded(ModernBertForSequenceClassification(config), dtype), tokenizer


def tiny_policy(
    texts: Iterable[str], *, max_length: int, attn_implementation: str | None = None, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal model of about a million parameters, from scratch, with the tokenizer of ``tiny_reward_model``."""
    tokenizer = _byte_level_tokenizer(texts, max_length=max_length)
    tokenizer.eos_token, tokenizer.bos_token = "[SEP]", "[CLS]"
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=TINY_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=max(512, max_length),
        tie_word_embeddings=True,
        **ids,
    )
    choose_attention(config, attn_implementation)
    return _rounded(LlamaForCausalLM(config), dtype), tokenizer


def _rounded(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """The model with its weights in that precision; tables of positions stay as exact as in a model that is read."""
    kind: torch.dtype = getattr(torch, dtype)
    for weight in model.parameters():
        weight.data = weight.data.to(kind)
    model.config.dtype = kind
    return model


def _byte_level_tokenizer(texts: Iterable[str], *, max_length: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids[1:])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=max_length
    )
