"""Published bounds and ours: from which n on each says more than the trivial one."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, sqrt
from typing import NamedTuple

from dro_core import (
    KL,
    AmbiguitySet,
    ChiSquare,
    ChiSquarePenalty,
    CVaR,
    KLPenalty,
    TotalVariation,
    bias_bound,
    excess_bound,
    radius_from_confidence,
)

from ..tv_bias.repairs import smallest

MOST = 10**12


class Bound(NamedTuple):
    """A bound that falls with n (draws, steps or pairs), and what holds without it.

    Attributes:
        name: Claim of the registry, or what it bounds.
        formula: As printed.
        source: Key of docs/theory.md or the number of the paper.
        parameters: At which it is evaluated.
        value: The bound at n.
        trivial: What is known for any n.
        why: Why it is.
    """

    name: str
    formula: str
    source: str
    parameters: str
    value: Callable[[int], float]
    trivial: float
    why: str

    @property
    def first(self) -> int | None:
        """The smallest n from which on the bound is below the trivial one; None up to MOST."""
        return smallest(lambda n: self.value(n) < self.trivial, MOST)


def biases() -> list[Bound]:
    """How far minibatches of n understate the worst case, losses in an interval of length 1."""
    tv, capped, a = TotalVariation(0.2), TotalVariation(0.2, max_ratio=8), 0.2 / 7
    cvar, chi2 = CVaR(0.1), ChiSquare(0.5)
    gap = "the worst case is that much above the mean"
    return [
        Bound("`cvar-bias`", "3 B/sqrt(alpha n)", "L20, Prop. 1", "alpha .1", lambda n: 3 / sqrt(0.1 * n),
              excess_bound(cvar, 1.0), gap),
        Bound("`cvar-bias-sharp`", "B/2 sqrt((1-alpha)/(alpha n))", "L20, sharpened", "alpha .1",
              lambda n: sqrt(0.9 / (0.1 * n)) / 2, excess_bound(cvar, 1.0), gap),
        Bound("`chi2-bias`", "3 B sqrt(1+2 rho) sqrt((4+log n)/(4n))", "L20", "rho .5",
              lambda n: 3 * sqrt(2 * (4 + log(n)) / (4 * n)), excess_bound(chi2, 1.0), gap),
        _ours("`chi2-bias`, sharpened", "B sqrt(2 rho (2+log 4n)/(8n))", chi2, "rho .5"),
        Bound("`chi2-penalty-bias`", "sqrt(2) B^2/(lam n)", "L20", "lam .1", lambda n: sqrt(2) / (0.1 * n),
              excess_bound(ChiSquarePenalty(0.1), 1.0), gap),
        Bound("`tv-capped-bias`", "3 B [sqrt((1-rho)/n) + rho/sqrt(a n)], a = rho/(c-1)", "derived",
              "rho .2, c 8", lambda n: 3 * (sqrt(0.8 / n) + 0.2 / sqrt(a * n)), excess_bound(capped, 1.0), gap),
        _ours("capped total variation", "(1-rho) b(1-rho) + rho b(a)", capped, "rho .2, c 8"),
        Bound("`tv-bias-root-n` (refuted)", "3 B/sqrt(n)", "2503.00539, as read", "rho .2",
              lambda n: 3 / sqrt(n), excess_bound(tv, 1.0), gap),
        Bound("plain total variation, any losses", "rho B for every n", "`tv-bias-root-n`", "rho .2",
              lambda n: 0.2, excess_bound(tv, 1.0), gap),
        Bound("`icdf-bias`", "G/(n+1), quantiles G-Lipschitz", "L20", "rho .2, G = 2 B",
              lambda n: 2 / (n + 1), excess_bound(tv, 1.0), gap),
        _ours("KL ball", "B v psi^-1(rho/v), v = (2+log 4n)/(8n)", KL(0.2), "rho .2"),
        _ours("KL penalty", "t (exp(B/(2t)) - 1)^2/n, or by a ball", KLPenalty(0.3), "t .3"),
        Bound("`cvar-gradient-variance`", "4 G^2/(alpha n)", "L20, sharpened", "alpha .1", lambda n: 4 / (0.1 * n),
              1.0, "gradients have norm at most G"),
    ]  # fmt: skip


def _ours(name: str, formula: str, ambiguity: AmbiguitySet, parameters: str) -> Bound:
    gap = "the worst case is that much above the mean"
    most = excess_bound(ambiguity, 1.0)
    return Bound(name, formula, "`bias_bound`", parameters, lambda n: bias_bound(ambiguity, n, 1.0), most, gap)


def descents() -> list[Bound]:
    """Steps T; features of norm at most 1, so margins in a ball of radius R are at most 2 beta R."""
    zero = "the reward 0 has loss log 2, and no loss is negative"
    capped = TotalVariation(0.2, max_ratio=8)
    return [
        Bound("`sgd-reward`, optimisation alone", "G R/sqrt(T), G = 2L sigmoid(2LR)", "L20, Prop. 3; derived",
              "L 1, R 10", lambda t: _steps(1.0, t), log(2), zero),
        Bound("`sgd-dpo`, optimisation alone", "G R/sqrt(T), G = 2 beta L sigmoid(2 beta L R)", "L20, Prop. 3; derived",
              "L 1, R 10, beta .1", lambda t: _steps(0.1, t), log(2), zero),
        Bound("`sgd-reward`, plain total variation", "delta_n + G R/sqrt(T), delta_n <= rho 2LR", "derived",
              "the same, rho .2, n = T", lambda n: 0.2 * 20 + _steps(1.0, n), log(2), zero),
        Bound("`sgd-dpo`, capped total variation", "delta_n + G R/sqrt(T), delta_n of `bias_bound`", "derived",
              "beta .1, rho .2, c 8, n = T", lambda n: bias_bound(capped, n, 2.0) + _steps(0.1, n), log(2), zero),
        Bound("`npg-tabular`", "(log|A|/eta + 1/(1-gamma)^2)/(T+1)", "AKLM21, Thm 5.3", "|A| 4, eta 1, gamma .9",
              lambda t: (log(4) + 100) / (t + 1), 10.0, "values lie in [0, 1/(1-gamma)]"),
        Bound("online group DRO", "2 m sqrt(10 (R^2 G^2 + B^2 log m)/T)", "1911.08731, Prop. 1, from memory",
              "m 10, R G = B = 1", lambda t: 20 * sqrt(10 * (1 + log(10)) / t), 1.0, "losses are at most B"),
        Bound("`group-dro-online`, all groups at every step", "G R/sqrt(T) + B sqrt(log m/(2T))", "derived",
              "m 10, R G = B = 1", lambda t: (1 + sqrt(log(10) / 2)) / sqrt(t), 1.0, "losses are at most B"),
    ]  # fmt: skip


def _steps(beta: float, steps: int, reach: float = 10.0) -> float:
    steepness = 2 * beta
    return reach * steepness / (1 + exp(-steepness * reach)) / sqrt(steps)


def samples() -> list[Bound]:
    """Pairs n; error .05; d features."""
    return [
        *(_fisher(margin) for margin in (2.0, 4.0, 10.0)),
        _wasserstein(0.1, 10.0, 10),
        _wasserstein(0.1, 1.0, 10),
        _wasserstein(1.0, 10.0, 10),
        Bound("`radius_from_confidence`, total variation", "min of two closed forms", "W03", "10 atoms, delta .05",
              lambda n: float(radius_from_confidence(TotalVariation, n, 0.05, atoms=10)), 0.2,
              "no more than the radius 0.2 that is trained"),
    ]  # fmt: skip


def _fisher(margin: float) -> Bound:
    slope = exp(-margin) / (1 + exp(-margin)) ** 2
    return Bound("`bt-mle-rate`", "E |w_hat - w*|^2_Sigma <= d/(4 gamma^2 n), gamma = sigmoid'(M)",
                 "ZJJ23 (shape); derived", f"d 10, margins up to M = {margin:g}", lambda n: 10 / (4 * slope**2 * n),
                 4 * margin**2, "both margins are at most M")  # fmt: skip


def _wasserstein(beta: float, reach: float, d: int, error: float = 0.05) -> Bound:
    """The squared error of the parameter; features of norm 1, so the least eigenvalue of Sigma is at most 4/d."""
    gamma, largest, least = _curvature(beta, reach), log(1 + exp(4 * beta * reach)), 4 / d
    return Bound("WDPO, parameter error", "sqrt(8 K^2 log(2/delta)/(gamma^2 lambda^2 n)), K = -log sigmoid(-4 beta B), "
                 "gamma = beta^2 sigmoid'(4 beta B)", "2502.01930, Thm 1, from memory",
                 f"beta {beta:g}, B {reach:g}, d {d}, delta {error:g}, lambda at its largest, 4/d",
                 lambda n: sqrt(8 * largest**2 * log(2 / error) / (gamma**2 * least**2 * n)),
                 4 * reach**2, "both parameters have norm at most B")  # fmt: skip


def _curvature(beta: float, reach: float) -> float:
    tilt = exp(-4 * beta * reach)
    return beta**2 * tilt / (1 + tilt) ** 2
