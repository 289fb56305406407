"""Who gets the weight: one batch of losses under five sets, each as large as its text says."""

import sys

import matplotlib.pyplot as plt
import numpy as np

from dro_core import effective_sample_size, parse_ambiguity, worst_case

losses = np.sort(np.random.default_rng(0).gamma(2.0, 0.5, size=40))
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.axhline(1, color="0.7", linewidth=1)
for text, mark in zip(("tv:0.3", "cvar:0.5", "chi2:0.3", "kl:0.3", "tv:0.3,trim=0.1"), "osD^v", strict=True):
    worst = worst_case(losses, parse_ambiguity(text))
    count = effective_sample_size(worst.weights)
    print(f"{text:16} worst case {worst.value:.3f}, mean {losses.mean():.3f}, as if of {count:.1f} examples")
    axes.plot(losses, 40 * worst.weights, mark, markersize=4, label=text)
axes.set(title="Weights of 40 examples under five sets; 1 is an equal share")
axes.set(xlabel="loss", ylabel="weight times n")
axes.set_yscale("symlog", linthresh=1)  # even up to 1, logarithmic above
axes.set_yticks([0, 0.5, 1, 2, 5, 10], labels=["0", "0.5", "1", "2", "5", "10"])
axes.legend(frameon=False, loc="upper left")
figure.savefig(sys.argv[1] if sys.argv[1:] else "worst_weights.png")
