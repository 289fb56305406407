"""Claims about maximum likelihood in the limit of many labels, tested by simulation with confidence limits."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from scipy.special import expit, ndtri  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

from proofs_check.claim import Array, Claim, Instances, mutant, stated
from proofs_check.statistics import claim_estimate, comparison_error
from synthetic import Estimate
from synthetic.pairs.preferences import fit_counts

_SAMPLES = (1024, 4096, 16384)
_DIMENSIONS = (2, 4, 8)
_PROMPTS = 16


@dataclass(frozen=True)
class Simulation:
    """Samples to draw, and the seed; the check fills both in."""

    draws: int
    seed: int


@stated
def bt_mle_slope() -> Claim[Simulation]:
    """The error of maximum likelihood is of order sqrt(d/n): both exponents, from simulations.

    Problem: 16 prompts with standard normal differences, ||w*|| = 1, n labels spread evenly over them.
    Algorithm: w_hat by Newton's method. The slope of log ||w_hat - w*||_Sigma in log n is an ordinary least-squares fit
        of statsmodels to every draw at n = 1024, 4096, 16384, d = 4; J is the Fisher information of one label.
    Guarantee (asymptotic, here at finite n with its margin): the slope is -1/2 within 0.02, and
        n E ||w_hat - w*||^2_J is d within 5 % for d = 2, 4, 8 at n = 16384.
    Source: [ZJJ23] for the rate; the limit is that of maximum likelihood, n ||.||^2_J -> chi-square with d degrees.
    """
    ones = np.ones(len(_DIMENSIONS))

    def band(slope: float) -> Array:
        return np.hstack([slope + 0.02, 0.02 - slope, 1.05 * ones, -0.95 * ones])

    claim = Claim[Simulation](
        label="bt-mle-slope",
        statement="||w_hat - w*||_Sigma falls like n^(-1/2), and n E ||w_hat - w*||^2 is d in the Fisher norm",
        reference="ZJJ23",
        assumptions={"draws": lambda x: x.draws >= 2},
        instances=Instances(Simulation, (Simulation(0, 0),)),
        lhs=lambda x: _slopes(x, fisher=True),
        rhs=lambda x: band(-1 / 2),
        scale=lambda x: 1.0,
        resolution=0.2,
    )
    third = mutant(claim, "like n^(-1/3)", rhs=lambda x: band(-1 / 3))
    norm_mutant = mutant(claim, "Sigma in place of the Fisher information", lhs=lambda x: _slopes(x, fisher=False))
    return claim.with_mutants(third, norm_mutant)


@stated
def bt_mle_coverage() -> Claim[Simulation]:
    """Intervals of the normal limit cover the true parameter as often as they say.

    Problem: 16 prompts with standard normal differences, d = 4, ||w*|| = 1, 128 labels each.
    Algorithm: w_hat_i +- z sqrt((J_hat^-1)_ii / n), z the 97.5 % quantile, J_hat the information at w_hat.
    Guarantee (asymptotic, here at n = 2048 with its margin): every coordinate is covered in 94 % to 96 % of samples.
    Source: [ZJJ23] leaves it to the classical theory of maximum likelihood.
    """

    def coverage(x: Simulation, level: float = 0.95, factor: float = 1.0) -> Estimate:
        hits = _covered(x, float(np.asarray(ndtri((1 + level) / 2))) / np.sqrt(factor))
        found = claim_estimate(hits, tests=hits.shape[1], bounds=(0.0, 1.0))
        return _both_ways(found)

    bounds = np.hstack([np.full(4, 0.96), np.full(4, -0.94)])
    claim = Claim[Simulation](
        label="bt-mle-coverage",
        statement="95 % intervals from the Fisher information cover each coordinate in 94 % to 96 % of samples",
        reference="ZJJ23 (rate); classical",
        assumptions={"draws": lambda x: x.draws >= 2},
        instances=Instances(Simulation, (Simulation(0, 0),)),
        lhs=coverage,
        rhs=lambda x: bounds,
        scale=lambda x: 1.0,
    )
    short = mutant(claim, "90 % limits", lhs=lambda x: coverage(x, 0.9))
    double = mutant(claim, "every label counted twice", lhs=lambda x: coverage(x, factor=2.0))
    return claim.with_mutants(short, double)


def _slopes(x: Simulation, *, fisher: bool) -> Estimate:
    """Slope in log n, then n E ||error||^2/d for every d; followed by the same negated."""
    tests = 1 + len(_DIMENSIONS)
    errors = {n: _square_errors(x, 4, n, fisher=False) for n in _SAMPLES}
    logs = np.hstack([np.log(square) / 2 for square in errors.values()])
    counts = np.repeat(np.log(np.array(_SAMPLES)), x.draws)
    statistics: Any = import_module("statsmodels.api")
    fit = statistics.OLS(logs, np.column_stack([np.ones_like(counts), counts])).fit()
    low, high = fit.conf_int(alpha=comparison_error(tests))[1]
    n = _SAMPLES[-1]
    ratios = [claim_estimate(n / d * _square_errors(x, d, n, fisher=fisher), tests=tests) for d in _DIMENSIONS]
    first, rest = _both_ways(Estimate(fit.params[1:], low, high)), _both_ways(Estimate(*np.transpose(ratios)))
    return Estimate(*(np.hstack(parts) for parts in zip(first, rest, strict=True)))


def _both_ways(found: Estimate) -> Estimate:
    """The entries of an estimate, then their negatives: two upper bounds make a band."""
    value, low, high = found
    return Estimate(np.hstack([value, -value]), np.hstack([low, -high]), np.hstack([high, -low]))


def _square_errors(x: Simulation, d: int, n: int, *, fisher: bool) -> Array:
    """||w_hat - w*||^2 of every draw, in the norm of Sigma or of the Fisher information at w*; shape `(draws,)`."""
    rows, truth = _simulated_design(d)
    w = _simulated_fits(x, rows, truth, n)
    margins = rows @ truth
    metric = (rows.T * (expit(margins) * expit(-margins) if fisher else 1.0)) @ rows / len(rows)
    return ((w - truth) @ metric * (w - truth)).sum(axis=1)


def _covered(x: Simulation, quantile: float) -> Array:
    """Whether the interval of every coordinate holds the truth, 0 or 1, shape `(draws, d)`."""
    n = 2048
    rows, truth = _simulated_design(4)
    w = _simulated_fits(x, rows, truth, n)
    p = expit(w @ rows.T)
    information: Array = np.einsum("sk,ki,kj->sij", p * (1 - p), rows, rows) / len(rows)
    deviation = np.sqrt(np.diagonal(np.linalg.inv(information), axis1=1, axis2=2) / n)
    return np.where(np.abs(w - truth) <= quantile * deviation, 1.0, 0.0)


def _simulated_design(d: int) -> tuple[Array, Array]:
    """Differences of 16 prompts and a unit parameter: the problem is fixed, only the labels are drawn."""
    rng = np.random.default_rng(d)
    return rng.standard_normal((_PROMPTS, d)), np.ones(d) / np.sqrt(d)


def _simulated_fits(x: Simulation, rows: Array, truth: Array, n: int) -> Array:
    repeats = n // len(rows)
    rng = np.random.default_rng([x.seed, n, len(truth)])
    wins = rng.binomial(repeats, expit(rows @ truth), size=(x.draws, len(rows)))
    return fit_counts(rows, wins, repeats - wins)
