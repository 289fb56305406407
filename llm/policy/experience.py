"""One rollout of all ranks, and the losses of its answers: where the weights of the prompts enter.

Nothing here knows a model. Answers stand prompt by prompt, ``n = prompts * samples`` of them; what belongs to tokens
has shape ``(n, length)`` and begins at the first token of each answer. Deviations from the textbook:

- KL is charged by the estimate k1 on every token [Z19], or added to the loss; both as the settings say.
- The losses of an answer are sums over its tokens, divided by ``max_new_tokens``: the gradient of the sequence as in
  RLOO up to a constant. A divisor that depends on the answers, as their mean length does, biases it (by 13 to 17 % with
  two answers to a prompt of one to three tokens, by .2 % with 128); ``length_divisor`` has those of GRPO and DAPO.
- An answer cut at the longest length counts as ended; ``missing_end_penalty`` says how bad that is.
- Whitened rewards are divided by the standard deviation of the returns and not shifted: a shift per token would pay
  for length. Whitening divides by what was drawn, so its gradient is biased either way.
- Weights of the prompts are a function of the answers that they weigh, which biases the worst-case gradient by an
  order of 1/samples; ``adversary_estimate: split`` takes them from the other half of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dro_core import effective_sample_size

from ..adversary.equal_losses import Accuracy
from ..adversary.rules import Reweighting
from .advantages.estimators import group_advantage
from .advantages.tokens import generalised_advantages, penalised_rewards, whitened
from .config import PolicyConfig
from .observation import Observed
from .prompt_weights import Version, held_out_value, prompt_multipliers, scale_losses, scale_rewards, split_multipliers
from .rollouts import Answer
from .surrogate import (
    KLEstimator,
    clipped_surrogate,
    clipped_value_loss,
    explained_variance,
    k1,
    k2,
    k3,
    kl_estimate,
    kl_to_go,
)

_VERSIONS: dict[str, Version] = {"A": scale_rewards, "B": scale_losses}
_ESTIMATORS: dict[str, KLEstimator] = {"k2": k2, "k3": k3}


@dataclass(frozen=True)
class Experience:
    """Answers as the policy that wrote them, its reference and the reward model see them.

    Attributes:
        scores: Shape ``(n,)``.
        ended: Whether each answer came to its end, boolean ``(n,)``.
        lengths: Tokens of each answer, ``(n,)``.
        logps: Under the policy, in nats, ``(n, length)``.
        reference: The same under the reference.
        values: Before each token, or zeros without a value function.
    """

    scores: Tensor
    ended: Tensor
    lengths: Tensor
    logps: Tensor
    reference: Tensor
    values: Tensor

    @property
    def mask(self) -> Tensor:
        """Which entries are tokens, boolean ``(n, length)``."""
        return torch.arange(self.logps.shape[1], device=self.lengths.device) < self.lengths[:, None]

    @property
    def kl(self) -> Tensor:
        """Estimate of log pi/ref of every answer, in nats, ``(n,)``."""
        return kl_estimate(self.logps, self.reference, self.mask, estimator=k1)

    def take(self, rows: Tensor) -> Experience:
        """The answers ``rows`` alone, no wider than they need."""
        width = int(self.lengths[rows].max())
        return Experience(*(_narrowed(getattr(self, entry.name), rows, width) for entry in fields(self)))

    @classmethod
    def of(cls, answers: Sequence[Answer], scores: np.ndarray, seen: Observed) -> Experience:
        """Answers with their ``scores`` ``(n,)``, as they were ``seen``."""
        device = seen.logps.device
        ended = torch.tensor([answer.ended for answer in answers], device=device)
        worth = torch.tensor(scores, dtype=seen.logps.dtype, device=device)
        return cls(worth, ended, seen.lengths, seen.logps, seen.reference, seen.values)

    def gathered(self, accelerator: Any) -> Experience:
        """The answers of all ranks in rank order; every rank must hold as many."""
        if accelerator.num_processes == 1:
            return self
        longest = int(accelerator.gather(self.lengths).max())
        wide: dict[str, Tensor] = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        for name, tensor in wide.items():
            if tensor.ndim == 2:
                wide[name] = torch.nn.functional.pad(tensor, (0, longest - tensor.shape[1]))
        return Experience(**{name: accelerator.gather(tensor.contiguous()) for name, tensor in wide.items()})


class Weighed(NamedTuple):
    """What the losses of the answers are made of; all constants.

    Attributes:
        advantages: ``(n, length)``.
        targets: Of the value function, ``(n, length)``.
        factors: Of the surrogate of each answer, ``(n,)``.
        multipliers: n q of the answer's prompt, ``(n,)``.
        returns: What the adversary saw of each answer, ``(n,)``.
        divisors: Of the sum over the tokens of each answer, ``(n,)``.
        held_out: The worst-case value, a scalar: weights from one half of the answers, values from the other.
    """

    advantages: Tensor
    targets: Tensor
    factors: Tensor
    multipliers: Tensor
    returns: Tensor
    divisors: Tensor
    held_out: Tensor

    def take(self, rows: Tensor, width: int) -> Weighed:
        """The answers ``rows`` alone, and of them the first ``width`` tokens."""
        per_answer = {name: _narrowed(entry, rows, width) for name, entry in self._asdict().items() if entry.ndim}
        return self._replace(**per_answer)

    def matter(self, objective: Objective) -> Tensor:
        """Which answers have a loss at all, boolean ``(n,)``: the others need no forward pass."""
        if objective.outside:
            return torch.ones_like(self.factors, dtype=torch.bool)
        surrogate = (self.factors != 0) & (self.advantages != 0).any(dim=1)
        return surrogate | (self.multipliers != 0) if objective.kl_in_loss else surrogate


def _narrowed(entry: Tensor, rows: Tensor, width: int) -> Tensor:
    return entry[rows] if entry.ndim == 1 else entry[rows, :width]


class Objective:
    """What a policy is trained for: the settings as functions of a rollout.

    Args:
        config: Estimator, KL, version and the rest.
        accuracy: Of the values of the prompts: what is closer is equal; None takes them as exact.
    """

    def __init__(self, config: PolicyConfig, *, accuracy: Accuracy | None = None) -> None:
        self.config, self.accuracy = config, accuracy
        self.compared = group_advantage(config.estimator)
        self.kl_in_loss = config.kl_in == "loss" and config.kl_coefficient > 0
        self.kl_inside = config.adversary_sees == "return"
        self.outside = (
            config.estimator == "ppo" or config.entropy_coefficient > 0 or (self.kl_in_loss and not self.kl_inside)
        )

    def weighed(
        self,
        experience: Experience,
        rule: Reweighting | None,
        rows: np.ndarray | None = None,
        *,
        reference: Tensor | None = None,
    ) -> Weighed:
        """Advantages and weights of a whole rollout; the same on every rank that holds it.

        Args:
            experience: Of all ranks.
            rule: What weighs the prompts; None for equal weights.
            rows: Positions of the prompts in the training set, shape ``(prompts,)``.
            reference: Masses of the prompts, ``(prompts,)``, sum 1; None: they count alike.
        """
        config, mask, shape = self.config, experience.mask, (-1, self.config.samples)
        scores, returns = self.scores(experience), self.returns(experience)
        weigh = split_multipliers if config.adversary_estimate == "split" else prompt_multipliers
        asked: Any = {"rows": rows, "reference": reference, "accuracy": self.accuracy}
        held_out = held_out_value(returns.reshape(shape), rule, **asked)
        multipliers = weigh(returns.reshape(shape), rule, **asked)
        in_reward = config.kl_coefficient if config.kl_in == "reward" else 0.0
        inside, later = (in_reward, 0.0) if self.kl_inside else (0.0, in_reward)
        tokens = (experience.logps, experience.reference, mask)
        rewards = penalised_rewards(scores, *tokens, strength=inside)
        charges = penalised_rewards(torch.zeros_like(scores), *tokens, strength=later)

        def advantages(weighted: Tensor) -> Tensor:
            flat = self._rescaled(weighted.flatten(0, 1)) + charges
            if self.compared is not None:
                return self.compared(flat.sum(dim=1).reshape(shape)).flatten()[:, None] * mask
            return generalised_advantages(
                flat, experience.values, mask, discount=config.discount, lambda_=config.lambda_
            )

        per_prompt = rewards.reshape(*multipliers.shape, -1)
        weighted = _VERSIONS[config.version](per_prompt, multipliers, advantages)
        found = weighted.advantages
        return Weighed(
            whitened(found, mask) if config.whiten == "advantages" else found,
            found + experience.values * mask,
            weighted.factors.flatten(),
            multipliers.flatten(),
            returns,
            self.divisors(experience, multipliers.flatten() != 0),
            held_out,
        )

    def scores(self, experience: Experience) -> Tensor:
        """Of the answers ``(n,)``, those without an end less their penalty."""
        return experience.scores - self.config.missing_end_penalty * (~experience.ended)

    def returns(self, experience: Experience) -> Tensor:
        """What the adversary sees of every answer, ``(n,)``."""
        charge = self.config.kl_coefficient if self.kl_inside else 0.0
        return self.scores(experience) - charge * experience.kl if charge else self.scores(experience)

    def divisors(self, experience: Experience, counts: Tensor) -> Tensor:
        """What the losses of the answers are divided by, ``(n,)``; ``counts`` says which answers have a weight."""
        lengths, most = experience.lengths.to(experience.logps.dtype), float(self.config.max_new_tokens)
        if self.config.length_divisor == "answer":
            return lengths.clamp_min(1.0)
        if self.config.length_divisor == "batch" and bool(counts.any()):
            return lengths[counts].mean().clamp_min(1.0).expand_as(lengths)
        return torch.full_like(lengths, most)

    def losses(
        self, logps: Tensor, entropies: Tensor, values: Tensor | None, experience: Experience, weighed: Weighed
    ) -> Tensor:
        """Loss of every answer, ``(n,)``, not reduced; differentiable in the first three, ``(n, length)`` each.

        factors x surrogate + n q x (KL inside) + (KL outside) + value loss - entropy bonus
        """
        config, mask, divisor = self.config, experience.mask, weighed.divisors
        surrogate = clipped_surrogate(
            logps, experience.logps, weighed.advantages, mask, clip=config.clip, divisor=divisor
        )
        loss = weighed.factors * surrogate
        if self.kl_in_loss:
            kl = self._kl(logps, experience, divisor)
            loss = loss + config.kl_coefficient * (weighed.multipliers * kl if self.kl_inside else kl)
        if values is not None:
            errors = clipped_value_loss(
                values, experience.values, weighed.targets, mask, clip=config.value_clip, divisor=divisor
            )
            loss = loss + config.value_coefficient * errors
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * (entropies * mask).sum(dim=1) / divisor
        return loss

    def _kl(self, logps: Tensor, experience: Experience, divisor: Tensor) -> Tensor:
        """KL of every answer as a part of the loss, ``(n,)``, divided as the other parts are."""
        mask, reference = experience.mask, experience.reference
        if self.config.kl_estimator == "k1":
            return kl_to_go(logps, experience.logps, reference, mask, divisor=divisor)
        estimator = _ESTIMATORS[self.config.kl_estimator]
        return kl_estimate(logps, reference, mask, estimator=estimator, divisor=divisor)

    def described(self, experience: Experience, weighed: Weighed) -> dict[str, float]:
        """What the log says of a rollout of all ranks, before its updates."""
        mask = experience.mask
        multipliers = weighed.multipliers.reshape(-1, self.config.samples).mean(dim=1)
        shares = multipliers / len(multipliers)
        scores = self.scores(experience).reshape(-1, self.config.samples)
        silent = scores.amax(dim=1) == scores.amin(dim=1)
        counted = ~silent if self.config.silent_groups != "keep" else torch.ones_like(silent)
        said = {
            "reward": experience.scores.mean(),
            "robust_return": weighed.held_out,
            "robust_return_in_sample": (weighed.multipliers * weighed.returns).mean(),
            "mean_return": weighed.returns.mean(),
            "kl": experience.kl.mean(),
            "answer_tokens": experience.lengths.double().mean(),
            "ended_share": experience.ended.double().mean(),
            "effective_sample_size": effective_sample_size(shares),
            "largest_multiplier": shares[counted].max() * counted.sum(),
            "zero_share": (shares[counted] == 0).double().mean(),
            "prompts_counted": counted.sum(),
            "weight_without_signal": shares[silent].sum(),
        }
        if self.config.estimator == "ppo":
            errors = (weighed.targets - experience.values)[mask].square().mean()
            said |= {
                "value_loss": errors / 2,
                "explained_variance": explained_variance(experience.values, weighed.targets, mask),
            }
        return {name: float(number) for name, number in said.items()}

    def _rescaled(self, rewards: Tensor) -> Tensor:
        if self.config.whiten != "rewards":
            return rewards
        returns = rewards.sum(dim=1)
        spread = (returns - returns[0]).std()  # of equal returns exactly 0, which their mean may miss by a rounding
        return rewards / torch.where(spread > 0, spread, 1.0)
