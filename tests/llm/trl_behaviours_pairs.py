"""The rows of the reward and DPO trainers, and those that all four share.

One table drives this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from peft import get_peft_model
from tiny_trl import Tiny
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM
from trl_behaviours import (
    ALL,
    CLOCKS,
    ONLINE,
    PAIRS,
    Make,
    Outcome,
    Row,
    Watch,
    adapters,
    chats,
    logged,
    logs,
    lora,
    model_of,
    moved,
    of_chats,
    seen,
    speaking,
    weights,
)

BASE = {"reward": ("accuracy", "margin", "min_reward", "num_tokens"), "dpo": ("rewards/margins", "logps/chosen")}
DROPOUT = "dropout is active"
NO_POSITIONS = "has no positions: give train_dataset as a"
ADAPTED = {"learning_rate": 0.1}  # adapters begin at zero, one step leaves half of them there


# -- what is done ----------------------------------------------------------------------------------


def resumes(make: Make) -> Outcome:
    """Stop after the first step, go on in a second trainer."""
    place = {"save_strategy": "steps", "save_steps": 1}
    first = make(max_steps=1, **place)
    first.train()
    second = make(output_dir=first.args.output_dir, **place)
    start = weights(second.model)
    second.train(resume_from_checkpoint=True)
    return Outcome(second, start, seen=(first.state.global_step, second.state.global_step, logs(first)))


def goes_on(make: Make) -> Outcome:
    """Two trainings of one trainer, the second over an evaluation."""
    trainer = make(max_steps=1)
    start = weights(trainer.model)
    trainer.train()
    told = trainer.evaluate()
    trainer.train()
    return Outcome(trainer, start, seen=told["eval_loss"])


def evaluates(data: Any) -> Any:
    """Evaluate raw data before and after training."""

    def act(make: Make) -> Outcome:
        trainer = make()
        start, given = weights(trainer.model), data(trainer)
        told = [trainer.evaluate(eval_dataset=given)]
        trainer.train()
        told.append(trainer.evaluate(eval_dataset=given))
        clean = [{k: v for k, v in one.items() if not k.endswith(CLOCKS)} for one in told]
        return Outcome(trainer, start, seen=clean)

    return act


def predicts(make: Make) -> Outcome:
    trainer = make()
    trainer.train()
    found = trainer.predict(trainer.eval_dataset)
    return Outcome(trainer, weights(trainer.model), seen=(found.predictions, found.label_ids))


def watches(make: Make) -> Outcome:
    trainer, watch = make(), Watch()
    trainer.add_callback(watch)
    start = weights(trainer.model)
    trainer.train()
    return Outcome(trainer, start, seen=watch.told)


def saves(make: Make) -> Outcome:
    """A model card with TRL's tags beside a model that is read again."""
    trainer = make()
    start = weights(trainer.model)
    trainer.train()
    folder = Path(trainer.args.output_dir)
    trainer.save_model()
    trainer.create_model_card()
    again = type(trainer.model).from_pretrained(folder)
    equal = all(torch.equal(p, weights(again)[name]) for name, p in weights(trainer.model).items())
    card = (folder / "README.md").read_text()
    tags = [tag for tag in trainer._tag_names if f"- {tag}" in card]
    return Outcome(trainer, start, seen={"equal": equal, "tags": tags, "named": sorted(trainer.model.model_tags or [])})


def unseen_columns(make: Make) -> Outcome:
    """A column that bears the name the mixins give theirs stays the owner's."""
    trainer = make()
    start = weights(trainer.model)
    trainer.train()
    return Outcome(trainer, start, seen=trainer.train_dataset["robust_index"])


def optimised(make: Make) -> Outcome:
    trainer = make()
    start = weights(trainer.model)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.5)
    trainer.train()
    return Outcome(trainer, start)


def builds(make: Make) -> Outcome:
    """Only construct, and look at the data as they were prepared."""
    trainer = make()
    data = trainer.train_dataset
    names = [name for name in ("prompt_ids", "chosen_ids", "rejected_ids") if name in data.column_names]
    return Outcome(trainer, weights(trainer.model), seen={name: list(data[name]) for name in names})


# -- what is given ---------------------------------------------------------------------------------


def held_out(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"eval_dataset": tiny.data.select(range(6))}


def several_held_out(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"eval_dataset": {"one": tiny.data.select(range(4)), "two": tiny.data.select(range(4, 8))}}


def held_out_dict(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"eval_dataset": DatasetDict(several_held_out(tiny, kind)["eval_dataset"])}


def streamed_held_out(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"eval_dataset": tiny.data.select(range(4)).to_iterable_dataset()}


def stream(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": tiny.data.to_iterable_dataset()}


def adapted(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"peft_config": lora(kind)}


def already_adapted(tiny: Tiny, kind: str) -> dict[str, Any]:
    torch.manual_seed(3)
    return {"model": get_peft_model(model_of(tiny, kind), lora(kind))}


def as_object(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"model": model_of(tiny, kind)}


def dropping_out(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"model": model_of(tiny, kind, attention_dropout=0.1)}


def tied(tiny: Tiny, kind: str) -> dict[str, Any]:
    config = AutoModelForCausalLM.from_pretrained(tiny.causal).config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.config._name_or_path = tiny.causal
    return {"model": model}


def experts(tiny: Tiny, kind: str) -> dict[str, Any]:
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MixtralConfig(
        vocab_size=len(tiny.tokenizer), num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=2, **size
    )
    torch.manual_seed(0)
    model = MixtralForCausalLM(config)
    reference = {"ref_model": MixtralForCausalLM(config)} if kind == "dpo" else {}
    return {"model": model} | reference


def reference(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"ref_model": AutoModelForCausalLM.from_pretrained(tiny.reference)}


def same_twice(tiny: Tiny, kind: str) -> dict[str, Any]:
    model = model_of(tiny, kind)
    return {"model": model, "ref_model": model}


def tokenized(tiny: Tiny, kind: str) -> dict[str, Any]:
    rows = []
    for one in tiny.data:
        rows.append({f"{k}_ids": tiny.tokenizer(one["prompt"] + one[k])["input_ids"] for k in ("chosen", "rejected")})
    return {"train_dataset": Dataset.from_list(rows)}


def question_in_answers(tiny: Tiny, kind: str) -> dict[str, Any]:
    def join(row: dict[str, Any]) -> dict[str, Any]:
        return {side: row["prompt"] + row[side] for side in ("chosen", "rejected")}

    return {"train_dataset": tiny.data.map(join).remove_columns("prompt")}


def margins(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": tiny.data.add_column("margin", [k / 8 for k in range(len(tiny.data))])}


def one_too_long(tiny: Tiny, kind: str) -> dict[str, Any]:
    long = tiny.data[0] | {"prompt": tiny.data[0]["prompt"] * 20}
    return {"train_dataset": Dataset.from_list([*tiny.data, long])}


def numbered_by_owner(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": tiny.data.add_column("robust_index", [7 * k for k in range(len(tiny.data))])}


def metrics(tiny: Tiny, kind: str) -> dict[str, Any]:
    def count(prediction: Any) -> dict[str, float]:
        return {"judged": float(len(prediction.predictions[0]))}

    return held_out(tiny, kind) | {"compute_metrics": count}


def nothing(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": None}


def loud(tiny: Tiny, kind: str) -> dict[str, Any]:
    data = chats(tiny)
    data = data.add_column("chat_template_kwargs", [{"loud": bool(i % 2)} for i in range(len(data))])
    return {"train_dataset": data, "processing_class": speaking(tiny)}


def one_question_with_eyes(tiny: Tiny, kind: str) -> dict[str, Any]:
    return {"train_dataset": tiny.data.add_column("image", ["none"] * len(tiny.data))}


# -- the table -------------------------------------------------------------------------------------

EVALUATED = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 2}
CHECKPOINTED = {"gradient_checkpointing": True}


def told_twice(told: Any) -> bool:
    return len(told) == 2 and all(any(name.endswith("loss") for name in one) for one in told) and told[0] != told[1]


SHARED = [
    Row("trains", ALL, holds=(moved, logged("loss", "grad_norm", "learning_rate")), usual=ALL),
    Row("accumulates", ALL, {"micro": 2, "steps": 4}, holds=(moved,), usual=("dpo", "rloo")),
    Row("one micro-batch a step", ALL, {"micro": 8, "steps": 1}, holds=(moved,)),
    Row("shorter last window", ALL, {"micro": 4, "steps": 5, "max_steps": -1, "num_train_epochs": 2}, holds=(moved,),
        usual=("reward",)),
    Row("checkpoints activations", ALL, CHECKPOINTED, holds=(moved,), usual=("grpo",)),
    *[
        Row(f"reentrant {flag}", ALL, CHECKPOINTED | {"gradient_checkpointing_kwargs": {"use_reentrant": flag}},
            holds=(moved,))
        for flag in (True, False)
    ],
    Row("adapters", ALL, ADAPTED, adapted, holds=(adapters,), usual=("dpo", "rloo")),
    Row("adapters brought along", ALL, ADAPTED, already_adapted, holds=(logged("loss"),)),
    Row("adapters with checkpoints", ALL, ADAPTED | CHECKPOINTED, adapted, holds=(adapters,)),
    Row("model as object", ALL, given=as_object, holds=(moved,)),
    Row("half precision", ALL, {"model_init_kwargs": {"dtype": "bfloat16"}, "learning_rate": 0.1}, holds=(moved,)),
    Row("mixed precision", ALL, {"bf16": True}, holds=(moved,)),
    Row("evaluates on the way", ALL, EVALUATED, held_out, holds=(moved, logged("eval_loss")), usual=("reward", "grpo")),
    Row("evaluates first", ALL, EVALUATED | {"eval_on_start": True}, held_out, holds=(moved, logged("eval_loss"))),
    Row("evaluates several", ALL, EVALUATED, several_held_out, holds=(moved, logged("eval_one_loss", "eval_two_loss"))),
    Row("evaluates a dict", ALL, EVALUATED, held_out_dict, holds=(moved, logged("eval_one_loss", "eval_two_loss")),
        usual=("dpo",)),
    Row("evaluates a stream", ALL, EVALUATED, streamed_held_out, holds=(moved, logged("eval_loss"))),
    Row("evaluates raw data", ALL, {"per_device_eval_batch_size": 2}, act=evaluates(lambda _: raw()),
        holds=(moved, seen(told_twice))),
    Row("evaluates raw data of two kinds", ALL, {"per_device_eval_batch_size": 2},
        act=evaluates(lambda _: {"a": raw(), "b": raw()}), holds=(moved, seen(told_twice))),
    Row("evaluates between two trainings", ALL, {"per_device_eval_batch_size": 2}, held_out, act=goes_on,
        holds=(moved,)),
    Row("streams", ALL, given=stream, holds=(moved,), refused=NO_POSITIONS, usual=("reward", "rloo")),
    Row("resumes", ALL, act=resumes, holds=(moved, seen(lambda told: told[:2] == (1, 2))), usual=ALL),
    Row("resumes adapters", ALL, ADAPTED, adapted, act=resumes),
    Row("writes card and model", ALL, act=saves,
        holds=(moved, seen(lambda told: told["equal"] and len(told["tags"]) > 1)), usual=("dpo",)),
    Row("calls back", ALL, act=watches,
        holds=(moved, seen(lambda told: {"substep_end", "step_end", "train_end"} <= {name for name, _ in told})),
        usual=("reward",)),
    Row("takes an optimizer", ALL, act=optimised, holds=(moved,)),
    Row("decays and warms up", ALL, {"lr_scheduler_type": "cosine", "warmup_steps": 1, "weight_decay": 0.1,
        "max_steps": 3}, holds=(moved,)),
    Row("accumulates gradients' norm", ALL, {"max_grad_norm": 1e-3}, holds=(moved,)),
    Row("noisy embeddings", PAIRS, {"neftune_noise_alpha": 5.0}, holds=(moved,), refused="neftune_noise_alpha 5",
        usual=("reward",)),
    Row("noisy embeddings", ONLINE, {"neftune_noise_alpha": 5.0}, holds=(moved,)),
    Row("loads in a worker", ALL, {"dataloader_num_workers": 1}, holds=(moved,)),
    Row("drops the last batch", ALL, {"dataloader_drop_last": True, "micro": 10, "max_steps": -1,
        "num_train_epochs": 1}, holds=(moved,)),
    Row("logs the first step and every second", ALL, {"logging_first_step": True, "logging_steps": 2, "max_steps": 3},
        holds=(moved,)),
    Row("lengths to a multiple", ALL, {"pad_to_multiple_of": 8}, holds=(moved,)),
    Row("no data", ALL, given=nothing, error="`train_dataset` is required"),
    Row("no such model", ALL, given=lambda tiny, kind: {"model": tiny.causal + "/none"}, error="none"),
    Row("a column of the mixin's name", ALL, given=numbered_by_owner, act=unseen_columns,
        holds=(moved, seen(lambda told: told[:3] == [0, 7, 14])), refused="has a column robust_index"),
]  # fmt: skip


def raw() -> Dataset:
    """Held-out data as a user has them."""
    rows = [{"prompt": f"What is {k}?", "chosen": f" It is {k}", "rejected": f" {k} or {k + 1}"} for k in range(4)]
    return Dataset.from_list(rows)


REWARD = ("reward",)
OF_REWARD = [
    Row("metrics of every step", REWARD, holds=(logged(*BASE["reward"]),)),
    Row("margins", REWARD, given=margins, holds=(moved,), usual=REWARD),
    Row("centred rewards", REWARD, {"center_rewards_coefficient": 0.1}, holds=(moved,)),
    Row("a start without a head", REWARD, given=lambda tiny, kind: {"model": tiny.causal}, holds=(moved,)),
    Row("drops what is too long", REWARD, {"max_length": 24}, act=builds,
        holds=(seen(lambda told: 0 < len(told["chosen_ids"]) < 24),)),
    Row("dropout as it was", REWARD, {"disable_dropout": False}, dropping_out, holds=(moved,), refused=DROPOUT),
]  # fmt: skip

DPO = ("dpo",)
LOSSES = {
    "sigmoid": "", "hinge": "", "ipo": "", "nca_pair": "", "robust": "", "sppo_hard": "", "apo_zero": "",
    "apo_down": "", "discopop": "", "sigmoid_norm": "", "bco_pair": "", "exo_pair": "",
    "aot": "sorts log-ratios across the batch", "aot_unpaired": "sorts log-ratios across the batch",
    "sft": "'sft' is normalised by the tokens",
}  # fmt: skip
OF_DPO = [
    Row("metrics of every step", DPO, holds=(logged(*BASE["dpo"], "rewards/accuracies", "entropy"),)),
    *[
        Row(f"loss {name}", DPO,
            {"loss_type": [name], "label_smoothing": 0.1 if name in ("robust", "exo_pair") else 0.0},
            holds=(moved,), refused=why, usual=DPO if name == "aot" else ())
        for name, why in LOSSES.items()
    ],
    Row("losses together", DPO, {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
        holds=(moved,), refused=LOSSES["sft"], usual=DPO),
    Row("an unknown loss", DPO, {"loss_type": ["nought"]}, error="Unknown loss type"),
    Row("smoothed labels", DPO, {"label_smoothing": 0.2}, holds=(moved,)),
    Row("weighted by the policy", DPO, {"use_weighting": True}, holds=(moved,)),
    Row("lengths desensitised", DPO, {"ld_alpha": 0.5}, holds=(moved,)),
    *[
        Row(f"f-divergence {name}", DPO, {"f_divergence_type": name}, holds=(moved,))
        for name in ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
    ],
    Row("a reference beside it", DPO, given=reference, holds=(moved,)),
    Row("its own reference", DPO, given=same_twice, error="cannot be the same object"),
    Row("a reference that follows", DPO, {"sync_ref_model": True, "ref_model_sync_steps": 1, "max_steps": 3}, reference,
        holds=(moved,), usual=DPO),
    Row("reference computed before", DPO, {"precompute_ref_log_probs": True}, holds=(moved,), usual=DPO),
    Row("reference computed before, with held-out pairs", DPO, EVALUATED | {"precompute_ref_log_probs": True}, held_out,
        holds=(moved, logged("eval_loss"))),
    Row("reference computed before a stream", DPO, {"precompute_ref_log_probs": True}, stream,
        error="not supported with IterableDataset"),
    Row("reference computed before is gone", DPO, {"precompute_ref_log_probs": True}, act=evaluates(lambda _: raw()),
        error="Cannot compute reference log-probs"),
    Row("a reference computed before that follows", DPO, {"precompute_ref_log_probs": True, "sync_ref_model": True},
        error="sync_ref_model=True"),
    Row("padding free", DPO, {"padding_free": True}, holds=(moved,)),
    *[
        Row(f"cut to length, {mode}", DPO, {"max_length": 40, "truncation_mode": mode}, holds=(moved,))
        for mode in ("keep_start", "keep_end")
    ],
    Row("an answer cut away", DPO, {"max_length": 60}, one_too_long, act=builds,
        holds=(seen(lambda told: len(told["chosen_ids"]) == 24),)),
    Row("tied embeddings", DPO, given=lambda tiny, kind: tied(tiny, kind) | reference(tiny, kind), holds=(moved,)),
    Row("experts", DPO, given=experts, holds=(logged("aux_loss"),), refused="router_aux_loss_coef=0.0", usual=DPO),
    Row("experts without their loss", DPO, {"router_aux_loss_coef": 0.0}, experts, holds=(logged("loss"),)),
    Row("pictures without eyes", DPO, given=one_question_with_eyes, error="vision-related"),
    Row("dropout as it was", DPO, {"disable_dropout": False}, dropping_out, holds=(moved,), refused=DROPOUT,
        usual=DPO),
]  # fmt: skip

OF_BOTH = [
    Row("tokens", REWARD, given=tokenized, holds=(moved,), usual=REWARD),
    Row("question in both answers", PAIRS, given=question_in_answers, holds=(moved,)),
    Row("conversations", PAIRS, given=of_chats(), holds=(moved,), usual=("reward",)),
    Row("conversations with the question in both", PAIRS, given=of_chats(prompt=False), holds=(moved,)),
    Row("arguments of the template", PAIRS, given=loud, holds=(moved,)),
    Row("tools in the template", PAIRS, given=of_chats(extra={"tools": "[]"}), holds=(moved,)),
    Row("own metrics", PAIRS, EVALUATED, metrics, holds=(moved, logged("eval_judged")), usual=("reward",)),
    Row("predicts", PAIRS, {"per_device_eval_batch_size": 2}, held_out, act=predicts),
]
ROWS = [*SHARED, *OF_REWARD, *OF_DPO, *OF_BOTH]
