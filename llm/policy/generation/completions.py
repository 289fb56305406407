"""One request of the OpenAI completions protocol with token ids, as vLLM speaks it, and what is not believed of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

from .client import Client, EngineError
from .engine import Answer, Sampling, cut_at_end

_ROUNDED = 1e-2  # what rounding in half precision may put a log-probability above 0
_LOG = "look at the log of the server"
_OTHER_MODEL = "start the server on the model that the run starts from"
_NO_PATH = "name the root of a server that speaks the OpenAI completions protocol as vllm serve does"


class AskedPrompt(NamedTuple):
    """What the answers to a prompt must agree with.

    Attributes:
        prompt: Its ids.
        samples: How many answers.
        ends: Tokens that end one.
        vocabulary: How many tokens there are.
    """

    prompt: list[int]
    samples: int
    ends: list[int]
    vocabulary: int


class Completions(NamedTuple):
    """The answers of a server, checked.

    Attributes:
        client: The server.
        sampling: Lengths and distribution.
    """

    client: Client
    sampling: Sampling

    def answers(self, name: str, asked: AskedPrompt, seed: int) -> list[Answer]:
        """The answers to one prompt by the weights of that name, drawn with this seed.

        Raises:
            EngineError: The server does not answer, or not what it was asked.
        """
        sampling = self.sampling
        body = {
            "model": name,
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
            raise self._wrong(f"gave {count} answers to a prompt where {asked.samples} were asked for", _LOG)
        return [self._answer(choice if isinstance(choice, Mapping) else {}, asked) for choice in choices]

    def _answer(self, choice: Mapping[str, object], asked: AskedPrompt) -> Answer:
        if choice.get("prompt_token_ids") != asked.prompt:
            raise self._wrong(
                "does not repeat the prompt that it was sent (prompt_token_ids), so that what it read is not known",
                "take a server with return_token_ids, as a recent vLLM has it",
            )
        ids = self._checked_ids(choice.get("token_ids"), asked)
        answer = cut_at_end(asked.prompt, ids, self._checked_logps(choice.get("logprobs"), len(ids)), asked.ends)
        if len(answer.ids) < len(ids):
            raise self._wrong(
                f"wrote on behind token {answer.ids[-1]}, which ends an answer",
                "take a server that heeds stop_token_ids",
            )
        if not answer.ended and len(ids) < self.sampling.max_new_tokens:
            raise self._wrong(
                f"ended an answer after {len(ids)} of {self.sampling.max_new_tokens} tokens (finish_reason "
                f"{choice.get('finish_reason')}) without one of {asked.ends}, which end it here",
                "start it with a --max-model-len of max_length or more, and without stop words of its own",
            )
        return answer

    def _checked_ids(self, ids: object, asked: AskedPrompt) -> list[int]:
        most = self.sampling.max_new_tokens
        if not isinstance(ids, list) or not 0 < len(ids) <= most:
            count = f"{len(ids)} tokens" if isinstance(ids, list) else "no ids of tokens"
            raise self._wrong(f"gave {count} where an answer has 1 to {most}", _LOG)
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < asked.vocabulary:
                raise self._wrong(f"wrote token {token!r}, and the policy has {asked.vocabulary}", _OTHER_MODEL)
        return ids

    def _checked_logps(self, told: object, count: int) -> list[float]:
        logps = told.get("token_logprobs") if isinstance(told, Mapping) else None
        if not isinstance(logps, list) or len(logps) != count:
            found = len(logps) if isinstance(logps, list) else 0
            raise self._wrong(
                f"gave {found} log-probabilities for {count} tokens", "take a server that tells them (logprobs)"
            )
        if not all(type(logp) in (float, int) and -sys.float_info.max <= logp <= _ROUNDED for logp in logps):
            raise self._wrong(
                "gave a log-probability that is no finite number, or above 0",
                "look at the weights that it was given, and at its dtype",
            )
        return [float(logp) for logp in logps]

    def _wrong(self, what: str, remedy: str) -> EngineError:
        return EngineError(f"{self.client.url} {what}, {self.client.kept}: {remedy}")
