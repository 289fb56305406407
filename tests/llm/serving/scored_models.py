"""Reward models of every shape, and a reader that asks no model."""

from __future__ import annotations

from functools import cache
from typing import Any

import shapes
import torch
import transformers as tf

from llm.serving.reading import ReadItem

LENGTH = 64


@cache
def judge(name: str) -> tuple[Any, Any]:
    """A classifier with one output, of random weights, and its tokenizer."""
    tokenizer = shapes.tokenizer_of(name)
    config = shapes.SHAPES[name].config(tokenizer)
    config.num_labels = 1
    config.pad_token_id = config.get_text_config().pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(4)
    model = tf.AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.2)
    return model, tokenizer


def save_judge(name: str, folder: Any) -> None:
    """The same as a plain folder of transformers."""
    for part in judge(name):
        part.save_pretrained(folder)


class Lengths:
    """Reads texts as rows of ones; the reward is the number of characters of the answer."""

    def read(self, items: Any) -> list[ReadItem]:
        return [ReadItem(tuple([1] * len(answer) for answer in _answers(item))) for item in items]

    def rewards(self, items: Any, wanted: Any = None) -> list[list[float]]:
        return [[float(len(row)) for row in item.rows] for item in items]


def _answers(item: Any) -> list[str]:
    if hasattr(item, "text"):
        return [item.text]
    return list(item.answers) if hasattr(item, "answers") else [item.chosen, item.rejected]
