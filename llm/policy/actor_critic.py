"""A policy with its value function as one module, so that ranks, precision and optimizer see both together."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models.logprobs import answer_logits, evaluation_mode, token_logps

Batch = dict[str, Tensor]


class TokenOutputs(NamedTuple):
    """What policy and value function say about the answers of a batch, one entry per token, ``(n, length)``.

    Attributes:
        logps: Log-probabilities in nats at the sampling temperature, at least float32.
        entropies: Of the distribution each token was drawn from, in nats.
        values: Value before each token, or None without a value function.
        mask: Which positions are tokens of an answer, boolean.
    """

    logps: Tensor
    entropies: Tensor
    values: Tensor | None
    mask: Tensor


class ValueFunction(nn.Module):
    """A linear value of the last hidden state: of a trunk of its own, or of the policy's.

    Args:
        trunk: Gives ``last_hidden_state``; None reads the states of the policy, whose trunk then learns both.
        width: Of the hidden states.

    The head starts at 0, so the first advantages are the returns.
    """

    def __init__(self, trunk: nn.Module | None, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Batch, states: Tensor | None, length: int) -> Tensor:
        """Values before the last ``length`` tokens, ``(n, length)``, float32."""
        if self.trunk is not None:
            ids, attention = inputs["input_ids"], inputs["attention_mask"]
            output = self.trunk(input_ids=ids, attention_mask=attention, use_cache=False)
            states = output.last_hidden_state[:, -length - 1 : -1]
        assert states is not None
        return self.head(states.to(self.head.weight.dtype))[..., 0].float().clone()  # FSDP2 returns no views


class ActorCritic(nn.Module):
    """The policy, its value function where there is one, and the reference, which is not trained.

    Args:
        policy: A causal model, with an adapter or not.
        critic: ``separate`` copies the trunk, ``shared`` reads the policy's, None for estimators without values.
        temperature: At which answers are sampled: the policy *is* the distribution at this temperature.
        entropy_gradient: Whether entropies carry a gradient, which costs a copy of the logits.
    """

    def __init__(
        self, policy: nn.Module, *, critic: str | None, temperature: float = 1.0, entropy_gradient: bool = False
    ) -> None:
        super().__init__()
        self.policy, self.temperature, self.entropy_gradient = policy, temperature, entropy_gradient
        self.critic = None
        model: Any = policy.get_base_model() if hasattr(policy, "get_base_model") else policy  # pyright: ignore
        if critic is not None:
            trunk = copy.deepcopy(model.base_model) if critic == "separate" else None
            if trunk is not None:  # a copy is trained whole, also of a trunk that is frozen under an adapter
                trunk.requires_grad_(requires_grad=True)
            self.critic = ValueFunction(trunk, model.config.get_text_config().hidden_size)
        here = {type(part).__name__ for part in self.modules()}  # layers that accelerate may spread one by one
        self._no_split_modules = sorted(here & set(getattr(model, "_no_split_modules", None) or ()))

    def forward(self, inputs: Batch) -> TokenOutputs:
        """Everything a loss needs, for a batch with ``input_ids``, ``attention_mask`` and ``answer_mask``."""
        shared = self.critic is not None and self.critic.trunk is None
        answer = answer_logits(self.policy, inputs, states=shared)
        logits = answer.logits if self.temperature == 1.0 else answer.logits / self.temperature
        logps = token_logps(logits, answer.targets)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.entropy_gradient):
            entropies = torch.stack([_entropies(row) for row in logits])  # one at a time: a float32 copy is large
        values = None if self.critic is None else self.critic(inputs, answer.states, answer.mask.shape[1])
        return TokenOutputs(logps, entropies, values, answer.mask)


def _entropies(logits: Tensor) -> Tensor:
    logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    return -(logs.exp() * logs.masked_fill(logs == -torch.inf, 0.0)).sum(dim=-1)


class Reference:
    """The policy that KL is measured to: a frozen model, or the policy with its adapter switched off.

    Args:
        model: The frozen model; None for a policy with an adapter.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self.model = model

    def logps(self, policy: nn.Module, inputs: Batch, *, temperature: float) -> Tensor:
        """Log-probabilities of the answers' tokens, ``(n, length)``, as in ``TokenOutputs``."""
        with self._of(policy) as reference, evaluation_mode(reference), torch.no_grad():
            answer = answer_logits(reference, inputs)
            logits = answer.logits if temperature == 1.0 else answer.logits / temperature
            return token_logps(logits, answer.targets)

    @contextmanager
    def _of(self, policy: nn.Module) -> Iterator[nn.Module]:
        off: Any = getattr(policy, "disable_adapter", None) if self.model is None else None
        with nullcontext() if off is None else off():
            yield policy if self.model is None else self.model
