"""Compute the tables and figures of collapse.md and write them: python -m experiments.collapse.study [--real FOLDER].

FOLDER is what ``experiments.robustness.whole_prompts`` wrote: its tuned backbone and its pairs, whose numbers are kept
in collapse/real.json. Without it they are read from there. The rest is exact or drawn from the seeds below.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dro_core import collapse_radius, fit_pairs, parse_ambiguity
from llm.run.files import write_json

from ..page_tables import RESULTS, filled, markdown
from .figures import draw_accuracies, draw_norms, draw_samples
from .problems import Pairs, closed_forms, drawn, flipped, population, population_radius

SETS = ("tv", "cvar", "chi2", "kl")
SHARES = (0.0, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97, 1.03, 1.5)  # of the collapse radius
ACCURACIES = np.linspace(0.5, 0.95, 10)
SIZES, WIDTHS, SEEDS = (250, 500, 1000, 2000, 4000, 8000), (5, 10, 20, 50, 100, 200), range(5)
PAIRS, WIDTH = 2000, 50
PENALTY = 1e-6  # of the fits, so that the optimum exists where a set bears nothing else
REAL = RESULTS / "collapse" / "real.json"
Rows = Iterable[tuple[str, ...]]


def main() -> None:
    """Write the figures, then the tables into the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--real", type=Path, help="folder of whole_prompts; without it the stored numbers are read")
    folder = parser.parse_args().real
    if folder is not None:
        REAL.parent.mkdir(exist_ok=True)
        write_json(REAL, measured(folder))
    real = json.loads(REAL.read_text(encoding="utf-8"))
    synthetic = norms(drawn(1000, 20, seed=0), penalty=PENALTY)
    draw_norms(
        {"1,000 pairs, 20 sign features": synthetic, real["title"]: real["norms"]}, RESULTS / "collapse-norms.png"
    )
    exact, found = accuracies()
    draw_accuracies(exact, found, RESULTS / "collapse-accuracy.png")
    draw_samples(samples() | {real["title"]: real["sizes"]}, RESULTS / "collapse-samples.png")
    tables = {
        "population": populations(population()), "flips": populations(flipped()), "real": real["table"],
        "trained": real["trained"],
    }  # fmt: skip
    page = RESULTS / "collapse.md"
    page.write_text(filled(page.read_text(), {name: markdown(map(tuple, rows)) for name, rows in tables.items()}))


# -- synthetic pairs -----------------------------------------------------------------------------


def norms(rows: np.ndarray, *, penalty: float) -> dict[str, list[tuple[float, float]]]:
    """By set: share of the collapse radius, and norm of the robust optimum over that of the plain one."""
    plain = _norm(rows, "erm", penalty)
    curves = {}
    for name in SETS:
        radius = collapse_radius(rows, name, folds=0, seeds=()).radius
        sizes = [1 - share * (1 - radius) if name == "cvar" else share * radius for share in SHARES]
        specs = [f"{name}:{size!r}" if share else "erm" for share, size in zip(SHARES, sizes, strict=True)]
        curves[name] = [
            (share, _norm(rows, spec, penalty) / plain)
            for share, spec in zip(SHARES, specs, strict=True)
            if share == 0 or parseable(spec)
        ]
    return curves


def parseable(spec: str) -> bool:
    """Whether there is such a set: total variation ends at 1, CVaR at 0."""
    try:
        parse_ambiguity(spec)
    except ValueError:
        return False
    return True


def _norm(rows: np.ndarray, spec: str, penalty: float) -> float:
    ambiguity = parse_ambiguity(spec)
    fit = fit_pairs(rows, np.zeros_like(rows), ambiguity, penalty=penalty, tolerance=1e-7)
    return float(np.linalg.norm(fit.coefficients))


def accuracies() -> tuple[dict[str, Any], dict[str, Any]]:
    """By set: accuracy and radius of sign margins, by the closed form and by the solver on 2,000 of them."""
    fine = np.linspace(0.5, 0.97, 95)
    exact = {name: [(a, _grown(name, closed_forms(a)[name])) for a in fine] for name in (*SETS, "burg")}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in exact}
    for a in ACCURACIES:
        signs = np.where(np.arange(2000) < round(2000 * a), 1.0, -1.0)[:, None]
        for name, points in found.items():
            points.append((a, _grown(name, collapse_radius(signs, name, folds=0, seeds=()).radius)))
    return exact, found


def _grown(name: str, size: float) -> float:
    """A size that grows with the set."""
    return 1 - size if name == "cvar" else size


def samples() -> dict[str, dict[str, Any]]:
    """Radii of sign features against pairs and against features."""
    by_size = sampled(SIZES, "pairs", lambda n, seed: drawn(n, WIDTH, seed=seed))
    by_width = sampled(WIDTHS, "features", lambda d, seed: drawn(PAIRS, d, seed=seed))
    return {
        f"{WIDTH} sign features": by_size | {"truth": [population_radius(WIDTH)] * len(SIZES)},
        f"{PAIRS:,} pairs of sign features": by_width | {"truth": [population_radius(d) for d in WIDTHS]},
    }


def sampled(places: Sequence[int], label: str, pairs: Any) -> dict[str, Any]:
    """In sample, for random labels and held out, of KL, at every place for every seed; and d / 2n."""
    names = ("in sample", "random labels", "held out")
    curves: dict[str, list[list[float]]] = {name: [] for name in names}
    law = []
    for place in places:
        rows = [pairs(place, seed) for seed in SEEDS]
        found = [collapse_radius(one, "kl", seeds=(seed,)) for seed, one in zip(SEEDS, rows, strict=True)]
        values = [(one.radius, float(one.null[0]), one.held_out) for one in found]
        for name, column in zip(names, zip(*values, strict=True), strict=True):
            curves[name].append(list(column))
        law.append(rows[0].shape[1] / (2 * len(rows[0])))
    return {"x": list(places), "label": label, "curves": curves, "law": law, "truth": None}


def populations(pairs: Pairs) -> Iterator[tuple[str, ...]]:
    """The radii of a population over its pairs, and over its groups."""
    yield ("the adversary weighs", *(f"`{name}`" for name in SETS))
    for name, labels in {"pairs": None, **pairs.groups}.items():
        found = [
            collapse_radius(pairs.rows, kind, reference=pairs.masses, groups=labels, folds=0, seeds=()) for kind in SETS
        ]
        shown = ["never" if one.separable else f"{one.radius:.3f}" for one in found]
        yield ("pairs" if labels is None else f"groups by {name}", *shown)


# -- real pairs ----------------------------------------------------------------------------------


def measured(folder: Path) -> dict[str, Any]:
    """All numbers of the real pairs: norms, sizes of the sample, and the table by adversary."""
    from .real import features, table
    from .trained import table as trained_table

    rows, pairs = features(folder)
    scaled = rows / np.sqrt(np.mean(rows**2))
    size = [n for n in (1000, 2000, 4000) if n < len(rows)]

    def some(n: int, seed: int) -> np.ndarray:
        return rows[np.random.default_rng(seed).permutation(len(rows))[:n]]

    return {
        "title": f"{len(rows):,} real pairs, {rows.shape[1]} features",
        "norms": norms(scaled, penalty=1e-4),
        "sizes": sampled([*size, len(rows)], "pairs", some),
        "table": list(table(rows, pairs)),
        "trained": list(trained_table(rows, pairs, *features(folder, "id_test"))),
    }


if __name__ == "__main__":
    main()
