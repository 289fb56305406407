"""Compute the tables and figures of tv-bias.md and write them: python -m experiments.tv_bias.study (about a minute).

Everything is deterministic: exact sums and quadrature, and simulations from one seed where neither is possible.
"""

from __future__ import annotations

from math import ceil, log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dro_core import CVaR, TotalVariation
from synthetic import plugin_bias

from ..page_tables import RESULTS, filled, markdown
from .figures import draw_parts, draw_repairs, draw_sup
from .repairs import (
    BATCH,
    CHI2,
    DEVIATION,
    GROUPS,
    LAWS,
    RADIUS,
    SHARE,
    SIZES,
    SOURCE,
    TAILS,
    TV,
    Repair,
    grouped_radius,
    largest_bias,
    percent,
    repairs,
    share_of_gap,
)  # fmt: skip
from .simulation import chi2_biases, coin_biases, grouped_biases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synthetic.biases.without_enumeration import Layers


class Row(NamedTuple):
    """Plain TV on a training set of SOURCE pairs: bias parts and total, in nats and in shares of the gap."""

    n: int
    tail: float
    top: float
    gap: float

    @property
    def share(self) -> float:
        """Bias over robust gap."""
        return (self.tail + self.top) / self.gap


def parts(law: Layers, n: int) -> Row:
    """Split the bias of n pairs out of SOURCE: (1 - rho) of CVaR's, rho of the maximum's, and L - E l."""
    tail, top = CVaR(1 - RADIUS), TotalVariation(1.0)
    whole = [law.plugin_value(SOURCE, ball) for ball in (tail, top, TV)]
    return Row(
        n,
        (1 - RADIUS) * (whole[0] - law.plugin_value(n, tail)),
        RADIUS * (whole[1] - law.plugin_value(n, top)),
        whole[2] - law.mean,
    )


def bernoulli_table() -> Iterable[tuple[str, ...]]:
    """Exact bias of plain TV on losses of 1 with probability eps, else 0."""
    sizes = (8, 32, 128, 512, 2048)
    yield ("eps", *(f"n = {n}" for n in sizes))
    for eps in (0.8, 0.1, 1e-2, 1e-3, 1e-4, 1e-6):
        yield (f"{eps:g}", *(f"{abs(round(plugin_bias([0, 1], [1 - eps, eps], n, TV), 4)):.4f}" for n in sizes))
    yield ("**sup over eps**", *(f"**{largest_bias(TV, n):.4f}**" for n in sizes))
    yield ("3/sqrt(n)", *(f"{3 / n**0.5:.4f}" for n in sizes))


def parts_table() -> Iterable[tuple[str, ...]]:
    """The bias of n out of SOURCE pairs, in nats, and as a share of the robust gap."""
    yield ("n", *(f"{name}: {part}" for name in LAWS for part in ("tail part", "max part", "of the gap")))
    for n in (8, 24, 64, 256, 1024, 4096, 16384):
        rows = [parts(law, n) for law in LAWS.values()]
        yield (str(n), *(text for r in rows for text in (f"{r.tail:.4f}", f"{r.top:.3f}", percent(r.share))))


def laws_table() -> Iterable[tuple[str, ...]]:
    """What the two laws look like."""
    yield ("law", "accuracy", "mean", "CVaR at 0.8", "mean max of 1,000", "of 40,000", "of 1,000,000", "gap at 40,000")
    for name, law in LAWS.items():
        easy = float(np.interp(0.0, _hardness(law), law.above))
        most = [law.plugin_value(n, TotalVariation(1.0)) for n in (1000, SOURCE, 10**6)]
        gap = parts(law, BATCH).gap
        tail = law.value(CVaR(1 - RADIUS))
        yield (name, percent(1 - easy), *(f"{v:.3f}" for v in (law.mean, tail, *most, gap)))


def _hardness(law: Layers) -> np.ndarray:
    return np.linspace(-12 * DEVIATION, 12 * DEVIATION, law.above.size)


def source_table() -> Iterable[tuple[str, ...]]:
    """One loss of 1 among N, the others 0; n of them drawn with and without putting back."""
    shares = (0.01, 0.1, 0.5, 0.75, 1.0)
    yield ("n / N", *(f"{share:g}" for share in shares), "n for 5 % of B")
    without = [RADIUS * (1 - share) for share in shares]
    with_ = [RADIUS * (1 - 1 / SOURCE) ** (share * SOURCE) for share in shares]
    yield ("without replacement", *(f"{b:.3f}" for b in without), f"{ceil((1 - SHARE / RADIUS) * SOURCE):,}")
    needed = ceil(log(SHARE / RADIUS) / np.log1p(-1 / SOURCE))
    yield ("with replacement", *(f"{b:.3f}" for b in with_), f"{needed:,}")


def repairs_table(rows: list[Repair]) -> Iterable[tuple[str, ...]]:
    """What each repair costs on a batch of BATCH."""
    yield (
        "repair", "set", "largest n q", *(f"{name}: gap" for name in LAWS), "largest bias / B",
        *(f"{name}: bias / gap" for name in LAWS),
    )  # fmt: skip
    for row in rows:
        yield (row.name, row.spec, row.multiplier, *row.gaps, row.worst, *row.shares)


def sizes_table(rows: list[Repair]) -> Iterable[tuple[str, ...]]:
    """How many draws each repair needs."""
    yield ("repair", "for 5 % of B, any losses", *(f"for 5 % of the gap, {name}" for name in LAWS))
    for row in rows:
        yield (row.name, row.enough, *row.sizes)


def groups_table() -> Iterable[tuple[str, ...]]:
    """Bias of the grouped set in shares of its gap, and of coins that have no gap, in shares of B."""
    wide = TotalVariation(grouped_radius())
    yield ("n", *(f"{n:,}" for n in grouped_biases(wide, GROUPS)))
    for ball in (TV, wide):
        found = grouped_biases(ball, GROUPS).values()
        shares = [f"{100 * e.value:+.0f} ± {100 * (e.high - e.value):.0f} %" for e in found]
        yield (f"sources of unlike clarity, radius {ball.radius}: bias / gap", *shares)
    for ball in (TV, wide):
        coins = [f"{e.value:+.3f}" for e in coin_biases(ball, GROUPS).values()]
        yield (f"fair coins, radius {ball.radius}: bias / B", *coins)


def main() -> None:
    """Write the figures, then the tables into the page."""
    draw_sup(TV, RESULTS / "tv-bias.png")
    draw_parts({name: [parts(law, n) for n in SIZES] for name, law in LAWS.items()}, RESULTS / "tv-bias-parts.png")
    law = LAWS["true reward"]
    exact = {name: [(n, share_of_gap(law, ball, n)) for n in SIZES] for name, ball in TAILS.items()}
    simulated = {
        "chi-square": chi2_biases(DEVIATION, CHI2, trained=True),
        "8 groups (size of the bias)": grouped_biases(TotalVariation(grouped_radius()), GROUPS),
    }
    draw_repairs(exact, simulated, SHARE, RESULTS / "tv-bias-repairs.png")
    rows = repairs()
    tables = {
        "bernoulli": bernoulli_table(), "laws": laws_table(), "parts": parts_table(), "source": source_table(),
        "repairs": repairs_table(rows), "sizes": sizes_table(rows), "groups": groups_table(),
    }  # fmt: skip
    page = RESULTS / "tv-bias.md"
    page.write_text(filled(page.read_text(), {name: markdown(rows) for name, rows in tables.items()}))


if __name__ == "__main__":
    main()
