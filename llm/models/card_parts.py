"""What a model card says for other programs: names and licence in its header, and code to use the model by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from ..run.escaping import python_text, visible
from ..run.files import JsonObject
from .fetching import FETCHABLE, ModelError, locate

_PLACE = "path/to/model"
_REWARD = """import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
{imports}
tokenizer = AutoTokenizer.from_pretrained({place})
{loading}
chat = [{{"role": "user", "content": "Hi"}}, {{"role": "assistant", "content": "Hello."}}]
text = tokenizer.apply_chat_template(chat, tokenize=False)
inputs = tokenizer(text, add_special_tokens={special}, return_tensors="pt")
with torch.no_grad():
    reward = model(**inputs).logits[0, 0].item()

# TRL: policy optimisation against this reward
from trl import GRPOTrainer
GRPOTrainer("path/to/policy", reward_funcs={named}, train_dataset=prompts).train()

# vLLM{merged}
from vllm import LLM, PoolingParams
llm, raw = LLM({merged_place}, runner="pooling"), PoolingParams(use_activation=False)
tokens = [{{"prompt_token_ids": inputs["input_ids"][0].tolist()}}]
reward = llm.classify(tokens, pooling_params=raw)[0].outputs.probs[0]"""
_POLICY = """from transformers import AutoModelForCausalLM, AutoTokenizer
{imports}
tokenizer = AutoTokenizer.from_pretrained({place})
{loading}
chat = [{{"role": "user", "content": "Hi"}}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=64)
answer = tokenizer.decode(written[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)

# TRL: more training, for example on preference pairs
from trl import DPOTrainer
DPOTrainer(model, processing_class=tokenizer, train_dataset=pairs).train()

# vLLM{merged}
from vllm import LLM
answer = LLM({merged_place}).chat(chat)[0].outputs[0].text"""
_ON_THE_HUB = re.compile(r'(?:\{"file": ")?hf://datasets/([^/:]+/[^/:@]+)')  # alone or in a mapping
_WHOLE = "model = {kind}.from_pretrained({place}).eval()"
_ADAPTED = """base = {kind}.from_pretrained({base}{labels})
base.config.get_text_config().pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(base, {place}).merge_and_unload().eval()"""


def header(record: JsonObject, *, pipeline: str, tag: str) -> list[str]:
    """The lines that the hub reads: what the model is, what it was made from, under which licence it stands."""
    config, alone = record["config"], _alone(record["config"])
    entries: JsonObject = {
        "library_name": "peft" if alone else "transformers",
        "pipeline_tag": pipeline,
        "license": record.get("licence", "unknown"),
        "tags": [tag, "distributionally-robust-optimization", "robust-rlhf"],
    }
    if config["model"] != "tiny":
        entries |= {"base_model": base_name(config["model"]), "base_model_relation": "adapter" if alone else "finetune"}
    files = config["train_file"] if isinstance(config["train_file"], list) else [config["train_file"]]
    if found := list(filter(None, (_ON_THE_HUB.match(file) for file in files))):
        entries["datasets"] = list(dict.fromkeys(data[1] for data in found))
    readable = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    safe = readable if visible(readable) == readable else yaml.safe_dump(entries, sort_keys=False)
    return ["---", safe.rstrip(), "---"]


def use(record: JsonObject, *, reward: bool) -> list[str]:
    """The section that shows how transformers, TRL and vLLM read the model."""
    config = record["config"]
    kind, alone = f"AutoModelFor{'SequenceClassification' if reward else 'CausalLM'}", _alone(config)
    place = python_text(config["publish"] or _PLACE)
    loading = (_ADAPTED if alone else _WHOLE).format(
        kind=kind, place=place, base=python_text(base_name(config["model"])), labels=", num_labels=1" if reward else ""
    )
    text = (_REWARD if reward else _POLICY).format(
        imports="from peft import PeftModel\n" if alone else "",
        place=place,
        loading=loading,
        special=record.get("adds_special_tokens", False),
        named="model, reward_processing_classes=tokenizer" if alone else place,
        merged=': after model.save_pretrained("merged") and tokenizer.save_pretrained("merged")' if alone else "",
        merged_place=python_text("merged") if alone else place,
    )
    return ["## Use", "", "```python", text, "```", ""]


def base_name(name: str) -> str:
    """A hub name as it is, a folder by its last part, or the run that made it: where it lies is nobody's business."""
    if name in FETCHABLE:
        return FETCHABLE[name].hub
    path = Path(name)
    if not path.exists():
        return name
    return "/".join(path.parts[-2:]) if path.name == "model" else path.name


def licence_of(name: str) -> str:
    """The licence that the card beside a starting model names; ``unknown`` where none does."""
    try:
        card = (Path(locate(name)) / "README.md").read_text(encoding="utf-8")
        found = yaml.safe_load(re.split(r"^---\s*$", card, flags=re.MULTILINE)[1])["license"]
    except (OSError, ValueError, IndexError, KeyError, TypeError, yaml.YAMLError, ModelError):
        return "unknown"
    return str(found)


def _alone(config: Mapping[str, object]) -> bool:
    return bool(config["lora_rank"]) and not config["merge_adapter"]
