"""A theorem of your own, and a search that tries to refute it: Cantelli's bound of the conditional value at risk."""

import sys
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from hypothesis import strategies as st

from dro_core import CVaR, worst_case
from proofs_check import Claim, Instances, check, mutant, shrunk


@dataclass(frozen=True)
class Losses:
    """An instance."""

    values: tuple[float, ...]
    alpha: float


draws = st.builds(Losses, st.lists(st.integers(-8, 8).map(float), min_size=2).map(tuple), st.just(0.25))
claim = Claim[Losses](
    label="cvar-cantelli",
    statement="CVaR_alpha - mean <= std sqrt((1 - alpha) / alpha)",
    reference="Cantelli",
    assumptions={"0 < alpha <= 1": lambda x: 0 < x.alpha <= 1, "losses up to 8": lambda x: np.abs(x.values).max() <= 8},
    instances=Instances(Losses, tuple(Losses((0.0,) * k + (1.0,), 1 / (k + 1)) for k in (1, 3, 7)), draws),
    lhs=lambda x: worst_case(np.array(x.values), CVaR(x.alpha)).value - np.mean(x.values),
    rhs=lambda x: np.std(x.values) * ((1 - x.alpha) / x.alpha) ** 0.5,
    scale=lambda x: np.ptp(x.values),
    tight=True,  # so that a bound 1 % smaller must be refuted
)
report = check(claim.with_mutants(shrunk(claim), mutant(claim, "no factor", rhs=lambda x: np.std(x.values))))
print(f"{report.label}: {report.verdict.value}; false versions refuted: {[*report.controls]}")
plt.figure(figsize=(7, 3.5), layout="constrained").gca().plot([0, 1], [0, 1], "0.7")
plt.gca().scatter(*np.array(report.points).T[::-1], s=4)  # in ranges of the losses
plt.gca().set(title="Both sides of the bound; above the line it would be false")
plt.gca().set(xlabel="right side", ylabel="left side", xlim=(0, 2))
plt.savefig(sys.argv[1] if sys.argv[1:] else "own_theorem.png")
