"""The rows of the GRPO and RLOO trainers.

One table drives this file.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from tiny_trl import Tiny
from trl_behaviours import (
    ONLINE,
    Make,
    Outcome,
    Row,
    chats,
    letters,
    logged,
    model_of,
    moved,
    seen,
    speaking,
    unmoved,
    weights,
)
from trl_behaviours_pairs import EVALUATED, experts, held_out, tied

GRPO, RLOO = ("grpo",), ("rloo",)
WHOLE_BATCH = "does not treat completions one by one"
ONE_PROMPT = "leaves the adversary nothing to choose"
MIXED = "make steps_per_generation a multiple"
REWARDS = ("reward", "reward_std", "completions/mean_length", "rewards/letters/mean", "num_tokens")


# -- rewards ---------------------------------------------------------------------------------------


def length(completions: Any, **kwargs: Any) -> list[float]:
    return [len(str(answer)) / 20 for answer in completions]


async def later(completions: Any, **kwargs: Any) -> list[float]:
    return [len(set(str(answer))) / 10 for answer in completions]


def sometimes(prompts: Any, completions: Any, **kwargs: Any) -> list[float | None]:
    found = letters(prompts, completions)
    return [reward if k % 3 else None for k, reward in enumerate(found)]


def never(completions: Any, **kwargs: Any) -> list[None]:
    return [None] * len(completions)


def of_messages(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
    asked = [prompt[-1]["content"] for prompt in prompts]
    return letters(asked, [answer[0]["content"] for answer in completions])


def by_column(prompts: Any, completions: Any, source: Any, **kwargs: Any) -> list[float]:
    """Sees the columns of the data, and no others."""
    assert set(kwargs) == {"completion_ids", "chosen", "rejected", "trainer_state", "log_extra", "log_metric"}, kwargs
    return [len(name) / 10 + reward for name, reward in zip(source, letters(prompts, completions), strict=True)]


def by_owner(prompts: Any, completions: Any, robust_index: Any, **kwargs: Any) -> list[float]:
    return [k / 100 + reward for k, reward in zip(robust_index, letters(prompts, completions), strict=True)]


def by_step(completions: Any, trainer_state: Any, **kwargs: Any) -> list[float]:
    return [len(str(answer)) * (1 + trainer_state.global_step) / 20 for answer in completions]


def telling(prompts: Any, completions: Any, log_extra: Any, log_metric: Any, **kwargs: Any) -> list[float]:
    log_extra("told", [str(answer)[:3] for answer in completions])
    log_metric("told_length", float(len(completions)))
    return letters(prompts, completions)


def one(completions: Any, **kwargs: Any) -> list[float]:
    return [1.0] * len(completions)


def zero(completions: Any, **kwargs: Any) -> list[float]:
    return [0.0] * len(completions)


def rewards(*functions: Any) -> Any:
    return lambda tiny, kind: {"reward_funcs": list(functions)}


def reward_model(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"reward_funcs": tiny.reward}


def mixed_rewards(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"reward_funcs": [letters, model_of(tiny, "reward")], "reward_processing_classes": [None, tiny.tokenizer]}


def too_many_readers(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"reward_funcs": [letters], "reward_processing_classes": [None, tiny.tokenizer]}


# -- data and generation ---------------------------------------------------------------------------


def prompts_alone(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": tiny.data.select_columns("prompt")}


def numbered(tiny: Tiny, kind: str) -> dict[str, Any]:
    data = tiny.data.add_column("robust_index", [7 * k for k in range(len(tiny.data))])
    return {"train_dataset": data, "reward_funcs": by_owner}


def conversing(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": chats(tiny), "processing_class": speaking(tiny), "reward_funcs": of_messages}


class Elsewhere:
    """An environment that asks the question and judges the answer, which it does not see, by the question."""

    def reset(self, **row: Any) -> str:
        assert "robust_index" not in row
        self.asked = str(row.get("source", "?"))
        return f" Tell me about {self.asked}."

    def get_reward(self) -> float:
        return len(self.asked) / 10


def environment(tiny: Tiny, kind: str) -> dict[str, Any]:
    data = chats(tiny).add_column("source", tiny.data["source"])
    given = {"train_dataset": data, "processing_class": speaking(tiny), "reward_funcs": of_messages}
    return given | {"environment_factory": Elsewhere}


def environment_alone(tiny: Tiny, kind: str) -> dict[str, Any]:
    return environment(tiny, kind) | {"train_dataset": None}


def rolled_out(prompts: Any, trainer: Any) -> dict[str, Any]:
    """Answers of the caller's own: some tokens of the prompt, and a score that reward functions may read."""
    ids = [trainer.processing_class(prompt)["input_ids"] for prompt in prompts]
    draws = torch.randint(5, len(trainer.processing_class), (len(prompts), 4)).tolist()
    return {"prompt_ids": ids, "completion_ids": draws, "logprobs": None, "scored": [sum(one) % 7 for one in draws]}


def by_score(completions: Any, scored: Any, **kwargs: Any) -> list[float]:
    return [float(score) for score in scored]


def ends_some(tiny: Tiny, kind: str) -> dict[str, Any]:
    """A model that ends about every third answer, so that some are cut off and some are not."""
    model = model_of(tiny, kind)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.05)
        model.lm_head.weight[tiny.tokenizer.eos_token_id] += torch.sign(torch.arange(32.0) - 15.5)
    return {"model": model}


# -- what is done ----------------------------------------------------------------------------------


def listens(make: Make) -> Outcome:
    """Train, and keep what TRL warns of by its first line."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage().split("\n")[0])
    trainer = make()
    logger = logging.getLogger(type(trainer).__mro__[-1].__module__)
    loggers = [logger, *(logging.getLogger(f"trl.trainer.{name}_trainer") for name in ONLINE)]
    for each in loggers:
        each.addHandler(handler)
    start = weights(trainer.model)
    try:
        trainer.train()
    finally:
        for each in loggers:
            each.removeHandler(handler)
    return Outcome(trainer, start, seen=sorted(set(said)))


def prepares(make: Make) -> Outcome:
    """Note which mode the trainer prepares its inputs in, and how many completions each call has."""
    trainer, told = make(), []
    theirs = trainer._prepare_inputs

    def noted(batch: Any) -> Any:
        prepared = theirs(batch)
        told.append((trainer.model.training, len(batch), tuple(prepared["prompt_ids"].shape)))
        return prepared

    trainer._prepare_inputs = noted
    start = weights(trainer.model)
    trainer.train()
    return Outcome(trainer, start, seen=told)


def counts_questions(make: Make) -> Outcome:
    """How often each question of the first generation is answered."""
    asked: list[str] = []
    trainer = make()
    judge = trainer.reward_funcs[0]

    def noting(prompts: Any, **kwargs: Any) -> Any:
        asked.extend(prompts)
        return judge(prompts=prompts, **kwargs)

    trainer.reward_funcs[0] = noting
    start = weights(trainer.model)
    trainer.train()
    return Outcome(trainer, start, seen=sorted(Counter(asked[:8]).values()))


def remembers(make: Make) -> Outcome:
    trainer = make()
    start = weights(trainer.model)
    trainer.train()
    table = {name: list(column) for name, column in trainer._logs.items() if name not in ("images",)}
    return Outcome(trainer, start, seen={name: str(column) for name, column in table.items()})


def rewarded(value: float) -> Any:
    def check(outcome: Outcome) -> None:
        assert abs(outcome.trainer.state.log_history[0]["reward"] - value) < 1e-6

    return check


def without_reference(outcome: Outcome) -> None:
    assert outcome.trainer.ref_model is None


def some_are_cut(outcome: Outcome) -> None:
    assert 0 < outcome.trainer.state.log_history[0]["completions/clipped_ratio"] < 1


# -- the table -------------------------------------------------------------------------------------

OF_BOTH = [
    Row("metrics of every step", ONLINE, holds=(logged(*REWARDS),)),
    Row("tied embeddings", ONLINE, given=tied, holds=(moved,)),
    Row("prompts alone", ONLINE, given=prompts_alone, holds=(moved,)),
    Row("conversations", ONLINE, given=conversing, holds=(moved,), usual=("grpo",)),
    Row("arguments of the template", ONLINE, {"chat_template_kwargs": {"loud": True}}, conversing, holds=(moved,)),
    Row("the columns go to the rewards", ONLINE, given=rewards(by_column), holds=(moved,), usual=ONLINE),
    Row("a column of the mixin's name to the rewards", ONLINE, given=numbered, holds=(moved,),
        refused="has a column robust_index", usual=("rloo",)),
    Row("the state goes to the rewards", ONLINE, given=rewards(by_step), holds=(moved,)),
    Row("rewards log", ONLINE, given=rewards(telling), act=remembers, holds=(moved, logged("told_length"))),
    Row("a reward model by name", ONLINE, given=reward_model, holds=(moved,)),
    Row("functions and models", ONLINE, given=mixed_rewards, holds=(moved,), usual=("grpo",)),
    Row("several rewards", ONLINE, given=rewards(letters, length), holds=(moved,)),
    Row("weighted rewards", ONLINE, {"reward_weights": [0.7, 0.3]}, rewards(letters, length), holds=(moved,),
        usual=("rloo",)),
    Row("the weighted reward is logged", ONLINE, {"reward_weights": [0.7, 0.3]}, rewards(one, zero),
        holds=(rewarded(0.7),)),
    Row("too few weights", ONLINE, {"reward_weights": [0.7]}, rewards(one, zero), error="reward weights"),
    Row("too many readers", ONLINE, given=too_many_readers, error="reward processing classes"),
    Row("rewards that come later", ONLINE, given=rewards(letters, later), holds=(moved,)),
    Row("rewards of None among others", ONLINE, given=rewards(sometimes, length), holds=(moved,)),
    Row("some without any reward", ONLINE, given=rewards(sometimes), act=listens,
        holds=(seen(lambda said: any("returned None" in line for line in said)),), usual=("grpo",)),
    Row("none with a reward", ONLINE, given=rewards(never), act=listens,
        holds=(unmoved, seen(lambda said: any("returned None" in line for line in said)))),
    Row("more generations than a batch holds", ONLINE, {"micro": 2, "num_generations": 4, "steps": 4}, holds=(moved,)),
    Row("every question as often", ONLINE, act=counts_questions, holds=(seen(lambda told: told == [2, 2, 2, 2]),)),
    Row("another number of answers held out", ONLINE, EVALUATED | {"num_generations_eval": 1}, held_out,
        holds=(moved, logged("eval_reward"))),
    Row("prepares once a generation", ONLINE, EVALUATED | {"per_device_eval_batch_size": 4}, held_out, act=prepares,
        holds=(seen(lambda told: {training for training, *_ in told} == {True, False}),)),
    Row("several passes", ONLINE, {"num_iterations": 2, "max_steps": 4}, holds=(moved,), usual=ONLINE),
    Row("several steps a generation", ONLINE, {"steps_per_generation": 4, "max_steps": 4}, holds=(moved,)),
    Row("generations across steps", ONLINE, {"steps_per_generation": 1, "max_steps": 3}, holds=(moved,), refused=MIXED,
        usual=("grpo",)),
    Row("a batch by its generations", ONLINE, {"generation_batch_size": 16, "max_steps": 3}, holds=(moved,)),
    Row("one question a generation", ONLINE, {"micro": 2, "steps": 1}, holds=(moved,), refused=ONE_PROMPT,
        usual=("rloo",)),
    Row("unshuffled", ONLINE, {"shuffle_dataset": False}, holds=(moved,)),
    Row("samples as told", ONLINE, {"temperature": 0.8, "top_p": 0.9, "top_k": 5, "min_p": 0.01,
        "repetition_penalty": 1.1}, holds=(moved,)),
    Row("more arguments of generation", ONLINE, {"generation_kwargs": {"length_penalty": 0.9}}, holds=(moved,)),
    Row("without KL", ONLINE, {"beta": 0.0}, holds=(moved, without_reference)),
    Row("with KL", ONLINE, {"beta": 0.3}, holds=(moved, logged("kl"))),
    Row("a reference that follows", ONLINE, {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1,
        "max_steps": 3}, holds=(moved, logged("kl")), usual=("rloo",)),
    Row("cut answers are masked", ONLINE, {"mask_truncated_completions": True, "max_completion_length": 4}, ends_some,
        holds=(moved, some_are_cut)),
    Row("all answers are cut", ONLINE, {"mask_truncated_completions": True, "max_completion_length": 2, "beta": 0.0},
        holds=(unmoved,)),
    Row("keeps its table", ONLINE, {"log_completions": True, "num_completions_to_print": 0}, act=remembers,
        holds=(moved,)),
    Row("experts", ONLINE, given=lambda tiny, kind: experts(tiny, kind) | {"reward_funcs": letters},
        config={"beta": 0.0, "router_aux_loss_coef": 0.1}, holds=(logged("aux_loss"),)),
    Row("clips asymmetrically", ONLINE, {"epsilon": 0.1, "epsilon_high": 0.3, "num_iterations": 2, "max_steps": 4},
        holds=(moved,)),
]  # fmt: skip

OF_RLOO = [
    Row("normalised advantages", RLOO, {"normalize_advantages": True}, holds=(moved,)),
    Row("clipped rewards", RLOO, {"reward_clip_range": [0.2, 0.9]}, holds=(moved,), usual=RLOO),
]

LOSSES = {
    "grpo": "", "dr_grpo": "", "bnpo": WHOLE_BATCH, "dapo": WHOLE_BATCH, "cispo": WHOLE_BATCH, "sapo": WHOLE_BATCH,
    "luspo": WHOLE_BATCH, "vespo": WHOLE_BATCH,
}  # fmt: skip
OF_GRPO = [
    *[
        Row(f"loss {name}", GRPO,
            {"loss_type": name, "importance_sampling_level": "sequence" if name == "luspo" else "token"},
            holds=(moved,), refused=why, usual=GRPO if name == "bnpo" else ())
        for name, why in LOSSES.items()
    ],
    *[
        Row(f"rewards scaled by {how}", GRPO, {"scale_rewards": how}, holds=(moved,),
            usual=GRPO if how == "batch" else ())
        for how in ("group", "batch", "none", True, False)
    ],
    Row("normalises, then adds", GRPO, {"multi_objective_aggregation": "normalize_then_sum"}, rewards(letters, length),
        holds=(moved,)),
    Row("ratios of sequences", GRPO, {"importance_sampling_level": "sequence"}, holds=(moved,)),
    Row("clips from two sides", GRPO, {"delta": 2.0, "num_iterations": 2, "max_steps": 4}, holds=(moved,)),
    Row("masks what is off policy", GRPO, {"off_policy_mask_threshold": 0.5, "num_iterations": 2, "max_steps": 4},
        holds=(moved,)),
    Row("corrects the bias of KL", GRPO, {"beta": 0.1, "use_bias_correction_kl": True},
        holds=(moved, logged("kl"))),
    Row("entropy bonus", GRPO, {"entropy_coef": 0.05}, holds=(moved, logged("entropy"))),
    Row("adaptive entropy", GRPO, {"use_adaptive_entropy": True, "entropy_target": 5.0, "max_steps": 3},
        holds=(moved,)),
    Row("only uncertain tokens", GRPO, {"top_entropy_quantile": 0.5}, holds=(moved,)),
    Row("answers of the caller's own", GRPO, given=lambda tiny, kind: {"rollout_func": rolled_out,
        "reward_funcs": by_score}, holds=(moved,)),
    Row("an environment", GRPO, given=environment, holds=(moved, logged("rewards/Elsewhere/mean"))),
    Row("an environment with its own data", GRPO, given=environment_alone, holds=(moved,)),
    Row("no reward at all", GRPO, given=lambda tiny, kind: {"reward_funcs": None},
        error="No reward source"),
]  # fmt: skip
ROWS = [*OF_BOTH, *OF_RLOO, *OF_GRPO]
