"""What counts as right: one rule for training, evaluations, reports and sweeps.

A pair is right where the model gives its chosen answer the higher score, and wrong where it gives it the lower one. A
tie says nothing and counts one half, so that a model that cannot tell answers apart, a policy against itself say, has
the 50 % of a coin. Ties are counted beside every accuracy, because a coin's 50 % and a tie's look the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

RULE = "a tie counts one half"
EARLIER_RULE = "a tie counts as an error, as in versions before ties counted one half"


def credit(margins: ArrayLike) -> NDArray[np.float64]:
    """What every margin earns, of its shape: 1 above 0, 1/2 at 0, 0 below; nan stays nan.

    >>> credit([2.0, 0.0, -0.5]).tolist()
    [1.0, 0.5, 0.0]
    """
    return np.heaviside(np.asarray(margins, dtype=np.float64), 0.5)


def ties(margins: ArrayLike) -> int:
    """How many margins are exactly 0.

    >>> ties([2.0, 0.0, -0.5])
    1
    """
    return int(np.sum(np.asarray(margins) == 0))
