"""Twenty false claims by somebody who had not read the code of the search or the other planted ones."""

from __future__ import annotations

from blind_losses import LOSSES
from blind_policies import POLICIES
from blind_samples import SAMPLES
from blind_sets import SETS
from planted_numbers import Planted

BLIND: dict[str, Planted] = {planted.claim.label: planted for planted in (*LOSSES, *SETS, *SAMPLES, *POLICIES)}
