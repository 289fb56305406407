"""A minority that wants something else: a linear reward against the worst mixture of the two groups."""

import sys

import matplotlib.pyplot as plt
import numpy as np

from dro_core import Grouped, TotalVariation, fit_pairs

rng = np.random.default_rng(0)
group = (np.arange(2000) % 10 == 0).astype(int)  # one pair in ten
wishes = np.array([[1.0, 0.0], [0.0, 1.0]])  # what each group rewards
features = rng.normal(size=(2000, 2))  # of the first answer less the second
margins = (features * wishes[group]).sum(axis=1)
chosen = np.where(rng.random(2000) < 1 / (1 + np.exp(-3 * margins)), 1, -1)[:, None] * features

radii, rights = np.linspace(0, 0.8, 9), []
for radius in radii:
    ball = Grouped(TotalVariation(float(radius)), group)
    reward = fit_pairs(chosen, np.zeros_like(chosen), ball).coefficients
    right = (features @ reward > 0) == (margins > 0)
    rights.append([right[group == k].mean() for k in (0, 1)])
    print(f"tv:{radius:.1f},by=group  majority {rights[-1][0]:.3f}  minority {rights[-1][1]:.3f}")
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(radii, rights, "o-", label=["nine in ten", "one in ten"])
axes.set(title="What a worst case over groups gives and takes")
axes.set(xlabel="radius of the worst case over groups", ylabel="share ranked right")
axes.legend(frameon=False, loc="upper right")
figure.savefig(sys.argv[1] if sys.argv[1:] else "minority.png")
