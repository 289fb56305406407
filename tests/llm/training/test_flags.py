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
from transformers import TrainingArguments

from llm.data.corpus.corpus import generate
from llm.data.pairs import write_pairs
from llm.policy.config import PolicyConfig
from llm.policy.setup import UNHEEDED
from llm.run.resumption import differences
from llm.training.config import ConfigError, DPOConfig, RewardConfig, SFTConfig
from llm.training.guards import REFUSED, check_requests
from llm.training.identity import DECIDES_ROUNDING, EVALUATING, HARMLESS, identity, noted
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


@pytest.mark.slow("every flag by itself")
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


def test_a_flag_taken_back_stops_a_resumed_run(tmp_path, capsys):
    train = tmp_path / "train.jsonl"
    write_pairs(generate(40, seed=3), train)
    command = ["train", "reward", "--model", "tiny", "--train_file", str(train), "--max_length", "40", "--output_dir",
               str(tmp_path / "run"), "--max_steps", "1", "--use_cpu", "true"]  # fmt: skip
    assert main([*command, "--neftune_noise_alpha", "5", "--adam_beta2", "0.9"]) == 0
    assert main([*command, "--resume", "--adam_beta2", "0.9"]) == 2
    assert "another neftune_noise_alpha: resume" in capsys.readouterr().err
    assert (
        main([*command, "--resume", "--adam_beta2", "0.9", "--neftune_noise_alpha", "5", "--logging_steps", "1"]) == 0
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
