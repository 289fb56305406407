"""Importance ratios of answers that another program drew, with other log-probabilities than those that are trained.

A server computes the same model in another order or precision: its policy mu is near pi, not pi. The policy gradient of
answers y from mu is that of pi once each is multiplied by pi(y)/mu(y), with any baseline that the other answers give
[L25; test_correction.py enumerates it]. Ratios are cut off from above [Y25]: one that is rarely large would otherwise
carry the noise of the step.

- Those of whole answers are exact below the bound. Their spread grows with the length: at a gap of g nats per token,
  independent over T tokens, like exp(g sqrt(T)). TRL calls them ``sequence_truncate``.
- Those of single tokens (``token_truncate``) [Y25] leave what came before a token as mu drew it: a bias of first order
  in the gap, with a spread that does not grow.

What is corrected is the surrogate. The values of the prompts that the adversary sees, a KL and an entropy in the loss,
and the targets of a value function are means over answers of mu.

Sources: [Y25] Yao et al. 2025, Your Efficient RL Framework Secretly Brings You Off-Policy RL Training; [L25] Liu, Li et
al. 2025, When Speed Kills Stability: Demystifying RL Collapse from the Training-Inference Mismatch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..experience import Experience, Weighed
from .engine import Answer
from .settings import ServerSettings


def importance_ratios(logps: Tensor, drawn: Tensor, mask: Tensor, *, of: str = "answers") -> Tensor:
    """pi/mu of every token, not cut off; 1 outside the mask.

    Args:
        logps: log pi of the tokens in nats, ``(n, length)``.
        drawn: log mu of the same.
        mask: Which entries are tokens, boolean.
        of: Whose ratio a token has: its own (``tokens``), or that of its answer.

    Returns:
        Shape ``(n, length)``.

    >>> logps, drawn = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.5, -0.5]])
    >>> importance_ratios(logps, drawn, torch.tensor([[True, True]]))
    tensor([[1., 1.]])
    >>> importance_ratios(logps, drawn, torch.tensor([[True, True]]), of="tokens")
    tensor([[1.6487, 0.6065]])
    """
    gaps = (logps.double() - drawn.double()).masked_fill(~mask, 0.0)
    if of == "answers":
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
        settings: Who wrote them, and how that is corrected for.
    """
    correction = settings.correction()
    if settings.vllm_server_base_url is None or correction is None:
        return weighed, {}
    drawn = torch.zeros_like(known.logps)
    for row, answer in enumerate(answers):
        drawn[row, : len(answer.ids)] = torch.tensor(answer.logps, dtype=drawn.dtype)
    mask = known.mask
    ratios = importance_ratios(known.logps, drawn, mask, of=correction.of)
    told = ratios[:, 0] if correction.of == "answers" else ratios[mask]
    kept = told.clamp(max=correction.most)
    said = {
        "importance_ratio": told.mean(),
        "importance_clipped": (told > correction.most).double().mean(),
        "importance_effective_share": kept.sum().square() / (len(kept) * kept.square().sum()),
    }
    cut = weighed._replace(advantages=weighed.advantages * ratios.clamp(max=correction.most))
    return cut, {name: float(number) for name, number in said.items()}
