"""Prompts with verifiable rewards: how much a prompt counts by its pass rate, under sets over prompts."""

import sys

import matplotlib.pyplot as plt
import numpy as np

from dro_core import parse_ambiguity, worst_case

rates = np.linspace(0.025, 0.975, 20)  # the share of right answers of twenty prompts; the loss of a prompt is -rate
figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.axhline(1, color="0.7", linewidth=1)
for text in ("kl_penalty:0.3", "chi2:0.3", "burg:0.3", "cvar:0.5", "tv:0.3"):
    weights = worst_case(-rates, parse_ambiguity(text)).weights
    print(f"{text:15} hardest prompt x {20 * weights[0]:.2f}, easiest x {20 * weights[-1]:.2f}")
    axes.plot(rates, 20 * weights, "o-", markersize=3, label=text)
axes.set(title="Weights of 20 prompts under five sets; 1 is an equal share")
axes.set(xlabel="pass rate of the prompt", ylabel="weight times n")
axes.legend(frameon=False, loc="upper right")
figure.savefig(sys.argv[1] if sys.argv[1:] else "pass_rates.png")
