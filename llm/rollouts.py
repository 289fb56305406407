"""Answers that a policy writes: sampling with its own ``generate``, and the batches that its losses read.

Generation pads prompts on the left, so that all of a batch go on at the same place. Losses read prompt and answer as
one sequence padded on the right, whose positions start at the first token, with any model. No batch is longer than
its longest sequence needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from .scoring import evaluation_mode

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_new_tokens: Longest answer, its end included.
        temperature: Logits are divided by it; the policy that is trained is the one at this temperature.
        top_p: Below 1, tokens outside the smallest set of that mass are never drawn. Log-probabilities are still
            those of the whole distribution, so the gradient is no longer exactly that of the sampled policy.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Answer:
    """One answer: the prompt's ids, its own ids with the token that ended it, and whether one did."""

    prompt: list[int]
    ids: list[int]
    ended: bool


class Answers:
    """A policy's pen: samples answers to encoded prompts.

    Args:
        tokenizer: Pads and decodes; its end token, and those of the model's generation settings, end an answer.
        sampling: Lengths and distribution.
        batch_size: Sequences that are written at the same time.
    """

    def __init__(self, tokenizer: Any, sampling: Sampling, *, batch_size: int) -> None:
        self.tokenizer, self.sampling, self.batch_size = tokenizer, sampling, batch_size

    @torch.no_grad()
    def __call__(self, model: nn.Module, prompts: Sequence[list[int]], *, samples: int = 1) -> list[Answer]:
        """``samples`` answers to every prompt, those of a prompt together; uses torch's global generator."""
        longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        places = [i for i in longest_first for _ in range(samples)]
        drawn: list[list[Answer]] = [[] for _ in prompts]
        with evaluation_mode(model):
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                for place, answer in zip(batch, self._drawn(model, [prompts[i] for i in batch]), strict=True):
                    drawn[place].append(answer)
        return [answer for answers in drawn for answer in answers]

    def text(self, answer: Answer) -> str:
        """The answer without special tokens and the white space around it."""
        return self.tokenizer.decode(answer.ids, skip_special_tokens=True).strip()

    def _drawn(self, model: Any, prompts: list[list[int]]) -> list[Answer]:
        pad, longest = self.tokenizer.pad_token_id, max(map(len, prompts))
        device = next(model.parameters()).device
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=device)
        attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
        ends = self._ends(model)
        settings = GenerationConfig(
            max_new_tokens=self.sampling.max_new_tokens,
            do_sample=True,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=0,
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=ends,
        )
        written = model.generate(input_ids=ids, attention_mask=attention, generation_config=settings)
        rows = written[:, longest:].tolist()
        return [_cut(prompt, row, ends) for prompt, row in zip(prompts, rows, strict=True)]

    def _ends(self, model: Any) -> list[int]:
        """Tokens that end an answer: a chat model often has one for the turn beside the one for the text."""
        said = getattr(model.generation_config, "eos_token_id", None)
        ends = {*(said if isinstance(said, list) else [said]), self.tokenizer.eos_token_id} - {None}
        return sorted(ends)  # pyright: ignore[reportReturnType]


def _cut(prompt: list[int], row: list[int], ends: list[int]) -> Answer:
    """Up to the first end, which belongs to the answer; what follows is padding."""
    last = next((place for place, token in enumerate(row) if token in ends), None)
    return Answer(prompt, row if last is None else row[: last + 1], last is not None)


def batch_of(answers: Sequence[Answer], pad: int, device: torch.device | None = None) -> Batch:
    """Sequences of prompt and answer, padded on the right to the longest.

    Returns:
        ``input_ids``, ``attention_mask`` and ``answer_mask``, each ``(n, length)``.
    """
    length = max(len(answer.prompt) + len(answer.ids) for answer in answers)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "answer_mask": []}
    for answer in answers:
        before, own = len(answer.prompt), len(answer.ids)
        after = length - before - own
        columns["input_ids"].append([*answer.prompt, *answer.ids, *[pad] * after])
        columns["attention_mask"].append([1] * (before + own) + [0] * after)
        columns["answer_mask"].append([0] * before + [1] * own + [0] * after)
    return {name: torch.tensor(rows, device=device) for name, rows in columns.items()}


def aligned(tokens: Tensor, mask: Tensor, length: int) -> Tensor:
    """From the columns of a batch to the tokens of each answer from its first, ``(n, length)``, 0 after its end.

    Args:
        tokens: One entry per column, ``(n, columns)``.
        mask: Which columns belong to the answers: one run in each row, boolean ``(n, columns)``.
        length: At least the longest answer.
    """
    places = torch.arange(length, device=mask.device)
    columns = (mask.int().argmax(dim=1, keepdim=True) + places).clamp(max=mask.shape[1] - 1)
    return tokens.gather(1, columns).where(places < mask.sum(dim=1, keepdim=True), 0.0)
