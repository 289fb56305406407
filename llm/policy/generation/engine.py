"""What the training asks for answers: engines, what they are told, and what they give back."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from ...models.fetching import ModelError
from ...text.tokens import end_ids
from ..token_draws import Lots

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_log = logging.getLogger(__name__)

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


class Engine(ABC):
    """What writes answers to encoded prompts, by ``sampling`` alone.

    The generation settings that come with a model (penalties, bans, beams, forced tokens, lengths) would draw from
    another distribution than the one that is trained: they are not heeded, and named once in the log.

    Args:
        tokenizer: Decodes; its end token, and those of the model's generation settings, end an answer.
        sampling: Lengths and distribution.

    Attributes:
        foreign: Whether another program computes the log-probabilities: then every rollout is checked, not the first.
    """

    foreign: ClassVar[bool] = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> None:
        self.tokenizer, self.sampling = tokenizer, sampling

    @abstractmethod
    def take(self, model: nn.Module, *, step: int) -> None:
        """Write with the weights of ``model``, those of ``step``, from now on; every process must come here."""

    @abstractmethod
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
        """

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind; no answer is asked for any more."""

    def text(self, answer: Answer) -> str:
        """The answer without special tokens and the white space around it."""
        return str(self.tokenizer.decode(answer.ids, skip_special_tokens=True)).strip()

    def ends(self, model: Any) -> list[int]:
        """Tokens that end an answer: a chat model often has one for the turn beside the one for the text.

        Raises:
            ModelError: The model's generation settings name what is no token.
        """
        said = getattr(model.generation_config, "eos_token_id", None)
        ends = [end for end in (said if isinstance(said, list | tuple) else [said]) if end is not None]
        if odd := [end for end in ends if not isinstance(end, int) or isinstance(end, bool) or end < 0]:
            raise ModelError(
                f"the eos_token_id of the model's generation_config.json must be ids of tokens, got {odd[0]!r}: write "
                "numbers, or leave it out"
            )
        return sorted({*ends, *self._template_ends})

    @cached_property
    def _template_ends(self) -> set[int]:
        return end_ids(self.tokenizer)

    def name_what_is_not_heeded(self, model: Any) -> None:
        """Say once in the log which generation settings of the model are passed over."""
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


def cut_at_end(prompt: list[int], row: list[int], logps: list[float], ends: list[int]) -> Answer:
    """The answer in a row: up to the first end, which belongs to the answer; what follows is padding."""
    last = next((place for place, token in enumerate(row) if token in ends), None)
    length = len(row) if last is None else last + 1
    return Answer(prompt, row[:length], last is not None, logps[:length])
