"""Called by test_policy_runs.py on one and on two processes: the same rollout must move the policy the same way.

And it is the same rollout: each prompt gets the same answers on either.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from bigram import bigram, trainer
from test_policy import REWARDS
from transformers import TrainingArguments

from llm.data.prompts import Prompt
from llm.policy.rollouts import Answer, Answers

PROMPTS = np.vstack([REWARDS, REWARDS[:, ::-1]])
CASES = [
    {"ambiguity": "tv:0.3"},
    {"ambiguity": "cvar:0.4,by=source", "version": "A", "whiten": "advantages"},
    {"ambiguity": "tv:0.5", "estimator": "ppo", "epochs": 2, "kl_coefficient": 0.1},
    {"ambiguity": "erm", "kl_in": "loss", "kl_coefficient": 0.2, "entropy_coefficient": 0.1},
    {"ambiguity": "tv:0.3", "silent_groups": "leave_out", "estimator": "grpo", "length_divisor": "batch"},
    {"ambiguity": "kl_penalty:0.5", "adversary_acts": "draws_corrected", "prompts_per_step": 4},
]


class Fixed(Answers):
    """Answers that the prompt decides, of different lengths, whoever writes them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, model, encoded, lots, *, samples, positions):
        return [self._answer(ids, np.random.default_rng([ids[0], k])) for ids in encoded for k in range(samples)]

    def _answer(self, ids, rng):
        return Answer(ids, [int(token) for token in rng.integers(2, 5, size=rng.integers(1, 5))], ended=True)

    def text(self, answer):
        return self.tokenizer.decode(answer.ids)


def arguments_of(folder: Path) -> TrainingArguments:
    """Once per process: making them anew starts the process group anew."""
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=3, per_device_eval_batch_size=64, max_steps=2, use_cpu=True,
        report_to="none", lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, learning_rate=0.1,
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip


def parameters_after(case: dict, arguments: TrainingArguments, world: int) -> list[float]:
    model, rewards = bigram(8, 3), PROMPTS.copy()
    if "silent_groups" in case:  # of every other prompt all answers are alike
        rewards[::2] = 1.0
    told = {"samples": 4, **case, "prompts_per_step": case.get("prompts_per_step", 8) // world}
    subject = trainer(model, rewards, arguments.output_dir, actions=3, arguments=arguments, **told)
    assert isinstance(subject.prompts[0], Prompt)
    subject.pen = Fixed(subject.pen.tokenizer)
    subject.train()
    trained = [part for part in subject.core.parameters() if part.requires_grad]
    return torch.cat([part.detach().flatten() for part in trained]).tolist()


def answers_of(arguments: TrainingArguments, world: int) -> list[list[list[int]]]:
    """What this process draws over two steps of training: prompt and answer."""
    model = bigram(8, 3)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.randn(13, 13, generator=torch.Generator().manual_seed(4)))
    subject = trainer(
        model, np.arange(3.0), arguments.output_dir, actions=3, prompts=8, samples=4, max_new_tokens=5,
        prompts_per_step=4 // world, arguments=arguments,
    )  # fmt: skip
    seen, pen = [], subject.pen.__call__

    def listening(*args, **kwargs):
        answers = pen(*args, **kwargs)
        seen.extend([answer.prompt, answer.ids] for answer in answers)
        return answers

    listening.tokenizer, listening.text = subject.pen.tokenizer, subject.pen.text
    listening.take, listening.foreign = subject.pen.take, False
    subject.pen = listening
    subject.train()
    return seen


def main(target: Path, world: int) -> None:
    arguments = arguments_of(target / "run")
    found = [parameters_after(case, arguments, world) for case in CASES]
    found.append(answers_of(arguments, world))
    state = PartialState()
    (target / f"{world}-{state.process_index}.json").write_text(json.dumps(found))
    if state.num_processes > 1:
        torch.distributed.destroy_process_group()
