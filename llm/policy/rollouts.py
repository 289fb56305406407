"""Answers that a policy writes: with its own ``generate``, drawn by ``token_draws``, and the batches its losses read.

``Answers`` is the engine that needs nothing but the policy; ``llm.policy.generation`` says what an engine is, and has
one that asks a server.

Generation pads prompts on the left, so that all of a batch go on at the same place. Losses read prompt and answer as
one sequence padded on the right, whose positions start at the first token, with any model. No batch is longer than
its longest sequence needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList

from ..models.logprobs import evaluation_mode
from ..training.guards import NonFiniteLoss
from .generation.engine import Answer, Engine, Sampling, cut_at_end
from .token_draws import Draws, Lots

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, Tensor]


class ForeignSampler(RuntimeError):
    """A model's ``generate`` writes other tokens than those that were drawn."""


class Answers(Engine):
    """The policy's own ``generate``.

    Args:
        tokenizer: As of every engine; pads, too.
        sampling: As of every engine.
        batch_size: Sequences that are written at the same time.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, *, batch_size: int) -> None:
        super().__init__(tokenizer, sampling)
        self.batch_size = batch_size

    def take(self, model: nn.Module, *, step: int) -> None:
        """Nothing: the model that is asked has its weights."""

    def close(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        prompts: Sequence[list[int]],
        lots: Lots,
        *,
        samples: int = 1,
        positions: Sequence[int] | None = None,
    ) -> list[Answer]:
        """As every engine.

        Raises:
            NonFiniteLoss: The model's logits are nan or infinite.
            ForeignSampler: The model writes other tokens than those that were drawn.
            ModelError: Its settings name as the end of an answer what is no token.
        """
        self.name_what_is_not_heeded(model)
        positions = range(len(prompts)) if positions is None else positions
        longest_first = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        places = [(i, sample) for i in longest_first for sample in range(samples)]
        drawn: list[list[Answer]] = [[] for _ in prompts]
        with evaluation_mode(model):
            for start in range(0, len(places), self.batch_size):
                batch = places[start : start + self.batch_size]
                numbers = [lots.of(positions[i], sample, self.sampling.max_new_tokens) for i, sample in batch]
                answers = self._drawn(model, [prompts[i] for i, _ in batch], np.stack(numbers))
                for (place, _), answer in zip(batch, answers, strict=True):
                    drawn[place].append(answer)
        return [answer for answers in drawn for answer in answers]

    def _drawn(self, model: Any, prompts: list[list[int]], numbers: object) -> list[Answer]:
        pad, longest = self.tokenizer.pad_token_id, max(map(len, prompts))
        device = next(model.parameters()).device
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=device)
        attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
        ends, precise = self.ends(model), torch.float32 if device.type == "mps" else torch.float64
        settings = GenerationConfig(
            max_new_tokens=self.sampling.max_new_tokens,
            do_sample=False,  # the drawing leaves one token, which is then the likeliest
            use_cache=True,
            pad_token_id=pad,
            eos_token_id=ends,
        )
        drawing = Draws(
            torch.as_tensor(numbers, dtype=precise, device=device),
            start=longest,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
        )
        with _own_settings(model, settings):
            written = model.generate(
                input_ids=ids,
                attention_mask=attention,
                generation_config=settings,
                logits_processor=LogitsProcessorList([drawing]),
                synced_gpus=False,  # a rank's answers are its own: parameters of several are whole by now
            )
        rows = written[:, longest:].tolist()
        tokens, logps = (torch.stack(columns, dim=1).tolist() for columns in (drawing.tokens, drawing.logps))
        answers = [cut_at_end(prompt, row, told, ends) for prompt, row, told in zip(prompts, rows, logps, strict=True)]
        for answer, row in zip(answers, tokens, strict=True):
            _check_drawn(answer, row)
        return answers


@contextmanager
def _own_settings(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Let the model generate by these settings alone: its own fill in whatever ours leave at their defaults."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept, base.generation_config = base.generation_config, settings
    try:
        yield
    finally:
        base.generation_config = kept


def _check_drawn(answer: Answer, tokens: list[int]) -> None:
    """Refuse what was not drawn, or drawn from nothing."""
    if not np.isfinite(answer.logps).all():  # pyright: ignore[reportArgumentType, reportCallIssue]
        raise NonFiniteLoss(
            "the policy's logits are not finite, so that no answer can be drawn: look at its weights, or load it in "
            "another dtype"
        )
    if answer.ids != tokens[: len(answer.ids)]:
        raise ForeignSampler(
            "this model's generate writes other tokens than those that were drawn (code of its own that does not heed "
            "a logits processor, as a rule): its answers cannot be trained on or judged"
        )


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
