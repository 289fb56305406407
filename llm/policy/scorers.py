"""Scores of answers: a reward model, read through its own tokenizer, or the exact checker of the built-in corpus."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..data.corpus.corpus import check
from ..data.prompts import Prompt
from ..models.architectures import reading_length
from ..models.loading import load_reward_model
from ..models.logprobs import evaluation_mode
from ..text.answers import encode_answers, refused_prompts
from ..text.batches import padded
from ..training.config import ConfigError
from .config import CHECKER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)


class BadScores(ArithmeticError):
    """A reward model gave scores that nothing can be learned from."""


class Scorer(Protocol):
    """Anything that scores answers; higher is better, in any unit."""

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores of one answer to each prompt, shape ``(n,)``."""
        ...


class ExactChecker:
    """1 for a right answer to a prompt of the built-in corpus, 0 for a wrong one."""

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores, shape ``(n,)``.

        Raises:
            ConfigError: A prompt is not from the built-in corpus.
        """
        return np.array([self._score(prompt, text) for prompt, text in zip(prompts, answers, strict=True)])

    def _score(self, prompt: Prompt, answer: str) -> float:
        try:
            return float(check(prompt.answered(answer, answer), answer))
        except (KeyError, IndexError) as error:
            raise ConfigError(
                f"the exact checker knows the categories of the built-in corpus, not {prompt.category!r} "
                f"(prompt {prompt.id}): name a reward model instead"
            ) from error


class RewardScorer:
    """The output of a sequence classifier, for answers given as text: its tokenizer need not be the policy's.

    Args:
        model: One output, in evaluation mode while it is asked.
        tokenizer: The model's own.
        max_length: Tokens of a prompt with its answer; longer ones lose the middle of the prompt.
        batch_size: Answers per forward pass; those of similar length stand together.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, max_length: int, batch_size: int = 32
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.max_length, self.batch_size = max_length, batch_size

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> NDArray[np.float64]:
        """Scores, shape ``(n,)``.

        Raises:
            DataError: The model's chat template refuses a prompt.
        """
        rows = encode_answers(prompts, answers, self.tokenizer, max_length=self.max_length)
        order = np.argsort([-len(row) for row in rows], kind="stable")
        scores, device = np.empty(len(rows)), next(self.model.parameters()).device
        with evaluation_mode(self.model):
            for start in range(0, len(rows), self.batch_size):
                places = order[start : start + self.batch_size]
                ids, mask = padded([rows[i] for i in places], cast(int, self.tokenizer.pad_token_id))
                logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
                scores[places] = logits[:, 0].double().cpu().numpy()
        return scores


def tokenizers_of(judges: Iterable[Scorer | None]) -> list[PreTrainedTokenizerBase]:
    """What the judges that are models read with."""
    return [judge.tokenizer for judge in judges if isinstance(judge, RewardScorer)]


def refused_by(judges: Iterable[PreTrainedTokenizerBase], prompts: Sequence[Prompt]) -> dict[int, str]:
    """Places of prompts whose answers a model with one of these tokenizers cannot read -> why."""
    found: dict[int, str] = {}
    for judge in judges:
        found = refused_prompts(prompts, judge) | found
    return found


def load_scorer(name: str, *, batch_size: int, device: Any, **loading: Any) -> Scorer:
    """The exact checker for ``builtin``, else the reward model of that folder or hub name.

    Raises:
        ModelError: There is no trained reward model under that name.
    """
    if name == CHECKER:
        return ExactChecker()
    model, tokenizer = load_reward_model(name, new_head=False, **loading)
    max_length = reading_length(model, tokenizer)
    placed: Any = model
    return RewardScorer(placed.to(device), tokenizer, max_length=max_length, batch_size=batch_size)


def checked_shape(scores: Any, answers: int) -> NDArray[np.float64]:
    """The scores as float64, one for each of so many answers.

    Raises:
        BadScores: They are not.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (answers,):
        raise BadScores(f"one score per answer is needed: got shape {scores.shape} for {answers} answers")
    return scores


def checked_scores(scores: NDArray[np.float64], prompts: Sequence[Prompt], *, step: int) -> NDArray[np.float64]:
    """The scores, float64 ``(n,)``; a warning where all are the same.

    Raises:
        BadScores: The shape is wrong, or a score is nan or infinite.
    """
    scores = checked_shape(scores, len(prompts))
    bad = [prompts[i].id for i in np.flatnonzero(~np.isfinite(scores))[:5]]
    if bad:
        raise BadScores(
            f"the reward model gave {np.sum(~np.isfinite(scores))} of {len(scores)} scores that are nan or infinite at "
            f"step {step + 1} (prompts {', '.join(bad)}), and the policy was not updated: check its weights and dtype "
            "with `robust-rlhf evaluate` on pairs"
        )
    if len(scores) > 1 and np.ptp(scores) == 0:
        _log.warning(
            "all %d answers of step %d have the same score %g, which teaches nothing: look at the sampled answers, "
            "and whether the reward model tells answers apart",
            len(scores), step + 1, scores[0],
        )  # fmt: skip
    return scores
