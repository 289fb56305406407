"""Every flag of ``TrainingArguments``: noted and refused on resume, free since it cannot change a weight, or refused.

``python tests/llm/training/test_flags.py`` rewrites the table of docs/resuming.md.
"""

from __future__ import annotations

import copy
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainingArguments
from transformers.utils import logging as verbosity

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.kinds.reward import RewardTask
from llm.models.loading import tiny_policy, tiny_reward_model
from llm.policy.config import PolicyConfig
from llm.policy.run import train_policy
from llm.policy.setup import UNHEEDED
from llm.run.resumption import differences
from llm.training.config import ConfigError, DPOConfig, RewardConfig, SFTConfig
from llm.training.guards import REFUSED, check_requests
from llm.training.identity import DECIDES_ROUNDING, EVALUATING, HARMLESS, identity, noted
from llm.training.run import train_run
from robust_rlhf import main

PAGE = Path(__file__).parents[3] / "docs" / "resuming.md"
FLAGS = [field.name for field in fields(TrainingArguments)]
PAIRS = {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig}
KINDS = {**PAIRS, "policy": PolicyConfig}


def config(kind="reward", **settings):
    more = {"reward_model": "builtin"} if kind == "policy" else {}
    return KINDS[kind](**{"model": "none" if kind == "policy" else "tiny", "train_file": "x", **more, **settings})


@cache
def plain():
    return TrainingArguments("x", use_cpu=True, report_to="none")


def told(**flags):
    """Arguments with other flags, as they would be: making them anew would start the process group anew."""
    arguments = copy.copy(plain())
    for name, value in flags.items():
        setattr(arguments, name, value)
    return arguments


# -- the table -------------------------------------------------------------------------------------


def places(name):
    """What the page says of a flag: to runs on pairs, and to policies."""
    about = next((about for about, names in HARMLESS.items() if name in names), None)
    if name in REFUSED:
        return ("refused: " + REFUSED[name],) * 2
    if about:
        return (f"free: {about}",) * 2
    pairs = policy = "noted"
    if name in EVALUATING:
        pairs = (
            "noted where held-out pairs are judged (`final` best, `adapt_radius`) or anything is drawn (dropout, "
            "NEFTune), else free"
        )
        policy = "free: nothing is judged on the way"
    if name == DECIDES_ROUNDING:
        policy = "noted: answers are the same at any size, but logits and scores of other batches round otherwise"
    if name == "load_best_model_at_end":
        pairs = "refused, unless `final` is best, which sets it"
    if name == "train_sampling_strategy":
        pairs = "noted; group_by_length is refused"
    if name in UNHEEDED or name == "gradient_accumulation_steps":
        policy = "refused: " + UNHEEDED.get(name, "set prompts_per_step, samples and minibatches")
    return pairs, policy


def table():
    rows = [f"| `{name}` | {' | '.join(places(name))} |" for name in FLAGS]
    return "\n".join(["| flag | sft, reward, dpo | policy |", "|---|---|---|", *rows])


PART = re.compile(r"(<!-- flags: generated -->\n).*?(<!-- end -->)", re.DOTALL)


def with_table(text):
    return PART.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


def test_the_page_has_every_flag_as_the_code_has_it():
    text = PAGE.read_text()
    assert PART.search(text)
    assert text == with_table(text), "python tests/llm/training/test_flags.py"


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_page_calls_noted_free_or_refused_is(kind):
    """Against what the functions do with an arguments object in which one flag is another."""
    column, settings = (1 if kind == "policy" else 0), config(kind)
    start = identity(settings, plain(), {})
    for name in FLAGS:
        said = places(name)[column]
        other = told(**{name: "something else"})
        changed = differences(start, identity(settings, other, {})).changed
        assert changed == differences(identity(settings, other, {}), start).changed  # set then and not now, too
        if said.startswith("noted") and not said.endswith("else free"):
            assert changed == [name]
        if said.startswith("free") or said.endswith("else free"):
            assert changed == []
        if said.endswith("else free"):
            for judged in ({"final": "best", "eval_file": "y"}, {"adapt_radius": True, "eval_file": "y"},
                           {"disable_dropout": False}, {"lora_dropout": 0.1}):  # fmt: skip
                assert name in noted(config(kind, **judged), plain())
            assert name in noted(settings, told(neftune_noise_alpha=1.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_flags_are_refused_from_python_too(kind, name):
    with pytest.raises(ConfigError, match=f"{name} is not supported"):
        check_requests(config(kind), told(**{name: True}))


@pytest.mark.parametrize("kind", PAIRS)
def test_the_best_model_is_loaded_only_where_it_is_exported(kind):
    flags = told(load_best_model_at_end=True)
    with pytest.raises(ConfigError, match="use final=best"):
        check_requests(config(kind), flags)
    check_requests(config(kind, final="best", validation_share=0.5), flags)


def test_a_flag_that_no_version_knew_is_noted(monkeypatch):
    """As a later version of transformers may bring one."""
    start = identity(config(), plain(), {})
    extra = type(
        "Later",
        (TrainingArguments,),
        {"__annotations__": {"new_optimizer_trick": "bool"}, "new_optimizer_trick": False},
    )
    monkeypatch.setattr(
        "llm.training.identity.fields", lambda kind: fields(later(extra) if kind is TrainingArguments else kind)
    )
    unset, on = (identity(config(), told(new_optimizer_trick=value), {}) for value in (False, True))
    assert differences(start, unset).changed == differences(unset, start).changed == []
    assert differences(start, on).changed == differences(on, start).changed == ["new_optimizer_trick"]


def later(kind):
    from dataclasses import dataclass

    return dataclass(kind)


def test_no_secret_is_written_down():
    assert "hf_secret" not in str(identity(config(), told(hub_token="hf_secret"), {}))


# -- with and without: the same weights, bit by bit ----------------------------------------------

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
        torch.manual_seed(0)
        for name, (model, tokenizer) in {
            "start": tiny_policy((pair.prompt[-1]["content"] for pair in pairs), max_length=48),
            "rm": tiny_reward_model((pair.chosen for pair in pairs), max_length=48),
        }.items():
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)

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
            train_run(RewardTask(settings), TrainingArguments(**arguments))
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


def test_a_flag_taken_back_stops_a_resumed_run(files, tmp_path, capsys):
    command = ["train", "reward", "--model", "tiny", "--train_file", str(files / "train.jsonl"), "--max_length", "40",
               "--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--use_cpu", "true"]  # fmt: skip
    assert main([*command, "--neftune_noise_alpha", "5", "--adam_beta2", "0.9"]) == 0
    assert main([*command, "--resume", "--adam_beta2", "0.9"]) == 2
    assert "another neftune_noise_alpha: resume" in capsys.readouterr().err
    assert (
        main([*command, "--resume", "--adam_beta2", "0.9", "--neftune_noise_alpha", "5", "--logging_steps", "1"]) == 0
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
