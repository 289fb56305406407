"""Answers from a server that speaks the OpenAI completions protocol with token ids, as vLLM does.

A request asks for all answers to one prompt, by its ids and a seed of its own. Back come the ids that were drawn and
their log-probabilities. Nothing of it is believed: the prompt is compared, every token must be one of the policy's,
every answer end where the policy's do, and the training compares the log-probabilities of every rollout with its own
(``llm.policy.setup.checked_sampler``).

Which answers a seed draws is up to the server: they depend on nothing else where it computes the same logits for a
prompt whatever else it is asked at the same time, and otherwise differ by their rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

from accelerate import PartialState
from torch import nn

from ...training.processes import on_main_process
from ..token_draws import Lots
from .client import KEPT, Client, EngineError
from .engine import Answer, Engine, Sampling, cut_at_end
from .weights import ServerWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_AT_ONCE = 64  # requests of a process, each for all answers to a prompt
_OTHER_MODEL = "start the server on the model that the run starts from"
_NO_PATH = "name the root of a server that speaks the OpenAI completions protocol as vllm serve does"


class _Asked(NamedTuple):
    """What the answers to a prompt must agree with."""

    prompt: list[int]
    samples: int
    ends: list[int]
    vocabulary: int


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
        self.client, self.weights, self._name = client, weights, ""

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
        asked = [_Asked(prompt, samples, ends, vocabulary) for prompt in prompts]
        with ThreadPoolExecutor(max_workers=min(max(len(asked), 1), _AT_ONCE)) as pool:
            return [answer for answers in pool.map(self._answers, asked, seeds) for answer in answers]

    def _answers(self, asked: _Asked, seed: int) -> list[Answer]:
        sampling = self.sampling
        body = {
            "model": self._name,
            "prompt": asked.prompt,
            "n": asked.samples,
            "seed": seed,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_token_ids": asked.ends,
            "ignore_eos": True,  # these ends alone, not what the server takes for one
            "logprobs": 0,  # of the drawn token
            "return_token_ids": True,
            # A server takes what is not said from the model's generation settings.
            "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip
        choices = self.client.told("/v1/completions", body, missing=_NO_PATH).get("choices")
        if not isinstance(choices, list) or len(choices) != asked.samples:
            count = len(choices) if isinstance(choices, list) else 0
            raise EngineError(
                f"{self.client.url} gave {count} answers to a prompt where {asked.samples} were asked for, {KEPT}: "
                "look at the log of the server"
            )
        return [self._answer(choice if isinstance(choice, Mapping) else {}, asked) for choice in choices]

    def _answer(self, choice: Mapping[str, object], asked: _Asked) -> Answer:
        if choice.get("prompt_token_ids") != asked.prompt:
            raise EngineError(
                f"{self.client.url} does not repeat the prompt that it was sent (prompt_token_ids), so that what it "
                f"read is not known, {KEPT}: take a server with return_token_ids, as a recent vLLM has it"
            )
        ids = self._checked_ids(choice.get("token_ids"), asked)
        answer = cut_at_end(asked.prompt, ids, self._checked_logps(choice.get("logprobs"), len(ids)), asked.ends)
        if len(answer.ids) < len(ids):
            raise EngineError(
                f"{self.client.url} wrote on behind token {answer.ids[-1]}, which ends an answer, {KEPT}: take a "
                "server that heeds stop_token_ids"
            )
        if not answer.ended and len(ids) < self.sampling.max_new_tokens:
            raise EngineError(
                f"{self.client.url} ended an answer after {len(ids)} of {self.sampling.max_new_tokens} tokens "
                f"(finish_reason {choice.get('finish_reason')}) without one of {asked.ends}, which end it here, "
                f"{KEPT}: start it with a --max-model-len of max_length or more, and without stop words of its own"
            )
        return answer

    def _checked_ids(self, ids: object, asked: _Asked) -> list[int]:
        most = self.sampling.max_new_tokens
        if not isinstance(ids, list) or not 0 < len(ids) <= most:
            count = f"{len(ids)} tokens" if isinstance(ids, list) else "no ids of tokens"
            raise EngineError(
                f"{self.client.url} gave {count} where an answer has 1 to {most}, {KEPT}: look at the log of the server"
            )
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < asked.vocabulary:
                raise EngineError(
                    f"{self.client.url} wrote token {token!r}, and the policy has {asked.vocabulary}, {KEPT}: "
                    f"{_OTHER_MODEL}"
                )
        return ids

    def _checked_logps(self, told: object, count: int) -> list[float]:
        logps = told.get("token_logprobs") if isinstance(told, Mapping) else None
        if not isinstance(logps, list) or len(logps) != count:
            found = len(logps) if isinstance(logps, list) else 0
            raise EngineError(
                f"{self.client.url} gave {found} log-probabilities for {count} tokens, {KEPT}: take a server "
                "that tells them (logprobs)"
            )
        if not all(isinstance(logp, float | int) and abs(logp) < math.inf for logp in logps):
            raise EngineError(
                f"{self.client.url} gave a log-probability that is no finite number, {KEPT}: look at the weights that "
                "it was given, and at its dtype"
            )
        return [float(logp) for logp in logps]
