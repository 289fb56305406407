"""Answers from a server that speaks the OpenAI completions protocol with token ids, as vLLM does.

A request asks for all answers to one prompt, by its ids and a seed of its own. Back come the ids that were drawn and
their log-probabilities. Nothing of it is believed: the prompt is compared, every token must be one of the policy's,
every answer end where the policy's do, and the training compares the log-probabilities of every rollout with its own
(``llm.policy.setup.checked_sampler``).

Which answers a seed draws is up to the server: they depend on nothing else where it computes the same logits for a
prompt whatever else it is asked at the same time, and otherwise differ by their rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

from accelerate import PartialState
from torch import nn

from ...training.processes import on_main_process
from ..token_draws import Lots
from .client import Client
from .completions import AskedPrompt, Completions
from .engine import Answer, Engine, Sampling
from .weights import ServerWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_AT_ONCE = 64  # requests of a process, each for all answers to a prompt


class RemoteEngine(Engine):
    """A server that has the policy's weights.

    Args:
        tokenizer: As of every engine.
        sampling: As of every engine.
        client: The server.
        weights: How it gets them.
    """

    foreign: ClassVar[bool] = True

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, sampling: Sampling, client: Client, weights: ServerWeights
    ) -> None:
        super().__init__(tokenizer, sampling)
        self.server, self.weights, self._name = Completions(client, sampling), weights, ""

    def take(self, model: nn.Module, *, step: int) -> None:
        """The first process has the server read the weights; all ask it by the name that they then have.

        Raises:
            EngineError: The server does not.
        """
        self._name = on_main_process(lambda: self.weights.load(model, step))

    def close(self) -> None:
        """Delete the weights that were written for the server."""
        if PartialState().is_main_process:
            self.weights.clear()

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
            EngineError: The server does not answer, or not what it was asked.
        """
        self.name_what_is_not_heeded(model)
        ends, vocabulary = self.ends(model), cast("PreTrainedModel", model).config.get_text_config().vocab_size
        seeds = [lots.seed_of(position) for position in (range(len(prompts)) if positions is None else positions)]
        asked = [AskedPrompt(prompt, samples, ends, vocabulary) for prompt in prompts]
        drawn = partial(self.server.answers, self._name)
        with ThreadPoolExecutor(max_workers=min(max(len(asked), 1), _AT_ONCE)) as pool:
            return [answer for answers in pool.map(drawn, asked, seeds) for answer in answers]
