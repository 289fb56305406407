"""Tabular policies dressed as token sequences: the next-token logits are a table indexed by the last token."""

from __future__ import annotations

import re

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from llm.data.prompts import Prompt
from llm.policy.actor_critic import ActorCritic, Reference
from llm.policy.config import PolicyConfig
from llm.policy.rollouts import Answer
from llm.policy.trainer import PolicyTrainer

PAD, END = 0, 1  # then the actions, then the prompts


class BigramConfig(PretrainedConfig):
    model_type = "bigram"

    def __init__(self, vocab_size=8, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = self.hidden_size = vocab_size
        self.num_hidden_layers = 1


class OneHot(nn.Module):
    """The last token as a one-hot state; ``memory`` adds how often each token came before it."""

    def __init__(self, config, *, memory=False):
        super().__init__()
        self.size, self.memory = config.vocab_size, memory
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        states = nn.functional.one_hot(input_ids, self.size).to(self.scale.dtype) * self.scale
        return BaseModelOutputWithPast(last_hidden_state=states.cumsum(dim=1) if self.memory else states)


class Bigram(PreTrainedModel, GenerationMixin):
    config_class = BigramConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = OneHot(config)
        self.lm_head = nn.Linear(config.vocab_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, logits_to_keep=0, output_hidden_states=None, **kwargs):
        states = self.model(input_ids).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(states[:, -logits_to_keep:]), hidden_states=(states,))


def bigram(prompts: int, actions: int, logits=None) -> Bigram:
    """Float64, every prompt one token; pad, end and prompts are never written where ``logits`` are given."""
    model = Bigram(BigramConfig(vocab_size=2 + actions + prompts)).double()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        if logits is not None:
            model.lm_head.weight[:2] = -1e4  # probability exactly 0; -inf times the 0 of a one-hot state is nan
            model.lm_head.weight[2 + actions :] = -1e4
            model.lm_head.weight[2 : 2 + actions, 2 + actions :] = torch.as_tensor(logits).T
    return model


def tokenizer(prompts: int, actions: int) -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[END]", *(f"a{i}" for i in range(actions)), *(f"p{i}" for i in range(prompts))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[PAD]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", eos_token="[END]")


class Table:
    """The reward of a single action for a prompt, or the sum of ``rewards[actions]`` of an answer."""

    def __init__(self, rewards):
        self.rewards = np.asarray(rewards)

    def __call__(self, prompts, answers):
        found = [[int(i) for i in re.findall(r"a(\d+)", text)] for text in answers]
        if self.rewards.ndim == 1:
            return np.array([self.rewards[actions].sum() for actions in found])
        return np.array([self.rewards[int(p.id), a[0]] for p, a in zip(prompts, found, strict=True)])


def trainer(
    model, rewards, folder, *, actions, scorer=None, arguments=None, prompts=None, weights=None, **settings
) -> PolicyTrainer:
    """A trainer of ``model`` on as many prompts as there are rows of ``rewards``."""
    count = len(rewards) if prompts is None else prompts
    config = PolicyConfig(**{
        "model": "bigram", "train_file": "none", "max_length": 32, "max_new_tokens": 1, "prompts_per_step": count,
        "kl_coefficient": 0.0, **settings,
    })  # fmt: skip
    told = {
        "output_dir": str(folder), "per_device_train_batch_size": 64, "per_device_eval_batch_size": 64, "max_steps": 2,
        "use_cpu": True, "report_to": "none", "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0,
        "learning_rate": 0.1, "disable_tqdm": True, "save_strategy": "no",
        **(arguments if isinstance(arguments, dict) else {}),
    }  # fmt: skip
    start = Bigram(model.config).double()
    start.load_state_dict(model.state_dict())
    return PolicyTrainer(
        module=ActorCritic(
            model,
            critic=settings.get("value_model", "separate") if config.estimator == "ppo" else None,
            temperature=config.temperature,
            entropy_gradient=config.entropy_coefficient > 0,
        ).double(),
        reference=Reference(start),
        tokenizer=tokenizer(count, actions),
        prompts=[
            Prompt(
                str(i),
                ({"role": "user", "content": f"p{i}"},),
                source="ab"[i % 2],
                weight=None if weights is None else weights[i],
            )
            for i in range(count)
        ],
        encoded=[[2 + actions + i] for i in range(count)],
        scorer=scorer or Table(rewards),
        config=config,
        arguments=arguments if isinstance(arguments, TrainingArguments) else TrainingArguments(**told),
    )


def one_action(prompt: int, action: int, *, actions: int) -> Answer:
    return Answer([2 + actions + prompt], [2 + action], ended=False)
