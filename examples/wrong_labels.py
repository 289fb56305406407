"""Noisy labels: a worst case over single pairs shrinks the reward, and from the collapse radius on it is zero."""

import sys

import matplotlib.pyplot as plt
import numpy as np

from dro_core import TotalVariation, collapse_radius, fit_pairs

rng = np.random.default_rng(0)
features, reward = rng.normal(size=(1000, 3)), np.array([2.0, 1.0, 0.0])
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for flips in (0.0, 0.1, 0.3):
    likes = 1 / (1 + np.exp(-features @ reward))  # Bradley and Terry: no set of labels is perfect
    says = np.where(rng.random(1000) < likes, 1, -1) * np.where(rng.random(1000) < flips, -1, 1)
    chosen = says[:, None] * features
    radius = float(collapse_radius(chosen, "tv", folds=0, seeds=()).radius)
    radii = np.linspace(0, 1.2 * radius, 13)
    norms = [np.linalg.norm(fit_pairs(chosen, 0 * chosen, TotalVariation(r)).coefficients) for r in radii]
    print(f"{flips:.0%} of the labels flipped: nothing is learned from tv:{radius:.3f} on")
    [line] = axes.plot(radii, np.divide(norms, norms[0]), "o-", markersize=3, label=f"{flips:.0%} flipped")
    axes.axvline(radius, color=line.get_color(), linestyle=":")
axes.set(title="Wrong labels: a worst case over pairs shrinks the reward to nothing")
axes.set(xlabel="radius of total variation over pairs", ylabel="norm of the reward, plain fit = 1")
axes.legend(frameon=False, loc=(0.55, 0.65))
figure.savefig(sys.argv[1] if sys.argv[1:] else "wrong_labels.png")
