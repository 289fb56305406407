"""Runs that read models of every kind by role, and other content for any of them."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from command_lines import flags
from safetensors.torch import load_file, save_file

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.models.loading import tiny_policy, tiny_reward_model

peft = pytest.importorskip("peft")


def models_of(once):
    """Data, and folders of models: policies, reward models, and an adapter of each kind on a base of its own."""
    return once("resuming", _make_models)


def _make_models(folder):
    pairs = generate(24, seed=3)
    write_pairs(pairs, folder / "train.jsonl")
    torch.manual_seed(0)
    policy, words = tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=64)
    reward, others = tiny_reward_model((pair.chosen for pair in pairs), max_length=64)
    for name in ("start", "reference", "policy-base"):
        policy.save_pretrained(folder / name), words.save_pretrained(folder / name)
    for name in ("judge", "gold", "reward-base"):
        reward.save_pretrained(folder / name), others.save_pretrained(folder / name)
    for name, task in (("policy", "CAUSAL_LM"), ("reward", "SEQ_CLS")):
        save_adapter(folder, name, task)


def save_adapter(folder, name, task):
    """An adapter alone, whose settings name its base beside it."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    base = kind.from_pretrained(folder / f"{name}-base")
    lora = peft.LoraConfig(r=2, target_modules="all-linear", exclude_modules=["head.dense", "lm_head"], task_type=task)
    with warnings.catch_warnings():  # it asks for an attribute that transformers has renamed
        warnings.simplefilter("ignore")
        peft.get_peft_model(base, lora).save_pretrained(folder / f"{name}-adapter")
    settings = folder / f"{name}-adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": f"{name}-base"}))


def command(kind, place, output, **more):
    told = {
        "train_file": place / "train.jsonl", "output_dir": output, "max_steps": 1, "max_length": 64, "use_cpu": "true",
        "disable_tqdm": "true", "per_device_train_batch_size": 8, **more,
    }  # fmt: skip
    if kind == "policy":
        told |= {"prompts_per_step": 2, "samples": 2, "max_new_tokens": 4}
    return ["train", kind, *flags(told)]


READ = {  # folders by role, and settings
    "sft": {"model": "start"},
    "reward": {"model": "reward-adapter", "ambiguity": "tv:0.3"},
    "dpo": {"model": "start", "reference_model": "reference", "reference": "model"},
    "dpo-lora": {"model": "policy-base", "lora_rank": 2, "reference": "adapter"},
    "policy": {"model": "start", "reward_model": "judge", "gold": "gold", "reference_model": "policy-adapter"},
}


def read_by(kind, place):
    return {name: place / value if (place / str(value)).exists() else value for name, value in READ[kind].items()}


def touch(file):
    """Other weights of the same shapes, or another line at the end."""
    if file.suffix != ".safetensors":
        file.write_text(file.read_text() + "\n")
        return
    parts = load_file(file)
    name = next(name for name, part in parts.items() if part.ndim == 2)
    parts[name][0, 0] += 1e-3
    save_file(parts, file, metadata={"format": "pt"})
