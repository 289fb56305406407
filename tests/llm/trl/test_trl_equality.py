"""The other way round: our own trainers without an ambiguity set take TRL's steps, number for number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from tiny_trl import LENGTH, PAIRS, arguments, build
from torch.nn.utils import parameters_to_vector
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference as DPOCollator
from trl.trainer.reward_trainer import DataCollatorForPreference

from llm.kinds.dpo import DPOTrainer
from llm.kinds.reward import RewardTrainer
from llm.kinds.sft import SFTTrainer
from llm.text.batches import PairCollator
from llm.text.encoding import encode_pairs
from llm.training.losses import Sigmoid
from llm.training.settings import TRAINING_DEFAULTS

pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")
# The answer begins at a space, where byte-level tokenizers never merge: both sides then cut texts alike.
TEMPLATE = (
    "{% for m in messages %}{{ m['role'].capitalize() + ': ' + m['content'] }}"
    "{% if m['role'] == 'user' %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% else %}[SEP]{% endif %}"
)
# Five per micro-batch and windows of two: both epochs end in a smaller micro-batch and a shorter window.
SHAPE: dict[str, Any] = {"micro": 5, "steps": 2, "max_steps": -1, "num_train_epochs": 2, "max_grad_norm": 1.0}
STEPS = 6
BETA = 0.5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    tiny = build(tmp_path_factory.mktemp("tiny"))
    tiny.tokenizer.chat_template = TEMPLATE
    return tiny


def our_arguments(folder, **shape):
    shape = {**SHAPE, **shape}
    return arguments(lambda **kwargs: TrainingArguments(**{**TRAINING_DEFAULTS, **kwargs}), folder, **shape)


def our_reward(tiny, folder):
    return RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(tiny.reward),
        args=our_arguments(folder),
        train_dataset=encode_pairs(PAIRS, tiny.tokenizer, max_length=LENGTH),
        data_collator=PairCollator(tiny.tokenizer),
        ambiguity=None,
    )


def their_reward(tiny, folder):
    return trl.RewardTrainer(
        model=tiny.reward,
        args=arguments(trl.RewardConfig, folder, **SHAPE),
        train_dataset=chats(),
        processing_class=tiny.tokenizer,
        data_collator=DataCollatorForPreference(tiny.tokenizer.pad_token_id, pad_to_multiple_of=8),
    )


def chats():
    """The pairs as conversations, which TRL renders and tokenises by itself."""

    def answer(text):
        return [{"role": "assistant", "content": text}]

    return Dataset.from_list(
        [{"prompt": list(p.prompt), "chosen": answer(p.chosen), "rejected": answer(p.rejected)} for p in PAIRS]
    )


def our_dpo(tiny, folder):
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny.causal),
        args=our_arguments(folder),
        train_dataset=encode_pairs(PAIRS, tiny.tokenizer, max_length=LENGTH),
        data_collator=PairCollator(tiny.tokenizer),
        ambiguity=None,
        beta=BETA,
        pair_loss=Sigmoid(),
        reference=AutoModelForCausalLM.from_pretrained(tiny.reference),
    )


def their_dpo(tiny, folder):
    return trl.DPOTrainer(
        model=tiny.causal,
        ref_model=AutoModelForCausalLM.from_pretrained(tiny.reference),
        args=arguments(trl.DPOConfig, folder, beta=BETA, **SHAPE),
        train_dataset=chats(),
        processing_class=tiny.tokenizer,
        data_collator=DPOCollator(tiny.tokenizer.pad_token_id, pad_to_multiple_of=8),
    )


def our_sft(tiny, folder, **shape):
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny.causal),
        args=our_arguments(folder, **shape),
        train_dataset=encode_pairs(PAIRS, tiny.tokenizer, max_length=LENGTH),
        data_collator=PairCollator(tiny.tokenizer),
        ambiguity=None,
    )


def their_sft(tiny, folder, **shape):
    rows = chats().rename_column("chosen", "completion").remove_columns("rejected")
    return trl.SFTTrainer(
        model=tiny.causal,
        args=arguments(trl.SFTConfig, folder, pad_to_multiple_of=8, **{**SHAPE, **shape}),
        train_dataset=rows,
        processing_class=tiny.tokenizer,
    )


def steps(trainer):
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]


def test_our_reward_trainer_takes_the_steps_of_trl(tiny, tmp_path):
    ours, theirs = our_reward(tiny, tmp_path), their_reward(tiny, tmp_path)
    for trainer in (ours, theirs):
        trainer.train()
    assert len(steps(ours)) == STEPS
    assert steps(ours) == steps(theirs)
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def assert_nearly_the_same(tiny, ours, theirs, count):
    """Steps and weights of policies, but for rounding."""
    for trainer in (ours, theirs):
        trainer.train()
    assert len(steps(ours)) == count
    np.testing.assert_allclose(steps(ours), steps(theirs), rtol=2e-4)
    assert np.ptp([loss for loss, _ in steps(ours)]) > 1e-3
    models = (AutoModelForCausalLM.from_pretrained(tiny.causal), ours.model, theirs.model)
    start, mine, other = (parameters_to_vector(model.parameters()).detach() for model in models)
    assert (mine - other).norm() <= 1e-3 * (mine - start).norm()


def test_our_dpo_trainer_takes_the_steps_of_trl_up_to_rounding(tiny, tmp_path):
    """TRL computes log-probabilities in chunks inside its output layer: the same numbers, rounded elsewhere."""
    ours, theirs = our_dpo(tiny, tmp_path), their_dpo(tiny, tmp_path)
    assert_nearly_the_same(tiny, ours, theirs, STEPS)


def test_our_sft_trainer_takes_the_steps_of_trl_with_one_example_a_batch(tiny, tmp_path):
    """Larger batches differ on purpose: TRL lets an answer count by its tokens, we let every example count alike."""
    one: dict[str, Any] = {"micro": 1, "steps": 1, "num_train_epochs": 1}
    ours, theirs = our_sft(tiny, tmp_path, **one), their_sft(tiny, tmp_path, **one)
    assert_nearly_the_same(tiny, ours, theirs, len(PAIRS))
    more = [next(iter(make(tiny, tmp_path, micro=5).get_train_dataloader())) for make in (our_sft, their_sft)]
    assert torch.equal(more[0]["input_ids"], more[1]["input_ids"])
    assert torch.equal(more[0]["answer_mask"].bool(), more[1]["labels"] != -100)


def test_chats_become_the_same_tokens(tiny, tmp_path):
    encoded = encode_pairs(PAIRS, tiny.tokenizer, max_length=LENGTH)
    theirs = their_reward(tiny, tmp_path).train_dataset
    assert len(theirs) == len(encoded) == len(PAIRS)
    for ours, row in zip((encoded[i] for i in range(len(encoded))), theirs, strict=True):
        assert (ours["chosen"], ours["rejected"]) == (row["chosen_ids"], row["rejected_ids"])
