"""Compute the tables and figures of npg.md and write them: python -m experiments.npg.study (about five minutes).

Policies, values and directions are exact; what is random is which problems are drawn, and in one table the
minibatches. All of it comes from fixed seeds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthetic.bandits.bandit_batch import ascend

from ..page_tables import RESULTS, filled, markdown
from .figures import draw_distribution, draw_gains, draw_invariance, draw_rates, draw_weights
from .gains import RADII, SETS, STRENGTHS, Setting, compared, kl_name, matched
from .invariance import SIZES, sweep
from .rates import COMPARED, SCHEDULES, SOLVED, STEP_SIZES, TIMES, course, floors, problems, sampled
from .tables import (
    floors_table,
    gains_table,
    headroom_table,
    invariance_table,
    iterates_table,
    minibatch_table,
    rates_table,
    refuted_table,
    slopes_table,
    sweep_table,
)


def draw_all() -> None:
    """Write the figures."""
    draw_invariance(SIZES, sweep(), RESULTS / "npg-invariance.png")
    radius_panels = {}
    for title, setting in (("without KL", Setting(strength=0.0)), ("KL of strength 0.1", Setting())):
        pairs = {name: [] for name in SETS}
        for radius in RADII:
            for name, ambiguity in matched(radius).items():
                plain, robust = compared(setting, ambiguity)
                pairs[name].append((robust.last - plain.last, robust.mean - plain.mean))
        radius_panels[title] = pairs
    draw_gains(RADII, radius_panels, RESULTS / "npg-gains.png")
    both = {s: compared(replace(Setting(), strength=s), SETS["TV"]) for s in STRENGTHS}
    draw_distribution(
        {
            "Worst-case value, TV(0.2), last iterates": {
                f"KL {kl_name(s)}": r.last - p.last for s, (p, r) in both.items()
            },
            "Mean value over the prompts": {f"KL {kl_name(s)}": r.mean - p.mean for s, (p, r) in both.items()},
        },
        RESULTS / "npg-distribution.png",
    )
    draw_rates(_rate_panels(), RESULTS / "npg-rates.png")
    draw_weights(_traces(), RESULTS / "npg-weights.png")


def _rate_panels() -> list:
    over_time = {"xlabel": "T, number of steps", "ylim": (1e-9, 0.1), "ylabel": "local maximum less value"}
    panels = []
    for schedule in ("1", "10/(9 + t)"):
        lines = {name: (TIMES, course(ball, schedule).short) for name, ball in COMPARED.items()}
        panels.append((f"All prompts, steps {schedule}", lines, over_time))
    lines = {
        name: (np.array(STEP_SIZES), floors(ball)[:, floors(COMPARED["TV"]).min(axis=0) > SOLVED])
        for name, ball in COMPARED.items()
    }
    settings = {
        "xlabel": "size of constant steps",
        "ylabel": "local maximum less value",
        "xlim": (0.025, 1.25),
        "ylim": (1e-13, 1),
    }
    panels.append(("What constant steps lose: problems where TV has a floor", lines, settings))
    lines = {name: (TIMES, sampled(ball, "10/(9 + t)").own) for name, ball in COMPARED.items()}
    about = {"xlabel": "T, number of steps", "ylabel": "best of the class less value"}
    panels.append(("Minibatches of 8 out of 32 prompts, steps 10/(9 + t)", lines, about))
    return panels


def _traces() -> dict:
    """The problem whose total-variation weights move most."""
    index = int(np.argmax(course(COMPARED["TV"], "1/4").moved))
    traces = {}
    for name in list(COMPARED)[:2]:
        run = ascend(problems("all prompts"), SCHEDULES["1/4"], ambiguity=COMPARED[name])
        traces[f"{name}: last 40 of 1,024 steps of 1/4"] = (run.weights[-40:, index], run.prompt_values[-41:-1, index])
    return traces


def main() -> None:
    """Write the figures, then the tables into the page."""
    draw_all()
    tables = {
        "invariance": invariance_table(), "gains": gains_table(), "headroom": headroom_table(),
        "sweep": sweep_table(), "iterates": iterates_table(), "refuted": refuted_table(), "rates": rates_table(),
        "slopes": slopes_table(), "floors": floors_table(), "minibatch": minibatch_table(),
    }  # fmt: skip
    page = RESULTS / "npg.md"
    page.write_text(filled(page.read_text(), {name: markdown(rows) for name, rows in tables.items()}))


if __name__ == "__main__":
    main()
