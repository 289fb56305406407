"""Every tolerance of the solver tests, in units of the scale named beside it."""

import numpy as np

EPS = float(np.finfo(np.float64).eps)
CERTIFICATE = 1e-9  # duality gap, of the range of the losses
CONIC = 1e-6  # against an LP or a conic solver, of the range
WEIGHT = 1e-9  # between two exact solutions that should have the same weights
MEMBER = 1e-10  # how far weights may lie outside their set, of one unit of mass or of the radius
FIGURE = 0.02  # against published figures that come from a simulation, absolute


def exact(n: int) -> float:
    """Exact against exact: 64 roundings per scenario, of the largest absolute loss."""
    return 64 * EPS * n
