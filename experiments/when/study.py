"""Compute the numbers, figures and tables of when.md and atlas.md: python -m experiments.when.study (half a minute).

Nothing is drawn: populations are exact, statements closed forms, and what other studies measured is read from what they
keep. Numbers are kept in when/numbers.json; ``--page`` writes the pages from these alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from llm.run.files import write_text

from ..page_tables import RESULTS, filled, markdown, quoted, rounded
from . import atlas, measured, theorems
from .figures import draw_phases, draw_theorems

PAGE, ATLAS, KEPT = RESULTS / "when.md", RESULTS / "atlas.md", RESULTS / "when" / "numbers.json"
FLIPS, TURNS = np.linspace(0, 0.4, 9), np.linspace(0, 180, 13)
RADIUS, PAIRS, GROUPS = 0.1, "tv:0.1", "tv:0.3,by=group"
Told = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the pages from the numbers that are kept")
    if not parser.parse_args(arguments).page:
        KEPT.parent.mkdir(exist_ok=True)
        text = json.dumps(rounded(computed()), allow_nan=False, separators=(",", ":"))
        write_text(KEPT, text.replace("},{", "},\n{").replace("]],", "]],\n") + "\n")
    told = json.loads(KEPT.read_text(encoding="utf-8"))
    draw_theorems(told["theorems"], RESULTS / "when-theorems.png")
    phases = {title: np.array(gains) for title, gains in told["phases"].items()}
    draw_phases(phases, FLIPS, TURNS, told["frontier"], RESULTS / "when-phases.png")
    for path, written in ((PAGE, page), (ATLAS, atlas_page)):
        path.write_text(written(path.read_text(encoding="utf-8"), told), encoding="utf-8")


def computed() -> Told:
    """All numbers."""
    phases = {
        f"pairs, {PAIRS}": (PAIRS, "shared"),
        f"groups, {GROUPS}": (GROUPS, "shared"),
        "groups, one reward can serve both": (GROUPS, "own"),
    }
    clean = cache(lambda turn: theorems.Pairs(turn, 0.0).radius())
    atlases = {"biases": atlas.biases(), "descents": atlas.descents(), "samples": atlas.samples()}
    return {
        "theorems": panels(),
        "phases": {title: theorems.phase(*what, FLIPS, TURNS).tolist() for title, what in phases.items()},
        "angles": theorems.angles(("erm", "tv:0.05", "tv:0.1", "tv:0.15", "tv:0.1,by=group")),
        "frontier": theorems.frontier(RADIUS, TURNS, clean),
        "radii": [[theorems.Pairs(float(turn), float(f)).radius() for f in FLIPS] for turn in TURNS],
        "atlas": {
            name: [{**bound._asdict(), "value": None, "first": bound.first} for bound in bounds]
            for name, bounds in atlases.items()
        },
    }


def panels() -> list[Told]:
    """What ``draw_theorems`` takes."""
    flips = {f"{e:g} flipped": theorems.noise(e) for e in (0.0, 0.1, 0.2, 0.3)}
    covers = {f"{d} prompts": theorems.coverage(d) for d in (2, 5, 10)}
    turned = {f"angle {t:g}": theorems.collapse(t) for t in (0.0, 90.0, 180.0)}
    margins = theorems.separable()
    return [
        _panel("a. Zero-one losses", "error", "worst-case error", theorems.zero_one(), {}),
        _panel("b. Separable pairs", "norm of the reward", "least margin / norm", {"bound": margins.pop("bound")},
               margins, axes={"xscale": "log", "ylim": [0, 1.08]}),
        _panel("c. Label noise, one prompt, p = 0.9", "radius", "robust margin (nats)", *_split(flips)),
        _panel("d. Coverage", "radius", "least eigenvalue / plain", *_split(covers)),
        _panel("e. Noise and collapse, pairs", "share of flipped labels", "collapse radius", *_split(turned)),
        _panel("f. Capacity", "angle between the groups (degrees)", "gain of the worse group (points)",
               {f"groups, {one} features": theorems.capacity(GROUPS, one) for one in ("shared", "own")}, {}),
    ]  # fmt: skip


def _split(both: dict[str, Any]) -> tuple[Told, Told]:
    return {name: pair[0] for name, pair in both.items()}, {name: pair[1] for name, pair in both.items()}


def _panel(title: str, x: str, y: str, lines: Told, points: Told, **more: Any) -> Told:
    return {"title": title, "x": x, "y": y, "lines": lines, "points": points, **more}


def page(text: str, told: Told) -> str:
    """when.md with its tables and quoted numbers."""
    return quoted(filled(text, {"predictions": markdown(predictions())}), numbers(told))


Rows = Iterator[tuple[str, ...]]


def predictions() -> Rows:
    """What the statements say of the studies, and what these found."""
    yield ("study", "what the statements say", "measured")
    radius = measured.collapse_radius("pairs")
    for spec, said in (
        ("tv:0.05", "about the radius that unseen pairs bear: little changes"),
        ("tv:0.2", "far beyond it: towards a coin"),
        ("tv:0.4", "the same, further"),
    ):
        change = measured.study("whole", spec, 2)
        yield (f"[pairs, `{spec}`](study-1.md#the-same-heads-on-whole-prompts)", f"{said} ({radius})",
               f"in distribution {change}")  # fmt: skip
    worst = measured.study("whole", "tv:0.2", 4)
    yield ("the worst category, `tv:0.2`", "below chance under plain training, so a coin raises it",
           f"{measured.accuracy('whole', 'erm', 4)} to {measured.accuracy('whole', 'tv:0.2', 4)}: {worst}")  # fmt: skip
    change = measured.study("groups", "tv:0.2,by=source", 2)
    yield ("[sources, `tv:0.2,by=source`](study-1.md#c-other-sets-at-equal-effective-sample-size)",
           "no collapse; a gain only where sources want different things", f"in distribution {change}")  # fmt: skip
    for spec in ("regret:tv:0.2", "regret:tv:0.8"):
        change = measured.head("cross-fitted", spec)
        yield (f"[soft labels, `{spec}`](collapse.md#heads-that-are-trained-by-minibatches)",
               "no collapse; a gain only where the class is too small", f"in distribution {change}")  # fmt: skip
    for relation, said in (
        ("aligned", "one policy is right for every prompt: nothing"),
        ("separate", "prompts have little in common: little"),
        ("opposed", "what helps one prompt hurts another: a gain"),
    ):
        change = measured.bandit(relation)
        yield (f"[verifiable rewards](verifiable.md), prompts *{relation}*", said, f"worst fifth {change}")


def numbers(told: Told) -> dict[str, str]:
    """What the sentences of when.md quote."""
    pairs, groups, own = (np.array(gains) for gains in told["phases"].values())
    radii = np.array(told["radii"])
    collapsed = radii <= RADIUS
    slack = 1 - radii / (radii[:, :1] * (1 - 2 * FLIPS))
    right = list(TURNS).index(90)
    return {
        "pairs inside": f"{np.abs(pairs[~collapsed]).max():.1f}",
        "pairs worst": f"{pairs[: right + 1].min():.1f}",
        "pairs beyond cells": f"{collapsed.sum()}",
        "cells": f"{pairs.size}",
        "groups 0": f"{np.abs(groups[0]).max():.1f}",
        "groups 90": f"{groups[right].min():.1f}",
        "groups noise": f"{np.ptp(groups, axis=1).max():.1f}",
        "own": f"{np.abs(own).max():.1f}",
        "radius 0": f"{radii[0, 0]:.3f}",
        "radius 90": f"{radii[right, 0]:.3f}",
        "angle": f"{told['angles']['erm']:.1f}",
        "angle pairs": f"{max(told['angles'][one] for one in ('tv:0.05', 'tv:0.1', 'tv:0.15')):.1f}",
        "angle groups": f"{told['angles']['tv:0.1,by=group']:.1f}",
        "noise slack": f"{100 * slack.max():.1f}",
        "opposed pairs": f"{pairs[-1].max():.1f}",
    }  # fmt: skip


def atlas_page(text: str, told: Told) -> str:
    """atlas.md with its tables and quoted numbers."""
    tables = {name: markdown(_bounds(rows)) for name, rows in told["atlas"].items()}
    kept = {(row["name"], row["parameters"]): row["first"] for rows in told["atlas"].values() for row in rows}
    [published] = [n for (name, where), n in kept.items() if name.startswith("WDPO") and "beta 0.1, B 10," in where]
    pairs = (("`cvar-bias`", "`cvar-bias-sharp`"), ("`chi2-bias`", "`chi2-bias`, sharpened"),
             ("`tv-capped-bias`", "capped total variation"))  # fmt: skip
    first = {name: n for (name, _), n in kept.items()}
    times = [first[one] / first[other] for one, other in pairs]
    told_of = {"wdpo": _count(published), "least": f"{min(times):.0f}", "most": f"{max(times):.0f}"}
    return quoted(filled(text, tables), told_of)


def _bounds(rows: Sequence[Told]) -> Rows:
    yield ("bound", "formula", "source", "parameters", "trivial", "why", "below it from n =")
    for row in rows:
        yield (row["name"], row["formula"].replace("|", "\\|"), row["source"], row["parameters"].replace("|", "\\|"),
               f"{row['trivial']:.3g}", row["why"], _count(row["first"]))  # fmt: skip


def _count(first: int | None) -> str:
    return "none up to 10^12" if first is None else f"{first:,}"


if __name__ == "__main__":
    main()
