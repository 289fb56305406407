"""A reward of 0 and 1 under which many groups teach nothing, and the mean over the others worked out without TRL."""

from __future__ import annotations

import numpy as np
import torch
from robust_trl import Letters, log_likelihood, sampled

from dro_core import parse_ambiguity, worst_case


def kind_of(prompt):
    """0: no answer is right; 1: every one; 2: by its letters."""
    return sum(map(ord, prompt)) % 3


class Checked(Letters):
    """Remembers what it judged, as its base does."""

    __name__ = "checked"

    def __call__(self, prompts, completions, **kwargs):
        rewards = [
            float(kind == 1 or (kind == 2 and sum(map(ord, text)) % 2))
            for kind, text in zip(map(kind_of, prompts), completions, strict=True)
        ]
        self.judged += list(zip(prompts, completions, rewards, strict=True))
        return rewards


def groups(judged):
    """Rewards by prompt, in the order they were judged."""
    found = {}
    for prompt, _, reward in judged:
        found.setdefault(prompt, []).append(reward)
    return found


def drawn(trainer):
    """What the last generation trains on on this rank."""
    return list(sampled(trainer))


def mean_of_those_with_a_signal(trainer, model, batch, spec, *, name, judged=None, share=1.0):
    """The objective of this rank, whose share of all completions is ``share``.

    A group counts if its rewards differ; the set weighs those that count.
    """
    found = groups(trainer.reward_funcs[0].judged if judged is None else judged[0])
    present = {prompt for *_, prompt, _ in batch} if judged is None else judged[1]
    lively = sorted(prompt for prompt in present if max(found[prompt]) > min(found[prompt]))
    weights = np.full(len(lively), 1 / len(lively))
    if spec is not None:
        weights = worst_case(np.array([-np.mean(found[prompt]) for prompt in lively]), parse_ambiguity(spec)).weights
    weight = dict(zip(lively, weights, strict=True))
    tokens = sum(len(answer) for _, answer, prompt, _ in batch if prompt in weight)
    terms = []
    for prompt, answer, text, said in batch:
        if text not in weight:
            continue
        group, samples = found[text], len(found[text])
        reward = float(kind_of(text) == 1 or (kind_of(text) == 2 and sum(map(ord, said)) % 2))
        advantage = (reward - np.mean(group)) * (samples / (samples - 1) if name == "rloo" else 1)
        likelihood = log_likelihood(model, prompt + answer, len(prompt))
        each = {"rloo": 1, "grpo": len(answer), "dapo": tokens / (len(lively) * samples)}[name]
        terms.append(-weight[text] / samples * advantage * likelihood / each)
    return torch.stack(terms).sum() / share if terms else sum(part.sum() * 0 for part in model.parameters())
