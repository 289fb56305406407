"""A model in a folder that other programs read as we do."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from .chat_templates import exported_template


def save_model(folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, *, template: str | None = None) -> None:
    """Write a model, or an adapter alone, and its tokenizer with a chat template; neither is changed.

    The tokenizer names only such inputs as the model takes. It pads left with a policy, which whoever generates in
    batches needs, and right with a reward model, where padding then moves no token; our own loading sets its own side.

    Args:
        folder: Where.
        model: A model of transformers, with an adapter or not.
        tokenizer: Its own.
        template: Other than the layout of the training.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    written, generates = copy.deepcopy(tokenizer), inner.can_generate()
    taken = inspect.signature(inner.forward).parameters
    settings = {
        "padding_side": "left" if generates else "right",
        "model_input_names": [name for name in tokenizer.model_input_names if name in taken],
    }
    for name, value in settings.items():
        setattr(written, name, value)
    written.init_kwargs |= settings  # written down only if they stand here
    written.chat_template = template or exported_template(tokenizer, generates=generates)
    model.save_pretrained(folder)
    written.save_pretrained(folder)
