"""TRL and we read the same tokens where nothing is cut; where something is, our tokens reach its trainers."""

from __future__ import annotations

import itertools

import pytest
import tokenizer_shapes
import trl
from tiny_trl import build
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl.trainer.dpo_trainer import DPOTrainer

from llm.data.pairs import Pair
from llm.text.batches import SIDES
from llm.text.encoding import encode_pairs
from llm.trl import RobustDPOTrainer, RobustRewardTrainer, trl_dataset

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")

PAIRS = [
    Pair(
        "a", ({"role": "user", "content": "Which colour has the dog number 3?"},), "The dog is red.", " Nobody knows."
    ),
    Pair("b", ({"role": "user", "content": "And the bird?"},), "red", "Blue, they say. " * 3),
]
TEMPLATES = ["llama2", "zephyr", "chatml", "trimmed", "gemma", "phi"]
KINDS = ["bytewise", "marked, prepended", "marked, first", "marked, never"]


def chats(pairs):
    def answer(text):
        return [{"role": "assistant", "content": text}]

    return datasets.Dataset.from_list(
        [{"prompt": list(p.prompt), "chosen": answer(p.chosen), "rejected": answer(p.rejected)} for p in pairs]
    )


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(KINDS, TEMPLATES)))
def test_trl_makes_the_same_tokens_of_whole_pairs(kind, name):
    tokenizer = tokenizer_shapes.shaped(kind, name)
    encoded = encode_pairs(PAIRS, tokenizer, max_length=500)
    arguments = type("Arguments", (), {"dataset_num_proc": None, "max_length": None, "truncation_mode": "keep_start"})()
    trainer = object.__new__(DPOTrainer)
    trainer._tokenizer = tokenizer
    theirs = DPOTrainer._prepare_dataset(trainer, chats(PAIRS), tokenizer, arguments, "train")
    ours = trl_dataset(encoded, "dpo")
    for row, other in zip(ours, theirs, strict=True):
        assert row["prompt_ids"] == other["prompt_ids"]
        for side in SIDES:
            own = row[f"{side}_ids"]
            assert own == other[f"{side}_ids"][: len(own)]
            assert not tokenizer.decode(other[f"{side}_ids"][len(own) :]).replace(tokenizer.eos_token, "").strip()


@pytest.mark.parametrize("length", [500, 60])
@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_the_robust_trainers_train_on_our_tokens(tmp_path, kind, length):
    """They see what was encoded, cut or not."""
    tiny = build(tmp_path / "tiny")
    long = Pair("l", ({"role": "user", "content": "Say why. " * 20},), "Because.", "It is so.")
    encoded = encode_pairs([*PAIRS, long], tiny.tokenizer, max_length=length)
    trainer, settings, start = (
        (RobustRewardTrainer, trl.RewardConfig, AutoModelForSequenceClassification.from_pretrained(tiny.reward))
        if kind == "reward"
        else (RobustDPOTrainer, trl.DPOConfig, AutoModelForCausalLM.from_pretrained(tiny.causal))
    )
    arguments = settings(
        str(tmp_path / "out"), per_device_train_batch_size=1, gradient_accumulation_steps=3, max_steps=1,
        max_length=None, report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    seen = []
    made = trainer(
        ambiguity="cvar:0.5", model=start, args=arguments, train_dataset=trl_dataset(encoded, kind),
        processing_class=tiny.tokenizer,
    )  # fmt: skip
    collator = made.data_collator.inner if hasattr(made.data_collator, "inner") else made.data_collator

    def watched(examples):
        batch = collator(examples)
        seen.extend(
            row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        )
        return batch

    made.data_collator = watched
    made.train()
    ends = [len(item[side]) if kind == "reward" else item[f"{side}_span"][1] for item in encoded for side in SIDES]
    expected = [item[side] for item in encoded for side in SIDES]
    assert sorted(seen) == sorted(row[:end] for row, end in zip(expected, ends, strict=True))
    assert all(len(row) <= length for row in seen)
