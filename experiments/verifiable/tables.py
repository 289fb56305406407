"""The tables and the quoted numbers of verifiable.md, from the stored summary alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llm.statistics.intervals import holm, mean_interval

from ..page_tables import MARK, filled, markdown
from . import rules
from .arms import MAIN, SETS
from .problem import RELATIONS
from .rules import CLAIMS, Test
from .stored import COLUMNS, Told, names, points
from .transformer import NAMES as TRAINED

Rows = Iterator[tuple[str, ...]]
SEEN = {"common": f"step size {rules.COMMON:g}", "tuned": "tuned", "same": "tuned, plain at the same size"}
TIMES = {
    "early": f"after {rules.STEPS // 4} steps", "end": f"after {rules.STEPS} steps",
    "level": "at equal training pass@1",
    "longer": f"after {rules.LONGER * rules.STEPS:,} steps",
}  # fmt: skip
SHOWN = ("train pass@1", "train worst fifth", "train pass@16", "held-out pass@1", "held-out pass@16")


def tables(told: Told) -> dict[str, str]:
    """By the name of their marks."""
    makers = {
        "pilot": pilot, "estimates": estimates, "speed": speed, "controls": controls, "arms": arms, "levels": levels,
        "relations": relations, "board": board, "transformer": transformer,
    }  # fmt: skip
    return {name: markdown(maker(told)) for name, maker in makers.items()}


def pilot(told: Told) -> Rows:
    """The pilot's measures for four adversaries, as they are and tuned."""
    yield ("step sizes", "arm", *SHOWN)
    for column in ("common", "tuned", "same"):
        for name in ("kl_penalty:0.3", "tv:0.3", "burg:0.3", "maxrl", "grpo_std"):
            yield (SEEN[column], f"`{name}`", *(points(told.gain(name, one, column=column)) for one in SHOWN))


def estimates(told: Told) -> Rows:
    """What the adversary sees."""
    measures = ("train worst fifth", "held-out pass@1", "held-out pass@16", "shifted pass@1")
    yield ("set", "sees", *(f"{one}, {SEEN[column]}" for column in COLUMNS for one in measures))
    for spec in SETS[:2]:
        for seen in ("raw", "running", "shrunk", "pooled", "oracle"):
            name = spec if seen == "raw" else f"{spec}, {seen}"
            found = [points(told.gain(name, one, column=column)) for column in COLUMNS for one in measures]
            yield (f"`{spec}`", seen, *found)


def speed(told: Told) -> Rows:
    """When the gain is there."""
    measures = ("train worst fifth", "train pass@1", "held-out pass@16")
    yield ("step sizes", "arm", "measured", *measures)
    for column in ("common", "tuned"):
        for name in ("kl_penalty:0.3", "maxrl", "difficulty_filter"):
            for when, text in TIMES.items():
                found = [points(told.gain(name, one, column=column, when=when)) for one in measures]
                yield (SEEN[column], f"`{name}`", text, *found)


def controls(told: Told) -> Rows:
    """Weights that know nothing, and draws beside weights."""
    measures = ("train pass@1", "train worst fifth", "held-out pass@1", "held-out pass@16")
    columns = ("common", "same")
    yield ("arm", *(f"{one}, {SEEN[column]}" for column in columns for one in measures))
    for name in (
        "kl_penalty:0.3", "permuted weights", "random weights", "kl_penalty:0.3, running", "drawn by weight",
        "drawn by weight, corrected", "signal only", "drawn again",
    ):  # fmt: skip
        yield (name, *(points(told.gain(name, one, column=column)) for column in columns for one in measures))


def arms(told: Told) -> Rows:
    """All arms against plain training, tuned."""
    measures = (
        "train pass@1", "train worst fifth", "train worst source", "held-out pass@1", "shifted pass@1",
        "held-out pass@4", "held-out pass@16",
    )  # fmt: skip
    yield ("arm", "step size", *measures)
    marks = {one: _marks(told, one) for one in measures}
    for name in names():
        size = f"{told.raw['sizes']['opposed'][name]:g}"
        if name == "plain":
            yield (name, size, *(f"({100 * told.level(name, one)[0]:.1f})" for one in measures))
        else:
            yield (name, size, *(points(told.gain(name, one)) + marks[one][name] for one in measures))


def _marks(told: Told, measure: str) -> dict[str, str]:
    """Of every arm: a star where p < LEVEL after Holm over the arms, = where the interval lies within the margin."""
    others = [name for name in names() if name != "plain"]
    found = [told.gain(name, measure) for name in others]
    margin = rules.WORST_MARGIN if "worst" in measure else rules.PASS_MARGIN
    marks = {}
    for name, one, p in zip(others, found, holm([one.p for one in found]), strict=True):
        inside = -margin < one.low and one.high < margin
        marks[name] = (" \\*" if p < rules.LEVEL else "") + (" =" if inside else "")
    return marks


def levels(told: Told) -> Rows:
    """Main arms at every step size: training pass@1, the worst fifth, and entropy."""
    yield ("arm", *(f"step size {size:g}" for size in rules.SIZES))
    for name in MAIN:
        cells = []
        for size in rules.SIZES:
            first, worst, entropy = (
                told.level(name, one, size=size)[0] for one in ("train pass@1", "train worst fifth", "held-out entropy")
            )
            cells.append(f"{100 * first:.1f} / {100 * worst:.1f} / {entropy:.2f}")
        yield (f"`{name}`", *cells)


def relations(told: Told) -> Rows:
    """Where hard prompts relate otherwise to easy ones."""
    measures = ("train pass@1", "train worst fifth", "held-out pass@1", "held-out pass@16")
    yield ("hard prompts are", "arm", "plain: pass@1, worst fifth", *measures)
    for relation in RELATIONS:
        plain = [100 * told.level("plain", one, relation=relation)[0] for one in ("train pass@1", "train worst fifth")]
        for name in ("kl_penalty:0.3", "tv:0.3", "maxrl", "grpo_std"):
            found = [points(told.gain(name, one, relation=relation)) for one in measures]
            yield (relation, f"`{name}`", f"{plain[0]:.1f}, {plain[1]:.1f}", *found)


def board(told: Told) -> Rows:
    """The scoreboard."""
    yield ("source", "claim, as we read it", "tuned", "", f"all at {SEEN['common']}", "")
    for place, claim in enumerate(CLAIMS):
        cells = []
        for column in COLUMNS:
            row = told.verdicts(column)[place]
            shown = _extremes(claim.tests, row["tests"])
            cells += [f"**{row['verdict']}**" if row["verdict"] != "not shown" else row["verdict"], shown]
        yield (claim.source, claim.text, *cells)


def transformer(told: Told) -> Rows:
    """Transformers against plain training at each learning rate, over the seeds that both have finished."""
    measures = ("train pass@1", "train worst fifth", "train pass@16", "held-out pass@1", "held-out pass@16")
    yield ("learning rate", "arm", "seeds", *measures)
    ends = {(cell["arm"], cell["rate"], cell["seed"]): cell["end"] for cell in told.cells}
    for rate in sorted({cell["rate"] for cell in told.cells}):
        plain = {seed: end for (arm, at, seed), end in ends.items() if (arm, at) == ("plain", rate)}
        for name in TRAINED:
            mine = {seed: end for (arm, at, seed), end in ends.items() if (arm, at) == (name, rate)}
            both = sorted(plain.keys() & mine.keys())
            if len(both) > 1:
                yield (
                    f"{rate:g}",
                    name,
                    str(len(both)),
                    *_against(name, [(mine[s], plain[s]) for s in both], measures),
                )


def _against(name: str, pairs: list[tuple[dict[str, float], dict[str, float]]], measures: tuple[str, ...]) -> list[str]:
    """Differences of paired ends; of plain training the level."""
    if name == "plain":
        return [f"({100 * np.mean([mine[one] for mine, _ in pairs]):.1f})" for one in measures]
    return [points(mean_interval([mine[one] - plain[one] for mine, plain in pairs])) for one in measures]


def _extremes(tests: tuple[Test, ...], found: list[list[float]]) -> str:
    """The differences of a claim; of many only the lowest and the highest."""
    if len(tests) <= 2:
        return ", ".join(points(one) for one in found)
    ordered = sorted(found, key=lambda one: one[0])
    return f"from {points(ordered[0])} to {points(ordered[-1])}"


# -- numbers in sentences --------------------------------------------------------------------------


def quoted(told: Told, question: str) -> str:
    """The text of a number that a page quotes.

    Args:
        told: The stored summary.
        question: ``gain ARM; MEASURE[; COLUMN[; WHEN[; RELATION]]]``, ``level ARM; MEASURE[; SIZE]``,
            ``between ARM; OTHER; MEASURE``, ``size ARM``, ``alarms MEASURE`` or ``most alarms``,
            ``claim COLUMN; PART OF ITS TEXT`` (its first difference), or ``verdicts COLUMN; VERDICT``: how many claims.
    """
    kind, _, rest = question.partition(" ")
    parts = [part.strip() for part in rest.split(";")]
    if kind == "gain":
        named = dict(zip(("column", "when", "relation"), parts[2:], strict=False))
        return points(told.gain(parts[0], parts[1], **named))
    if kind == "between":
        return points(told.between(*parts))
    if kind == "level":
        size = float(parts[2]) if len(parts) > 2 else None
        return f"{100 * told.level(parts[0], parts[1], size=size)[0]:.1f}"
    if kind == "size":
        return f"{told.raw['sizes']['opposed'][parts[0]]:g}"
    if kind == "most":
        return str(max(told.raw["alarms"].values()))
    if kind == "claim":
        [place] = [place for place, claim in enumerate(CLAIMS) if parts[1] in claim.text]
        return points(told.verdicts(parts[0])[place]["tests"][0])
    if kind == "alarms":
        return str(told.raw["alarms"][parts[0]])
    if kind == "verdicts":
        return str(sum(row["verdict"] == parts[1] for row in told.verdicts(parts[0])))
    raise ValueError(f"no answer to {question!r}.")


def written(page: str, told: Told) -> str:
    """A page with its tables and quoted numbers filled in."""
    page = filled(page, tables(told))
    return with_numbers(page, told)


def with_numbers(page: str, told: Told) -> str:
    """A page with its quoted numbers filled in: ``<!-- = QUESTION -->TEXT<!-- / -->``."""
    return MARK.sub(lambda m: f"{m[1]}{quoted(told, m[2])}{m[4]}", page)


def write(path: Path, told: Told, *, whole: bool = True) -> None:
    """Fill a page in place; without ``whole`` only its quoted numbers."""
    page = path.read_text(encoding="utf-8")
    path.write_text(written(page, told) if whole else with_numbers(page, told), encoding="utf-8")
