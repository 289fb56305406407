"""From finished units to docs/results: the summary, the values of every problem, figures, the tables of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm.run.files import write_text

from ..page_tables import RESULTS
from . import rules
from .arms import ARMS, RULES, SETS
from .figures import draw_arms, draw_prompts, draw_speed
from .judge import Numbers
from .problem import WIDTH, draw
from .stored import Told, of_seeds, sizes_of, summary
from .tables import write
from .transformer import Sizes, collected
from .units import Unit, loaded

FOLDER = RESULTS / "verifiable"
PAGE = RESULTS / "verifiable.md"
README = RESULTS.parents[1] / "README.md"
FACES = ("plain", "grpo_std", "difficulty_filter", "tv:0.3", "kl_penalty:0.3", "maxrl")
CURVES = ("plain", "grpo_std", "difficulty_filter", "tv:0.3", "kl_penalty:0.3", "maxrl")


def publish(sizes: Mapping[str, Mapping[str, float]], stages: Mapping[str, Sequence[Unit]], kept: Path) -> None:
    """Write everything.

    Args:
        sizes: By relation, the size of every arm.
        stages: Units by ``end RELATION``, ``longer`` and ``itself``.
        kept: Where the units are.
    """
    numbers = {name: Numbers(units[0].runs, loaded(units, kept)[0]) for name, units in stages.items()}
    relations = {name: {"end": numbers[f"end {name}"]} for name in sizes}
    relations["opposed"]["longer"] = numbers["longer"]
    FOLDER.mkdir(exist_ok=True)
    _keep("bandit", summary(relations, numbers["itself"], sizes))
    _keep("problems", of_seeds(relations["opposed"]["end"], sizes["opposed"]))
    figures(sizes["opposed"], numbers, loaded(stages["end opposed"], kept)[1], stages["end opposed"][0])
    pages()


def publish_transformers(cells: Path) -> None:
    """What is finished of the transformers, and the pages with it."""
    _keep("transformer", {"cells": collected(cells, Sizes())})
    pages()


def _keep(name: str, content: Mapping[str, Any]) -> None:
    """Write a file of numbers, a row to a line."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(FOLDER / f"{name}.json", text.replace("},{", "},\n{").replace('},"', '},\n"') + "\n")


def pages() -> None:
    """The pages again, from the stored summary alone."""
    told = stored()
    write(PAGE, told)
    write(README, told, whole=False)


def stored() -> Told:
    """What is kept beside the page."""
    cells = FOLDER / "transformer.json"
    trained = json.loads(cells.read_text(encoding="utf-8"))["cells"] if cells.exists() else []
    kept = (json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("bandit", "problems"))
    raw, problems = kept
    return Told(raw, trained, problems)


def figures(chosen: Mapping[str, float], numbers: Mapping[str, Numbers], rates: np.ndarray, first: Unit) -> None:
    """Draw all figures; rates are those of the first problems, ``(problems, prompts, runs)``."""
    seeds = first.seeds[: len(rates)]
    prompts, _ = draw(seeds)
    before = prompts.rates(np.zeros((len(seeds), WIDTH, 1)))[0].ravel()
    for column in ("common", "tuned"):
        places = [first.runs.index((name, sizes_of(column, chosen)[name])) for name in FACES]
        after = {name: rates[..., place].ravel() for name, place in zip(FACES, places, strict=True)}
        how = f"step size {rules.COMMON:g} for all" if column == "common" else "step size tuned for each arm"
        title = (
            f"{len(before):,} training prompts of {len(seeds)} problems, {rules.STEPS} steps, {how}; grey: worst fifth"
        )
        draw_prompts(before, after, prompts.source.ravel(), RESULTS / f"verifiable-prompts-{column}.png", title=title)
    longer = numbers["longer"]
    rows = {
        f"step size {rules.COMMON:g}": dict.fromkeys(CURVES, (longer, rules.COMMON)),
        "tuned": {name: (longer, chosen[name]) for name in CURVES},
    }
    measures = ("train pass@1", "train worst fifth", "held-out pass@16")
    draw_speed(rows, measures, RESULTS / "verifiable-speed.png", shown=CURVES)
    kinds = {arm.name: _kind(arm.name) for arm in ARMS if arm.name != "plain"}
    measured = ("held-out pass@1", "train worst fifth")
    draw_arms(stored(), RESULTS / "verifiable-arms.png", measures=measured, names=kinds)


def _kind(name: str) -> str:
    """By which an arm is coloured."""
    if name.split(", ")[0] in SETS:
        return "worst cases"
    return "other weightings" if name in RULES or name == "easy first" else "estimators, draws and controls"
