"""What a first-order method did on a problem whose objective and optimum are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Trajectory(NamedTuple):
    """T steps of one run, or of many at once along the leading axes; every number is of the population.

    The sign is that of minimisation: to maximise, take losses = -values.

    Attributes:
        iterates: Shape ``(*runs, T + 1, d)``, from w_0 to w_T.
        values: Shape ``(*runs, T + 1)``, the objective (population worst-case value) at every iterate.
        average_values: Shape ``(*runs, T)``; entry t - 1 is the objective at the average of w_0 ... w_{t-1}.
        optimum: The smallest value the objective takes where the iterates may lie, or a lower bound of it.

    Example:
        Two steps of length 1 on (w - 1)^2 from 0:

        >>> import numpy as np
        >>> path = Trajectory(np.array([[0.0], [1.0], [1.0]]), np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.25]), 0.0)
        >>> path.gaps.tolist(), path.iterate_gaps.tolist()
        ([1.0, 0.25], [1.0, 0.0, 0.0])
    """

    iterates: Array
    values: Array
    average_values: Array
    optimum: float

    @property
    def gaps(self) -> Array:
        """Suboptimality gap of the running average after t = 1 ... T iterates, shape ``(*runs, T)``."""
        return self.average_values - self.optimum

    @property
    def iterate_gaps(self) -> Array:
        """Suboptimality gap of every single iterate, shape ``(*runs, T + 1)``."""
        return self.values - self.optimum
