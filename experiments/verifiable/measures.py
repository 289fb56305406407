"""What is told of a policy: exact numbers, no sampling."""

from __future__ import annotations

import numpy as np

from .problem import MIXTURE, SHIFTED, Prompts

NAMES = (
    "train pass@1", "train pass@4", "train pass@16", "train worst fifth", "train worst source", "train entropy",
    "held-out pass@1", "held-out pass@4", "held-out pass@16", "held-out worst fifth", "held-out worst source",
    "shifted pass@1", "held-out entropy",
)  # fmt: skip
FIFTH = 5


class Judge:
    """Measures policies on training and held-out prompts; the worst fifth is fixed before training."""

    def __init__(self, train: Prompts, held_out: Prompts) -> None:
        self.parts = (train, held_out)
        nothing = np.zeros((len(train.features), train.features.shape[-1], 1))
        self.worst = [_lowest(part.rates(nothing)[0][..., 0]) for part in self.parts]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Measures ``(S, R, len(NAMES))`` of policies with weights ``(S, d, R)``."""
        found: list[np.ndarray] = []
        for place, (part, worst) in enumerate(zip(self.parts, self.worst, strict=True)):
            rates, entropy = part.rates(weights)
            found += [(1 - (1 - rates) ** k).mean(axis=1) for k in (1, 4, 16)]
            found.append((rates * worst[..., None]).sum(axis=1) / worst.sum(axis=1)[:, None])
            sources = np.stack([_mean_of(rates, part.source == s) for s in range(len(MIXTURE))])
            found.append(sources.min(axis=0))
            if place:
                found.append(np.tensordot(SHIFTED, sources, axes=1))
            found.append(entropy.mean(axis=1))
        return np.stack(found, axis=-1)


def _lowest(rates: np.ndarray) -> np.ndarray:
    """Whether a prompt is in the fifth of lowest rate, ``(S, n)``."""
    ranks = rates.argsort(axis=1).argsort(axis=1)
    return ranks < rates.shape[1] // FIFTH


def _mean_of(rates: np.ndarray, members: np.ndarray) -> np.ndarray:
    return (rates * members[..., None]).sum(axis=1) / members.sum(axis=1)[:, None]
