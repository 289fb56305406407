"""What a minibatch sees of a worst case, exactly: a loss of 1 in a hundred, else 0, and batches of n."""

import sys

import matplotlib.pyplot as plt
import numpy as np

from dro_core import TotalVariation, worst_case
from synthetic import plugin_value

losses, chances = np.array([0.0, 1.0]), np.array([0.99, 0.01])
sizes = [2**k for k in range(1, 11)]
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for ball in (TotalVariation(0.2), TotalVariation(0.2, max_ratio=4)):
    whole = float(worst_case(losses, ball, reference=chances).value)
    seen = [plugin_value(losses, chances, n, ball) for n in sizes]
    print(f"{ball}: worst case of the population {whole:.3f}, of batches of 32 {seen[4]:.3f}, of 1,024 {seen[-1]:.3f}")
    [line] = axes.plot(sizes, seen, "o-", label=str(ball))
    axes.axhline(whole, color=line.get_color(), linestyle=":")
axes.set(title="Worst case of a batch, on average; dotted: of the population")
axes.set(xlabel="examples in a batch", ylabel="worst-case loss", xscale="log")
axes.legend(frameon=False, loc="center left")
figure.savefig(sys.argv[1] if sys.argv[1:] else "small_batches.png")
