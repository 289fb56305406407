"""TRL's trainers, plain and robust, on tiny models, and their gradients by autograd on losses computed without TRL."""

from __future__ import annotations

import numpy as np
import torch
import trl
from tiny_trl import PAIRS, Gradients, arguments, flat_gradient
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, TrainerCallback

import llm.trl as ours
from dro_core import parse_ambiguity, robust_loss, worst_case

KINDS = {
    "reward": (ours.RobustRewardTrainer, trl.RewardTrainer, trl.RewardConfig),
    "dpo": (ours.RobustDPOTrainer, trl.DPOTrainer, trl.DPOConfig),
    "grpo": (ours.RobustGRPOTrainer, trl.GRPOTrainer, trl.GRPOConfig),
    "rloo": (ours.RobustRLOOTrainer, trl.RLOOTrainer, trl.RLOOConfig),
}
# TRL computes log-probabilities in float32 whatever the model is in.
ROUNDING = {"reward": 1e-6, "dpo": 2e-6, "grpo": 2e-6, "rloo": 2e-6}


class Letters:
    """A reward that differs between prompts and between their completions; remembers what it judged."""

    __name__ = "letters"

    def __init__(self):
        self.judged = []

    def __call__(self, prompts, completions, **kwargs):
        seen = list(zip(prompts, completions, strict=True))
        rewards = [sum(map(ord, text)) % 101 / 100 + len(prompt) / 50 for prompt, text in seen]
        self.judged += [(*pair, reward) for pair, reward in zip(seen, rewards, strict=True)]
        return rewards


class Halt(TrainerCallback):
    """Stops after the second step, as a kill does, but for the files that it leaves half."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2
        return control


def trainer_for(tiny, name, folder, ambiguity="plain", *, callbacks=None, schedule=None, extra=None, **kwargs):
    """TRL's own trainer for ``"plain"``, the robust one otherwise."""
    robust, plain, config = KINDS[name]
    online, extra = name in ("grpo", "rloo"), extra or {}
    lora = "peft_config" in extra
    ours_only = {} if ambiguity == "plain" else {"ambiguity": ambiguity, "schedule": schedule}
    if online:
        defaults = {"micro": 4, "steps": 4, "num_generations": 4, "max_completion_length": 8}
        kwargs = defaults | ({"loss_type": "grpo"} if name == "grpo" else {"beta": 0.0}) | kwargs
    return (plain if ambiguity == "plain" else robust)(
        model=kwargs.pop("model", None) or load(tiny, name, **(kwargs.pop("model_config", {}))),
        args=arguments(config, folder, **kwargs),
        train_dataset=tiny.data,
        processing_class=tiny.tokenizer,
        callbacks=callbacks,
        **({"reward_funcs": Letters()} if online else {}),
        **({"ref_model": reference_of(tiny)} if name == "dpo" and not lora else {}),
        **ours_only,
        **extra,
    )


def trained(*args, **kwargs):
    gradients = Gradients()
    trainer = trainer_for(*args, callbacks=[gradients], **kwargs)
    trainer.train()
    return trainer, gradients.steps


def logged(trainer, *names):
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [[row[name] for name in names] for row in rows]


def sequences(tiny, row):
    """Token ids of prompt and answer, for both answers of one pair."""
    prompt = tiny.tokenizer(row["prompt"])["input_ids"]
    both = [tiny.tokenizer(row["prompt"] + row[side] + "[SEP]")["input_ids"] for side in ("chosen", "rejected")]
    shared = min(next(i for i, (a, b) in enumerate(zip([*prompt, -1], ids, strict=False)) if a != b) for ids in both)
    return both, shared


def log_likelihood(model, ids, start):
    logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logits[t - 1, ids[t]] for t in range(start, len(ids)))


def answer_losses(tiny, name, rows, model):
    """The losses of ``rows``, one forward pass per answer, without TRL."""
    reference = reference_of(tiny)
    for row in rows:
        (chosen, rejected), start = sequences(tiny, tiny.data[int(row)])
        if name == "reward":
            margin = model(torch.tensor([chosen])).logits[0, 0] - model(torch.tensor([rejected])).logits[0, 0]
        else:
            sides = [
                log_likelihood(model, ids, start) - log_likelihood(reference, ids, start).detach()
                for ids in (chosen, rejected)
            ]
            margin = 0.1 * (sides[0] - sides[1])
        yield -logsigmoid(margin)


def load(tiny, name, **config):
    """In float64: float32 rounds the difference of two answers to 1e-6 and hides what is tested."""
    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    return kind.from_pretrained(tiny.reward if name == "reward" else tiny.causal, dtype=torch.float64, **config)


def reference_of(tiny):
    return AutoModelForCausalLM.from_pretrained(tiny.reference, dtype=torch.float64)


def full_batch_gradient(tiny, name, rows, spec, model=None):
    model = load(tiny, name) if model is None else model
    losses = torch.stack(list(answer_losses(tiny, name, rows, model)))
    assert losses.unique().numel() == len(rows)
    ambiguity = parse_ambiguity(spec)
    if ambiguity is None:
        losses.mean().backward()
    else:
        robust_loss(losses, ambiguity.bind({"source": [PAIRS[i].source for i in rows]})).backward()
    return flat_gradient(model)


def seen(trainer):
    return np.flatnonzero(trainer.ledger.visits)


def assert_same_training(robust, plain, *, steps):
    losses = [logged(trainer, "loss", "grad_norm") for trainer in (plain, robust)]
    assert len(losses[0]) == steps
    assert losses[0] == losses[1]
    for ours_, theirs in zip(robust.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours_, theirs)


def factors(judged, spec):
    """n q of every prompt, from what the reward function saw."""
    rewards = {}
    for prompt, _, reward in judged:
        rewards.setdefault(prompt, []).append(reward)
    ambiguity = parse_ambiguity(spec).bind({"source": [SOURCES[prompt] for prompt in rewards]})
    weights = worst_case(np.array([-np.mean(group) for group in rewards.values()]), ambiguity).weights
    return dict(zip(rewards, len(rewards) * weights, strict=True))


SOURCES = {pair.prompt[-1]["content"]: pair.source for pair in PAIRS}


def sampled(trainer):
    """Prompt ids, completion ids and prompt text of every completion of the last generation."""
    tokenizer = trainer.processing_class
    for batch in trainer._buffered_inputs:
        for i in range(len(batch["advantages"])):
            prompt, answer = (batch[f"{part}_ids"][i] for part in ("prompt", "completion"))
            prompt, answer = prompt[batch["prompt_mask"][i] == 1], answer[batch["completion_mask"][i] == 1]
            texts = tokenizer.decode(prompt), tokenizer.decode(answer, skip_special_tokens=True)
            yield prompt.tolist(), answer.tolist(), *texts


def surrogate(trainer, model, spec, judged, *, name):
    """The objective whose gradient one on-policy step takes, with advantages and weights worked out here."""
    multiplier = factors(judged, spec)
    terms = []
    for prompt, answer, prompt_text, answer_text in sampled(trainer):
        group = [(text, reward) for p, text, reward in judged if p == prompt_text]
        reward = next(reward for text, reward in group if text == answer_text)
        others = [r for _, r in group]
        mean = np.mean(others)
        advantage = (reward - mean) * (len(others) / (len(others) - 1) if name == "rloo" else 1)
        likelihood = log_likelihood(model, prompt + answer, len(prompt))
        length = {"rloo": 1, "grpo": len(answer), "dr_grpo": trainer.max_completion_length}[name]
        terms.append(-multiplier[prompt_text] * advantage * likelihood / length)
    return torch.stack(terms).mean()
