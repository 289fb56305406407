"""A tabular decision process: a short road past a cliff and a long safe one, with the transitions in doubt."""

import sys

import matplotlib.pyplot as plt
import numpy as np

from dro_core import TotalVariation, robust_value_iteration

# States: start, goal, cliff. Actions: the short road (1 step, slips with 2 %), the long one (never slips).
rewards = np.array([[0.0, -0.5], [1.0, 1.0], [-1.0, -1.0]])  # goal and cliff are for ever
moves = np.zeros((3, 2, 3))
moves[0, 0], moves[0, 1] = (0, 0.98, 0.02), (0, 1, 0)
moves[1, :, 1] = moves[2, :, 2] = 1
radii = np.linspace(0, 0.02, 21)
values, roads = [], []
for radius in radii:
    found = robust_value_iteration(rewards, moves, 0.9, TotalVariation(float(radius)))
    values.append(found.values[0])
    roads.append("short" if found.policy[0].argmax() == 0 else "long")
print(f"values of the start: {values[0]:.3f} at radius 0, {values[-1]:.3f} at 0.020")
print("roads:", ", ".join(f"{road} at {radius:.3f}" for radius, road in list(zip(radii, roads, strict=True))[::4]))
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(radii, values, "o-", markersize=3)
axes.set(title="What the start is worth, with transitions in doubt")
axes.set(xlabel="radius around every transition", ylabel="robust value of the start")
figure.savefig(sys.argv[1] if sys.argv[1:] else "robust_chain.png")
