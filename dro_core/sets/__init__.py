"""The ambiguity sets, one family a file. Every set that text can name is defined by importing this room."""

from .ambiguity import AmbiguitySet, Dual
from .composition import Composite, Grouped, Trimmed
from .divergences import KL, ChiSquarePenalty, CressieRead, Hellinger, KLPenalty
from .sorted import ChiSquare, CVaR, Spectral, TotalVariation
from .transport import Wasserstein

__all__ = [
    "KL",
    "AmbiguitySet",
    "CVaR",
    "ChiSquare",
    "ChiSquarePenalty",
    "Composite",
    "CressieRead",
    "Dual",
    "Grouped",
    "Hellinger",
    "KLPenalty",
    "Spectral",
    "TotalVariation",
    "Trimmed",
    "Wasserstein",
]
