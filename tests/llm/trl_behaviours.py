"""What a row of the table of TRL's behaviours is, how it is run, what its outcomes share, and what may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import peft
import torch
import trl
from datasets import Dataset
from tiny_trl import Tiny, arguments
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

import llm.trl as ours

KINDS = {
    "reward": (trl.RewardTrainer, ours.RobustRewardTrainer, trl.RewardConfig),
    "dpo": (trl.DPOTrainer, ours.RobustDPOTrainer, trl.DPOConfig),
    "grpo": (trl.GRPOTrainer, ours.RobustGRPOTrainer, trl.GRPOConfig),
    "rloo": (trl.RLOOTrainer, ours.RobustRLOOTrainer, trl.RLOOConfig),
}
PAIRS, ONLINE = ("reward", "dpo"), ("grpo", "rloo")
ALL = (*PAIRS, *ONLINE)
PLAIN = object()
CLOCKS = ("runtime", "per_second", "step_time", "preparation_time")
TEMPLATE = (
    "{% if loud %}!{% endif %}{% for m in messages %}{{ m['role'][0] + ':' + m['content'] }}"
    "{% if m['tool_calls'] %}{{ m['tool_calls'] | tojson }}{% endif %};{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


class Outcome(NamedTuple):
    """A trainer at its end, its parameters before, and what else was seen; or the first words of an error."""

    trainer: Any
    start: dict[str, torch.Tensor]
    seen: Any = None
    error: str = ""


Make = Callable[..., Any]


def trains(make: Make) -> Outcome:
    """Build one trainer and train it."""
    trainer = make()
    start = weights(trainer.model)
    trainer.train()
    return Outcome(trainer, start)


class Row(NamedTuple):
    """One behaviour.

    Attributes:
        name: What it is about.
        trainers: Whose behaviour it is.
        config: Fields of the configuration beside the usual ones.
        given: Arguments of the trainer beside the usual ones, made anew for every run.
        act: What is done, by a function that builds trainers.
        holds: What is true afterwards for TRL and for every mixin that takes it.
        error: What TRL itself answers; "" where it trains.
        refused: What a set of positive radius answers, in the batch that it asks for; "" where it answers as TRL.
        usual: The trainers for which it is tested in every run of the suite.
    """

    name: str
    trainers: tuple[str, ...]
    config: Mapping[str, Any] = MappingProxyType({})
    given: Callable[[Tiny, str], dict[str, Any]] = lambda tiny, kind: {}
    act: Callable[[Make], Outcome] = trains
    holds: tuple[Callable[[Outcome], None], ...] = ()
    error: str = ""
    refused: str = ""
    usual: tuple[str, ...] = ()


def run(row: Row, kind: str, tiny: Tiny, folder: Path, ambiguity: Any = PLAIN, *, fitted: bool = False) -> Outcome:
    """The row with TRL's own trainer, or with the mixin and that set; an error is part of the outcome.

    ``fitted`` asks for the same effective batch in the form that a set of positive radius wants.
    """
    plain, robust, config = KINDS[kind]
    counter = iter(range(9))

    def make(**more: Any) -> Any:
        given = _usual(tiny, kind) | row.given(tiny, kind)
        fields = _usual_config(kind) | {**row.config} | more
        if ambiguity is not PLAIN:
            given["ambiguity"] = ambiguity
        if fitted:
            fields = _one_by_one(kind, fields)
        place = more.get("output_dir", folder / f"run{next(counter)}")
        return (plain if ambiguity is PLAIN else robust)(
            args=arguments(config, place, **{k: v for k, v in fields.items() if k != "output_dir"}), **given
        )

    try:
        return row.act(make)
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        return Outcome(None, {}, error=f"{type(error).__name__}: {error}")


def _usual(tiny: Tiny, kind: str) -> dict[str, Any]:
    given = {"train_dataset": tiny.data, "processing_class": tiny.tokenizer}
    given["model"] = tiny.reward if kind == "reward" else tiny.causal
    return given | ({"reward_funcs": letters} if kind in ONLINE else {})


def _usual_config(kind: str) -> dict[str, Any]:
    common = {"max_steps": 2, "max_grad_norm": 1.0, "steps": 2}
    if kind in PAIRS:
        return common | {"micro": 2}
    return common | {"micro": 4, "num_generations": 2, "max_completion_length": 6}


def _one_by_one(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The same effective batch, as a set of positive radius asks for it, and a loss of single completions."""
    if kind in PAIRS:
        return fields | {"micro": 1, "steps": fields["micro"] * fields["steps"]}
    return {"loss_type": "grpo"} | fields if kind == "grpo" else fields


def assert_same(found: Outcome, plain: Outcome) -> None:
    """Bit by bit: parameters of policy and reference, logs but for clocks, columns, errors, and what else was seen."""
    assert found.error == plain.error
    np.testing.assert_equal(found.seen, plain.seen)
    if plain.trainer is None:
        return
    for name in ("model", "ref_model"):
        mine, theirs = (getattr(outcome.trainer, name, None) for outcome in (found, plain))
        assert (mine is None) == (theirs is None), name
        if theirs is not None:
            assert_equal_weights(weights(mine), weights(theirs))
    np.testing.assert_equal(logs(found.trainer), logs(plain.trainer))
    mine, theirs = found.trainer.train_dataset, plain.trainer.train_dataset
    assert mine.column_names == theirs.column_names
    assert type(found.trainer.data_collator) is type(plain.trainer.data_collator)
    assert found.trainer._signature_columns == plain.trainer._signature_columns


def weights(model: Any) -> dict[str, torch.Tensor]:
    """The parameters by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_equal_weights(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Same names, same bits."""
    assert list(mine) == list(theirs)
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


def logs(trainer: Any) -> list[dict[str, Any]]:
    """All that was logged, without clocks."""
    return [{k: v for k, v in line.items() if not k.endswith(CLOCKS)} for line in trainer.state.log_history]


# -- data, rewards, models -------------------------------------------------------------------------


def letters(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
    """A reward that differs between prompts and between their completions."""
    texts = zip(map(str, prompts), map(str, completions), strict=True)
    return [sum(map(ord, text)) % 101 / 100 + len(prompt) / 50 for prompt, text in texts]


def chats(tiny: Tiny, *, prompt: bool = True, extra: dict[str, Any] | None = None) -> Dataset:
    """The pairs as conversations, with the question apart or in front of both answers."""
    rows = []
    for one in tiny.data:
        ask = [{"role": "user", "content": one["prompt"]}]
        said = {k: [{"role": "assistant", "content": one[k]}] for k in ("chosen", "rejected")}
        rows.append({"prompt": ask} | said if prompt else {k: ask + v for k, v in said.items()})
        rows[-1] |= extra or {}
    return Dataset.from_list(rows)


def speaking(tiny: Tiny) -> Any:
    """A tokenizer of its own, with a chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.causal)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def of_chats(**how: Any) -> Callable[[Tiny, str], dict[str, Any]]:
    """Conversations, and a tokenizer that knows how to write them."""
    return lambda tiny, kind: {"train_dataset": chats(tiny, **how), "processing_class": speaking(tiny)}


def model_of(tiny: Tiny, kind: str, **config: Any) -> Any:
    """A model as an object."""
    which = AutoModelForSequenceClassification if kind == "reward" else AutoModelForCausalLM
    return which.from_pretrained(tiny.reward if kind == "reward" else tiny.causal, **config)


def lora(kind: str) -> peft.LoraConfig:
    """Adapters on the attention; the head of a reward model is trained with them."""
    task = {"task_type": "SEQ_CLS"} if kind == "reward" else {}
    return peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **task)


class Watch(TrainerCallback):
    """Notes every event by name and step; as plain values, ``told`` compares."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        for event in ("train_begin", "epoch_begin", "step_begin", "substep_end", "step_end", "log", "train_end"):
            setattr(self, f"on_{event}", self._note(event))

    def _note(self, event: str) -> Any:
        return lambda args, state, control, **kwargs: self.told.append((event, state.global_step))


# -- what may hold ---------------------------------------------------------------------------------


def moved(outcome: Outcome) -> None:
    """Every parameter that is trained has changed, and no other."""
    wanted = {name for name, p in outcome.trainer.model.named_parameters() if p.requires_grad}
    found = {name for name, p in weights(outcome.trainer.model).items() if not torch.equal(p, outcome.start[name])}
    assert found == wanted
    assert wanted


def unmoved(outcome: Outcome) -> None:
    """Nothing has changed."""
    assert_equal_weights(weights(outcome.trainer.model), outcome.start)


def adapters(outcome: Outcome) -> None:
    """Only adapters and a reward head have changed, and all of them."""
    moved(outcome)
    names = [name for name, p in outcome.trainer.model.named_parameters() if p.requires_grad]
    assert all("lora" in name or "score" in name for name in names)


def logged(*names: str) -> Callable[[Outcome], None]:
    """Somewhere in the log, as finite numbers."""

    def check(outcome: Outcome) -> None:
        for name in names:
            found = [line[name] for line in outcome.trainer.state.log_history if name in line]
            assert found, name
            assert np.isfinite(found).all(), name

    return check


def seen(expected: Callable[[Any], bool]) -> Callable[[Outcome], None]:
    """What the run brought along is as it should be."""

    def check(outcome: Outcome) -> None:
        assert expected(outcome.seen), outcome.seen

    return check
