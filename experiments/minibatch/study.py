"""Compute the numbers, figures and tables of minibatch.md: python -m experiments.minibatch.study (two minutes).

Everything is exact or drawn from fixed seeds; numbers are kept in minibatch/numbers.json. ``--page`` writes the page
from these alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from dro_core import CVaR, TotalVariation
from llm.run.files import write_json

from ..page_tables import RESULTS, filled, markdown, quoted, rounded
from ..tv_bias.repairs import LAWS
from . import descent, pairs
from .densities import radius_like, radius_of_value, rank_weights, square
from .figures import draw_densities, draw_descent
from .pairs import RADIUS

PAGE, KEPT = RESULTS / "minibatch.md", RESULTS / "minibatch" / "numbers.json"
SIZES, LARGE = (1, 4, 8, 16, 24, 64, 256, 512), 512
SHOWN = (8, 24, 64, 512)
Told = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the page from the numbers that are kept")
    if not parser.parse_args(arguments).page:
        KEPT.parent.mkdir(exist_ok=True)
        write_json(KEPT, rounded(measured()))
    told = json.loads(KEPT.read_text(encoding="utf-8"))
    sets = {f"tv:{RADIUS:g}": TotalVariation(RADIUS), "cvar:0.3": CVaR(0.3)}
    panels = {name: {n: rank_weights(one, n) for n in SHOWN} for name, one in sets.items()}
    draw_densities(panels, RESULTS / "minibatch-density.png")
    draw_descent(told["descent"], RESULTS / "minibatch-descent.png")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), told), encoding="utf-8")


def measured() -> Told:
    """All numbers: lists and dictionaries of floats."""
    return {
        "sizes": [risk_of(n) for n in SIZES],
        "unbiased": [row._asdict() for row in pairs.rows()],
        "descent": descent.measured(),
    }


def risk_of(n: int) -> Told:
    """What batches of n train under tv:RADIUS, and the radius on batches of LARGE that is the same."""
    weights, ball = rank_weights(TotalVariation(RADIUS), n), TotalVariation(RADIUS)
    told: Told = {"n": n, "top": float(n * weights[-1]), "share": 1 / square(weights)}
    told["like"] = radius_like(RADIUS, n, LARGE)
    for name, law in LAWS.items():
        told[name] = law.plugin_value(n, ball)
        told[f"{name}, radius"] = radius_of_value(law, RADIUS, n, LARGE)
    return told


def written(page: str, told: Told) -> str:
    """The page with its tables and quoted numbers."""
    tables = {"sizes": sizes_table(told), "unbiased": unbiased_table(told), "descent": descent_table(told)}
    return quoted(filled(page, {name: markdown(rows) for name, rows in tables.items()}), numbers(told))


Rows = Iterator[tuple[str, ...]]


def sizes_table(told: Told) -> Rows:
    """Batch sizes and the radii they amount to."""
    radius = f"radius on batches of {LARGE} with the same"
    names = tuple(LAWS)
    yield ("n", "largest weight", "share of the losses", *(f"risk, {name}" for name in names), f"{radius} share",
           *(f"{radius} risk, {name}" for name in names))  # fmt: skip
    for row in told["sizes"]:
        values = (f"{row[name]:.3f}" for name in names)
        radii = (f"{row[f'{name}, radius']:.4f}" for name in names)
        yield (f"{row['n']}", f"{row['top']:.1f}", f"{row['share']:.3f}", *values, f"{row['like']:.4f}", *radii)


def unbiased_table(told: Told) -> Rows:
    """Simulated and exact differences to the risk of batches of eight, in thousandths of a nat."""
    yield ("batch", "weights", "value", "exact", "gradient", "exact", "value less that of the first, same batches",
           "deviation of one batch")  # fmt: skip
    for row in told["unbiased"]:
        paired = interval(row["paired"]) if row["weights"] != f"`{pairs.SPEC}`" else ""
        exact = (f"{1e3 * row[name]:.2f}" for name in ("value_exact", "slope_exact"))
        value, slope = (f"{float(one) + 0.0:z.2f}" for one in exact)
        yield (f"{row['batch']}", row["weights"], interval(row["value"]), value, interval(row["slope"]), slope, paired,
               f"{1e3 * row['deviation']:.0f}")  # fmt: skip


def interval(ends: Sequence[float]) -> str:
    """A mean and its limits in thousandths."""
    middle, low, high = (f"{1e3 * one:z.2f}" for one in ends)
    return f"{middle} [{low}, {high}]"


def descent_table(told: Told) -> Rows:
    """Gaps after the shortest and the longest run, and where they go."""
    steps = told["descent"]["steps"]
    judges = [f"{judge}, T = {steps[place]:,}" for judge in ("risk of 8", "tv:0.2 of all") for place in (2, -1)]
    yield ("steps are made on", *judges, "risk of 8, exact end", "tv:0.2 of all, exact end")
    for arm in told["descent"]["arms"]:
        gaps = (gap(arm[judge][place]) for judge in ("eight", "all") for place in (2, -1))
        ends = (f"{1e3 * arm[f'{judge} end']:.2f}" for judge in ("eight", "all"))
        yield (arm["name"], *gaps, *ends)


def gap(ends: Sequence[float]) -> str:
    """A gap in thousandths of a nat."""
    middle, low, high = (f"{1e3 * one:.2f}" for one in ends)
    return f"{middle} [{low}, {high}]"


def numbers(told: Told) -> dict[str, str]:
    """What the sentences of the page quote, by name."""
    by_n = {row["n"]: row for row in told["sizes"]}
    unbiased = {(row["batch"], row["weights"]): row for row in told["unbiased"]}
    first, near = unbiased[LARGE, f"`{pairs.SPEC}`"], unbiased[LARGE, "shares of the density"]
    plain, arms = unbiased[LARGE, f"`tv:{RADIUS:g}`"], told["descent"]["arms"]
    law = next(iter(LAWS))
    return {
        "top 8": f"{by_n[8]['top']:.1f}",
        "top 512": f"{by_n[512]['top']:.1f}",
        "radius of 8": f"{by_n[8][f'{law}, radius']:.3f}",
        "like of 8": f"{by_n[8]['like']:.3f}",
        "radius of 64": f"{by_n[64][f'{law}, radius']:.3f}",
        "value 512": interval(first["value"]),
        "gradient 512": interval(first["slope"]),
        "near 512": interval(near["paired"]),
        "near 512 exact": f"{1e3 * near['value_exact']:.2f}",
        "plain 512": interval(plain["value"]),
        "noise": f"{unbiased[16, f'`{pairs.SPEC}`']['deviation'] / first['deviation']:.1f}",
        "end of 8": f"{1e3 * arms[0]['eight'][-1][0]:.2f}",
        "end of 64": f"{1e3 * arms[1]['eight'][-1][0]:.2f}",
        "end of plain": f"{1e3 * arms[3]['eight'][-1][0]:.1f}",
        "aim of plain": f"{1e3 * arms[3]['eight end']:.1f}",
        "aim of shares": f"{1e3 * arms[2]['eight end']:.2f}",
        "bias floor": f"{1e3 * arms[0]['all'][-1][0]:.1f}",
        "bias aim": f"{1e3 * arms[0]['all end']:.1f}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
