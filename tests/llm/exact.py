"""Seeded float64 tensors, and agreement to rounding, for tests of formulas."""

from __future__ import annotations

import numpy as np
import torch


def normal(seed, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, tolerance=1e-12):
    actual, expected = (np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (actual, expected))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, strict=True)


def spoiled(tensor, mask):
    """The same with nan in the padding."""
    return tensor.masked_fill(~mask, torch.nan)
