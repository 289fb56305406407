"""The ambiguity sets, one family a file. Every set that text can name is defined by importing this room."""

from .ambiguity import AmbiguitySet, Dual
from .burg import Burg, BurgPenalty
from .composed import Charged
from .composition import Composite, Grouped, Trimmed
from .divergences import KL, CressieRead, Hellinger
from .minibatch import Minibatch
from .penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty
from .sorted import ChiSquare, CVaR, Spectral, TotalVariation
from .transport import Wasserstein

__all__ = [
    "KL",
    "AmbiguitySet",
    "Burg",
    "BurgPenalty",
    "CVaR",
    "Charged",
    "ChiSquare",
    "ChiSquarePenalty",
    "Composite",
    "CressieRead",
    "CressieReadPenalty",
    "Dual",
    "Grouped",
    "Hellinger",
    "KLPenalty",
    "Minibatch",
    "Spectral",
    "TotalVariation",
    "Trimmed",
    "Wasserstein",
]
