"""Answers that a policy writes: with its own ``generate``, drawn by ``drawing``, and the batches its losses read.

Generation pads prompts on the left, so that all of a batch go on at the same place. Losses read prompt and answer as
one sequence padded on the right, whose positions start at the first token, with any model. No batch is longer than
its longest sequence needs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList

from ..models.fetching import ModelError
from ..models.logprobs import evaluation_mode
from ..text.tokens import end_ids
from ..training.guards import NonFiniteLoss
from .token_draws import Draws, Lots

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

Batch = dict[str, Tensor]

# What a model's generation settings may say: which tokens are special, and how fast, but not what is drawn.
_HEEDED = {
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "transformers_version",
    "use_cache",
}
_NAMED = "generation_settings_named"  # an attribute of a model, which many pens may write with: what the log said


class ForeignSampler(RuntimeError):
    """A model's ``generate`` writes other tokens than those that were drawn."""


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
    """One answer.

    Attributes:
        prompt: Ids of the prompt.
        ids: Its own, with the token that ended it.
        ended: Whether one did.
        logps: Log-probabilities its tokens were drawn with, in nats; None where no sampler wrote it.
    """

    prompt: list[int]
    ids: list[int]
    ended: bool
    logps: list[float] | None = None


class Answers:
    """A policy's pen: samples answers to encoded prompts, by ``sampling`` alone.

    The generation settings that come with a model (penalties, bans, beams, forced tokens, lengths) would draw from
    another distribution than the one that is trained: they are not heeded, and named once in the log.

    Args:
        tokenizer: Pads and decodes; its end token, and those of the model's generation settings, end an answer.
        sampling: Lengths and distribution.
        batch_size: Sequences that are written at the same time.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, *, batch_size: int) -> None:
        self.tokenizer, self.sampling, self.batch_size = tokenizer, sampling, batch_size

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
        """``samples`` answers to every prompt, those of a prompt together; which ones, ``lots`` alone decide.

        Args:
            model: A causal model of transformers.
            prompts: Their ids.
            lots: The numbers that answers are drawn with.
            samples: Answers per prompt.
            positions: Of the prompts among all there are, on whichever process; None where these are all.

        Raises:
            NonFiniteLoss: The model's logits are nan or infinite.
            ForeignSampler: The model writes other tokens than those that were drawn.
            ModelError: Its settings name as the end of an answer what is no token.
        """
        self._name_what_is_not_heeded(model)
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

    def text(self, answer: Answer) -> str:
        """The answer without special tokens and the white space around it."""
        return str(self.tokenizer.decode(answer.ids, skip_special_tokens=True)).strip()

    def _drawn(self, model: Any, prompts: list[list[int]], numbers: object) -> list[Answer]:
        pad, longest = self.tokenizer.pad_token_id, max(map(len, prompts))
        device = next(model.parameters()).device
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=device)
        attention = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
        ends, precise = self._ends(model), torch.float32 if device.type == "mps" else torch.float64
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
        answers = [_cut(prompt, row, told, ends) for prompt, row, told in zip(prompts, rows, logps, strict=True)]
        for answer, row in zip(answers, tokens, strict=True):
            _check_drawn(answer, row)
        return answers

    def _name_what_is_not_heeded(self, model: Any) -> None:
        asked = model.generation_config.to_diff_dict()
        ignored = {name: value for name, value in asked.items() if value and name not in _HEEDED and name[0] != "_"}
        said = ", ".join(f"{name}={value}" for name, value in ignored.items())
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if said and getattr(base, _NAMED, "") != said:
            _log.warning(
                "the model's generation settings ask for %s: answers are drawn without them, at temperature %g",
                said, self.sampling.temperature,
            )  # fmt: skip
            setattr(base, _NAMED, said)

    @cached_property
    def _template_ends(self) -> set[int]:
        return end_ids(self.tokenizer)

    def _ends(self, model: Any) -> list[int]:
        """Tokens that end an answer: a chat model often has one for the turn beside the one for the text."""
        said = getattr(model.generation_config, "eos_token_id", None)
        ends = [end for end in (said if isinstance(said, list | tuple) else [said]) if end is not None]
        if odd := [end for end in ends if not isinstance(end, int) or isinstance(end, bool) or end < 0]:
            raise ModelError(
                f"the eos_token_id of the model's generation_config.json must be ids of tokens, got {odd[0]!r}: write "
                "numbers, or leave it out"
            )
        return sorted({*ends, *self._template_ends})


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


def _cut(prompt: list[int], row: list[int], logps: list[float], ends: list[int]) -> Answer:
    """Up to the first end, which belongs to the answer; what follows is padding."""
    last = next((place for place, token in enumerate(row) if token in ends), None)
    length = len(row) if last is None else last + 1
    return Answer(prompt, row[:length], last is not None, logps[:length])


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
