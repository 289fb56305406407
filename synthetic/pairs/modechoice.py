"""Real choices as preferences: 210 travellers between Sydney and Melbourne, each choosing among four modes.

The data are `statsmodels.datasets.modechoice` (Greene's travel mode data, public domain), inside the statsmodels
package. Every traveller prefers the chosen mode to each of the three others: 630 pairs in 210 clusters of three.
Under the multinomial logit P(a chosen | a or b chosen) = sigmoid(<weights, x_a - x_b>), so the pairs' likelihood is
consistent for the same weights; but the three pairs of a traveller share the chosen mode, so standard errors,
train/test splits and resampling must go by traveller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from synthetic.pairs.populations import FinitePopulation
from synthetic.pairs.preferences import Preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from synthetic.pairs.preferences import Array

MODES = ("air", "train", "bus", "car")
ATTRIBUTES = {
    "ttme": "waiting time at the terminal, minutes; 0 for the car",
    "invc": "cost in the vehicle, dollars",
    "invt": "time in the vehicle, minutes",
    "gc": "generalised cost, dollars: invc plus invt times a value of time",
}


@dataclass(frozen=True, eq=False)
class ModeChoice:
    """The travellers' choices as pairs.

    Attributes:
        pairs: 630 of them, three a traveller. The first answer is the mode that comes first in `MODES`, and the
            label is +1 if that one was chosen. Columns: the attributes, standardised over all 840 alternatives, then
            one constant for each of air, train and bus if asked for.
        columns: names of the columns, length d.
        travellers: number of the traveller, 0 to 209, shape `(630,)`: the clusters.
        chosen: index in `MODES` of what was chosen, shape `(630,)`.
        income: tercile of household income, 0 to 2, shape `(630,)`; ties make the terciles unequal.
        party: size of the travelling party, 0 for one, 1 for two, 2 for more, shape `(630,)`.
    """

    pairs: Preferences
    columns: tuple[str, ...]
    travellers: NDArray[np.int64]
    chosen: NDArray[np.int64]
    income: NDArray[np.int64]
    party: NDArray[np.int64]

    def population(self) -> FinitePopulation:
        """The empirical distribution: a prompt per pair, its label certain. For `shifts.group_shift`."""
        count = len(self.pairs.labels)
        return FinitePopulation(self.pairs.differences, np.full(count, 1 / count), np.maximum(self.pairs.labels, 0.0))


def load_mode_choice(attributes: Sequence[str] = tuple(ATTRIBUTES), *, mode_constants: bool = True) -> ModeChoice:
    """Read the data from the statsmodels package.

    Args:
        attributes: which of `ATTRIBUTES`, at least one.
        mode_constants: whether to add a constant for air, train and bus, against the car.

    Raises:
        ValueError: an unknown attribute, or none.

    Example:
        >>> choice = load_mode_choice(("ttme", "gc"))
        >>> choice.pairs.differences.shape, choice.columns
        ((630, 5), ('ttme', 'gc', 'air', 'train', 'bus'))
        >>> len(set(choice.travellers.tolist()))
        210
    """
    from statsmodels.datasets import modechoice

    unknown = [name for name in attributes if name not in ATTRIBUTES]
    if unknown or not attributes:
        raise ValueError(f"attributes must be some of {', '.join(ATTRIBUTES)}, got {tuple(attributes)}.")
    data: Any = modechoice.load_pandas().data
    table = data.sort_values(["individual", "mode"])
    values = table[list(attributes)].to_numpy(float)
    features = (values - values.mean(axis=0)) / values.std(axis=0)
    if mode_constants:
        features = np.hstack([features, np.tile(np.eye(4)[:, :3], (210, 1))])
    features = features.reshape(210, 4, -1)
    chosen = table["choice"].to_numpy().reshape(210, 4).argmax(axis=1)
    traveller = table.iloc[::4]
    return ModeChoice(
        pairs=_pairs(features, chosen),
        columns=(*attributes, *(MODES[:3] if mode_constants else ())),
        travellers=np.repeat(np.arange(210), 3),
        chosen=np.repeat(chosen, 3),
        income=np.repeat(_terciles(traveller["hinc"].to_numpy(float)), 3),
        party=np.repeat(np.minimum(traveller["psize"].to_numpy(int), 3) - 1, 3),
    )


def _pairs(features: Array, chosen: NDArray[np.int64]) -> Preferences:
    """Features `(travellers, modes, d)`: the chosen mode against each other one, in the order of the modes."""
    travellers, modes, d = features.shape
    rows = np.arange(travellers)[:, None]
    others = np.array([[mode for mode in range(modes) if mode != own] for own in chosen])
    labels = np.where(chosen[:, None] < others, 1.0, -1.0)
    better_less_worse = features[rows, chosen[:, None]] - features[rows, others]
    return Preferences((labels[:, :, None] * better_less_worse).reshape(-1, d), labels.ravel())


def _terciles(values: Array) -> NDArray[np.int64]:
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left").astype(np.int64)
