"""Attention by transformers' names: every model of a run uses it, and the numbers stay."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from loaded_models import SUITE, margins, quiet, starts, train

from llm.judging.margins import likelihood_margins, score_pairs
from llm.models.architectures import configurations
from llm.models.loading import ModelError, load_policy, load_reward_model
from llm.training.config import ConfigError, DPOConfig
from llm.training.settings import parse_settings

pytestmark = quiet


@pytest.fixture(scope="module")
def start(once):
    return starts(once)


@pytest.fixture
def asked(monkeypatch):
    """How often torch's fused attention was asked, by any model."""
    fused, calls = torch.nn.functional.scaled_dot_product_attention, []

    def counted(*args, **kwargs):
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    return calls


@pytest.mark.parametrize("name", ["gemma3", "modernbert"])
def test_a_loaded_model_says_what_it_uses_and_gives_the_same_numbers(start, name, asked):
    policy = name == "gemma3"
    load, told = (load_policy, {"margin_of": likelihood_margins}) if policy else (load_reward_model, {})
    found, weights = {}, load(str(start(name)))[0].state_dict()  # the head of a classifier is drawn anew each time
    for attention in ("eager", "sdpa"):
        model, tokenizer = load(str(start(name)), attn_implementation=attention)
        model.load_state_dict(weights)
        assert {part._attn_implementation for part in configurations(model.config)} == {attention}
        asked.clear()
        found[attention] = score_pairs(model, tokenizer, SUITE, max_length=48, **told)
        assert bool(asked) == (attention == "sdpa")
    np.testing.assert_allclose(found["eager"], found["sdpa"], rtol=1e-4, atol=1e-5)


def logged(folder):
    """Losses and rewards of every log of a run."""
    history = json.loads((folder / "run" / "run.json").read_text())["history"]
    return [row[name] for row in history for name in ("loss", "mean_loss", "robust_loss", "reward") if name in row]


@pytest.mark.parametrize(
    "kind", [*(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("reward", "dpo")), "policy"]
)
def test_all_models_of_a_run_attend_as_told(start, tmp_path, kind, asked):
    """Policy, reference, value function and reward model; the losses are the same to rounding."""
    model, more = start("llama"), ["--logging_steps", "1"]
    more += ["--reference_model", str(start("llama"))] if kind == "dpo" else []
    if kind == "policy":
        assert train("reward", tmp_path / "judge", start("modernbert")) == 0
        more += ["--reward_model", str(tmp_path / "judge" / "run" / "model"), "--max_new_tokens", "4", "--samples", "2"]
        more += ["--prompts_per_step", "4", "--estimator", "ppo", "--reference", "model"]
    for attention in ("eager", "sdpa"):
        asked.clear()
        assert train(kind, tmp_path / attention, model, "--attn-implementation", attention, *more) == 0
        assert bool(asked) == (attention == "sdpa")
    assert len(logged(tmp_path / "eager")) >= 2
    np.testing.assert_allclose(logged(tmp_path / "eager"), logged(tmp_path / "sdpa"), rtol=1e-3)
    if kind != "policy":
        np.testing.assert_allclose(
            *(margins(tmp_path / name / "run" / "model") for name in ("eager", "sdpa")), atol=0.02
        )


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_tiny_attends_as_told(tmp_path, kind, asked):
    assert train(kind, tmp_path, "tiny", "--attn-implementation", "eager") == 0
    assert not asked


@pytest.mark.parametrize(
    ("name", "said"),
    [("speedy", "must be one of eager, .*sdpa"), ("paged|sdpa", "must be one of"), 
     ("someone/kernel", "code of the hub"),
     ("flash_attention_2", "not installed")],
)  # fmt: skip
def test_what_there_is_not_is_one_sentence(start, name, said):
    for load in (load_policy, load_reward_model):
        with pytest.raises(ModelError, match=said) as error:
            load(str(start("llama")), attn_implementation=name)
        assert "\n" not in str(error.value)


def test_the_precision_has_its_older_name_too(tmp_path):
    told = {"model": "tiny", "train_file": "x", "output_dir": str(tmp_path), "use_cpu": True}
    for argv, settings in ((["--torch-dtype", "bfloat16"], {}), (["--torch_dtype=bfloat16"], {}),
                           ([], {"torch_dtype": "bfloat16"})):  # fmt: skip
        assert parse_settings(DPOConfig, told | settings, argv, where="a test")[0].dtype == "bfloat16"
    with pytest.raises(ConfigError, match="float32"):
        parse_settings(DPOConfig, told, ["--torch-dtype", "int3"], where="a test")
