"""Models as they are found: nested configurations, odd tokenizers and heads, classifiers that read padding."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import shapes
import torch
import transformers as tf
from loaded_models import SUITE, alone, margins, quiet, starts, train

from llm.data.pairs import write_pairs
from llm.judging.margins import score_pairs
from llm.kinds.registry import config_of, task_of
from llm.models.architectures import check_length, position_limit, reading_length
from llm.models.loading import ModelError, load_policy, load_reward_model
from llm.training.config import ConfigError
from llm.training.guards import live_dropout
from robust_rlhf import main

pytestmark = quiet


@pytest.fixture(scope="module")
def start(once):
    return starts(once)


def test_nested_configurations_are_told_too(start):
    """Dropout, padding token and limit stand in the part of the text model."""
    for load in (load_policy, load_reward_model):
        model, tokenizer = load(str(start("gemma3")))
        assert model.config.text_config.pad_token_id == tokenizer.pad_token_id == 0
        assert model.config.text_config.attention_dropout == 0.0
        assert not live_dropout(model)
        assert live_dropout(load(str(start("gemma3")), disable_dropout=False)[0])
        assert reading_length(model, tokenizer) == 94
        tokenizer.model_max_length = 10**9
        assert reading_length(model, tokenizer) == 96
        with pytest.raises(ModelError, match="at most 96 tokens"):
            check_length(model, 97)


@pytest.mark.parametrize(("name", "limit"), [("bert", 96), ("roberta", 94), ("distilbert", 96), ("gpt2", 96)])
def test_as_many_tokens_as_there_are_positions_are_read(start, name, limit):
    """The first two of RoBERTa's belong to padding; batches are filled up to the limit and no further."""
    model, tokenizer = load_reward_model(str(start(name)))
    assert position_limit(model) == limit
    long = [type(pair)(pair.id, pair.prompt, pair.chosen * 9, pair.rejected) for pair in SUITE]
    together, single = (score_pairs(model, tokenizer, long, max_length=limit, batch_size=n) for n in (32, 1))
    np.testing.assert_allclose(together, single, atol=1e-5)
    with torch.no_grad(), pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 20), attention_mask=torch.ones(1, limit + 1, dtype=torch.long))


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_tokens_beyond_the_embedding_are_named(start, tmp_path, capsys, kind):
    shutil.copytree(start("llama"), tmp_path / "start")
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "start")
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    tokenizer.save_pretrained(tmp_path / "start")
    assert train(kind, tmp_path / "run", tmp_path / "start") == 2
    assert "'<|new|>'" in capsys.readouterr().err
    tokenizer.add_tokens(["<|turn|>"], special_tokens=True)
    tokenizer.pad_token, tokenizer.chat_template = "</s>", "{{ '<|turn|>' + messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "start")
    with pytest.raises(ModelError, match=r"'<\|turn\|>' .*resize_token_embeddings"):
        load_policy(str(tmp_path / "start"))


def test_a_classifier_of_two_labels_gives_its_trunk(start, tmp_path, capsys):
    """It has no reward; training draws a head of one output, which is what it saves."""
    tokenizer = shapes.tokenizer_of("electra")
    config = shapes.SHAPES["electra"].config(tokenizer)
    config.num_labels = 2
    torch.manual_seed(0)
    two = tf.AutoModelForSequenceClassification.from_config(config)
    two.save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ModelError, match=r"no whole reward head, it lacks classifier\.out_proj"):
        margins(tmp_path / "two")
    model, _ = load_reward_model(str(tmp_path / "two"))
    torch.testing.assert_close(model.classifier.dense.weight, two.classifier.dense.weight)
    place = alone("reward", tmp_path / "run", tmp_path / "two")
    np.testing.assert_array_equal(margins(place), margins(place))


def test_weights_of_another_trunk_are_no_start(start, tmp_path):
    shutil.copytree(start("bert"), tmp_path / "start")
    path = tmp_path / "start" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 20}))
    with pytest.raises(ModelError, match="another shape"):
        load_reward_model(str(tmp_path / "start"))


READ_PADDING = {
    "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
    "ConvBert": {"conv_kernel_size": 3},
    "FNet": {},
    "MobileBert": {"embedding_size": 16},
}


@pytest.mark.parametrize("name", READ_PADDING)
def test_classifiers_that_read_padding_are_refused(tmp_path, capsys, name):
    """XLNet scores the last column, the others mix columns whatever the mask says: a row depends on its batch mates."""
    tokenizer = shapes.tokenizer_of("roberta")
    sizes = {} if name == "XLNet" else shapes.SIZES
    sizes |= READ_PADDING[name] | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    model = getattr(tf, f"{name}ForSequenceClassification")(getattr(tf, f"{name}Config")(**sizes, num_labels=1))
    for weight in model.parameters():  # pretrained models have something at the padding token
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    row, pad = tokenizer("a text")["input_ids"], [tokenizer.pad_token_id] * 8
    with torch.no_grad():
        alone = model.eval()(input_ids=torch.tensor([row])).logits.item()
        mask = torch.tensor([[1] * len(row) + [0] * len(pad)])
        among = model(input_ids=torch.tensor([row + pad]), attention_mask=mask).logits.item()
    assert abs(alone - among) > 0.01 * abs(alone)
    write_pairs(SUITE, tmp_path / "suite.jsonl")
    for run in (
        lambda: main(["evaluate", str(tmp_path / "model"), "--suite", str(tmp_path / "suite.jsonl")]),
        lambda: train("reward", tmp_path, tmp_path / "model"),
    ):
        assert run() == 2
        assert f"{name}ForSequenceClassification reads padding" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["reward", "sft", "dpo"])
def test_a_model_from_scratch_has_the_precision_that_is_asked_for(kind):
    """The same weights, rounded; nothing else is."""
    found = []
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        task = task_of(config_of(kind)(train_file="pairs.jsonl", model="tiny", dtype=dtype, max_length=64))
        found.append(task.load(SUITE)[0])
    exact, rounded = found
    assert rounded.dtype == torch.bfloat16
    for whole, half in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(whole.to(torch.bfloat16), half)
    for whole, same in zip(exact.buffers(), rounded.buffers(), strict=True):
        assert torch.equal(whole, same)


def test_what_a_model_from_scratch_lacks_is_refused():
    with pytest.raises(ConfigError, match="system_turns=fold changes the template of a model, and tiny has none"):
        config_of("sft")(train_file="pairs.jsonl", model="tiny", system_turns="fold")
