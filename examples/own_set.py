"""A set of your own in one line of cvxpy: total variation that keeps the average length of the answers."""

import sys

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

from dro_core import ConvexSet, TotalVariation, duality_gap, worst_case

rng = np.random.default_rng(1)
lengths = rng.uniform(20, 200, size=24)
losses = lengths / 100 + rng.normal(size=24)  # long answers are hard here
mean = lengths.mean()
same_length = ConvexSet(lambda q, p: [cp.norm1(q - p) / 2 <= 0.3, q @ lengths == mean])
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.scatter(lengths, losses, s=6, color="0.6", label="an example")
for name, ball, mark in (("tv:0.3", TotalVariation(0.3), "o"), ("and the same mean length", same_length, "x")):
    worst = worst_case(losses, ball)
    gap = float(duality_gap(losses, ball, worst))
    print(f"{name:25} value {worst.value:.3f}, length {worst.weights @ lengths:5.1f}, gap below 1e-9: {gap < 1e-9}")
    axes.scatter(lengths, losses, s=900 * worst.weights, marker=mark, alpha=0.6, label=name)
axes.set(title="Weights under total variation, free and at a fixed mean length")
axes.set(xlabel="length of the answer; the size of a mark is its weight", ylabel="loss")
axes.margins(y=0.15)
axes.legend(frameon=False, loc="upper left", markerscale=0.6)
figure.savefig(sys.argv[1] if sys.argv[1:] else "own_set.png")
