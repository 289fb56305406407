"""Weights in few bits below an adapter, for real where bitsandbytes is installed, whose kernels run on a CPU too."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
import shapes
import torch
import transformers as tf
from loaded_models import margins, quiet, train
from safetensors.torch import load_file

from llm.models.adapters import Adapter, with_adapter
from llm.models.loading import load_policy
from llm.training.config import ConfigError, DPOConfig, RewardConfig

pytestmark = quiet
HERE = importlib.util.find_spec("bitsandbytes") is not None
for_real = pytest.mark.skipif(not HERE, reason="bitsandbytes is not installed: pip install robust-rlhf[quantised]")


@pytest.fixture(scope="module")
def start(once):
    """A policy whose layers are as wide as blocks of 64 weights."""

    def build(folder):
        tokenizer = shapes.tokenizer_of("llama")
        torch.manual_seed(0)
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = tf.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=96, **sizes, **ids)
        tf.LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return once("llama-of-64", build)


@pytest.mark.parametrize("kind", [RewardConfig, DPOConfig])
@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_without_an_adapter_there_is_nothing_to_train(kind, bits):
    with pytest.raises(ConfigError, match=f"{bits} freezes the weights.*set lora_rank"):
        kind(model="x", train_file="x", **{bits: True})


def test_one_of_both_and_not_of_a_model_from_scratch():
    told = {"train_file": "x", "lora_rank": 2, "load_in_4bit": True}
    with pytest.raises(ConfigError, match="exclude each other"):
        DPOConfig(model="x", load_in_8bit=True, **told)
    with pytest.raises(ConfigError, match="tiny is made from scratch"):
        DPOConfig(model="tiny", **told)


def test_what_is_not_installed_is_named(monkeypatch, tmp_path, capsys):
    """Whatever is installed: where Python looks for packages is all that is changed."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, find=importlib.util.find_spec: (
        None if name == "bitsandbytes" else find(name)))  # fmt: skip
    monkeypatch.setattr("llm.models.settings.find_spec", importlib.util.find_spec)
    assert train("dpo", tmp_path, "x", "--load-in-4bit", "--lora_rank", "2") == 2
    assert "load_in_4bit needs bitsandbytes: pip install bitsandbytes" in capsys.readouterr().err


@for_real
@pytest.mark.parametrize(("kind", "bits"), [("dpo", 4), ("reward", 8), ("policy", 4), ("sft", 4)])
def test_an_adapter_is_trained_on_few_bits_and_saved_alone(start, tmp_path, kind, bits, caplog, capsys):
    """Two steps; what is exported says what it belongs to, and every reader of it what it was trained on."""
    four = ["--prompts_per_step", "4"]
    more = ["--reward_model", "regex:a", "--max_new_tokens", "4", "--samples", "4", *four] if kind == "policy" else []
    told = ["--lora_rank", "2", f"--load-in-{bits}bit", *more]
    assert train(kind, tmp_path, start, *told) == 0, capsys.readouterr().err
    model = tmp_path / "run" / "model"
    assert not (model / "model.safetensors").exists()
    config = json.loads((model / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(start.resolve())
    trained = load_file(model / "adapter_model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in trained.values())
    assert any(bool(weight.any()) for name, weight in trained.items() if "lora_B" in name)
    caplog.clear()
    assert np.isfinite(margins(model)).all()
    said = [record.getMessage() for record in caplog.records]
    assert [f"trained on a base in {bits} bits" in text for text in said if str(model) in text] == [True]


@for_real
def test_the_weights_are_in_few_bits_and_nearly_the_same(start):
    """NF4 rounds every weight to one of 16 levels of its block; the norms and embeddings stay."""
    whole, _ = load_policy(str(start))
    few, _ = load_policy(str(start), quantised="4bit")
    levels = few.dequantize().get_parameter("model.layers.0.mlp.up_proj.weight").detach()
    assert len(levels.unique()) < levels.numel() / 4
    right = whole.get_parameter("model.layers.0.mlp.up_proj.weight").detach()
    assert 0.01 < float((levels - right).norm() / right.norm()) < 0.2
    assert torch.equal(few.get_input_embeddings().weight, whole.get_input_embeddings().weight)


@for_real
def test_gradients_are_the_same_after_a_look_in_evaluation_mode(start):
    """On CPUs with bfloat16 bitsandbytes would pack the layers at that look, into a form that gives none."""
    model, _ = load_policy(str(start), quantised="4bit")
    policy, ids = with_adapter(model, Adapter(2, targets=["all-linear"]), task="CAUSAL_LM"), torch.arange(3, 19)[None]
    found = []
    for _ in range(2):
        policy.train()
        policy(input_ids=ids).logits.logsumexp(-1).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
        policy.zero_grad()
        with torch.no_grad():
            policy.eval()(input_ids=ids)
    assert found[0].any()
    assert torch.equal(*found)


@pytest.fixture
def few(start, tmp_path):
    """A model in 4 bits, as its folder says."""
    model, tokenizer = load_policy(str(start), quantised="4bit")
    model.save_pretrained(tmp_path / "few")
    tokenizer.save_pretrained(tmp_path / "few")
    assert "quantization_config" in json.loads((tmp_path / "few" / "config.json").read_text())
    return tmp_path / "few"


@for_real
def test_a_model_that_is_in_few_bits_already(few, tmp_path, caplog, capsys):
    """It needs an adapter, which is not merged into it, and is read at full size, with the rounding that is in it."""
    assert train("dpo", tmp_path / "all", few) == 2
    assert "are quantised and cannot be trained: set lora_rank" in capsys.readouterr().err
    assert train("dpo", tmp_path / "lora", few, "--lora_rank", "2") == 0
    model = tmp_path / "lora" / "run" / "model"
    assert (model / "adapter_config.json").exists()
    assert "exported alone" in (model / "README.md").read_text()
    caplog.clear()
    found = margins(model)
    assert "is quantised: it is read at full size" in caplog.text
    policy, _ = load_policy(str(few))
    alone = tf.AutoModelForCausalLM.from_pretrained(few).dequantize()
    ids = torch.arange(3, 19)[None]
    np.testing.assert_allclose(policy(ids).logits.detach(), alone(ids).logits.detach(), atol=1e-3)
    assert np.isfinite(found).all()


@for_real
def test_what_needs_whole_weights_is_refused(start, tmp_path, capsys):
    told = ["--load-in-4bit", "--lora_rank", "2"]
    assert train("dpo", tmp_path / "a", start, *told, "--final", "average") == 2
    assert "use last" in capsys.readouterr().err
    judge = ["--reward_model", "regex:a", "--max_new_tokens", "4", "--estimator", "ppo"]
    assert train("policy", tmp_path / "b", start, *told, *judge) == 2
    assert "set value_model=shared" in capsys.readouterr().err
