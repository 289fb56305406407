"""A model in a folder that other programs read as we do."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..text.exported_templates import exported_template


def save_model(folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, *, template: str | None = None) -> None:
    """Write a model, or an adapter alone, and its tokenizer with a chat template; neither is changed.

    The tokenizer gives the two inputs that were trained on: token types, even if all are 0, shift a GPT-2. It pads left
    with a policy, which whoever generates in batches needs, and right with a reward model, where padding then moves no
    token; our own loading sets its own side.

    Args:
        folder: Where.
        model: A model of transformers, with an adapter or not.
        tokenizer: Its own.
        template: Other than the layout of the training.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    written, generates = copy.deepcopy(tokenizer), inner.can_generate()
    settings: dict[str, object] = {
        "padding_side": "left" if generates else "right",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for name, value in settings.items():
        setattr(written, name, value)
    written.init_kwargs |= settings  # written down only if they stand here
    written.chat_template = template or exported_template(tokenizer, generates=generates)
    model.save_pretrained(folder)
    written.save_pretrained(folder)
