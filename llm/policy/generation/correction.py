"""Importance ratios of answers that another program drew, with other log-probabilities than those that are trained.

A server computes the same model in another order or precision: its policy mu is near pi, not pi. The policy gradient of
answers y from mu is that of pi once each is multiplied by pi(y)/mu(y), whatever baseline its group gives it
[derived; test_correction.py enumerates it]. Truncated at ``clip_max`` from above [Y25]: a ratio that is rarely large
would otherwise carry the noise of the step.

- ``sequence_truncate`` takes the ratio of the whole answer, which is exact below the bound. Its spread grows with the
  length: at a gap of g nats per token, independent over T tokens, like exp(g sqrt(T)).
- ``token_truncate`` takes that of every token alone [Y25]: what came before it is left as mu drew it, a bias of first
  order in the gap, with a spread that does not grow.

What is corrected is the surrogate. The values of the prompts that the adversary sees, a KL and an entropy in the loss,
and the targets of a value function are means over answers of mu.

Source: [Y25] Yao et al. 2025, Your Efficient RL Framework Secretly Brings You Off-Policy RL Training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..experience import Experience, Weighed
from .engine import Answer
from .settings import Ratios, ServerSettings


def importance_ratios(logps: Tensor, drawn: Tensor, mask: Tensor, *, mode: Ratios = "sequence_truncate") -> Tensor:
    """pi/mu of every token, not truncated: its own, or that of its answer; 1 outside the mask.

    Args:
        logps: log pi of the tokens in nats, ``(n, length)``.
        drawn: log mu of the same.
        mask: Which entries are tokens, boolean.
        mode: Whose ratio a token has.

    Returns:
        Shape ``(n, length)``.

    >>> logps, drawn = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.5, -0.5]])
    >>> importance_ratios(logps, drawn, torch.tensor([[True, True]]))
    tensor([[1., 1.]])
    >>> importance_ratios(logps, drawn, torch.tensor([[True, True]]), mode="token_truncate")
    tensor([[1.6487, 0.6065]])
    """
    gaps = (logps.double() - drawn.double()).masked_fill(~mask, 0.0)
    if mode == "sequence_truncate":
        gaps = gaps.sum(dim=1, keepdim=True).expand_as(gaps).masked_fill(~mask, 0.0)
    return gaps.exp().to(logps.dtype)


def corrected(
    weighed: Weighed, known: Experience, answers: Sequence[Answer], settings: ServerSettings
) -> tuple[Weighed, dict[str, float]]:
    """The rollout with its advantages times the truncated ratios, and what the log says of these.

    As it was where the policy itself wrote the answers, or the settings ask for no correction.

    The clipped surrogate is positively homogeneous in the advantages, so this multiplies the loss of every token.

    Args:
        weighed: Of these answers.
        known: Of these answers, with the log-probabilities that are trained.
        answers: With those that they were drawn with.
        settings: Who wrote them, what has a ratio, and above which number it is cut off.
    """
    mode, clip_max = settings.vllm_importance_sampling_mode, settings.vllm_importance_sampling_clip_max
    if settings.vllm_server_base_url is None or clip_max == 0:
        return weighed, {}
    drawn = torch.zeros_like(known.logps)
    for row, answer in enumerate(answers):
        drawn[row, : len(answer.ids)] = torch.tensor(answer.logps, dtype=drawn.dtype)
    mask = known.mask
    ratios = importance_ratios(known.logps, drawn, mask, mode=mode)
    told = ratios[:, 0] if mode == "sequence_truncate" else ratios[mask]
    kept = told.clamp(max=clip_max)
    said = {
        "importance_ratio": told.mean(),
        "importance_clipped": (told > clip_max).double().mean(),
        "importance_effective_share": kept.sum().square() / (len(kept) * kept.square().sum()),
    }
    cut = weighed._replace(advantages=weighed.advantages * ratios.clamp(max=clip_max))
    return cut, {name: float(number) for name, number in said.items()}
