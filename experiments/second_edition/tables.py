"""The tables of study.md, from the stored summary alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from llm.run.files import write_text

from ..page_tables import filled, markdown
from .hypotheses import AVERAGE, HYPOTHESES
from .judge import CONFIRMED, REFUTED, UNDECIDED
from .places import CATEGORIES
from .power import stated
from .rules import BATCH, BATCHES, RATIOS
from .stored import SIGN, Row, Told, level, points, shown

Rows = Iterator[tuple[str, ...]]
QUOTES = re.compile(rf"(<!-- {SIGN} (.+?) -->)(.*?)(<!-- / -->)", re.DOTALL)
SHARES = ("10 %", "20 %", "30 %")


def tables(told: Told) -> dict[str, str]:
    """By the name of their marks."""
    makers = {
        "board": board, "entry": entry, "plain": plain, "radii": radii, "collapse": collapse, "arms": arms,
    }  # fmt: skip
    found = {name: markdown(maker(told)) for name, maker in makers.items()} | {"power": markdown(power())}
    names = [one["name"] for one in told.board["hypotheses"] if one["name"] != "H1"]
    return found | {name: markdown(comparisons(told, name)) for name in (*names, *told.board["beside"])}


def board(told: Told) -> Rows:
    """What becomes of every hypothesis."""
    counted = (CONFIRMED, REFUTED, UNDECIDED)
    yield ("", "claimed before anything was trained", "outcome", "as computed", ", ".join(counted))
    for one in HYPOTHESES:
        found, tests = told.hypothesis(one.name), list(told.tests(one.name))
        counts = (str(sum(row["outcome"] == name for row in tests)) for name in counted)
        yield (one.name, one.text, f"**{found['outcome']}**", found["computed"], ", ".join(counts))


def entry(told: Told) -> Rows:
    """Which backbones can bear a worst case."""
    yield (
        "backbone", "pairs", "plain heads, `id_test`", "TV radius in sample", "held out, all pairs",
        f"held out, batches of {BATCH}", "takes part",
    )  # fmt: skip
    for one in told.entries:
        yield (
            one["name"], f"{one['pairs']:,}", level(one), f"{one['in_sample']:.3f}", _limits(one["all"]),
            _limits(one["batch"]), "yes" if one["enters"] else "no",
        )  # fmt: skip


def plain(told: Told) -> Rows:
    """Plain training, and what the longer answer would score."""
    yield ("place", "plain heads", "the longer answer is right")
    for place, row in told.board["plain"].items():
        if row is not None:
            yield (place, level(row), f"{100 * row['longer wins']:.1f}")


def radii(told: Told) -> Rows:
    """Collapse radii."""
    yield ("pairs", "set", "batch", "in sample", "held out")
    for one in told.radii:
        batch = "all pairs" if one["batch"] is None else str(one["batch"])
        yield (one["data"], one["set"], batch, f"{one['in_sample']:.3f}", _limits(one))


def collapse(told: Told) -> Rows:
    """H1: accuracy less plain training's, by ratio."""
    columns = [(kind, data, batch) for kind, data, batch in product(("tv", "cvar"), ("real", "noise"), BATCHES)]
    yield ("radius / collapse radius", *(f"`{kind}`, {data}, batch {batch}" for kind, data, batch in columns))
    rows = {tuple(row["cell"]): row for row in told.tests("H1") if row["kind"] != "ranks"}
    norms = {(one["data"], one["arm"], one["batch"]): one for one in told.cells}
    for ratio in RATIOS:
        cells = [(data, f"{kind}:{ratio:g}c", batch) for kind, data, batch in columns]
        yield (f"{ratio:g}", *(_collapsed(rows.get(cell), norms.get(cell)) for cell in cells))


def _collapsed(row: Row | None, cell: Row | None) -> str:
    kept = "" if cell is None or cell["kept_norm"] is None else f"norm {cell['kept_norm']:.2f}"
    return kept if row is None else f"{points(row)}{_MARK.get(row['outcome'], '')}; {kept}"


_MARK = {CONFIRMED: " \\*", REFUTED: " †"}


def comparisons(told: Told, name: str) -> Rows:
    """The comparisons of a hypothesis, or of what stands beside them."""
    yield ("arm", "against", "where", "asked", "difference, or ratio of norms", "p", "outcome")
    for row in told.tests(name):
        asked = f"{row['kind']}, {row['margin']:g}" if row["kind"] != "more" else "more"
        p = "" if row["p"] is None else f"{row['p']:.2g}"
        yield (_cell(row["cell"]), _cell(row["against"]), row["where"], asked, shown(row), p, row["outcome"])


def _cell(cell: list[str]) -> str:
    data, arm, _ = cell
    return f"`{arm}`" if data == "real" else f"`{arm}`, {data}"


def arms(told: Told) -> Rows:
    """What every arm became: its set with numbers, the settings that id_test chose, effective share, accuracies."""
    yield ("pairs", "batch", "arm", "set", "rate, decay, epochs", "share", "norm kept", "`id_test`", *_LEVELS, "own")
    for one in told.cells:
        rate, decay, epochs = one["settings"]
        kept = "" if one["kept_norm"] is None else f"{one['kept_norm']:.2f}"
        yield (
            one["data"], str(one["batch"]), f"`{one['arm']}`", f"`{one['set']}`", f"{rate:g}, {decay:g}, {epochs:g}",
            f"{one['share']:.2f}", kept, *(_percent(level) for level in (one["id_test"], *_levels(one["levels"]))),
        )  # fmt: skip


_LEVELS = ("test", AVERAGE, *CATEGORIES)


def _levels(found: Row) -> tuple[float | None, ...]:
    """At the places of real pairs, then of the planted group or of the shifted twins."""
    return (*(found.get(place) for place in _LEVELS), found.get("minority", found.get("shifted")))


def _percent(level: float | None) -> str:
    return "" if level is None else f"{100 * level:.1f}"


def power() -> Rows:
    """What each comparison could show, stated before."""
    yield ("", "asked", "where", "pairs", *(f"at {share} discordance" for share in SHARES))
    for name, kind, where, pairs, shows in stated():
        yield (name, kind, where, f"{pairs:,}", *(f"{100 * one:.1f}" for one in shows))


def _limits(row: Row) -> str:
    low, high = row["interval"]
    return f"{row['held_out']:.3f} [{low:.3f}, {high:.3f}]"


def written(page: str, told: Told) -> str:
    """A page with its tables and quoted numbers filled in."""
    return numbered(filled(page, tables(told)), told)


def numbered(page: str, told: Told) -> str:
    """A page with its quoted numbers filled in, see ``Told.quoted``."""
    return QUOTES.sub(lambda m: f"{m[1]}{told.quoted(m[2])}{m[4]}", page)


def write(path: Path, told: Told, *, whole: bool = True) -> None:
    """Fill a page in place; without ``whole`` only its quoted numbers."""
    page = path.read_text(encoding="utf-8")
    write_text(path, written(page, told) if whole else numbered(page, told))
