"""From a weighed rollout to new parameters: the surrogate by an optimizer of torch, or a weighted natural gradient."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..training.guards import NonFiniteLoss
from ..training.processes import largest_of_all
from .actor_critic import ActorCritic, TokenOutputs
from .experience import Experience, Objective, Weighed
from .fisher import natural_direction, sampled_weights
from .ranks.placing import Passes
from .rollouts import Answer, aligned, batch_of
from .surrogate import clip_fraction


@dataclass(frozen=True)
class Rollout:
    """This rank's answers with what is known about them.

    Attributes:
        answers: ``n`` of them, prompt by prompt.
        experience: Of these answers.
        weighed: Of these answers; its weights come from all ranks.
        step: Optimizer steps before this one, for messages.
    """

    answers: Sequence[Answer]
    experience: Experience
    weighed: Weighed
    step: int


class Update:
    """What both updates share.

    Args:
        accelerator: Precision and ranks.
        module: The prepared policy and value function.
        optimizer: The prepared optimizer.
        objective: The losses.
        pad: Id of the padding token.
        micro: Sequences per forward and backward pass.
        max_norm: Gradients are clipped to it; 0 for never.
    """

    def __init__(
        self,
        accelerator: Any,
        module: nn.Module,
        optimizer: Any,
        objective: Objective,
        *,
        pad: int,
        micro: int,
        max_norm: float,
    ) -> None:
        self.accelerator, self.module, self.optimizer, self.objective = accelerator, module, optimizer, objective
        self.pad, self.micro = pad, micro
        self.passes = Passes(accelerator, module, optimizer, max_norm=max_norm)

    def look(self, rollout: Rollout, rows: Tensor, module: nn.Module) -> tuple[TokenOutputs, Experience, Weighed]:
        """What the module says now about the answers ``rows``, with entries from the first token, and what was known.

        All three are as wide as the longest of these answers.
        """
        known = rollout.experience.take(rows)
        width = known.logps.shape[1]
        batch = batch_of([rollout.answers[i] for i in rows.tolist()], self.pad, self.accelerator.device)
        outputs: TokenOutputs = module(batch)
        logps, entropies = (aligned(entry, outputs.mask, width) for entry in (outputs.logps, outputs.entropies))
        values = None if outputs.values is None else aligned(outputs.values, outputs.mask, width)
        return TokenOutputs(logps, entropies, values, known.mask), known, rollout.weighed.take(rows, width)

    def finish(self, step: int) -> float:
        """Clip, take the step, forget the gradients; returns their norm before clipping.

        Raises:
            NonFiniteLoss: The norm is nan or infinite; the parameters are as before, unless DeepSpeed moved them.
        """
        norm = self.passes.step()
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            kept = "" if self.passes.engine is not None else " and the policy was not updated"
            raise NonFiniteLoss(
                f"the gradient is not finite at step {step + 1}{kept}: lower the learning "
                "rate or kl_coefficient, or resume from the last checkpoint"
            )
        return norm


class SurrogateUpdate(Update):
    """Epochs of minibatches over a rollout, each the mean loss of its answers on all ranks."""

    def __call__(self, rollout: Rollout, *, generator: torch.Generator) -> dict[str, float]:
        """Update the parameters; returns means over the updates of this rank."""
        config = self.objective.config
        said: dict[str, list[float]] = defaultdict(list)
        self.module.train()
        for _ in range(config.epochs):
            order = torch.randperm(len(rollout.answers), generator=generator)
            for rows in order.chunk(config.minibatches):
                for name, number in self.minibatch(rollout, rows).items():
                    said[name].append(number)
                said["grad_norm"].append(self.finish(rollout.step))
        return {name: sum(numbers) / len(numbers) for name, numbers in said.items()}

    def minibatch(self, rollout: Rollout, rows: Tensor) -> dict[str, float]:
        """Add the gradient of the mean loss of ``rows``, of all ranks together; every rank must give as many.

        Answers without a loss are left out. Where ranks wait for each other in every pass, one that has fewer left
        looks at its last ones again, which then count nothing.
        """
        kept = rows[rollout.weighed.matter(self.objective).cpu()[rows]]
        kept = kept if len(kept) else rows[:1]  # every rank takes part in the sum of the gradients
        lengths = torch.tensor([len(rollout.answers[i].prompt) + len(rollout.answers[i].ids) for i in kept.tolist()])
        parts = kept[lengths.argsort(descending=True, stable=True)].split(self.micro)
        loss = clipped = 0.0
        needed = largest_of_all(len(parts)) if self.passes.spread else len(parts)
        for number in range(needed):
            part, counts = (parts[number], 1.0) if number < len(parts) else (parts[-1][:1], 0.0)
            with self.passes.one(last=number == needed - 1):
                outputs, known, weighed = self.look(rollout, part.to(rollout.experience.lengths.device), self.module)
                losses = self.objective.losses(outputs.logps, outputs.entropies, outputs.values, known, weighed)
                share = counts * losses.sum() / len(rows)
                self._check(share, rollout.step)
                self.passes.backward(share)  # the mean over ranks is taken with the gradients
            loss += float(share.detach())
            tokens = known.mask.sum() / rollout.experience.lengths[rows].sum()
            fraction = clip_fraction(outputs.logps, known.logps, known.mask, clip=self.objective.config.clip)
            clipped += counts * float(tokens * fraction)
        return {"loss": loss, "clip_fraction": clipped}

    def _check(self, loss: Tensor, step: int) -> None:
        if not torch.isfinite(loss.detach()):
            raise NonFiniteLoss(
                f"the loss is not finite at step {step + 1}, and the policy was not updated: lower the learning rate, "
                "or resume from the last checkpoint"
            )


class NaturalUpdate(Update):
    """theta + eta (F_q + damping I)^-1 g_q: one step with the weights of the prompts in gradient and Fisher matrix.

    Holds the graph of all answers, and takes two backward passes through it per step of conjugate gradients: for small
    models, on one process.
    """

    def __call__(self, rollout: Rollout, *, generator: torch.Generator) -> dict[str, float]:
        """Update the parameters; returns how well the system was solved."""
        del generator  # the signature is shared: nothing is drawn here
        config, samples = self.objective.config, self.objective.config.samples
        core: Any = self.accelerator.unwrap_model(self.module)
        assert isinstance(core, ActorCritic)
        leaves = [parameter for parameter in core.policy.parameters() if parameter.requires_grad]
        rows = torch.arange(len(rollout.answers), device=rollout.experience.lengths.device)
        core.train()
        with sdpa_kernel(SDPBackend.MATH):  # twice differentiable
            outputs, _, weighed = self.look(rollout, rows, core)
        logps = outputs.logps.reshape(-1, samples, outputs.logps.shape[1])
        shares = weighed.multipliers[::samples] / len(logps)
        solution = natural_direction(
            logps,
            leaves,
            sampled_weights(logps, shares),
            weighed.advantages.reshape(logps.shape),
            damping=config.npg_damping,
            max_steps=config.npg_steps,
        )
        for leaf, part in zip(leaves, solution.vector.split([leaf.numel() for leaf in leaves]), strict=True):
            leaf.grad = -part.view_as(leaf)
        norm = self.finish(rollout.step)
        return {"grad_norm": norm, "cg_steps": float(solution.steps), "cg_residual": solution.residual}
