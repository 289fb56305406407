"""Preference problems on which the linear fits are tried."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

N = 24
GROUPS = np.arange(N) % 4
COST = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) / 4.0


def instance(seed: int, n: int = N, d: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels 0 and 1 that they predict with some noise, and a reference that is not uniform."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d))
    labels = (rng.random(n) < expit(6 * features[:, 0] - 3 * features[:, 1] + 1)).astype(int)
    labels[:2] = [0, 1]
    return features, labels, rng.dirichlet(np.full(n, 5.0))
