"""What the page calls free changes no weight: short runs with another value of every such flag, bit by bit."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_models
from transformers import TrainingArguments
from transformers.utils import logging as verbosity

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.reward import train_reward
from llm.policy.config import PolicyConfig
from llm.policy.run import train_policy
from llm.training.config import RewardConfig
from llm.training.identity import DECIDES_ROUNDING, EVALUATING, HARMLESS

# Another value of every free flag.
OTHER = {
    "output_dir": None, "save_total_limit": 1,  # the folder is another one in every run here
    "logging_strategy": "epoch", "logging_steps": 1, "logging_first_step": True, "logging_nan_inf_filter": False,
    "log_on_each_node": False, "log_level": "error", "log_level_replica": "error", "disable_tqdm": False,
    "report_to": "tensorboard", "run_name": "mine", "project": "mine", "trackio_space_id": "me/space",
    "trackio_bucket_id": "me/bucket", "trackio_static_space_id": "me/static", "skip_memory_metrics": False,
    "dataloader_num_workers": 2, "dataloader_pin_memory": True,
    "dataloader_prefetch_factor": 3, "dataloader_multiprocessing_context": "fork",
    "do_train": True, "do_eval": True, "do_predict": True, "remove_unused_columns": True, "length_column_name": "n",
    "local_rank": 0, "hub_token": "t", "hub_private_repo": True, "hub_model_id": "me/model", "hub_strategy": "end",
    "hub_always_push": True, "hub_revision": "v2", "ddp_timeout": 77,
}  # fmt: skip
EVALUATED = {
    "eval_strategy": "steps", "eval_steps": 1, "eval_delay": 2, "eval_on_start": True, "eval_accumulation_steps": 1,
    "prediction_loss_only": True, "per_device_eval_batch_size": 3, "save_strategy": "no", "save_steps": 2,
    "metric_for_best_model": "loss", "greater_is_better": False,
}  # fmt: skip
WITH = {  # what a flag needs to have an effect at all
    **{name: {"dataloader_num_workers": 1} for name in OTHER if name.startswith("dataloader_")},
    **{name: {"report_to": "tensorboard", "logging_steps": 1} for name in ("run_name", "project")},
    **{name: {"eval_strategy": "steps", "eval_steps": 1} for name in EVALUATED},
}
NOISE = {"neftune_noise_alpha": 5.0}  # drawn from torch's generator, which a free flag must not move


@pytest.fixture(scope="module")
def files(once):
    def build(folder):
        pairs = generate(40, seed=3)
        write_pairs(pairs, folder / "train.jsonl")
        write_pairs(generate(12, seed=4), folder / "eval.jsonl")
        save_models(folder, pairs, max_length=48)

    return once("flags", build)


BASE = {
    "output_dir": "x", "use_cpu": True, "report_to": "none", "max_steps": 6, "logging_steps": 5, "save_steps": 5,
    "per_device_train_batch_size": 8, "per_device_eval_batch_size": 8, "learning_rate": 1e-3, "label_names": [],
    "disable_tqdm": True, "remove_unused_columns": False,
}  # fmt: skip


def weights_of(kind, files, folder, flags):
    """The weights that a short run exports."""
    level = verbosity.get_verbosity()
    arguments = {**BASE, "output_dir": str(folder), **flags}
    shared = {"train_file": str(files / "train.jsonl"), "max_length": 40}
    try:
        if kind == "policy":
            settings = {"model": str(files / "start"), "reward_model": str(files / "rm"), "prompts_per_step": 4}
            more = {"samples": 2, "max_new_tokens": 5, "ambiguity": "tv:0.4"}
            train_policy(PolicyConfig(**settings, **more, **shared), TrainingArguments(**arguments | {"max_steps": 3}))
        else:
            settings = RewardConfig(model="tiny", ambiguity="tv:0.3", eval_file=str(files / "eval.jsonl"), **shared)
            train_reward(settings, TrainingArguments(**arguments))
    finally:
        verbosity.set_verbosity(level)
    return load_file(folder / "model" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def base(files, tmp_path_factory):
    @cache
    def of(kind, *, noisy):
        flags = NOISE if noisy and kind != "policy" else {}
        return weights_of(kind, files, tmp_path_factory.mktemp("base") / "run", flags)

    return of


def compare(kind, base, files, folder, flags, *, noisy):
    flags = {name: value for name, value in flags.items() if value is not None}
    more = NOISE if noisy and kind != "policy" else {}
    assert same(weights_of(kind, files, folder / "run", flags | more), base(kind, noisy=noisy))


def test_every_free_flag_has_another_value_here():
    assert OTHER.keys() == {name for names in HARMLESS.values() for name in names}
    assert EVALUATED.keys() == set(EVALUATING)
    usual = TrainingArguments(**BASE)
    assert all(getattr(usual, name) != value for name, value in {**OTHER, **EVALUATED}.items())


@pytest.mark.parametrize("kind", ["reward", "policy"])
def test_free_flags_change_no_weight_all_together(kind, base, files, tmp_path):
    together = {name: value for name, value in OTHER.items() if name != "logging_strategy"}
    if kind == "policy":
        together |= {
            name: value for name, value in EVALUATED.items() if name not in (DECIDES_ROUNDING, "eval_strategy")
        }
    compare(kind, base, files, tmp_path, together, noisy=True)


def test_evaluating_changes_no_weight_where_nothing_is_judged_or_drawn(base, files, tmp_path):
    compare("reward", base, files, tmp_path, EVALUATED, noisy=False)


def test_evaluating_changes_weights_where_noise_is_drawn(base, files, tmp_path):
    """Which is why these flags are noted then, and what the tests above could miss if the noise were none."""
    drawn = weights_of("reward", files, tmp_path / "run", NOISE | {"eval_strategy": "steps", "eval_steps": 1})
    assert not same(drawn, base("reward", noisy=True))
    assert not same(base("reward", noisy=True), base("reward", noisy=False))


ALONE = [name for name in OTHER if name != "output_dir"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["reward", "policy"])
@pytest.mark.parametrize("name", ALONE)
def test_each_free_flag_changes_no_weight(kind, name, base, files, tmp_path):
    compare(kind, base, files, tmp_path, WITH.get(name, {}) | {name: OTHER[name]}, noisy=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", EVALUATED)
def test_each_flag_of_evaluation_changes_no_weight(name, base, files, tmp_path):
    compare("reward", base, files, tmp_path, WITH.get(name, {}) | {name: EVALUATED[name]}, noisy=False)
