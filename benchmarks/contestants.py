"""Who races: the sets, one line per (set, peer), ours and the physical floors."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import formulas
import numpy as np
import peers
import references

import dro_core as dc


@dataclass(frozen=True)
class Race:
    """One ambiguity set: how to make it for n scenarios, its true value, the n that are worth a run."""

    name: str
    title: str
    ambiguity: Callable[[int], dc.AmbiguitySet]
    truth: Callable[[np.ndarray, Any], np.longdouble]
    sizes: tuple[int, ...] = (64, 512, 4096, 65536, 2**20)
    batched: bool = True


@dataclass(frozen=True)
class Contestant:
    """One way to solve the problems of a race; ``make(ambiguity, n, gradient=...)`` returns the solver."""

    name: str
    package: str
    library: str
    make: Callable[..., Callable[[Any], tuple[Any, Any]]]
    batched: bool = True
    dtypes: tuple[str, ...] = ("float64", "float32")
    kind: str = "peer"
    read: Callable[[Any, np.ndarray], np.ndarray] | None = None

    def missing(self) -> bool:
        """Whether the package is not installed."""
        return importlib.util.find_spec(self.package) is None


def _line_cost(n: int) -> np.ndarray:
    """Distances between n points drawn from a normal distribution."""
    points = np.random.default_rng(n).standard_normal(n)
    return np.abs(points[:, None] - points[None, :])


RACES = [
    Race("tv", "TotalVariation(0.1)", lambda n: dc.TotalVariation(0.1), references.total_variation),
    Race("tv_capped", "TotalVariation(0.1, 4)", lambda n: dc.TotalVariation(0.1, 4), references.total_variation),
    Race("cvar", "CVaR(0.1)", lambda n: dc.CVaR(0.1), references.cvar),
    Race("spectral", "Spectral(.1 .2 .3 .4)", lambda n: dc.Spectral((0.1, 0.2, 0.3, 0.4)), references.spectral),
    Race("chi2", "ChiSquare(0.5)", lambda n: dc.ChiSquare(0.5), references.power),
    Race("kl", "KL(0.3)", lambda n: dc.KL(0.3), references.kl),
    Race("cressie_read", "CressieRead(1.5, 0.3)", lambda n: dc.CressieRead(1.5, 0.3), references.power),
    Race("chi2_penalty", "ChiSquarePenalty(0.5)", lambda n: dc.ChiSquarePenalty(0.5), references.chi2_penalty),
    Race("kl_penalty", "KLPenalty(0.5)", lambda n: dc.KLPenalty(0.5), references.kl_penalty),
    Race(
        "wasserstein",
        "Wasserstein(0.1)",
        lambda n: dc.Wasserstein(0.1, _line_cost(n)),
        references.wasserstein,
        sizes=(64, 256, 512),
        batched=False,
    ),
    Race(
        "grouped",
        "Grouped(TV(0.2), 16 groups)",
        lambda n: dc.Grouped(dc.TotalVariation(0.2), np.arange(n) % 16),
        references.grouped,
    ),
    Race("trimmed", "Trimmed(CVaR(0.1), 0.05)", lambda n: dc.Trimmed(dc.CVaR(0.1), 0.05), references.trimmed_cvar),
]

OURS = [
    Contestant("ours", "dro_core", "numpy", peers.ours, kind="ours"),
    Contestant("ours", "torch", "torch", peers.ours, kind="ours"),
]


def _cvxpy(solver: str, package: str) -> Contestant:
    name = f"cvxpy {solver}"
    return Contestant(name, package, "numpy", peers.cvxpy(solver), batched=False, dtypes=("float64",))


CLARABEL, HIGHS = _cvxpy("CLARABEL", "cvxpy"), _cvxpy("HIGHS", "highspy")
LAYER = Contestant("cvxpylayers", "cvxpylayers", "torch", peers.cvxpylayers, dtypes=("float64",))


def _dro(module: str, model: str, **size: str) -> Contestant:
    make, read = peers.dro_linear(module, model, **size), peers.dro_weights
    return Contestant(f"dro {model}", "dro", "numpy", make, batched=False, dtypes=("float64",), read=read)


_dro_torch = partial(Contestant, package="dro", library="torch", batched=False)
_entmax = partial(Contestant, package="entmax", library="torch")
_radius = partial(peers.dro_loss, "chi-square", lambda ball, n: ball.radius, lambda ball: 0.0)
_tail = partial(peers.dro_loss, "cvar", lambda tail, n: tail.alpha, lambda tail: 0.0)
# A radius that the penalty never reaches leaves the penalty alone.
_priced = partial(peers.dro_loss, "chi-square", lambda price, n: 0.49 * n, lambda price: price.strength)

_BY_RANK = [Contestant("deshift, formula", library, library, formulas.by_rank) for library in ("numpy", "torch")]

PEERS: list[tuple[str, Contestant]] = [
    ("tv", CLARABEL),
    ("tv", HIGHS),
    ("tv", LAYER),
    ("tv", _dro("tv_dro", "TVDRO", eps="radius")),
    ("tv_capped", CLARABEL),
    ("tv_capped", HIGHS),
    ("tv_capped", LAYER),
    ("cvar", CLARABEL),
    ("cvar", HIGHS),
    ("cvar", LAYER),
    ("cvar", _dro("cvar_dro", "CVaRDRO", alpha="alpha")),
    ("cvar", _dro_torch("dro RobustLoss", make=_tail())),
    *[("cvar", one) for one in _BY_RANK],
    ("cvar", Contestant("sqwash, formula", "torch", "torch", formulas.superquantile, batched=False)),
    ("spectral", CLARABEL),
    ("spectral", HIGHS),
    ("spectral", LAYER),
    *[("spectral", one) for one in _BY_RANK],
    ("chi2", CLARABEL),
    ("chi2", LAYER),
    ("chi2", _dro("chi2_dro", "Chi2DRO", eps="radius")),
    ("chi2", _dro_torch("dro RobustLoss", make=_radius())),
    ("kl", CLARABEL),
    ("kl", LAYER),
    ("kl", _dro("kl_dro", "KLDRO", eps="radius")),
    ("cressie_read", CLARABEL),
    ("chi2_penalty", CLARABEL),
    ("chi2_penalty", HIGHS),
    ("chi2_penalty", LAYER),
    ("chi2_penalty", _dro_torch("dro RobustLoss", make=_priced())),
    ("chi2_penalty", _entmax("entmax sparsemax", make=peers.entmax("sparsemax"))),
    ("chi2_penalty", _entmax("entmax sparsemax k=n/4", make=peers.entmax("sparsemax", k=lambda n: n // 4))),
    ("chi2_penalty", _entmax("entmax bisect", make=peers.entmax("sparsemax_bisect"))),
    ("kl_penalty", CLARABEL),
    ("kl_penalty", LAYER),
    ("kl_penalty", Contestant("torch softmax + logsumexp", "torch", "torch", peers.torch_softmax)),
    ("kl_penalty", Contestant("scipy softmax + logsumexp", "scipy", "numpy", peers.scipy_softmax)),
    ("wasserstein", CLARABEL),
    ("wasserstein", HIGHS),
    ("grouped", CLARABEL),
    ("grouped", HIGHS),
    ("trimmed", _dro_torch("dro cvar_doro", make=peers.dro_trimmed)),
]


def _numpy_floor(step: Callable[[np.ndarray], Any]) -> Callable[..., Any]:
    return lambda ambiguity, n, *, gradient: lambda losses: (step(losses), None)


def _pass(ambiguity: Any, n: int, *, gradient: bool) -> Callable[[Any], tuple[Any, Any]]:
    """Read every loss and write it back shifted, into memory that is there already."""
    del ambiguity, n, gradient
    space: dict[Any, Any] = {}

    def step(losses: np.ndarray) -> tuple[Any, Any]:
        if losses.shape not in space:
            space[losses.shape] = np.empty_like(losses)
        return np.add(losses, 1.0, out=space[losses.shape]), None

    return step


def _partition(losses: np.ndarray) -> np.ndarray:
    return np.partition(losses, losses.shape[-1] * 9 // 10, axis=-1)


def _torch_sort(ambiguity: Any, n: int, *, gradient: bool) -> Callable[[Any], tuple[Any, Any]]:
    del ambiguity, n, gradient
    return lambda losses: (losses.sort(dim=-1), None)


FLOORS = [
    Contestant("floor: one pass", "numpy", "numpy", _pass, dtypes=("float64",), kind="floor"),
    Contestant("floor: np.partition", "numpy", "numpy", _numpy_floor(_partition), dtypes=("float64",), kind="floor"),
    Contestant("floor: np.sort", "numpy", "numpy", _numpy_floor(np.sort), dtypes=("float64",), kind="floor"),
    Contestant("floor: torch.sort", "torch", "torch", _torch_sort, kind="floor"),
]


def entries(race: Race, *, batch: int = 1) -> list[Contestant]:
    """Return everybody in a race: ours, also one by one where there is a batch, the peers, the floors."""
    loop = [replace(one, name="ours, one by one", kind="loop", batched=False, dtypes=("float64",)) for one in OURS]
    return [*OURS, *(loop if batch > 1 else []), *(peer for name, peer in PEERS if name == race.name), *FLOORS]
