"""The figures of tv-bias.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from synthetic.biases.without_enumeration import Layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from dro_core import TotalVariation
    from synthetic import Estimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_sup(ambiguity: TotalVariation, path: Path) -> None:
    """Bias over n for Bernoulli losses of several eps, with the supremum and the refuted rate."""
    figure, (axes,) = _panels(1)
    sizes = np.unique(np.geomspace(4, 16384, 60).astype(int))
    for colour, eps in zip(COLOURS, (1e-1, 1e-2, 1e-3, 1e-4), strict=False):
        loss = Layers(0.0, np.ones(1), np.array([eps]))
        axes.plot(sizes, [loss.bias(int(n), ambiguity) for n in sizes], color=colour, label=f"eps = {eps:g}")
    axes.axhline(ambiguity.radius, color="black", lw=2, label="supremum over eps, every n")
    axes.plot(sizes, 3 / np.sqrt(sizes), color="black", ls="--", label="3/sqrt(n): refuted")
    axes.set(xscale="log", ylim=(0, 0.3), xlabel="n, draws in the minibatch", ylabel="bias / B")
    axes.set_title(f"Plain total variation, radius {ambiguity.radius:g}: losses of B with probability eps, else 0")
    axes.legend(loc="upper right", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_parts(rows: Mapping[str, Sequence[Any]], path: Path) -> None:
    """The two parts of the bias over n, one panel per law."""
    figure, panels = _panels(len(rows))
    for axes, (name, found) in zip(panels, rows.items(), strict=True):
        sizes = [row.n for row in found]
        for colour, label, part in zip(COLOURS, ("tail part", "maximum part"), ("tail", "top"), strict=False):
            axes.plot(sizes, [getattr(row, part) for row in found], "o-", color=colour, label=label)
        axes.axhline(found[0].gap, color="black", lw=2, label="robust gap L - E l")
        axes.axhline(0.05 * found[0].gap, color="black", ls="--", label="5 % of it")
        axes.set(xscale="log", yscale="log", ylim=(1e-4, 3), xlabel="n, pairs in the minibatch", ylabel="nats")
        axes.set_title(name)
    figure.suptitle("Bias of plain total variation, radius 0.2: n of 40,000 Bradley-Terry pairs")
    panels[0].legend(loc="lower left", fontsize=9)
    figure.savefig(path, dpi=120)


def draw_repairs(
    exact: Mapping[str, Sequence[tuple[int, float]]],
    simulated: Mapping[str, Mapping[int, Estimate]],
    share: float,
    path: Path,
) -> None:
    """Bias over gap against n for every repair at one effective sample size."""
    figure, (axes,) = _panels(1)
    for colour, (name, points) in zip(COLOURS, exact.items(), strict=False):
        axes.plot(*zip(*points, strict=True), "o-", ms=4, color=colour, label=name)
    for colour, (name, found) in zip(COLOURS[len(exact) :], simulated.items(), strict=False):
        middle = np.array([abs(e.value) for e in found.values()])
        half = np.array([(e.high - e.low) / 2 for e in found.values()])
        axes.errorbar(
            list(found), middle, yerr=np.minimum(half, 0.9 * middle), fmt="s:", ms=4, color=colour, label=name
        )
    axes.axhline(share, color="black", ls="--", label="5 %")
    axes.set(xscale="log", yscale="log", ylim=(1e-3, 4), xlabel="n, pairs in the minibatch", ylabel="bias / robust gap")
    axes.set_title("Bradley-Terry losses of the true reward, equal effective sample size at n = 64")
    axes.legend(loc="lower left", fontsize=9)
    figure.savefig(path, dpi=120)


def _panels(count: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0 if count == 1 else 5.6 * count, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, count, k + 1) for k in range(count)]
