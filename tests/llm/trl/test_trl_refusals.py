"""What would give wrong weights under TRL's trainers, or cannot be had, is refused in one sentence."""

from __future__ import annotations

import importlib
import sys

import pytest
import trl
from datasets import Dataset
from robust_trl import KINDS, trainer_for
from tiny_trl import PAIRS
from transformers import MixtralConfig, MixtralForCausalLM

import llm.trl as ours
from llm.adversary.schedule import AdaptiveStrength
from llm.text.encoding import encode_pairs
from llm.trl.datasets import trl_dataset

# TRL still asks by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:`\\w*gradient_checkpointing:FutureWarning")


@pytest.mark.parametrize(
    ("name", "spec", "config", "message"),
    [
        ("reward", "tv:0.2", {"micro": 2}, "per_device_train_batch_size=1 and gradient_accumulation_steps=8"),
        ("reward", "tv:0.2", {"steps": 1}, "nothing to choose"),
        ("dpo", "tv:auto=0.5", {}, "held out of the training of a reward model or of DPO"),
        ("reward", "tv:0.2,by=language", {}, "names the column 'language'; the columns are: .*source"),
        ("dpo", "tv:0.2", {"loss_type": ["aot"]}, "'aot' sorts log-ratios across the batch"),
        ("dpo", "tv:0.2", {"loss_type": ["sigmoid", "sft"]}, "'sft' is normalised by the tokens of the batch"),
        ("dpo", "tv:0.2", {"model_config": {"attention_dropout": 0.1}}, "dropout is active"),
        ("grpo", "tv:0.2", {"loss_type": "dapo"}, "'dapo' does not treat completions one by one"),
        ("grpo", "tv:0.2", {"steps_per_generation": 2}, "make steps_per_generation a multiple"),
        ("rloo", "tv:0.2", {"steps": 1}, "nothing to choose"),
        ("dpo", "cvar:0.3,minibatch=99", {}, "together: raise gradient_accumulation_steps, or give minibatch at most"),
        ("grpo", "cvar:0.3,minibatch=99", {}, "together: raise per_device_train_batch_size .* at most"),
    ],
)
def test_what_would_give_wrong_weights_is_refused(tiny, tmp_path, name, spec, config, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(tiny, name, tmp_path, spec, **config)


EARLY = [
    ("dpo", "tv:0.2,by=sauce", {}, "names the column 'sauce'; the columns are: .*chosen_is_longer.*length_gap.*source"),
    ("grpo", "tv:0.2,by=sauce", {}, "names the column 'sauce'; the columns are: .*source"),
    ("dpo", "tv:0.2", {"micro": 4}, "per_device_train_batch_size=1 and gradient_accumulation_steps=16"),
    ("dpo", "tv:0.2", {"loss_type": ["aot"]}, "'aot' sorts log-ratios"),
    ("dpo", "tv:0.2", {"extra": {"adaptive": AdaptiveStrength("loss")}}, "give eval_dataset and set eval_strategy"),
]


@pytest.mark.parametrize(("name", "spec", "config", "message"), EARLY)
def test_what_the_arguments_show_is_refused_before_anything_is_loaded(tiny, tmp_path, name, spec, config, message):
    """The model does not even exist: its reference would be computed over all pairs before."""
    with pytest.raises(ValueError, match=message):
        trainer_for(tiny, name, tmp_path, spec, model=str(tmp_path / "none"), **config)


@pytest.mark.parametrize(("prompt", "chosen"), [("turns", "a text"), ("a text", "turns")])
@pytest.mark.parametrize("spec", ["tv:0.2", None])
def test_a_mixed_layout_is_named_with_what_reads_it(tiny, tmp_path, prompt, chosen, spec):
    forms = {"a text": str, "turns": lambda text: [{"role": "user", "content": text}]}
    rows = [{"prompt": forms[prompt]("a"), "chosen": forms[chosen]("b"), "rejected": forms[chosen]("c")}]
    mixed = tiny._replace(data=Dataset.from_list(rows))
    with pytest.raises(ValueError, match=rf"prompt is {prompt}, chosen is {chosen}.*trl_dataset\(encode_pairs"):
        trainer_for(mixed, "dpo", tmp_path, spec, model=str(tmp_path / "none"))


def test_lengths_of_tokens_without_answers_are_carried_along(tiny, tmp_path):
    bare = tiny._replace(data=trl_dataset(encode_pairs(PAIRS, tiny.tokenizer, max_length=64), "dpo"))
    with pytest.raises(ValueError, match=r"no answers to measure: .*by=\['length_gap'\]"):
        trainer_for(bare, "dpo", tmp_path, "tv:0.2,by=length_gap")


@pytest.mark.parametrize("name", ["reward", "grpo"])
def test_tasks_that_are_no_processes_of_one_run_are_refused(tiny, tmp_path, name, monkeypatch):
    """Tasks of srun: neither transformers nor accelerate make one run of them."""
    for variable, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match="2 separate runs into one folder; start torchrun"):
        trainer_for(tiny, name, tmp_path, "tv:0.2")


def test_an_adversary_over_one_group_is_refused(tiny, tmp_path):
    alike = tiny._replace(data=tiny.data.map(lambda row: row | {"source": "chat"}))
    for name in ("reward", "grpo"):
        with pytest.raises(ValueError, match=r"all training examples are of one \(chat\)"):
            trainer_for(alike, name, tmp_path, "tv:0.2,by=source")


def test_a_router_loss_is_refused(tiny, tmp_path):
    config = MixtralConfig(
        vocab_size=len(tiny.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    with pytest.raises(ValueError, match=r"router_aux_loss_coef=0\.0"):
        trainer_for(tiny, "dpo", tmp_path, "tv:0.2", model=MixtralForCausalLM(config))
    trainer_for(tiny, "dpo", tmp_path, "tv:0.2", model=MixtralForCausalLM(config), router_aux_loss_coef=0.0)


def test_a_stream_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="has no positions: give train_dataset as a"):
        trainer_for(tiny._replace(data=tiny.data.to_iterable_dataset()), "reward", tmp_path, "tv:0.2")


@pytest.mark.parametrize(("mixin", "name"), [(ours.RobustPairs, "rloo"), (ours.RobustOnline, "reward")])
def test_a_mixin_before_the_wrong_trainer_is_refused(tiny, tmp_path, monkeypatch, mixin, name):
    wrong = type("Wrong", (mixin, KINDS[name][1]), {})
    monkeypatch.setitem(KINDS, name, (wrong, *KINDS[name][1:]))
    with pytest.raises(TypeError, match="goes before trl"):
        trainer_for(tiny, name, tmp_path, "tv:0.2")


def test_another_version_of_trl_warns_in_one_sentence(monkeypatch):
    monkeypatch.setattr(trl, "__version__", "1.99.0")
    with pytest.warns(UserWarning, match=r"tested with trl 1\.16\.0 and found trl 1\.99\.0"):
        importlib.reload(ours)
    monkeypatch.undo()
    importlib.reload(ours)


def test_without_trl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'robust-rlhf\[trl\]'"):
        importlib.reload(ours)
